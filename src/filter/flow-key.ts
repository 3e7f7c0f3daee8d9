// Which flow a packet belongs to, the same for both directions: the sending session, the protocol, and address and port
// of each end.
import {
  type PacketInfo,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_SYN,
} from "../wire/packet.ts";

export type Direction = 0 | 1;
export const INBOUND = 0;
export const OUTBOUND = 1;

export const KEY_WORDS = 10;
// Places in `words`
export const SESSION_AND_PROTOCOL = 0; // slot << 8 | protocol
export const REMOTE = 1;
export const LOCAL = 5;
export const PORTS = 9; // remote << 16 | local

const ICMP_ECHO_REPLY = 0;
const ICMP_ECHO_REQUEST = 8;
const ICMPV6_ECHO_REQUEST = 128;
const ICMPV6_ECHO_REPLY = 129;

/** Filled anew for every packet. */
export class FlowKey {
  readonly words = new Int32Array(KEY_WORDS);

  set(direction: Direction, slot: number, info: PacketInfo, ports: number): void {
    const { words } = this;
    const source = direction === INBOUND ? REMOTE : LOCAL;
    const destination = direction === INBOUND ? LOCAL : REMOTE;
    words[SESSION_AND_PROTOCOL] = (slot << 8) | info.protocol;
    words[source] = info.source0;
    words[source + 1] = info.source1;
    words[source + 2] = info.source2;
    words[source + 3] = info.source3;
    words[destination] = info.destination0;
    words[destination + 1] = info.destination1;
    words[destination + 2] = info.destination2;
    words[destination + 3] = info.destination3;
    words[PORTS] = ports;
  }

  /** The port that is asked for if this direction opens; for other protocols than TCP and UDP no rule looks at it. */
  destinationPort(direction: Direction): number {
    const ports = this.words[PORTS]!;
    return direction === INBOUND ? ports & 0xffff : ports >>> 16;
  }
}

/**
 * Remote port << 16 | local port, signed: no number on the heap. Two ends that ping each other with one identifier have
 * two flows: the opener's place holds it.
 */
export function portsOf(direction: Direction, info: PacketInfo): number {
  const { protocol, icmpType, sourcePort, destinationPort } = info;
  if (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP) {
    return direction === INBOUND ? (sourcePort << 16) | destinationPort : (destinationPort << 16) | sourcePort;
  }
  if (protocol !== PROTOCOL_ICMP && protocol !== PROTOCOL_ICMPV6) return 0;
  const isRequest = icmpType === (protocol === PROTOCOL_ICMP ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST);
  if (!isRequest && !isEchoReply(info)) return 0;
  return (direction === INBOUND) === isRequest ? sourcePort << 16 : sourcePort;
}

export function isEchoReply(info: PacketInfo): boolean {
  if (info.isLaterFragment) return false;
  if (info.protocol === PROTOCOL_ICMP) return info.icmpType === ICMP_ECHO_REPLY;
  return info.protocol === PROTOCOL_ICMPV6 && info.icmpType === ICMPV6_ECHO_REPLY;
}

/** A SYN that answers nothing. */
export function isTcpOpening(info: PacketInfo): boolean {
  return info.protocol === PROTOCOL_TCP && (info.tcpFlags & (TCP_SYN | TCP_ACK)) === TCP_SYN;
}
