// What the filter, the engine and the netstack know of an inner packet after one pass over its headers: RFC 791, RFC 8200,
// RFC 9293, RFC 768, RFC 792, RFC 4443. One PacketInfo is reused for every packet of a thread: nothing is allocated here.
import type { Address } from "../base/address.ts";

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

  get source(): Address {
    return { w0: this.source0, w1: this.source1, w2: this.source2, w3: this.source3 };
  }

  get destination(): Address {
    return { w0: this.destination0, w1: this.destination1, w2: this.destination2, w3: this.destination3 };
  }
}
