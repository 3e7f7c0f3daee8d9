// Ends a TCP connection of the kernel whose flow the filter has ended: an idle one would else stand until its
// application speaks again. The kernel is asked by an empty segment where its connection stands; what it answers
// (RFC 9293 §3.10.7.4: an acknowledgement, to whatever number) goes no further than the filter, whose reset has the
// right numbers then.
import { isV4 } from "../base/address.ts";
import { writeU16 } from "../base/bytes.ts";
import type { FlowRecord } from "../filter/contract.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../wire/checksum.ts";
import { ipHeaderBytes, writeIpHeader } from "../wire/ip-header.ts";
import { PROTOCOL_TCP, TCP_ACK } from "../wire/packet.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES, writeTcpHeader } from "../wire/tcp.ts";

export const KERNEL_QUESTION_MAX_BYTES = 40 + TCP_HEADER_BYTES;

/**
 * Writes the segment, as if the far end had sent it, to `out[at…]`; returns its length, 0 for what is no TCP flow. No
 * SYN: where the connection has gone meanwhile that would open one.
 */
export function writeKernelQuestion(out: Uint8Array, at: number, flow: FlowRecord): number {
  if (flow.protocol !== PROTOCOL_TCP) return 0;
  const isOurs = flow.opener === "local";
  const [from, fromPort] = isOurs ? [flow.destination, flow.destinationPort] : [flow.source, flow.sourcePort];
  const [to, toPort] = isOurs ? [flow.source, flow.sourcePort] : [flow.destination, flow.destinationPort];
  const version = isV4(to) ? 4 : 6;
  const tcpAt = at + ipHeaderBytes(version);
  const words = [from.w0, from.w1, from.w2, from.w3, to.w0, to.w1, to.w2, to.w3] as const;
  writeIpHeader(out, at, version, TCP_HEADER_BYTES, PROTOCOL_TCP, ...words);
  writeTcpHeader(out, tcpAt, fromPort, toPort, 0, 0, TCP_HEADER_BYTES, TCP_ACK, 0);
  const pseudo = sumPseudoHeader(...words, PROTOCOL_TCP, TCP_HEADER_BYTES);
  writeU16(out, tcpAt + TCP_CHECKSUM_AT, foldChecksum(sumBytes(out, tcpAt, TCP_HEADER_BYTES, pseudo)));
  return tcpAt - at + TCP_HEADER_BYTES;
}
