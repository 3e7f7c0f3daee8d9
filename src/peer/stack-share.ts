// Which packets beside a TUN device are the userspace stack's and not the kernel's: those to addresses that this peer
// serves for others, to a few TCP ports of its own addresses, and the answers to the stack's own echo requests.
import type { Address } from "../base/address.ts";
import { readU16, readU32 } from "../base/bytes.ts";
import { STACK_ECHOES_MAX } from "../base/limits.ts";
import { PrefixTrie } from "../engine/prefix-trie.ts";
import { ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST } from "../wire/icmp.ts";
import { IPV4_HEADER_BYTES, IPV4_OFFSET_MASK } from "../wire/ipv4.ts";
import { IPV6_HEADER_BYTES } from "../wire/ipv6.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP } from "../wire/packet.ts";
import type { StackPlan } from "./data-thread-messages.ts";

const TRANSPORT_READ_BYTES = 8; // as far as ports and echo identifiers stand

export class StackShare {
  #prefixes = new PrefixTrie<true>();
  #own = new PrefixTrie<true>();
  #tcpPorts: readonly number[] = [];
  /** Identifier and sequence number in one, oldest first. */
  readonly #echoes = new Set<number>();
  /** Nothing at all is the stack's. */
  #isEmpty = true;

  set(plan: StackPlan): void {
    this.#prefixes = new PrefixTrie();
    for (const prefix of plan.prefixes) this.#prefixes.set(prefix, true);
    this.#own = new PrefixTrie();
    for (const address of plan.ownAddresses) this.#own.set({ address, bits: 128 }, true);
    this.#tcpPorts = plan.tcpPorts;
    this.#isEmpty = plan.prefixes.length === 0 && plan.tcpPorts.length === 0 && this.#echoes.size === 0;
  }

  /** Does a flow with this end of it live in the stack? */
  hasEnd(address: Address, port: number): boolean {
    const { w0, w1, w2, w3 } = address;
    if (this.#prefixes.find(w0 | 0, w1 | 0, w2 | 0, w3 | 0) === true) return true;
    return this.#tcpPorts.includes(port) && this.#own.find(w0 | 0, w1 | 0, w2 | 0, w3 | 0) === true;
  }

  /** Of one whole IP packet, judged by its first header: the engine or the kernel has made it. */
  isForStack(buffer: Uint8Array, offset: number, length: number): boolean {
    if (this.#isEmpty) return false;
    if (this.#leadsInto(this.#prefixes, buffer, offset)) return true;
    if (!this.#leadsInto(this.#own, buffer, offset)) return false;
    const at = transportAt(buffer, offset);
    if (at < 0 || at + TRANSPORT_READ_BYTES > offset + length) return false;
    const protocol = protocolOf(buffer, offset);
    if (protocol === PROTOCOL_TCP) return this.#tcpPorts.includes(readU16(buffer, at + 2));
    if (this.#echoes.size === 0) return false;
    const isReply =
      (protocol === PROTOCOL_ICMP && buffer[at] === ICMP_ECHO_REPLY) ||
      (protocol === PROTOCOL_ICMPV6 && buffer[at] === ICMPV6_ECHO_REPLY);
    return isReply && this.#echoes.has(readU32(buffer, at + 4));
  }

  /** A packet of the stack: true when it is for this very host, else it is for a tunnel. */
  isForHost(buffer: Uint8Array, offset: number): boolean {
    return this.#leadsInto(this.#own, buffer, offset);
  }

  /** The stack sends this: an answer to it may be for the stack. */
  noteSent(buffer: Uint8Array, offset: number, length: number): void {
    const at = transportAt(buffer, offset);
    if (at < 0 || at + TRANSPORT_READ_BYTES > offset + length) return;
    const protocol = protocolOf(buffer, offset);
    const isRequest =
      (protocol === PROTOCOL_ICMP && buffer[at] === ICMP_ECHO_REQUEST) ||
      (protocol === PROTOCOL_ICMPV6 && buffer[at] === ICMPV6_ECHO_REQUEST);
    if (!isRequest) return;
    this.#echoes.add(readU32(buffer, at + 4));
    this.#isEmpty = false;
    for (const oldest of this.#echoes) {
      if (this.#echoes.size <= STACK_ECHOES_MAX) break;
      this.#echoes.delete(oldest);
    }
  }

  #leadsInto(trie: PrefixTrie<true>, buffer: Uint8Array, offset: number): boolean {
    if (buffer[offset]! >>> 4 === 4) return trie.find(0, 0, 0xffff, readU32(buffer, offset + 16) | 0) === true;
    const w0 = readU32(buffer, offset + 24) | 0;
    const w1 = readU32(buffer, offset + 28) | 0;
    const w2 = readU32(buffer, offset + 32) | 0;
    return trie.find(w0, w1, w2, readU32(buffer, offset + 36) | 0) === true;
  }
}

const protocolOf = (buffer: Uint8Array, offset: number): number =>
  buffer[offset + (buffer[offset]! >>> 4 === 4 ? 9 : 6)]!;

/** −1: a later fragment, which has no transport header. IPv6 extension headers are not passed over. */
function transportAt(buffer: Uint8Array, offset: number): number {
  if (buffer[offset]! >>> 4 !== 4) return offset + IPV6_HEADER_BYTES;
  const headerBytes = (buffer[offset]! & 0xf) * 4;
  if (headerBytes < IPV4_HEADER_BYTES || (readU16(buffer, offset + 6) & IPV4_OFFSET_MASK) !== 0) return -1;
  return offset + headerBytes;
}
