// Questions as other clients write them, and a naive reader of replies, for tests of the resolver.
import { concatBytes, readU16, writeU16 } from "../../src/base/bytes.ts";
import { encodeDnsName } from "../../src/wire/dns-query.ts";

export interface QueryChange {
  readonly id?: number;
  readonly recordClass?: number;
  readonly flags?: number;
  /** With an OPT that offers so many bytes. */
  readonly payloadBytes?: number;
}

/** "" is the root. */
export function queryFor(name: string, type: number, change: QueryChange = {}): Uint8Array {
  const head = new Uint8Array(12);
  writeU16(head, 0, change.id ?? 1);
  writeU16(head, 2, change.flags ?? 0x0100);
  head[5] = 1;
  const tail = new Uint8Array(4);
  writeU16(tail, 0, type);
  writeU16(tail, 2, change.recordClass ?? 1);
  const question = concatBytes(encodeDnsName(name === "" ? [] : name.split(".")), tail);
  if (change.payloadBytes === undefined) return concatBytes(head, question);
  head[11] = 1;
  const opt = new Uint8Array(11);
  writeU16(opt, 1, 41);
  writeU16(opt, 3, change.payloadBytes);
  return concatBytes(head, question, opt);
}

export interface ReadRecord {
  readonly owner: string;
  readonly type: number;
  /** Where its data begins. */
  readonly data: number;
  /** The name that its data begins with, for PTR and SOA. */
  readonly name: string;
}

function nameAt(bytes: Uint8Array, at: number): { text: string; end: number } {
  const size = bytes[at]!;
  if (size === 0) return { text: "", end: at + 1 };
  if (size >= 0xc0) return { text: nameAt(bytes, readU16(bytes, at) & 0x3fff).text, end: at + 2 };
  const label = Buffer.from(bytes.subarray(at + 1, at + 1 + size)).toString("latin1");
  const rest = nameAt(bytes, at + 1 + size);
  return { text: rest.text === "" ? label : `${label}.${rest.text}`, end: rest.end };
}

/** Answer and authority; names as they stand, the question's in its own case. */
export function readRecords(bytes: Uint8Array): ReadRecord[] {
  let at = nameAt(bytes, 12).end + 4;
  return Array.from({ length: readU16(bytes, 6) + readU16(bytes, 8) }, () => {
    const owner = nameAt(bytes, at);
    const type = readU16(bytes, owner.end);
    const data = owner.end + 10;
    at = data + readU16(bytes, owner.end + 8);
    const name = type === 12 || type === 6 ? nameAt(bytes, data).text : "";
    return { owner: owner.text, type, data, name };
  });
}
