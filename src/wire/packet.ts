// What the filter, the engine and the netstack know of an inner packet after one pass over its headers: RFC 791, RFC
// 8200, RFC 9293, RFC 768, RFC 792, RFC 4443. One PacketInfo is reused for every packet of a thread: nothing is
// allocated here.
import type { Address } from "../base/address.ts";
import { readU16 } from "../base/bytes.ts";
import { isIcmpEcho, isIcmpError } from "./icmp.ts";
import { decodeIpv4, IPV4_HEADER_BYTES } from "./ipv4.ts";
import { decodeIpv6, IPV6_FRAGMENT_HEADER_BYTES, IPV6_HEADER_BYTES } from "./ipv6.ts";

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;

/** Addresses are four unsigned words, IPv4 in mapped form (see base/address.ts). */
export class PacketInfo {
  version: 4 | 6 = 4;
  /** Of the IP packet by its own header, ≤ the bytes given. */
  totalBytes = 0;
  /** From the packet's start to the transport header, extension headers included. */
  transportOffset = 0;
  /** Behind all extension headers; 1 and 58 both mean ICMP of their family. */
  protocol = 0;
  source0 = 0;
  source1 = 0;
  source2 = 0;
  source3 = 0;
  destination0 = 0;
  destination1 = 0;
  destination2 = 0;
  destination3 = 0;
  /** TCP and UDP; for ICMP echo both are the identifier, else 0. */
  sourcePort = 0;
  destinationPort = 0;
  tcpFlags = 0;
  icmpType = 0;
  icmpCode = 0;
  /** A fragment other than the first: there is no transport header. */
  isLaterFragment = false;
  /** Any fragment (offset > 0 or more fragments). */
  isFragment = false;
  /** ICMP errors: the packet that caused it starts here (from the packet's start), else 0. */
  innerOffset = 0;
  hopLimit = 0;
  /** Where this fragment's part begins in the whole datagram's (fragmentable) payload. */
  fragmentOffsetBytes = 0;
  hasMoreFragments = false;
  /** 16 bits for IPv4 (set in unfragmented packets too), 32 for IPv6. */
  fragmentId = 0;
  /** IPv6: from the packet's start to the fragment header, 0 without one. */
  fragmentHeaderOffset = 0;

  get source(): Address {
    return { w0: this.source0, w1: this.source1, w2: this.source2, w3: this.source3 };
  }

  get destination(): Address {
    return { w0: this.destination0, w1: this.destination1, w2: this.destination2, w3: this.destination3 };
  }
}

/** Why a packet is no packet; the names are those of the counters. */
export const PACKET_DROPS = [
  "TRUNCATED", // fewer bytes than its header says
  "BAD_VERSION",
  "BAD_HEADER_LENGTH",
  "BAD_TOTAL_LENGTH",
  "BAD_HEADER_CHECKSUM",
  "BAD_HEADER_OPTION",
  "SOURCE_ROUTED", // IPv4 loose or strict source route, IPv6 routing type 0
  "MAPPED_ADDRESS", // ::ffff:0:0/96 in an IPv6 header
  "BAD_EXTENSION_HEADER",
  "TOO_MANY_EXTENSION_HEADERS",
  "BAD_FRAGMENT", // length not a multiple of 8, or an end beyond 65,535
  "FIRST_FRAGMENT_TOO_SMALL", // RFC 1858 §3.1, RFC 7112 §5
  "FRAGMENT_IN_HEADER", // RFC 1858 §4: would overwrite the transport header
  "TRUNCATED_TRANSPORT",
  "BAD_TRANSPORT_HEADER",
  "ICMP_OF_OTHER_FAMILY",
  "TRUNCATED_QUOTE", // an ICMP error that does not say what it is about
] as const;

export type PacketDrop = (typeof PACKET_DROPS)[number];

const TCP_HEADER_BYTES = 20;
const UDP_HEADER_BYTES = 8;
const ICMP_HEADER_BYTES = 8;
const QUOTED_TRANSPORT_BYTES = 8; // RFC 792: 64 bits tell of which flow an error speaks
const IP_TOTAL_MAX_BYTES = 65_535; // in IPv6 without its first header

/**
 * Reads one IP packet's headers into `info`; undefined when it is well formed, else why not (then `info` is not to be
 * used). Bytes behind the IP total length are ignored (WireGuard pads). Transport checksums are not looked at.
 *
 * @example
 * const drop = decodePacket(buffer, offset, length, info);
 * if (drop !== undefined) { counters[drop]++; return; }
 */
export function decodePacket(
  buffer: Uint8Array,
  offset: number,
  length: number,
  info: PacketInfo,
): PacketDrop | undefined {
  const drop = decodeIp(buffer, offset, length, false, info);
  if (drop !== undefined) return drop;
  const { protocol, transportOffset, totalBytes } = info;
  if (protocol === (info.version === 4 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP)) return "ICMP_OF_OTHER_FAMILY";
  const transportBytes = totalBytes - transportOffset;
  if (info.isFragment) {
    const partBytes = totalBytes - fragmentPartOffset(info);
    if (partBytes === 0 || (info.hasMoreFragments && (partBytes & 7) !== 0)) return "BAD_FRAGMENT";
    const headBytes = info.version === 4 ? transportOffset : info.fragmentHeaderOffset - IPV6_HEADER_BYTES;
    if (headBytes + info.fragmentOffsetBytes + partBytes > IP_TOTAL_MAX_BYTES) return "BAD_FRAGMENT";
  }
  if (info.isLaterFragment) {
    // Filters judge the first fragment's header: nothing later may reach into it.
    return info.fragmentOffsetBytes < headerMinBytes(protocol) ? "FRAGMENT_IN_HEADER" : undefined;
  }
  const missing = info.isFragment ? "FIRST_FRAGMENT_TOO_SMALL" : "TRUNCATED_TRANSPORT";
  if (transportBytes < headerMinBytes(protocol)) return missing;
  const at = offset + transportOffset;
  switch (protocol) {
    case PROTOCOL_TCP: {
      const headerBytes = (buffer[at + 12]! >>> 4) * 4;
      if (headerBytes < TCP_HEADER_BYTES) return "BAD_TRANSPORT_HEADER";
      if (headerBytes > transportBytes) return missing;
      break;
    }
    case PROTOCOL_UDP: {
      const udpBytes = readU16(buffer, at + 4);
      if (udpBytes < UDP_HEADER_BYTES) return "BAD_TRANSPORT_HEADER";
      if (udpBytes > transportBytes && !info.isFragment) return missing;
      break;
    }
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMPV6: {
      if (!isIcmpError(info.version, buffer[at]!)) break;
      info.innerOffset = transportOffset + ICMP_HEADER_BYTES;
      if (isCutTooShort(buffer, offset + info.innerOffset, transportBytes - ICMP_HEADER_BYTES, info.version)) {
        return "TRUNCATED_QUOTE";
      }
      break;
    }
  }
  readTransport(buffer, at, info);
  return undefined;
}

/**
 * RFC 792 wants the header and 64 bits behind it, RFC 4443 §3 as much as fits: less is enough only of a packet that has
 * no more itself.
 */
function isCutTooShort(buffer: Uint8Array, at: number, quoteBytes: number, version: 4 | 6): boolean {
  const headerBytes = version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  if (quoteBytes >= headerBytes + QUOTED_TRANSPORT_BYTES) return false;
  if (quoteBytes < headerBytes) return true;
  const totalBytes = version === 4 ? readU16(buffer, at + 2) : IPV6_HEADER_BYTES + readU16(buffer, at + 4);
  return totalBytes > quoteBytes;
}

/**
 * The packet inside an ICMP error: `decodeQuotedPacket(buffer, offset + info.innerOffset, info.totalBytes -
 * info.innerOffset, inner)`. Such a packet may be cut after 8 bytes of its transport header, so that `tcpFlags` may be
 * 0 where it had some.
 */
export function decodeQuotedPacket(
  buffer: Uint8Array,
  offset: number,
  length: number,
  info: PacketInfo,
): PacketDrop | undefined {
  const drop = decodeIp(buffer, offset, length, true, info);
  if (drop !== undefined) return drop;
  if (info.protocol === (info.version === 4 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP)) return "ICMP_OF_OTHER_FAMILY";
  if (info.isLaterFragment) return undefined;
  const isPorted = headerMinBytes(info.protocol) > 0;
  if (isPorted && info.totalBytes - info.transportOffset < QUOTED_TRANSPORT_BYTES) return "TRUNCATED_QUOTE";
  readTransport(buffer, offset + info.transportOffset, info);
  return undefined;
}

function decodeIp(
  buffer: Uint8Array,
  offset: number,
  length: number,
  quoted: boolean,
  info: PacketInfo,
): PacketDrop | undefined {
  if (length < 1) return "TRUNCATED";
  const version = buffer[offset]! >>> 4;
  let drop: PacketDrop | undefined;
  if (version === 4) drop = decodeIpv4(buffer, offset, length, quoted, info);
  else if (version === 6) drop = decodeIpv6(buffer, offset, length, quoted, info);
  else return "BAD_VERSION";
  info.isLaterFragment = info.fragmentOffsetBytes > 0;
  info.isFragment = info.isLaterFragment || info.hasMoreFragments;
  info.sourcePort = 0;
  info.destinationPort = 0;
  info.tcpFlags = 0;
  info.icmpType = 0;
  info.icmpCode = 0;
  info.innerOffset = 0;
  return drop;
}

/** From the packet's start to this fragment's part of the whole payload: in IPv6 right behind the fragment header. */
export function fragmentPartOffset(info: PacketInfo): number {
  return info.fragmentHeaderOffset === 0
    ? info.transportOffset
    : info.fragmentHeaderOffset + IPV6_FRAGMENT_HEADER_BYTES;
}

function headerMinBytes(protocol: number): number {
  switch (protocol) {
    case PROTOCOL_TCP:
      return TCP_HEADER_BYTES;
    case PROTOCOL_UDP:
      return UDP_HEADER_BYTES;
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMPV6:
      return ICMP_HEADER_BYTES;
    default:
      return 0;
  }
}

/** At least 8 bytes of the transport header are there. */
function readTransport(buffer: Uint8Array, at: number, info: PacketInfo): void {
  switch (info.protocol) {
    case PROTOCOL_TCP:
      info.sourcePort = readU16(buffer, at);
      info.destinationPort = readU16(buffer, at + 2);
      if (info.totalBytes - info.transportOffset > 13) info.tcpFlags = buffer[at + 13]!;
      return;
    case PROTOCOL_UDP:
      info.sourcePort = readU16(buffer, at);
      info.destinationPort = readU16(buffer, at + 2);
      return;
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMPV6:
      info.icmpType = buffer[at]!;
      info.icmpCode = buffer[at + 1]!;
      if (isIcmpEcho(info.version, info.icmpType)) {
        info.sourcePort = readU16(buffer, at + 4);
        info.destinationPort = info.sourcePort;
      }
      return;
  }
}
