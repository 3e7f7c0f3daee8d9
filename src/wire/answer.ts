// What may be said to the sender of a packet that goes no further: an ICMP error or a TCP reset, addressed as if the
// packet's destination spoke. RFC 1812 §4.3.2, RFC 4443 §2.4 (e) and RFC 1122 §3.2.2 say what must never be answered;
// RFC 9293 §3.10.7.1 how.
import { readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "./checksum.ts";
import {
  ICMP_CODE_PROHIBITED,
  ICMP_UNREACHABLE,
  ICMPV6_CODE_PROHIBITED,
  ICMPV6_UNREACHABLE,
  isIcmpError,
} from "./icmp.ts";
import { ipHeaderBytes, writeIpHeader } from "./ip-header.ts";
import {
  type PacketInfo,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from "./packet.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES, writeTcpHeader } from "./tcp.ts";

/** The largest answer: RFC 1812 §4.3.2.3 for IPv4 (576), RFC 4443 §2.4 (c) for IPv6 (1,280). */
export const ANSWER_MAX_BYTES = 1280;
const ICMP_V4_MAX_BYTES = 576;
const ICMP_HEADER_BYTES = 8;
const ICMPV6_REDIRECT = 137;

/**
 * Writes an ICMP error about the packet at `packet[packetOffset…]`, which `info` describes, to `out[outOffset…]`;
 * returns its length, or 0 when that packet must not be answered. `parameter` is the header's second word (the MTU of
 * "too big"), else 0.
 */
export function buildIcmpError(
  out: Uint8Array,
  outOffset: number,
  packet: Uint8Array,
  packetOffset: number,
  info: PacketInfo,
  type: number,
  code: number,
  parameter: number,
): number {
  if (!mayAnswer(info)) return 0;
  const { version } = info;
  const headerBytes = ipHeaderBytes(version);
  const maxBytes = version === 4 ? ICMP_V4_MAX_BYTES : ANSWER_MAX_BYTES;
  const quoteBytes = Math.min(info.totalBytes, maxBytes - headerBytes - ICMP_HEADER_BYTES);
  const icmpBytes = ICMP_HEADER_BYTES + quoteBytes;
  const at = outOffset + headerBytes;
  out[at] = type;
  out[at + 1] = code;
  writeU16(out, at + 2, 0);
  writeU32(out, at + 4, parameter);
  out.set(packet.subarray(packetOffset, packetOffset + quoteBytes), at + ICMP_HEADER_BYTES);
  const protocol = version === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
  const pseudo = version === 4 ? 0 : sumSwapped(info, protocol, icmpBytes);
  writeU16(out, at + 2, foldChecksum(sumBytes(out, at, icmpBytes, pseudo)));
  writeSwapped(out, outOffset, info, protocol, icmpBytes);
  return headerBytes + icmpBytes;
}

/** ICMP 3/13 or ICMPv6 1/1, "administratively prohibited". */
export function buildIcmpProhibited(
  out: Uint8Array,
  outOffset: number,
  packet: Uint8Array,
  packetOffset: number,
  info: PacketInfo,
): number {
  const [type, code] =
    info.version === 4 ? [ICMP_UNREACHABLE, ICMP_CODE_PROHIBITED] : [ICMPV6_UNREACHABLE, ICMPV6_CODE_PROHIBITED];
  return buildIcmpError(out, outOffset, packet, packetOffset, info, type, code, 0);
}

/**
 * A reset in answer to the TCP segment that `info` describes; returns its length, or 0 when it must not be answered.
 */
export function buildTcpReset(
  out: Uint8Array,
  outOffset: number,
  packet: Uint8Array,
  packetOffset: number,
  info: PacketInfo,
): number {
  if (info.protocol !== PROTOCOL_TCP || (info.tcpFlags & TCP_RST) !== 0 || info.isFragment) return 0;
  if (!mayAnswer(info)) return 0;
  const headerBytes = ipHeaderBytes(info.version);
  const segmentAt = packetOffset + info.transportOffset;
  const at = outOffset + headerBytes;
  let sequence = 0;
  let acknowledgment = 0;
  let flags = TCP_RST;
  if ((info.tcpFlags & TCP_ACK) !== 0) {
    sequence = readU32(packet, segmentAt + 8); // <SEQ=SEG.ACK><CTL=RST>
  } else {
    const dataBytes = info.totalBytes - info.transportOffset - (packet[segmentAt + 12]! >>> 4) * 4;
    const controls = ((info.tcpFlags & TCP_SYN) !== 0 ? 1 : 0) + ((info.tcpFlags & TCP_FIN) !== 0 ? 1 : 0);
    acknowledgment = (readU32(packet, segmentAt + 4) + dataBytes + controls) >>> 0; // <ACK=SEG.SEQ+SEG.LEN>
    flags = TCP_RST | TCP_ACK;
  }
  const { sourcePort, destinationPort } = info;
  writeTcpHeader(out, at, destinationPort, sourcePort, sequence, acknowledgment, TCP_HEADER_BYTES, flags, 0);
  const sum = sumBytes(out, at, TCP_HEADER_BYTES, sumSwapped(info, PROTOCOL_TCP, TCP_HEADER_BYTES));
  writeU16(out, at + TCP_CHECKSUM_AT, foldChecksum(sum));
  writeSwapped(out, outOffset, info, PROTOCOL_TCP, TCP_HEADER_BYTES);
  return headerBytes + TCP_HEADER_BYTES;
}

/** False for what could make two hosts answer each other for ever, or one packet fan out. */
export function mayAnswer(info: PacketInfo): boolean {
  if (info.isLaterFragment) return false;
  if (info.protocol === PROTOCOL_TCP && (info.tcpFlags & TCP_RST) !== 0) return false;
  if (info.protocol === PROTOCOL_ICMP || info.protocol === PROTOCOL_ICMPV6) {
    if (isIcmpError(info.version, info.icmpType)) return false;
    if (info.version === 6 && (info.icmpType < 128 || info.icmpType === ICMPV6_REDIRECT)) return false;
  }
  return (
    isUnicast(info.source0, info.source1, info.source2, info.source3) &&
    isUnicast(info.destination0, info.destination1, info.destination2, info.destination3)
  );
}

/** Neither unspecified nor multicast nor (limited) broadcast nor IPv4 0/8 or class E. Loopback is unicast. */
export function isUnicast(w0: number, w1: number, w2: number, w3: number): boolean {
  if (w0 === 0 && w1 === 0 && w2 === 0xffff) {
    const first = w3 >>> 24;
    return first !== 0 && first < 224;
  }
  if (w0 >>> 24 === 0xff) return false;
  return (w0 | w1 | w2 | w3) !== 0;
}

function sumSwapped(info: PacketInfo, protocol: number, transportBytes: number): number {
  return sumPseudoHeader(
    info.destination0,
    info.destination1,
    info.destination2,
    info.destination3,
    info.source0,
    info.source1,
    info.source2,
    info.source3,
    protocol,
    transportBytes,
  );
}

function writeSwapped(out: Uint8Array, offset: number, info: PacketInfo, protocol: number, payloadBytes: number): void {
  writeIpHeader(
    out,
    offset,
    info.version,
    payloadBytes,
    protocol,
    info.destination0,
    info.destination1,
    info.destination2,
    info.destination3,
    info.source0,
    info.source1,
    info.source2,
    info.source3,
  );
}
