// The UDP header: RFC 768, RFC 8200 §8.1 (over IPv6 a checksum is required).
import { writeU16 } from "../base/bytes.ts";
import { foldChecksum } from "./checksum.ts";

export const UDP_HEADER_BYTES = 8;
export const UDP_CHECKSUM_AT = 6;

/** Eight bytes, checksum 0. */
export function writeUdpHeader(
  buffer: Uint8Array,
  at: number,
  sourcePort: number,
  destinationPort: number,
  udpBytes: number,
): void {
  writeU16(buffer, at, sourcePort);
  writeU16(buffer, at + 2, destinationPort);
  writeU16(buffer, at + 4, udpBytes);
  writeU16(buffer, at + 6, 0);
}

/** A checksum that comes out as 0 is sent as ffff, since 0 means "none". */
export function foldUdpChecksum(sum: number): number {
  const checksum = foldChecksum(sum);
  return checksum === 0 ? 0xffff : checksum;
}
