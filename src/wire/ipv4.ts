// The IPv4 header: RFC 791, fragments by RFC 1858 and 3128, source routes refused by RFC 7126 §4.3 and §4.4.
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { checksumOf } from "./checksum.ts";
import type { PacketDrop, PacketInfo } from "./packet.ts";

export const IPV4_HEADER_BYTES = 20;
export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_OFFSET_MASK = 0x1fff;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_LOOSE_SOURCE_ROUTE = 131;
const OPTION_STRICT_SOURCE_ROUTE = 137;

/**
 * Fills the IP part of `info`. `quoted` is for a packet inside an ICMP error, which may be cut short and whose checksum
 * a router may have left stale: then only the header itself must be there, and `totalBytes` is what is there.
 */
export function decodeIpv4(
  buffer: Uint8Array,
  offset: number,
  length: number,
  quoted: boolean,
  info: PacketInfo,
): PacketDrop | undefined {
  if (length < IPV4_HEADER_BYTES) return "TRUNCATED";
  const headerBytes = (buffer[offset]! & 15) * 4;
  if (headerBytes < IPV4_HEADER_BYTES) return "BAD_HEADER_LENGTH";
  if (headerBytes > length) return "TRUNCATED";
  const totalBytes = readU16(buffer, offset + 2);
  if (totalBytes < headerBytes) return "BAD_TOTAL_LENGTH";
  if (!quoted) {
    if (totalBytes > length) return "TRUNCATED";
    if (checksumOf(buffer, offset, headerBytes) !== 0) return "BAD_HEADER_CHECKSUM";
  }
  if (headerBytes > IPV4_HEADER_BYTES) {
    const drop = walkOptions(buffer, offset + IPV4_HEADER_BYTES, offset + headerBytes);
    if (drop !== undefined) return drop;
  }
  info.version = 4;
  info.totalBytes = Math.min(totalBytes, length);
  info.transportOffset = headerBytes;
  info.hopLimit = buffer[offset + 8]!;
  info.protocol = buffer[offset + 9]!;
  info.source0 = 0;
  info.source1 = 0;
  info.source2 = 0xffff;
  info.source3 = readU32(buffer, offset + 12);
  info.destination0 = 0;
  info.destination1 = 0;
  info.destination2 = 0xffff;
  info.destination3 = readU32(buffer, offset + 16);
  const flags = readU16(buffer, offset + 6);
  info.fragmentOffsetBytes = (flags & IPV4_OFFSET_MASK) * 8;
  info.hasMoreFragments = (flags & IPV4_MORE_FRAGMENTS) !== 0;
  info.fragmentId = readU16(buffer, offset + 4);
  info.fragmentHeaderOffset = 0;
  return undefined;
}

function walkOptions(buffer: Uint8Array, from: number, end: number): PacketDrop | undefined {
  let at = from;
  while (at < end) {
    const type = buffer[at]!;
    if (type === OPTION_END) return undefined;
    if (type === OPTION_NOP) {
      at++;
      continue;
    }
    if (type === OPTION_LOOSE_SOURCE_ROUTE || type === OPTION_STRICT_SOURCE_ROUTE) return "SOURCE_ROUTED";
    const optionBytes = at + 1 < end ? buffer[at + 1]! : 0;
    if (optionBytes < 2 || at + optionBytes > end) return "BAD_HEADER_OPTION";
    at += optionBytes;
  }
  return undefined;
}

/**
 * Twenty bytes without options, checksum included. `flags` is the whole 16-bit word of flags and fragment offset (in
 * units of 8 bytes); addresses are 32-bit words.
 */
export function writeIpv4Header(
  buffer: Uint8Array,
  offset: number,
  totalBytes: number,
  id: number,
  flags: number,
  hopLimit: number,
  protocol: number,
  source: number,
  destination: number,
): void {
  buffer[offset] = 0x45;
  buffer[offset + 1] = 0;
  writeU16(buffer, offset + 2, totalBytes);
  writeU16(buffer, offset + 4, id);
  writeU16(buffer, offset + 6, flags);
  buffer[offset + 8] = hopLimit;
  buffer[offset + 9] = protocol;
  writeU16(buffer, offset + 10, 0);
  writeU32(buffer, offset + 12, source);
  writeU32(buffer, offset + 16, destination);
  writeU16(buffer, offset + 10, checksumOf(buffer, offset, IPV4_HEADER_BYTES));
}
