// The userspace TCP/IP stack of one peer: decode, reassemble, hand to TCP, UDP or ICMP. It sits behind the engine's
// filter: what arrives here was opened, belongs to its sender and is allowed. Pure: bytes and nowMs in, packets out
// through the handler.
import type { Address, Endpoint, Prefix } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { MTU_MIN_BYTES } from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { isUnicast } from "../wire/answer.ts";
import {
  decodePacket,
  PACKET_DROPS,
  type PacketDrop,
  PacketInfo,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../wire/packet.ts";
import { Addresses } from "./addresses.ts";
import type { Netstack, NetstackHandler, TcpConnection, TcpHandler, UdpSocket } from "./contract.ts";
import { DatagramOutput } from "./datagram-output.ts";
import { Deadlines } from "./deadlines.ts";
import { type FragmentDrop, Fragments } from "./fragments.ts";
import { Icmp, type IcmpCounter } from "./icmp.ts";
import { PacketOutput, type StackMemory } from "./packet-output.ts";
import { PathMtus } from "./path-mtu.ts";
import type { CongestionName } from "./tcp/congestion.ts";
import type { TcpCounter } from "./tcp/host.ts";
import { Tcp } from "./tcp/tcp.ts";
import { Udp, type UdpCounter } from "./udp.ts";

export type StackCounter =
  | PacketDrop
  | FragmentDrop
  | TcpCounter
  | UdpCounter
  | IcmpCounter
  | "PACKETS_IN"
  | "BAD_SOURCE"
  | "NOT_OURS"
  | "UNKNOWN_PROTOCOL";

export interface UserspaceStackOptions {
  readonly random: Random;
  /** Of the packets it makes, IP header included; at least 1,280. */
  readonly mtuBytes: number;
  readonly handler: NetstackHandler;
  /** Its own when absent. */
  readonly memory?: StackMemory | undefined;
  /** `settle` is called at the end of each turn: what follows from a burst of segments follows once. */
  readonly isSettled?: boolean;
  /**
   * Per connection, and then they stay so; else they begin with what base/limits.ts says and grow where a path needs
   * it.
   */
  readonly buffers?: { readonly sendBytes?: number; readonly receiveBytes?: number };
  /** How TCP's window answers to loss; CUBIC by default. */
  readonly congestion?: CongestionName;
}

export class UserspaceStack implements Netstack {
  readonly #counters = new Map<StackCounter, number>();
  readonly #addresses = new Addresses();
  readonly #deadlines = new Deadlines();
  readonly #output: PacketOutput;
  readonly #fragments: Fragments;
  readonly #tcp: Tcp;
  readonly #udp: Udp;
  readonly #icmp: Icmp;
  readonly #info = new PacketInfo();
  /** Made once: asked for packets of unknown flows only. */
  readonly #isOurs = (): boolean => this.#checkOurs();

  constructor(options: UserspaceStackOptions) {
    const { random, mtuBytes, handler, isSettled = false } = options;
    assert(mtuBytes >= MTU_MIN_BYTES, "MTU of at least 1280");
    const count = (what: StackCounter): void => this.#count(what);
    const sendUnreachable: Icmp["sendUnreachable"] = (...about) => this.#icmp.sendUnreachable(...about);
    const deadlines = this.#deadlines;
    const paths = new PathMtus(mtuBytes);
    const emit = (nowMs: number, buffer: Uint8Array, offset: number, length: number): void =>
      handler.output(nowMs, buffer, offset, length);
    const output = new PacketOutput(mtuBytes, emit, options.memory);
    const datagrams = new DatagramOutput(output, paths, random);
    const tcpOpening = (): NetstackHandler["tcpOpening"] => handler.tcpOpening?.bind(handler);
    const udpOpening = (): NetstackHandler["udpOpening"] => handler.udpOpening?.bind(handler);
    this.#output = output;
    this.#fragments = new Fragments(deadlines, count);
    this.#tcp = new Tcp({ output, deadlines, random, isSettled, count, opening: tcpOpening, sendUnreachable }, options);
    this.#udp = new Udp({ datagrams, random, count, opening: udpOpening, sendUnreachable });
    this.#icmp = new Icmp({
      output,
      datagrams,
      paths,
      deadlines,
      random,
      tcp: this.#tcp,
      udp: this.#udp,
      count,
      isLocal: (info) => this.#isLocal(info),
    });
    for (const drop of PACKET_DROPS) this.#counters.set(drop, 0);
  }

  setLocalAddresses(addresses: readonly Address[]): void {
    this.#addresses.setLocal(addresses);
  }

  setTransit(prefixes: readonly Prefix[]): void {
    this.#addresses.setTransit(prefixes);
  }

  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, length: number): void {
    this.#count("PACKETS_IN");
    const info = this.#info;
    const drop = decodePacket(buffer, offset, length, info);
    if (drop !== undefined) {
      this.#count(drop);
      return;
    }
    if (!isUnicast(info.source0, info.source1, info.source2, info.source3)) {
      this.#count("BAD_SOURCE");
      return;
    }
    if (info.isFragment) this.#handleFragment(nowMs, buffer, offset);
    else this.#dispatch(nowMs, buffer, offset);
  }

  #handleFragment(nowMs: number, buffer: Uint8Array, offset: number): void {
    if (!this.#checkOurs()) return;
    const whole = this.#fragments.handleFragment(nowMs, buffer, offset, this.#info);
    if (whole === undefined) return;
    const drop = decodePacket(whole, 0, whole.length, this.#info);
    if (drop !== undefined) this.#count(drop);
    else if (!this.#info.isFragment) this.#dispatch(nowMs, whole, 0);
  }

  #dispatch(nowMs: number, buffer: Uint8Array, offset: number): void {
    const info = this.#info;
    switch (info.protocol) {
      case PROTOCOL_TCP:
        this.#tcp.handlePacket(nowMs, buffer, offset, info, this.#isOurs);
        return;
      case PROTOCOL_UDP:
        this.#udp.handlePacket(nowMs, buffer, offset, info, this.#isOurs);
        return;
      case PROTOCOL_ICMP:
      case PROTOCOL_ICMPV6:
        if (this.#checkOurs()) this.#icmp.handlePacket(nowMs, buffer, offset, info);
        return;
      default:
        this.#count("UNKNOWN_PROTOCOL");
    }
  }

  /** The destination ends here, and the packet does not claim to come from here. */
  #checkOurs(): boolean {
    const info = this.#info;
    if (this.#addresses.isLocal(info.source0, info.source1, info.source2, info.source3)) {
      this.#count("BAD_SOURCE");
      return false;
    }
    if (this.#isLocal(info)) return true;
    const { destination } = info;
    const isUnicastThere = isUnicast(destination.w0, destination.w1, destination.w2, destination.w3);
    if (isUnicastThere && this.#addresses.isTransit(destination)) return true;
    this.#count("NOT_OURS");
    return false;
  }

  #isLocal(info: PacketInfo): boolean {
    return this.#addresses.isLocal(info.destination0, info.destination1, info.destination2, info.destination3);
  }

  settle(nowMs: number): void {
    this.#tcp.settle(nowMs);
  }

  handleTimeout(nowMs: number): void {
    this.#deadlines.run(nowMs);
  }

  nextDeadlineMs(): number {
    return this.#deadlines.nextMs();
  }

  connectTcp(nowMs: number, local: Address, remote: Endpoint, handler: TcpHandler): TcpConnection | undefined {
    return this.#tcp.connect(nowMs, local, remote, handler);
  }

  cutTcp(local: Endpoint, remote: Endpoint): boolean {
    return this.#tcp.cut(local, remote);
  }

  listenTcp(local: Endpoint, onConnection: (connection: TcpConnection) => void): boolean {
    return this.#tcp.listen(local, onConnection);
  }

  unlistenTcp(local: Endpoint): void {
    this.#tcp.unlisten(local);
  }

  bindUdp(local: Endpoint): UdpSocket | undefined {
    return this.#udp.bind(local);
  }

  ping(nowMs: number, local: Address, remote: Address, onReply: (rttMs: number) => void): () => void {
    return this.#icmp.ping(nowMs, local, remote, onReply);
  }

  /** Drops by name, and how much is held now. */
  get counters(): Readonly<Record<string, number>> {
    return {
      ...Object.fromEntries(this.#counters),
      PACKETS_OUT: this.#output.packets,
      TCP_CONNECTIONS: this.#tcp.connectionsCount,
      TCP_BACKLOG: this.#tcp.backlogCount,
      TCP_TIME_WAIT: this.#tcp.waitingCount,
      TCP_RECEIVE_HELD_BYTES: this.#tcp.receiveMemory.usedBytes,
      TCP_SEND_CHUNKS: this.#tcp.chunks.inUse,
      UDP_SOCKETS: this.#udp.socketsCount,
      FRAGMENTED_DATAGRAMS: this.#fragments.size,
      PINGS: this.#icmp.pingsCount,
      DEADLINES: this.#deadlines.size,
    };
  }

  #count(what: StackCounter): void {
    this.#counters.set(what, (this.#counters.get(what) ?? 0) + 1);
  }
}
