// Echo requests and their answers as bytes, for an end that has no stack of its own. RFC 792, RFC 4443 §4.1.
import { isV4, parseAddress } from "../../src/base/address.ts";
import { readU16, writeU16, writeU32 } from "../../src/base/bytes.ts";
import { checksumOf, foldChecksum, sumBytes } from "../../src/wire/checksum.ts";

/** Of the smallest echo request of a family: its headers alone. */
export const SMALLEST_ECHO_BYTES = { v4: 28, v6: 48 } as const;

/** RFC 4443 §2.3: with the pseudo-header, for which the addresses of the packet itself serve. */
function checksumIcmp6(buffer: Uint8Array, at: number, length: number): number {
  return foldChecksum(sumBytes(buffer, at + 40, length - 40, sumBytes(buffer, at + 8, 32, length - 40 + 58)));
}

function swap(buffer: Uint8Array, a: number, b: number, length: number): void {
  const first = buffer.slice(a, a + length);
  buffer.copyWithin(a, b, b + length);
  buffer.set(first, b);
}

function setChecksum(buffer: Uint8Array, at: number, length: number, v4: boolean): void {
  const icmpAt = at + (v4 ? 20 : 40);
  writeU16(buffer, icmpAt + 2, 0);
  writeU16(buffer, icmpAt + 2, v4 ? checksumOf(buffer, icmpAt, length - 20) : checksumIcmp6(buffer, at, length));
}

/** The length that the packet's own header gives. */
export function innerLength(buffer: Uint8Array, at: number): number {
  return buffer[at]! >> 4 === 4 ? readU16(buffer, at + 2) : readU16(buffer, at + 4) + 40;
}

/** What a packet of `length` bytes is. Throws when it is ICMP and damaged. */
export function classifyEcho(buffer: Uint8Array, at: number, length: number): "request" | "reply" | "other" {
  const v4 = buffer[at]! >> 4 === 4;
  if (buffer[v4 ? at + 9 : at + 6] !== (v4 ? 1 : 58)) return "other";
  const icmpAt = at + (v4 ? 20 : 40);
  const sum = v4 ? checksumOf(buffer, icmpAt, length - 20) : checksumIcmp6(buffer, at, length);
  if (sum !== 0) throw new Error(`a packet of ${length} bytes came out of the tunnel damaged`);
  if (buffer[icmpAt] === (v4 ? 8 : 128)) return "request";
  return buffer[icmpAt] === (v4 ? 0 : 129) ? "reply" : "other";
}

/** Turns an echo request into its reply, in place. */
export function makeReply(buffer: Uint8Array, at: number, length: number): void {
  const v4 = buffer[at]! >> 4 === 4;
  if (v4) swap(buffer, at + 12, at + 16, 4);
  else swap(buffer, at + 8, at + 24, 16);
  buffer[at + (v4 ? 20 : 40)] = v4 ? 0 : 129;
  setChecksum(buffer, at, length, v4);
}

/** Writes an echo request of `length` bytes, headers and all. */
export function writeRequest(
  buffer: Uint8Array,
  at: number,
  length: number,
  hosts: { readonly source: string; readonly destination: string; readonly sequence: number },
): void {
  const [from, to] = [parseAddress(hosts.source)!, parseAddress(hosts.destination)!];
  const v4 = isV4(from);
  buffer.fill(length & 0xff, at, at + length);
  if (v4) {
    buffer.set([0x45, 0, length >> 8, length & 0xff, 0, 0, 0x40, 0, 64, 1, 0, 0], at);
    writeU32(buffer, at + 12, from.w3);
    writeU32(buffer, at + 16, to.w3);
    writeU16(buffer, at + 10, checksumOf(buffer, at, 20));
  } else {
    buffer.set([0x60, 0, 0, 0, (length - 40) >> 8, (length - 40) & 0xff, 58, 64], at);
    for (const [i, word] of [from.w0, from.w1, from.w2, from.w3, to.w0, to.w1, to.w2, to.w3].entries()) {
      writeU32(buffer, at + 8 + 4 * i, word);
    }
  }
  const icmpAt = at + (v4 ? 20 : 40);
  buffer.set([v4 ? 8 : 128, 0, 0, 0, 0, 1], icmpAt);
  writeU16(buffer, icmpAt + 6, hosts.sequence & 0xffff);
  setChecksum(buffer, at, length, v4);
}
