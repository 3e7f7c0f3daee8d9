// The IPv6 header and its extension headers: RFC 8200; routing type 0 refused (RFC 5095), atomic fragments (RFC 6946),
// IPv4-mapped addresses refused, since inside this program they mean IPv4 (base/address.ts).
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import type { PacketDrop, PacketInfo } from "./packet.ts";

export const IPV6_HEADER_BYTES = 40;
export const IPV6_FRAGMENT_HEADER_BYTES = 8;
/** A chain longer than this serves nobody but an attacker (RFC 8504 §5.3 lets a node set such a limit). */
export const IPV6_EXTENSION_HEADERS_MAX = 8;

export const HEADER_HOP_BY_HOP = 0;
export const HEADER_ROUTING = 43;
export const HEADER_FRAGMENT = 44;
export const HEADER_AUTHENTICATION = 51;
export const HEADER_NONE = 59;
export const HEADER_DESTINATION_OPTIONS = 60;

/** Fills the IP part of `info`; `quoted` as in decodeIpv4. */
export function decodeIpv6(
  buffer: Uint8Array,
  offset: number,
  length: number,
  quoted: boolean,
  info: PacketInfo,
): PacketDrop | undefined {
  if (length < IPV6_HEADER_BYTES) return "TRUNCATED";
  const totalBytes = IPV6_HEADER_BYTES + readU16(buffer, offset + 4);
  if (!quoted && totalBytes > length) return "TRUNCATED";
  info.version = 6;
  info.totalBytes = Math.min(totalBytes, length);
  info.hopLimit = buffer[offset + 7]!;
  info.source0 = readU32(buffer, offset + 8);
  info.source1 = readU32(buffer, offset + 12);
  info.source2 = readU32(buffer, offset + 16);
  info.source3 = readU32(buffer, offset + 20);
  info.destination0 = readU32(buffer, offset + 24);
  info.destination1 = readU32(buffer, offset + 28);
  info.destination2 = readU32(buffer, offset + 32);
  info.destination3 = readU32(buffer, offset + 36);
  if (isMapped(info.source0, info.source1, info.source2)) return "MAPPED_ADDRESS";
  if (isMapped(info.destination0, info.destination1, info.destination2)) return "MAPPED_ADDRESS";
  info.fragmentOffsetBytes = 0;
  info.hasMoreFragments = false;
  info.fragmentId = 0;
  info.fragmentHeaderOffset = 0;
  return walkExtensionHeaders(buffer, offset, buffer[offset + 6]!, info);
}

function isMapped(w0: number, w1: number, w2: number): boolean {
  return w2 === 0xffff && w1 === 0 && w0 === 0;
}

/** Ends at the transport header, at "no next header", or behind the fragment header of a later fragment. */
function walkExtensionHeaders(
  buffer: Uint8Array,
  offset: number,
  firstHeader: number,
  info: PacketInfo,
): PacketDrop | undefined {
  let header = firstHeader;
  let at = IPV6_HEADER_BYTES;
  for (let count = 0; ; count++) {
    const isExtension =
      header === HEADER_HOP_BY_HOP ||
      header === HEADER_ROUTING ||
      header === HEADER_FRAGMENT ||
      header === HEADER_AUTHENTICATION ||
      header === HEADER_DESTINATION_OPTIONS;
    if (!isExtension) break;
    if (count === IPV6_EXTENSION_HEADERS_MAX) return "TOO_MANY_EXTENSION_HEADERS";
    if (at + 8 > info.totalBytes) return shortChain(info);
    const headerBytes = extensionBytes(header, buffer[offset + at + 1]!);
    if (at + headerBytes > info.totalBytes) return shortChain(info);
    if (header === HEADER_HOP_BY_HOP && count > 0) return "BAD_EXTENSION_HEADER"; // only as the first
    if (header === HEADER_ROUTING && buffer[offset + at + 2] === 0) return "SOURCE_ROUTED";
    const next = buffer[offset + at]!;
    if (header === HEADER_FRAGMENT) {
      if (info.fragmentHeaderOffset !== 0) return "BAD_EXTENSION_HEADER";
      const flags = readU16(buffer, offset + at + 2);
      info.fragmentHeaderOffset = at;
      info.fragmentOffsetBytes = flags & 0xfff8;
      info.hasMoreFragments = (flags & 1) !== 0;
      info.fragmentId = readU32(buffer, offset + at + 4);
    }
    header = next;
    at += headerBytes;
    if (info.fragmentOffsetBytes > 0) break; // what follows belongs to the middle of something
  }
  info.protocol = header;
  info.transportOffset = at;
  return undefined;
}

function extensionBytes(header: number, lengthField: number): number {
  if (header === HEADER_FRAGMENT) return IPV6_FRAGMENT_HEADER_BYTES;
  if (header === HEADER_AUTHENTICATION) return (lengthField + 2) * 4; // RFC 4302 §2.2
  return (lengthField + 1) * 8;
}

/** RFC 7112 §5: a first fragment holds the whole header chain. */
function shortChain(info: PacketInfo): PacketDrop {
  return info.hasMoreFragments ? "FIRST_FRAGMENT_TOO_SMALL" : "BAD_EXTENSION_HEADER";
}

/** Forty bytes; traffic class and flow label 0. Addresses are eight 32-bit words. */
export function writeIpv6Header(
  buffer: Uint8Array,
  offset: number,
  payloadBytes: number,
  hopLimit: number,
  nextHeader: number,
  source0: number,
  source1: number,
  source2: number,
  source3: number,
  destination0: number,
  destination1: number,
  destination2: number,
  destination3: number,
): void {
  writeU32(buffer, offset, 0x60000000);
  writeU16(buffer, offset + 4, payloadBytes);
  buffer[offset + 6] = nextHeader;
  buffer[offset + 7] = hopLimit;
  writeU32(buffer, offset + 8, source0);
  writeU32(buffer, offset + 12, source1);
  writeU32(buffer, offset + 16, source2);
  writeU32(buffer, offset + 20, source3);
  writeU32(buffer, offset + 24, destination0);
  writeU32(buffer, offset + 28, destination1);
  writeU32(buffer, offset + 32, destination2);
  writeU32(buffer, offset + 36, destination3);
}

export function writeIpv6FragmentHeader(
  buffer: Uint8Array,
  offset: number,
  nextHeader: number,
  fragmentOffsetBytes: number,
  hasMoreFragments: boolean,
  id: number,
): void {
  buffer[offset] = nextHeader;
  buffer[offset + 1] = 0;
  writeU16(buffer, offset + 2, fragmentOffsetBytes | (hasMoreFragments ? 1 : 0));
  writeU32(buffer, offset + 4, id);
}
