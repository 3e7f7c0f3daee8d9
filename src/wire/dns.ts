// The little of DNS that resolving a host name takes: one A or AAAA question, its answer (RFC 1035 §4, RFC 3596,
// EDNS0's size by RFC 6891). Stateless and strict: an answer to another question is none. The server's side of it is in
// dns-query.ts.
import { type Address, addressFromBytes } from "../base/address.ts";
import { readU16, readU32, writeU16 } from "../base/bytes.ts";

export const DNS_TYPE_A = 1;
export const DNS_TYPE_AAAA = 28;
export const DNS_PORT = 53;
/** What is asked for and taken: fits every path without fragments (DNS Flag Day 2020). */
export const DNS_DATAGRAM_BYTES = 1232;

const TYPE_CNAME = 5;
export const DNS_TYPE_OPT = 41;
export const DNS_CLASS_IN = 1;
export const DNS_HEADER_BYTES = 12;
export const DNS_NAME_MAX_BYTES = 255;
const RECORDS_MAX = 128;
const CHAIN_MAX = 12; // CNAMEs followed inside one answer
export const DNS_FLAG_RESPONSE = 0x8000;
export const DNS_FLAG_TRUNCATED = 0x0200;
export const DNS_FLAG_RECURSION_DESIRED = 0x0100;
export const DNS_OPCODE_MASK = 0x7800;
const RCODE_MASK = 0x000f;
export const DNS_NAME_ERROR = 3;

export interface DnsQuestion {
  readonly id: number;
  /** Lower case, without a final dot, labels of 1 to 63 bytes. */
  readonly name: string;
  readonly type: typeof DNS_TYPE_A | typeof DNS_TYPE_AAAA;
}

/** Not an answer to the question: to be dropped by this name, while the wait goes on. */
export type DnsDrop = "short" | "not-a-response" | "other-id" | "other-question" | "malformed";

export type DnsAnswer =
  | { readonly kind: "addresses"; readonly addresses: readonly Address[] }
  /** The name exists without such an address, or doesn't exist. */
  | { readonly kind: "none" }
  | { readonly kind: "truncated" }
  /** The server can't or won't: another may. */
  | { readonly kind: "failed"; readonly code: number }
  | { readonly kind: "dropped"; readonly drop: DnsDrop };

export function encodeDnsQuestion(question: DnsQuestion): Uint8Array {
  const labels = question.name.split(".");
  const bytes = new Uint8Array(DNS_HEADER_BYTES + question.name.length + 2 + 4 + 11);
  writeU16(bytes, 0, question.id);
  writeU16(bytes, 2, DNS_FLAG_RECURSION_DESIRED);
  bytes[5] = 1; // QDCOUNT
  bytes[11] = 1; // ARCOUNT
  let at = DNS_HEADER_BYTES;
  for (const label of labels) {
    bytes[at++] = label.length;
    for (let i = 0; i < label.length; i++) bytes[at++] = label.charCodeAt(i);
  }
  at++;
  writeU16(bytes, at, question.type);
  writeU16(bytes, at + 2, DNS_CLASS_IN);
  writeU16(bytes, at + 5, DNS_TYPE_OPT); // behind the root name
  writeU16(bytes, at + 7, DNS_DATAGRAM_BYTES);
  return bytes;
}

/** A name and where the bytes behind it stand. */
interface ReadName {
  readonly name: string;
  readonly end: number;
}

/** Pointers go backwards only, so that no chain of them can turn in a circle (RFC 1035 §4.1.4). */
function readName(bytes: Uint8Array, at: number): ReadName | undefined {
  let name = "";
  let end = -1;
  let floor = at;
  let length = 0;
  for (;;) {
    const size = bytes[at];
    if (size === undefined) return undefined;
    if (size >= 0xc0) {
      const low = bytes[at + 1];
      if (low === undefined) return undefined;
      const to = ((size & 0x3f) << 8) | low;
      if (to >= floor) return undefined;
      if (end < 0) end = at + 2;
      floor = to;
      at = to;
      continue;
    }
    if (size > 63) return undefined;
    if (size === 0) return { name: name.toLowerCase(), end: end < 0 ? at + 1 : end };
    length += size + 1;
    if (length > DNS_NAME_MAX_BYTES || at + 1 + size > bytes.length) return undefined;
    const label = String.fromCharCode(...bytes.subarray(at + 1, at + 1 + size));
    if (label.includes(".")) return undefined; // it would read as two labels
    name += name === "" ? label : `.${label}`;
    at += size + 1;
  }
}

interface Found {
  readonly aliases: Map<string, string>;
  readonly addresses: Map<string, Address[]>;
}

/** False: malformed. Records of other types and classes are passed over. */
function readRecords(bytes: Uint8Array, at: number, count: number, question: DnsQuestion, found: Found): boolean {
  const addressBytes = question.type === DNS_TYPE_A ? 4 : 16;
  for (let i = 0; i < count; i++) {
    const owner = readName(bytes, at);
    if (owner === undefined || owner.end + 10 > bytes.length) return false;
    const type = readU16(bytes, owner.end);
    const recordClass = readU16(bytes, owner.end + 2);
    const dataAt = owner.end + 10;
    const dataBytes = readU16(bytes, owner.end + 8);
    at = dataAt + dataBytes;
    if (at > bytes.length || readU32(bytes, owner.end + 4) > 0x7fffffff) return false;
    if (recordClass !== DNS_CLASS_IN) continue;
    if (type === TYPE_CNAME) {
      const target = readName(bytes, dataAt);
      if (target === undefined || target.end !== at) return false;
      found.aliases.set(owner.name, target.name);
    } else if (type === question.type) {
      if (dataBytes !== addressBytes) return false;
      const addresses = found.addresses.get(owner.name) ?? [];
      addresses.push(addressFromBytes(bytes, dataAt, addressBytes));
      found.addresses.set(owner.name, addresses);
    }
  }
  return true;
}

function dropped(drop: DnsDrop): DnsAnswer {
  return { kind: "dropped", drop };
}

/** Addresses count only if they stand at the name asked for or at the end of its own aliases. */
export function decodeDnsAnswer(bytes: Uint8Array, question: DnsQuestion): DnsAnswer {
  if (bytes.length < DNS_HEADER_BYTES) return dropped("short");
  const flags = readU16(bytes, 2);
  if ((flags & DNS_FLAG_RESPONSE) === 0 || (flags & DNS_OPCODE_MASK) !== 0) return dropped("not-a-response");
  if (readU16(bytes, 0) !== question.id) return dropped("other-id");
  const asked = readU16(bytes, 4) === 1 ? readName(bytes, DNS_HEADER_BYTES) : undefined;
  if (asked === undefined || asked.end + 4 > bytes.length) return dropped("malformed");
  const sameType = readU16(bytes, asked.end) === question.type && readU16(bytes, asked.end + 2) === DNS_CLASS_IN;
  if (asked.name !== question.name || !sameType) return dropped("other-question");
  const code = flags & RCODE_MASK;
  if (code === DNS_NAME_ERROR) return { kind: "none" };
  if (code !== 0) return { kind: "failed", code };
  if ((flags & DNS_FLAG_TRUNCATED) !== 0) return { kind: "truncated" };
  const count = readU16(bytes, 6);
  const found: Found = { aliases: new Map(), addresses: new Map() };
  if (count > RECORDS_MAX || !readRecords(bytes, asked.end + 4, count, question, found)) return dropped("malformed");
  let name = question.name;
  for (let i = 0; i < CHAIN_MAX; i++) {
    const addresses = found.addresses.get(name);
    if (addresses !== undefined) return { kind: "addresses", addresses };
    const alias = found.aliases.get(name);
    if (alias === undefined) break;
    name = alias;
  }
  return { kind: "none" };
}
