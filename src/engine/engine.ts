// One peer of the network, whole: WireGuard, the two tables, the filter, leases and the peer link, fed with bytes and
// nowMs. The tour of the packet paths is in inbound.ts and outbound.ts; here they are put together and told what to be.
import { type Endpoint, hostPrefix, type Prefix } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { LOCAL_REPLIES_MAX, PEERS_MAX } from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { Ring } from "../base/ring.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import type { DenialRecord, FlowRecord } from "../filter/contract.ts";
import { Filter } from "../filter/filter.ts";
import { Device } from "../wireguard/device.ts";
import type { Stopwatch } from "../wireguard/handshake-work.ts";
import type { DeviceSink, MessageKind } from "../wireguard/tunnel.ts";
import { Counters } from "./counters.ts";
import type { DesiredPeer, DesiredState, LeaseVerifier, OwnLease, VerifiedLease } from "./desired-state.ts";
import { EnginePeer, type PeerStatus } from "./engine-peer.ts";
import { Inbound } from "./inbound.ts";
import { LinkService } from "./link-service.ts";
import { Outbound } from "./outbound.ts";
import type { LinkDenial } from "./peer-link.ts";
import { PrefixTrie } from "./prefix-trie.ts";
import { Routes } from "./routes.ts";

export interface EngineSink {
  /** One outer datagram; the bytes are valid during the call only. */
  sendDatagram(endpoint: Endpoint, buffer: Uint8Array, offset: number, length: number): void;
  /** One inner packet for the TUN or the netstack, from `session`; the bytes are valid during the call only. */
  deliverPacket(session: string, buffer: Uint8Array, offset: number, length: number): void;
  /** A flow was denied here, at the source or at the destination. */
  denied(denial: DenialRecord): void;
  /** The other end denied a flow of ours and said so on the peer link. */
  deniedByPeer(session: string, denial: LinkDenial): void;
  flowEnded(flow: FlowRecord): void;
  /** A tunnel is about to be made, or its other end has fallen silent: that end should try our endpoints too. */
  tunnelWanted(session: string): void;
  tunnelUp(session: string, nowMs: number): void;
  /** No answer from any endpoint for REKEY_ATTEMPT_TIME. */
  tunnelFailed(session: string): void;
  /** The other end has shown a lease that was not known: for an engine that judges beside this one (`learnLease`). */
  leaseShown?(session: string, lease: VerifiedLease): void;
}

export interface EngineOptions {
  readonly crypto: Crypto;
  readonly random: Random;
  readonly keyPair: KeyPair;
  readonly mode: "badge" | "wg";
  readonly mtuBytes: number;
  readonly sink: EngineSink;
  readonly leases: LeaseVerifier;
  /** By which handshakes are kept within their share of the thread's time. */
  readonly stopwatch: Stopwatch;
  /** The same without the time that other threads had the CPU. */
  readonly cpuStopwatch?: Stopwatch;
  /** TAI64N of the last initiation ever sent with this key, from the state file. */
  readonly lastTimestamp?: Uint8Array;
  /**
   * Asked of each packet that the filter lets in: by what rule of a gateway it may not go where it is sent all the
   * same. Undefined: it may.
   */
  readonly refuse?: (nowMs: number, buffer: Uint8Array, offset: number, length: number) => string | undefined;
}

/** Numbers of entries; of queues that each peer has one of, the longest. */
export interface Holdings {
  peers: number;
  receiverIndexes: number;
  handshakesWaiting: number;
  flows: number;
  localReplies: number;
  stagedOfOnePeer: number;
  heldOfOnePeer: number;
}

/** What inbound, outbound and the peer link share. */
export interface EngineParts {
  readonly device: Device<EnginePeer>;
  readonly filter: Filter;
  readonly routes: Routes<EnginePeer>;
  readonly counters: Counters;
  readonly sink: EngineSink;
  readonly mode: "badge" | "wg";
  readonly refuse: EngineOptions["refuse"];
  /** Own addresses and what is served for others. */
  local: PrefixTrie<true>;
  /** ICMP errors and resets to our own stack: delivered at the turn's end, never inside its own output call. */
  readonly localReplies: Ring<Uint8Array>;
  /** Flows that ended in this turn, at most FLOWS_MAX: told at its end, when nothing of the filter is running. */
  endedFlows: FlowRecord[];
  /** The record that the last judgement made, if it made one; taken by whoever judged. */
  denial: DenialRecord | undefined;
  state: DesiredState;
  /** Coordinator time − nowMs. */
  coordinatorOffsetMs: number;
}

const EMPTY: Omit<DesiredState, "mode"> = {
  epoch: 0,
  revision: -1,
  addresses: [],
  transit: [],
  filter: undefined,
  peers: [],
};

export class Engine {
  readonly #parts: EngineParts;
  readonly #inbound: Inbound;
  readonly #outbound: Outbound;
  readonly #link: LinkService;
  readonly #peers = new Map<string, EnginePeer>();

  constructor(options: EngineOptions) {
    const counters = new Counters();
    const filter = new Filter({
      random: options.random,
      sink: {
        denied: (record) => {
          this.#parts.denial = record;
        },
        flowEnded: (record) => this.#parts.endedFlows.push(record),
      },
    });
    const device = new Device<EnginePeer>({
      crypto: options.crypto,
      random: options.random,
      keyPair: options.keyPair,
      mtuBytes: options.mtuBytes,
      stopwatch: options.stopwatch,
      ...(options.cpuStopwatch === undefined ? {} : { cpuStopwatch: options.cpuStopwatch }),
      sink: this.#deviceSink(options.sink),
      ...(options.lastTimestamp === undefined ? {} : { lastTimestamp: options.lastTimestamp }),
    });
    this.#parts = {
      device,
      filter,
      routes: new Routes(options.mode),
      counters,
      sink: options.sink,
      mode: options.mode,
      refuse: options.refuse,
      local: new PrefixTrie(),
      localReplies: new Ring(LOCAL_REPLIES_MAX),
      endedFlows: [],
      denial: undefined,
      state: { ...EMPTY, mode: options.mode },
      coordinatorOffsetMs: 0,
    };
    if (options.mode === "wg") filter.allowAll();
    this.#link = new LinkService(this.#parts, options.leases);
    this.#inbound = new Inbound(this.#parts, this.#link);
    this.#outbound = new Outbound(this.#parts);
  }

  /**
   * Becomes what `state` says, in one turn. A peer that can't be (own key, low-order key) is left out and returned with
   * the reason.
   */
  apply(nowMs: number, state: DesiredState): { session: string; reason: string }[] {
    const { device, filter, routes } = this.#parts;
    const refused: { session: string; reason: string }[] = [];
    const wanted = new Map<string, DesiredPeer>();
    for (const peer of state.peers) {
      if (wanted.size < PEERS_MAX) wanted.set(peer.session, peer);
      else refused.push({ session: peer.session, reason: "TOO_MANY_PEERS" });
    }
    for (const [session, peer] of this.#peers) {
      const next = wanted.get(session);
      if (next === undefined || toBase64(next.publicKey) !== toBase64(peer.publicKey)) this.#remove(peer);
    }
    for (const desired of wanted.values()) {
      const reason = this.#addOrUpdate(nowMs, desired);
      if (reason !== undefined) refused.push({ session: desired.session, reason });
    }
    this.#parts.state = state;
    const local = new PrefixTrie<true>();
    for (const prefix of this.#localPrefixes(state)) local.set(prefix, true);
    this.#parts.local = local;
    routes.rebuild(this.#peers.values());
    if (state.filter !== undefined) {
      filter.apply(nowMs, state.filter);
      for (const session of state.filter.revoked) {
        const peer = this.#peers.get(session);
        if (peer !== undefined) device.expireSessions(peer.tunnel);
      }
    }
    for (const peer of this.#peers.values()) {
      const { leaseEndMs } = wanted.get(peer.session) ?? {};
      if (leaseEndMs !== undefined) filter.setRemoteLease(peer.slot, leaseEndMs);
    }
    return refused;
  }

  /** Our own lease, as the coordinator signed it: shown to every peer with a live tunnel. */
  setOwnLease(nowMs: number, lease: OwnLease): void {
    this.#parts.filter.setOwnLease(lease.endMs);
    this.#link.setOwnLease(nowMs, lease, this.#peers.values());
  }

  /** Our session is over: nothing passes any more, in either direction. */
  endOwnLease(): void {
    this.#parts.filter.setOwnLease(undefined);
  }

  /**
   * What another engine, which has the tunnels, was shown by that peer: this one then judges as it does. It never sends
   * nor receives a datagram itself.
   */
  learnLease(session: string, lease: VerifiedLease): void {
    const peer = this.#peers.get(session);
    if (peer?.lease.accept(lease, this.#parts.state.epoch) !== "accepted") return;
    this.#parts.filter.setRemoteLease(peer.slot, lease.endMs);
  }

  /** Coordinator time − nowMs, from the last authenticated control message. */
  setCoordinatorOffset(offsetMs: number): void {
    this.#parts.coordinatorOffsetMs = offsetMs;
    this.#parts.filter.setCoordinatorOffset(offsetMs);
  }

  handleDatagram(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number): void {
    this.#inbound.handleDatagram(nowMs, from, buffer, offset, length);
  }

  /** `buffer` has 32 bytes of room before `offset` and behind the packet; it is sealed in place. */
  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, length: number): void {
    this.#outbound.handlePacket(nowMs, buffer, offset, length);
  }

  /** The coordinator says that this peer tries to reach us: try its endpoints at once. */
  punch(nowMs: number, session: string): void {
    const peer = this.#peers.get(session);
    if (peer !== undefined && this.#isUnreached(nowMs, peer)) this.#parts.device.startHandshake(nowMs, peer.tunnel);
  }

  /**
   * No tunnel, or one over which nothing came of late: a session that still stands says nothing of a NAT at the other
   * end, which may have forgotten us, or of an end that was started anew.
   */
  #isUnreached(nowMs: number, peer: EnginePeer): boolean {
    return !peer.tunnel.hasSession(nowMs) || !peer.path.isFresh(nowMs);
  }

  handleTimeout(nowMs: number): void {
    this.#parts.device.handleTimeout(nowMs);
    this.#parts.filter.expire(nowMs);
    this.#link.handleTimeout(nowMs);
  }

  /**
   * At the turn's end: tells of the flows that ended in it. Telling may end more; the caller's turn goes on until none
   * is left.
   */
  settle(): boolean {
    const { endedFlows, sink } = this.#parts;
    if (endedFlows.length === 0) return false;
    this.#parts.endedFlows = [];
    for (const flow of endedFlows) {
      const peer = this.#peers.get(flow.session);
      if (peer !== undefined && !this.#parts.filter.hasFlows(peer.slot)) peer.keepOpen(false);
      sink.flowEnded(flow);
    }
    return true;
  }

  nextDeadlineMs(): number {
    const { device, filter } = this.#parts;
    return Math.min(device.nextDeadlineMs(), filter.nextDeadlineMs(), this.#link.nextDeadlineMs());
  }

  /** The answers that this turn made for our own stack, one at a time; undefined when there are none left. */
  takeLocalReply(): Uint8Array | undefined {
    return this.#parts.localReplies.shift();
  }

  get publicKey(): Uint8Array {
    return this.#parts.device.publicKey;
  }

  get filter(): Filter {
    return this.#parts.filter;
  }

  /** TAI64N of the last initiation sent, for the state file. */
  get lastTimestamp(): Uint8Array | undefined {
    return this.#parts.device.lastTimestamp;
  }

  /** Whether datagrams for some peer may go there; as long as there are peers. */
  isPeerEndpoint(endpoint: Endpoint): boolean {
    for (const { path } of this.#peers.values()) if (path.leadsTo(endpoint)) return true;
    return false;
  }

  /** The session that a packet from this inner source would come from. */
  sessionFor(address: { w0: number; w1: number; w2: number; w3: number }): string | undefined {
    return this.#parts.routes.peerFor(address.w0, address.w1, address.w2, address.w3)?.session;
  }

  /** The filter's number for a peer's session; undefined when it is no peer of ours. */
  slotOf(session: string): number | undefined {
    return this.#peers.get(session)?.slot;
  }

  /** The same, for an opening towards it that is judged before its first packet. */
  slotToward(nowMs: number, session: string): number | undefined {
    const peer = this.#peers.get(session);
    if (peer !== undefined && peer.kind !== "stock") this.#outbound.forgetEndedLease(nowMs, peer);
    return peer?.slot;
  }

  /** Tells that peer of a denial which a shell (gateway) decided. */
  tellDenial(nowMs: number, session: string, denial: DenialRecord): void {
    const peer = this.#peers.get(session);
    if (peer !== undefined) this.#link.tellDenial(nowMs, peer, denial);
  }

  status(): PeerStatus[] {
    const rows: PeerStatus[] = [];
    for (const peer of this.#peers.values()) {
      rows.push({
        session: peer.session,
        endpoint: peer.path.confirmed,
        lastHandshakeMs: peer.tunnel.lastHandshakeMs,
        receivedBytes: peer.tunnel.bytesIn + 0, // see DOUBLE_ZERO
        sentBytes: peer.tunnel.bytesOut + 0,
        leaseEndMs: peer.lease.remote?.endMs,
      });
    }
    return rows;
  }

  /** How full everything is that the network can fill; the bounds are in base/limits.ts. */
  holdings(): Holdings {
    const { device, filter, localReplies } = this.#parts;
    const holdings: Holdings = {
      peers: this.#peers.size,
      receiverIndexes: device.indexCount,
      handshakesWaiting: device.handshakesWaiting,
      flows: filter.flowCount,
      localReplies: localReplies.size,
      stagedOfOnePeer: 0,
      heldOfOnePeer: 0,
    };
    for (const { tunnel, lease } of this.#peers.values()) {
      holdings.stagedOfOnePeer = Math.max(holdings.stagedOfOnePeer, tunnel.stagedPackets);
      holdings.heldOfOnePeer = Math.max(holdings.heldOfOnePeer, lease.heldPackets);
    }
    return holdings;
  }

  counters(): Record<string, number> {
    const { device, filter, counters } = this.#parts;
    const all: Record<string, number> = { ...counters.values() };
    for (const [name, count] of Object.entries(device.counters)) if (count > 0) all[`wireguard-${name}`] = count;
    const { spentMs, longestMs, messages, longMessages } = device.handshakeWork;
    all["handshakes-messages"] = messages;
    all["handshakes-over-1ms"] = longMessages;
    all["handshakes-spent-ms"] = Math.round(spentMs);
    all["handshakes-longest-us"] = Math.round(longestMs * 1_000);
    for (const direction of ["inbound", "outbound"] as const) {
      for (const [name, count] of Object.entries(filter.counters[direction])) {
        if (count > 0) all[`filter-${direction}-${name}`] = count;
      }
    }
    return all;
  }

  #localPrefixes(state: DesiredState): Prefix[] {
    return [...state.addresses.map(hostPrefix), ...state.transit];
  }

  #addOrUpdate(nowMs: number, desired: DesiredPeer): string | undefined {
    const { device, filter } = this.#parts;
    const { presharedKey, persistentKeepaliveMs } = desired;
    const known = this.#peers.get(desired.session);
    if (known !== undefined) {
      const isMoved = known.update(desired);
      device.updatePeer(nowMs, known.tunnel, { presharedKey, persistentKeepaliveMs: known.keepaliveMs });
      // Looked for at once: until its silence were noticed, a short lease could end, and the flows with it.
      if (isMoved && known.tunnel.hasSession(nowMs)) device.startHandshake(nowMs, known.tunnel);
      return undefined;
    }
    const peer = new EnginePeer(desired, filter.slot(desired.session));
    const tunnel = device.addPeer(nowMs, {
      owner: peer,
      publicKey: desired.publicKey,
      ...(presharedKey === undefined ? {} : { presharedKey }),
    });
    if (typeof tunnel === "string") {
      filter.forgetSession(desired.session);
      return tunnel;
    }
    peer.tunnel = tunnel;
    this.#peers.set(desired.session, peer);
    // A persistent keepalive begins a handshake: only now is there a path for it.
    device.updatePeer(nowMs, tunnel, { persistentKeepaliveMs });
    return undefined;
  }

  #remove(peer: EnginePeer): void {
    const { device, filter } = this.#parts;
    device.removePeer(peer.publicKey);
    peer.lease.reset();
    this.#peers.delete(peer.session);
    filter.forgetSession(peer.session);
  }

  #deviceSink(sink: EngineSink): DeviceSink<EnginePeer> {
    return {
      sendDatagram: (nowMs, tunnel, to, kind, buffer, offset, length) => {
        if (to !== undefined) sink.sendDatagram(to, buffer, offset, length);
        else if (tunnel !== undefined) this.#sendToPeer(nowMs, tunnel.owner, kind, buffer, offset, length);
      },
      sessionStarted: (nowMs, tunnel) => {
        tunnel.owner.failed = false;
        tunnel.owner.sessionStartedMs = nowMs;
        this.#link.showOwnLease(nowMs, tunnel.owner);
        sink.tunnelUp(tunnel.owner.session, nowMs);
      },
      handshakeFailed: (_nowMs, tunnel) => {
        tunnel.owner.failed = true;
        sink.tunnelFailed(tunnel.owner.session);
      },
      endpointChanged: (nowMs, tunnel, endpoint) => tunnel.owner.path.confirm(nowMs, endpoint),
    };
  }

  #sendToPeer(
    nowMs: number,
    peer: EnginePeer,
    kind: MessageKind,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { sink, counters } = this.#parts;
    if (kind !== "initiation") {
      const endpoint = peer.path.forData();
      if (endpoint === undefined) counters.add("outbound-no-endpoint");
      else sink.sendDatagram(endpoint, buffer, offset, length);
      return;
    }
    const targets = peer.path.forInitiation(nowMs);
    if (this.#isUnreached(nowMs, peer)) sink.tunnelWanted(peer.session);
    if (targets.length === 0) counters.add("outbound-no-endpoint");
    for (const endpoint of targets) sink.sendDatagram(endpoint, buffer, offset, length);
  }
}
