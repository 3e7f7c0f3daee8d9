// The server's side of DNS: one question in (RFC 1035 §4, EDNS0 by RFC 6891), its reply out. Stateless and strict: the
// question is given back byte for byte, so that a client's 0x20 case is echoed, and the owner of each record is a
// pointer to it. What is no proper query is told so by its reply's code, or dropped where an answer could be answered.
import { type Address, addressToBytes, isV4 } from "../base/address.ts";
import { concatBytes, readU16, writeU16, writeU32 } from "../base/bytes.ts";
import {
  DNS_CLASS_IN,
  DNS_DATAGRAM_BYTES,
  DNS_FLAG_RECURSION_DESIRED,
  DNS_FLAG_RESPONSE,
  DNS_FLAG_TRUNCATED,
  DNS_HEADER_BYTES,
  DNS_NAME_MAX_BYTES,
  DNS_OPCODE_MASK,
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  DNS_TYPE_OPT,
} from "./dns.ts";

export const DNS_TYPE_SOA = 6;
export const DNS_TYPE_PTR = 12;
export const DNS_TYPE_ANY = 255;

// Codes of a reply: RFC 1035 §4.1.1; the last by RFC 6891 §9.
export const DNS_NO_ERROR = 0;
export const DNS_FORMAT_ERROR = 1;
export const DNS_SERVER_FAILURE = 2;
export const DNS_NOT_IMPLEMENTED = 4;
export const DNS_REFUSED = 5;
export const DNS_BAD_VERSION = 16;

const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_CHECKING_DISABLED = 0x0010;
const LABEL_MAX_BYTES = 63;
const PLAIN_DATAGRAM_BYTES = 512; // RFC 1035 §2.3.4: without EDNS
const OPT_BYTES = 11; // root name, type, class, TTL, no data
const RECORD_HEAD_BYTES = 12; // pointer to the owner, type, class, TTL, length
const POINTER = 0xc000;
const EXTRAS_MAX = 4; // additional records of a query: OPT, a signature; a query of more is none

export interface DnsQuery {
  readonly id: number;
  /** RD and CD, given back. */
  readonly flags: number;
  /** Lower case, one latin-1 character a byte, from the leftmost; none for the root. A label may hold a dot. */
  readonly labels: readonly string[];
  readonly type: number;
  readonly recordClass: number;
  /** As it came: name, type, class. */
  readonly question: Uint8Array;
  /** Undefined: a client without EDNS. */
  readonly edns: { readonly payloadBytes: number; readonly version: number } | undefined;
}

/** Never answered: it has no id, or is itself a reply, and two servers would answer each other for ever. */
export type DnsQueryDrop = "short" | "reply";

export type DecodedQuery =
  | { readonly kind: "query"; readonly query: DnsQuery }
  | { readonly kind: "failed"; readonly code: number; readonly reply: Uint8Array }
  | { readonly kind: "dropped"; readonly drop: DnsQueryDrop };

/** A record of the name that was asked for. */
export interface DnsRecord {
  readonly type: number;
  readonly data: Uint8Array;
}

export interface DnsReply {
  readonly code: number;
  readonly records: readonly DnsRecord[];
  readonly ttlSeconds: number;
  /** Of answers without records: the zone's SOA, whose owner is the last `zoneLabels` labels of the question. */
  readonly authority: { readonly record: DnsRecord; readonly zoneLabels: number } | undefined;
}

/** Undefined: cut off, longer than RFC 1035 §2.3.4 allows, or with a pointer, where nothing stands to point to. */
function readLabels(bytes: Uint8Array, at: number): { labels: string[]; end: number } | undefined {
  const labels: string[] = [];
  const start = at;
  for (;;) {
    const size = bytes[at];
    if (size === undefined || size > LABEL_MAX_BYTES) return undefined;
    at += 1 + size;
    if (at - start > DNS_NAME_MAX_BYTES) return undefined; // where the bytes end, the next size is none
    if (size === 0) return { labels, end: at };
    labels.push(String.fromCharCode(...bytes.subarray(at - size, at)).replace(/[A-Z]/g, (c) => c.toLowerCase()));
  }
}

/** Where the records behind the question end, and the OPT among them; undefined: no proper query. */
function readExtras(bytes: Uint8Array, start: number): { edns: DnsQuery["edns"] } | undefined {
  const count = readU16(bytes, 10);
  if (count > EXTRAS_MAX) return undefined;
  let at = start;
  let edns: DnsQuery["edns"];
  for (let i = 0; i < count; i++) {
    const owner = readLabels(bytes, at);
    if (owner === undefined) return undefined;
    at = owner.end + 10 + readU16(bytes, owner.end + 8);
    if (readU16(bytes, owner.end) !== DNS_TYPE_OPT) continue;
    if (edns !== undefined || owner.labels.length > 0) return undefined; // RFC 6891 §6.1.1
    edns = { payloadBytes: readU16(bytes, owner.end + 2), version: bytes[owner.end + 5]! };
  }
  return at === bytes.length ? { edns } : undefined; // neither cut off, nor anything behind them
}

/** With the header alone: what stands behind it was not understood. */
function failed(bytes: Uint8Array, code: number): DecodedQuery {
  const reply = new Uint8Array(DNS_HEADER_BYTES);
  writeU16(reply, 0, readU16(bytes, 0));
  const kept = readU16(bytes, 2) & (DNS_OPCODE_MASK | DNS_FLAG_RECURSION_DESIRED);
  writeU16(reply, 2, DNS_FLAG_RESPONSE | kept | code);
  return { kind: "failed", code, reply };
}

/** One whole message, without the length that stands before it on TCP. */
export function decodeDnsQuery(bytes: Uint8Array): DecodedQuery {
  if (bytes.length < DNS_HEADER_BYTES) return { kind: "dropped", drop: "short" };
  const flags = readU16(bytes, 2);
  if ((flags & DNS_FLAG_RESPONSE) !== 0) return { kind: "dropped", drop: "reply" };
  if ((flags & DNS_OPCODE_MASK) !== 0) return failed(bytes, DNS_NOT_IMPLEMENTED);
  const onlyAsks = readU16(bytes, 4) === 1 && readU16(bytes, 6) === 0 && readU16(bytes, 8) === 0;
  const name = onlyAsks ? readLabels(bytes, DNS_HEADER_BYTES) : undefined;
  if (name === undefined) return failed(bytes, DNS_FORMAT_ERROR);
  const extras = readExtras(bytes, name.end + 4);
  const type = readU16(bytes, name.end);
  if (extras === undefined || type === DNS_TYPE_OPT) return failed(bytes, DNS_FORMAT_ERROR);
  const query: DnsQuery = {
    id: readU16(bytes, 0),
    flags: flags & (DNS_FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED),
    labels: name.labels,
    type,
    recordClass: readU16(bytes, name.end + 2),
    question: bytes.slice(DNS_HEADER_BYTES, name.end + 4),
    edns: extras.edns,
  };
  if (query.edns === undefined || query.edns.version === 0) return { kind: "query", query };
  const reply = encodeDnsReply(query, emptyReply(DNS_BAD_VERSION), DNS_DATAGRAM_BYTES);
  return { kind: "failed", code: DNS_BAD_VERSION, reply };
}

export function emptyReply(code: number): DnsReply {
  return { code, records: [], ttlSeconds: 0, authority: undefined };
}

/** What a reply to it may have at most over UDP. */
export function datagramRoom(query: DnsQuery): number {
  const asked = query.edns?.payloadBytes ?? PLAIN_DATAGRAM_BYTES;
  return Math.min(Math.max(asked, PLAIN_DATAGRAM_BYTES), DNS_DATAGRAM_BYTES); // RFC 6891 §6.2.3
}

function writeRecord(out: Uint8Array, at: number, owner: number, ttlSeconds: number, record: DnsRecord): number {
  writeU16(out, at, POINTER | owner);
  writeU16(out, at + 2, record.type);
  writeU16(out, at + 4, DNS_CLASS_IN);
  writeU32(out, at + 6, ttlSeconds);
  writeU16(out, at + 10, record.data.length);
  out.set(record.data, at + RECORD_HEAD_BYTES);
  return at + RECORD_HEAD_BYTES + record.data.length;
}

/** Where the last `count` labels of the question begin in the message. */
function suffixAt(query: DnsQuery, count: number): number {
  const before = query.labels.slice(0, query.labels.length - count);
  return before.reduce((at, label) => at + 1 + label.length, DNS_HEADER_BYTES);
}

const recordBytes = (record: DnsRecord): number => RECORD_HEAD_BYTES + record.data.length;

/** Records that don't fit are left out, all of them, and TC says so: the client asks again by TCP. */
export function encodeDnsReply(query: DnsQuery, reply: DnsReply, maxBytes: number): Uint8Array {
  const { records, authority } = reply;
  const fixed = DNS_HEADER_BYTES + query.question.length + (query.edns === undefined ? 0 : OPT_BYTES);
  const all = [...records, ...(authority === undefined ? [] : [authority.record])];
  const whole = all.reduce((sum, record) => sum + recordBytes(record), fixed);
  const truncated = whole > maxBytes;
  const out = new Uint8Array(truncated ? fixed : whole);
  const isOurs = reply.code === DNS_NO_ERROR || authority !== undefined;
  const flags = (isOurs ? FLAG_AUTHORITATIVE : 0) | (truncated ? DNS_FLAG_TRUNCATED : 0);
  writeU16(out, 0, query.id);
  writeU16(out, 2, DNS_FLAG_RESPONSE | query.flags | flags | (reply.code & 0x0f));
  out[5] = 1; // QDCOUNT
  out.set(query.question, DNS_HEADER_BYTES);
  let at = DNS_HEADER_BYTES + query.question.length;
  if (!truncated) {
    writeU16(out, 6, records.length);
    for (const record of records) at = writeRecord(out, at, DNS_HEADER_BYTES, reply.ttlSeconds, record);
    if (authority !== undefined) {
      out[9] = 1; // NSCOUNT
      at = writeRecord(out, at, suffixAt(query, authority.zoneLabels), reply.ttlSeconds, authority.record);
    }
  }
  if (query.edns !== undefined) {
    out[11] = 1; // ARCOUNT
    writeU16(out, at + 1, DNS_TYPE_OPT); // behind the root name
    writeU16(out, at + 3, DNS_DATAGRAM_BYTES);
    out[at + 5] = reply.code >>> 4; // the code's upper bits; version 0, no flags
  }
  return out;
}

// --- What stands in records ---

/** Labels of at most 63 bytes, each character one byte. */
export function encodeDnsName(labels: readonly string[]): Uint8Array {
  const parts = labels.map((label) => Uint8Array.from([label.length, ...Buffer.from(label, "latin1")]));
  return concatBytes(...parts, Uint8Array.of(0));
}

export function addressRecord(address: Address): DnsRecord {
  return { type: isV4(address) ? DNS_TYPE_A : DNS_TYPE_AAAA, data: addressToBytes(address) };
}

/** RFC 1035 §3.3.13; `minimumSeconds` is how long "no such name" may be remembered (RFC 2308 §4). */
export function soaRecord(zone: readonly string[], serial: number, minimumSeconds: number): DnsRecord {
  const numbers = new Uint8Array(20);
  const [refresh, retry, expire] = [3_600, 600, 86_400]; // for secondaries, of which there are none
  for (const [i, value] of [serial, refresh, retry, expire, minimumSeconds].entries()) writeU32(numbers, 4 * i, value);
  return {
    type: DNS_TYPE_SOA,
    data: concatBytes(encodeDnsName(zone), encodeDnsName(["nobody", "invalid"]), numbers),
  };
}
