// Where the transport header of a packet is, for those who need no more than that and trust nobody about it: RFC 791,
// RFC 8200. decodePacket (wire/packet.ts) is for packets of the network, and tells why it refuses one.
import { readU16 } from "../base/bytes.ts";
import { IPV4_HEADER_BYTES, IPV4_MORE_FRAGMENTS, IPV4_OFFSET_MASK } from "./ipv4.ts";
import {
  HEADER_DESTINATION_OPTIONS,
  HEADER_HOP_BY_HOP,
  IPV6_EXTENSION_HEADERS_MAX,
  IPV6_HEADER_BYTES,
} from "./ipv6.ts";

/**
 * Bytes from the packet's start to its transport header of `protocol`; 0 when there is none: another protocol, a
 * fragment, no IP, or headers that don't fit into `length`. IPv4 options are passed over, and IPv6 options too, but no
 * routing header: its packet's checksum is about another destination than the one in front (RFC 8200 §8.1).
 */
export function transportPlace(bytes: Uint8Array, at: number, length: number, protocol: number): number {
  const version = length === 0 ? 0 : bytes[at]! >>> 4;
  if (version === 4) return placeInIpv4(bytes, at, length, protocol);
  if (version === 6) return placeInIpv6(bytes, at, length, protocol);
  return 0;
}

function placeInIpv4(bytes: Uint8Array, at: number, length: number, protocol: number): number {
  const headerBytes = (bytes[at]! & 15) * 4;
  if (headerBytes < IPV4_HEADER_BYTES || headerBytes > length || bytes[at + 9] !== protocol) return 0;
  if ((readU16(bytes, at + 6) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) !== 0) return 0;
  return headerBytes;
}

function placeInIpv6(bytes: Uint8Array, at: number, length: number, protocol: number): number {
  if (length < IPV6_HEADER_BYTES) return 0;
  let header = bytes[at + 6]!;
  let place = IPV6_HEADER_BYTES;
  for (let count = 0; header !== protocol; count++) {
    const isExtension = header === HEADER_HOP_BY_HOP || header === HEADER_DESTINATION_OPTIONS;
    if (!isExtension || count === IPV6_EXTENSION_HEADERS_MAX || place + 8 > length) return 0;
    header = bytes[at + place]!;
    place += (bytes[at + place + 1]! + 1) * 8;
    if (place > length) return 0;
  }
  return place;
}
