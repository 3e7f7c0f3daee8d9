// The poll driver: one thread that waits in poll(2) for its TUN device, its UDP sockets and a wake-up from the main
// thread, and does all packet work itself. No timer, promise or event of Node runs between two rounds: what the main
// thread wants is taken from its port after a wake-up (peer/data-thread.ts).
//   out: TUN → split → engine (filter, seal, in place) → runs of equal datagrams → sendmmsg with UDP_SEGMENT
//   in:  recvmmsg with UDP_GRO → engine (open, filter, in place) → merge → TUN
// All packets lie in one arena and are named by their offsets in it.
import { type Endpoint, makeAddress, makeV4 } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { readU16, readU32 } from "../base/bytes.ts";
import { DOUBLE_ZERO } from "../base/double-zero.ts";
import { READS_FAIL_MAX_MS } from "../base/limits.ts";
import type { Engine, EngineSink } from "../engine/engine.ts";
import type { Clock } from "../io/clock.ts";
import type { DatagramSocket, PacketDevice, PacketMemory } from "../io/data-plane.ts";
import { DatagramRuns, type RunCounters } from "../io/datagram-runs.ts";
import { EBADF, EBADFD, errnoName } from "../io/ffi/errno.ts";
import { POLLERR, POLLHUP, POLLIN, POLLNVAL } from "../io/ffi/poller.ts";
import { IPV4_OFFSET_MASK } from "../wire/ipv4.ts";
import { IPV6_HEADER_BYTES } from "../wire/ipv6.ts";
import { Merger } from "../wire/merge.ts";
import { PROTOCOL_UDP } from "../wire/packet.ts";
import { type SplitDrop, Splitter } from "../wire/split.ts";
import type { Sums } from "../wire/sums.ts";
import { UDP_HEADER_BYTES } from "../wire/udp.ts";
import { VNET_HEADER_BYTES } from "../wire/vnet-header.ts";

/** What it waits on, in this order: wake-up, TUN, IPv4, IPv6. */
export interface LoopPoller {
  wait(timeoutMs: number): number;
  events(index: number): number;
}

/** What goes neither between tunnels and the device nor into the engine. */
export interface LoopAside {
  /** True: it was no WireGuard message, and is dealt with. */
  takeDatagram(bytes: Uint8Array, offset: number, length: number): boolean;
  /** Whether a packet, out of a tunnel or from the host, is for the userspace stack. */
  isForStack(buffer: Uint8Array, offset: number, length: number): boolean;
  /** The bytes are valid during the call only. */
  giveToStack(buffer: Uint8Array, offset: number, length: number): void;
  /** A packet of the host's, before the engine has it: of what it forwards, a SYN offers what the tunnel takes. */
  clamp(buffer: Uint8Array, offset: number, length: number): void;
  /** At a round's end. */
  flush(): void;
}

/** See `warmUp`. */
export interface LoopWarmth {
  /** Called whenever nothing else is to be done, for as long as it says that there is more. */
  goOn(): boolean;
  /** Called every few milliseconds while packets pass. */
  keepWarm(): void;
}

export interface PacketLoopParts {
  /** The arena that the device and the sockets use too. */
  readonly memory: PacketMemory;
  /** What payloads are summed by; plain TypeScript when absent. */
  readonly sums?: Sums | undefined;
  readonly tun: PacketDevice;
  readonly v4: DatagramSocket | undefined;
  readonly v6: DatagramSocket | undefined;
  readonly poller: LoopPoller;
  readonly clock: Clock;
  readonly aside?: LoopAside | undefined;
  /** What keeps code and data in the caches; nothing when absent. */
  readonly warm?: LoopWarmth | undefined;
  /** The main thread wants something. */
  readonly onWake: () => void;
  /** The device or a socket is gone for good: by what errno. */
  readonly onLost: (what: "tun" | "udp", errno: number) => void;
}

const AT_WAKE = 0;
const AT_TUN = 1;
const AT_SOCKETS = 2;

const POLL_MAX_MS = 1_000; // an exit that could not wake this thread waits no longer
// A packet that comes after 20 ms of rest takes thrice as long as one after 2: its code has left the caches.
const KEEP_WARM_SOON_MS = 1; // apart, in the first few milliseconds after a packet
const KEEP_WARM_SOON_FOR_MS = 5;
const KEEP_WARM_LATER_MS = 4; // apart, after those
const KEEP_WARM_FOR_MS = 60;
const TUN_READS_MAX = 32; // of a round: then UDP has its turn
const TUN_READ_BYTES_MAX = 1 << 18; // as well: a ping's answer waits behind no more
const SUPER_PACKET_BYTES = VNET_HEADER_BYTES + 65_535;
const SEND_BYTES = 1 << 19;
// A super-packet's pieces, each at most this much larger, fit behind any offset below the rest.
const SPLIT_MAX_BYTES = 1 << 18;
const FLUSH_BYTES = 1 << 16; // what is sealed goes out before more is read: the other core has work sooner
const SIDE_BYTES = 1 << 17; // packets that come from elsewhere than the arena
const ROOM_BYTES = 64; // around a packet or datagram: headers before, padding and tag behind
const SETTLE_ROUNDS_MAX = 1_000;

export interface PacketLoopCounters extends RunCounters {
  rounds: number;
  warmRounds: number;
  tunReads: number;
  tunWrites: number;
  datagramsIn: number;
  /** Our own datagrams, which the host routed into the device. */
  ownDatagrams: number;
  [drop: `split-${string}`]: number;
  /** Calls that failed, by errno's name; a packet that could not be written is lost. */
  [failure: `tun-${"read" | "write"}-${string}`]: number;
}

export class PacketLoop {
  readonly counters: PacketLoopCounters = {
    rounds: 0,
    warmRounds: 0,
    tunReads: 0,
    tunWrites: 0,
    datagramsIn: 0,
    datagramsOut: 0,
    runsOut: 0,
    noFamily: 0,
    ownDatagrams: 0,
  };
  readonly #parts: PacketLoopParts;
  readonly #splitter: Splitter;
  readonly #merger: Merger;
  readonly #bytes: Uint8Array;
  readonly #readAt: number;
  readonly #runs: DatagramRuns;
  readonly #sideInStart: number;
  #engine: Engine | undefined;
  #stopped = false;
  #nowMs = DOUBLE_ZERO;
  #isWarmingUp = true;
  #sideInAt: number;
  /** When a packet was last read from the device or written to it. */
  #packetMs = Number.NEGATIVE_INFINITY;
  readonly #ownPort: number;
  /** By the poller's places: since when it has been ready and each call failed; 0: the last one did not. */
  readonly #failingSinceMs = new Float64Array(AT_SOCKETS + 2);

  constructor(parts: PacketLoopParts) {
    this.#parts = parts;
    this.#bytes = parts.memory.bytes;
    this.#nowMs = parts.clock.nowMs();
    this.#ownPort = (parts.v4 ?? parts.v6)?.port ?? 0;
    this.#readAt = parts.memory.allocateAt(SUPER_PACKET_BYTES + ROOM_BYTES) + 2; // its packet at a multiple of four
    const { memory, v4, v6 } = parts;
    this.#runs = new DatagramRuns({
      memory,
      v4,
      v6,
      counters: this.counters,
      sendBytes: SEND_BYTES,
      reserveBytes: SPLIT_MAX_BYTES,
    });
    this.#sideInStart = parts.memory.allocateAt(SIDE_BYTES + ROOM_BYTES);
    this.#sideInAt = this.#sideInStart;
    this.#splitter = new Splitter(parts.sums);
    const write = (offsets: Int32Array, lengths: Int32Array, count: number): void =>
      this.#write(offsets, lengths, count);
    this.#merger = new Merger(parts.memory.bytes, { uso: parts.tun.offloads.uso, write }, parts.sums);
  }

  /** What the loop takes of the arena. */
  static readonly arenaBytes =
    SUPER_PACKET_BYTES + DatagramRuns.arenaBytes(SEND_BYTES) + SIDE_BYTES + 4 * ROOM_BYTES + 4_096;

  /** The engine needs the loop's sink, the loop the engine. */
  attach(engine: Engine): void {
    this.#engine = engine;
  }

  /** The part of the engine's sink that moves bytes. */
  readonly engineSink: Pick<EngineSink, "sendDatagram" | "deliverPacket"> = {
    sendDatagram: (to, buffer, offset, length) => this.#runs.send(to, buffer, offset, length),
    deliverPacket: (_session, buffer, offset, length) => this.#deliver(buffer, offset, length),
  };

  /** Until `stop`. */
  run(): void {
    while (!this.#stopped) this.round();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Waits until there is something to do, or the engine's next deadline, and does it. */
  round(): void {
    const { poller, clock, onWake } = this.#parts;
    const warmMs = this.#warmMs();
    const ready = poller.wait(Math.min(this.#timeoutMs(), warmMs));
    this.#nowMs = clock.nowMs();
    if (warmMs !== Number.POSITIVE_INFINITY && ready === 0) this.#warm();
    else this.counters.rounds++;
    if ((poller.events(AT_WAKE) & POLLIN) !== 0) onWake();
    const engine = this.#engine;
    if (engine === undefined || this.#stopped) return;
    this.#receive(AT_SOCKETS, this.#parts.v4);
    this.#receive(AT_SOCKETS + 1, this.#parts.v6);
    this.#merger.flush();
    this.#readTun();
    if (this.#nowMs >= engine.nextDeadlineMs()) engine.handleTimeout(this.#nowMs);
    this.settle();
  }

  /** At a round's end, or after the engine was told something: everything that it made goes out. */
  settle(): void {
    const engine = this.#engine;
    if (engine === undefined) return;
    let rounds = 0;
    do {
      assert(++rounds <= SETTLE_ROUNDS_MAX, "a round settles");
      for (let reply = engine.takeLocalReply(); reply !== undefined; reply = engine.takeLocalReply()) {
        this.#deliver(reply, 0, reply.length);
      }
    } while (engine.settle());
    this.#merger.flush();
    this.#sideInAt = this.#sideInStart;
    this.#runs.flush();
    this.#parts.aside?.flush();
  }

  nowMs(): number {
    return this.#nowMs;
  }

  /** A datagram of somebody else's making, by the same sockets; goes out when the round settles. */
  sendDatagram(to: Endpoint, bytes: Uint8Array): void {
    this.#runs.send(to, bytes, 0, bytes.length);
  }

  /** A packet of the userspace stack, into a tunnel as if the host had sent it. */
  sendPacket(buffer: Uint8Array, offset: number, length: number): void {
    const at = this.#runs.placeForPacket();
    this.#bytes.set(buffer.subarray(offset, offset + length), at);
    this.#engine?.handlePacket(this.#nowMs, this.#bytes, at, length);
  }

  /** A packet of the userspace stack to the host itself. */
  deliverToHost(buffer: Uint8Array, offset: number, length: number): void {
    if (buffer === this.#bytes) return this.#merger.add(offset, length);
    if (this.#sideInAt + ROOM_BYTES + length > this.#sideInStart + SIDE_BYTES) {
      this.#merger.flush();
      this.#sideInAt = this.#sideInStart;
    }
    const at = this.#sideInAt + ROOM_BYTES;
    this.#bytes.set(buffer.subarray(offset, offset + length), at);
    this.#sideInAt = (at + length + 3) & ~3;
    this.#merger.add(at, length);
  }

  /** How long to wait at most before the code is warmed. */
  #warmMs(): number {
    if (this.#parts.warm === undefined) return Number.POSITIVE_INFINITY;
    if (this.#isWarmingUp) return 0;
    const restedMs = this.#nowMs - this.#packetMs;
    if (restedMs >= KEEP_WARM_FOR_MS) return Number.POSITIVE_INFINITY;
    return restedMs < KEEP_WARM_SOON_FOR_MS ? KEEP_WARM_SOON_MS : KEEP_WARM_LATER_MS;
  }

  #warm(): void {
    this.counters.warmRounds++;
    if (this.#isWarmingUp) this.#isWarmingUp = this.#parts.warm?.goOn() === true;
    else this.#parts.warm?.keepWarm();
  }

  /** From this round's time, which saves a look at the clock: later by what the round took. */
  #timeoutMs(): number {
    const dueMs = this.#engine?.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
    if (dueMs === Number.POSITIVE_INFINITY) return POLL_MAX_MS;
    return Math.max(0, Math.min(POLL_MAX_MS, Math.ceil(dueMs - this.#nowMs)));
  }

  // ── out ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #readTun(): void {
    const { tun, poller, onLost } = this.#parts;
    if (poller.events(AT_TUN) === 0) {
      this.#failingSinceMs[AT_TUN] = 0;
      return;
    }
    for (let reads = 0, bytes = 0; reads < TUN_READS_MAX && bytes < TUN_READ_BYTES_MAX; reads++) {
      const length = tun.read(this.#readAt, SUPER_PACKET_BYTES);
      if (length < 0) {
        this.#count(`tun-read-${errnoName(length)}`);
        if (this.#isGone(AT_TUN, -length, POLLERR | POLLHUP | POLLNVAL)) onLost("tun", -length);
        return;
      }
      this.#failingSinceMs[AT_TUN] = 0;
      if (length === 0) return;
      bytes += length;
      this.counters.tunReads++;
      this.#packetMs = this.#nowMs;
      if (this.#isOwnDatagram(length)) this.counters.ownDatagrams += this.#piecesOf(length);
      else this.#splitAndSend(length);
      if (this.#runs.unflushedBytes < FLUSH_BYTES) continue;
      const waits = this.#sendWaits();
      this.#runs.flush();
      if (this.#sendWaits() !== waits) return; // each waits long: what comes in has its turn in between
    }
  }

  /** How often sending had to wait for room. */
  #sendWaits(): number {
    const { v4, v6 } = this.#parts;
    return (v4?.counters["send-waits"] ?? 0) + (v6?.counters["send-waits"] ?? 0);
  }

  /** A failure may pass; but not that of what is no longer there, or that fails on and on. */
  #isGone(index: number, errno: number, signs: number): boolean {
    if (errno === EBADF || errno === EBADFD || (this.#parts.poller.events(index) & signs) !== 0) return true;
    const sinceMs = this.#failingSinceMs[index]!;
    if (sinceMs !== 0) return this.#nowMs - sinceMs >= READS_FAIL_MAX_MS;
    this.#failingSinceMs[index] = this.#nowMs;
    return false;
  }

  /**
   * Where a route of the host leads a peer's endpoint into the device, each datagram would come back to be sealed
   * again, without end. UDP from our port to an endpoint of a peer is taken for it. A later fragment of one shows no
   * port: it is sealed once more, into a datagram that is small enough to be seen here.
   */
  #isOwnDatagram(length: number): boolean {
    const bytes = this.#bytes;
    const at = this.#readAt + VNET_HEADER_BYTES;
    const version = bytes[at]! >>> 4;
    if (bytes[at + (version === 4 ? 9 : 6)] !== PROTOCOL_UDP) return false;
    const udpAt = at + (version === 4 ? (bytes[at]! & 0xf) * 4 : IPV6_HEADER_BYTES);
    if (udpAt + UDP_HEADER_BYTES > this.#readAt + length || readU16(bytes, udpAt) !== this.#ownPort) return false;
    if (version === 4 && (readU16(bytes, at + 6) & IPV4_OFFSET_MASK) !== 0) return false;
    const address =
      version === 4
        ? makeV4(readU32(bytes, at + 16))
        : makeAddress(
            readU32(bytes, at + 24),
            readU32(bytes, at + 28),
            readU32(bytes, at + 32),
            readU32(bytes, at + 36),
          );
    return this.#engine!.isPeerEndpoint({ address, port: readU16(bytes, udpAt + 2) });
  }

  /** Of a run of datagrams, which the device gives as one packet; what can't be split is one. */
  #piecesOf(length: number): number {
    return this.#splitter.begin(this.#bytes, this.#readAt, length) === undefined ? this.#splitter.pieces : 1;
  }

  #splitAndSend(length: number): void {
    const splitter = this.#splitter;
    const drop = splitter.begin(this.#bytes, this.#readAt, length);
    if (drop !== undefined) return this.#count(`split-${drop}`);
    const engine = this.#engine!;
    const { pieces } = splitter;
    const { aside } = this.#parts;
    const packetAt = this.#readAt + VNET_HEADER_BYTES;
    const isForStack = aside?.isForStack(this.#bytes, packetAt, length - VNET_HEADER_BYTES) === true;
    for (let piece = 0; piece < pieces; piece++) {
      const at = this.#runs.placeForPacket();
      const pieceBytes = splitter.write(piece, this.#bytes, at);
      if (isForStack) aside.giveToStack(this.#bytes, at, pieceBytes);
      else {
        aside?.clamp(this.#bytes, at, pieceBytes);
        engine.handlePacket(this.#nowMs, this.#bytes, at, pieceBytes);
      }
    }
  }

  #count(name: `split-${SplitDrop}` | `tun-${"read" | "write"}-${string}`): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }

  // ── in ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #receive(index: number, socket: DatagramSocket | undefined): void {
    if (socket === undefined) return;
    const { poller, onLost } = this.#parts;
    if (poller.events(index) === 0) {
      this.#failingSinceMs[index] = 0;
      return;
    }
    const engine = this.#engine!;
    const { aside } = this.#parts;
    const messages = socket.receive();
    if (messages < 0) {
      // POLLERR is no sign: an error that came back for something sent is told once, and the socket lives on.
      if (this.#isGone(index, -messages, POLLHUP | POLLNVAL)) onLost("udp", -messages);
      return;
    }
    this.#failingSinceMs[index] = 0;
    for (let message = 0; message < messages; message++) {
      const from = socket.source(message);
      const segmentBytes = socket.segmentBytes(message);
      let at = socket.messageAt(message);
      const end = at + socket.messageBytes(message);
      for (; at < end; at += segmentBytes) {
        this.counters.datagramsIn++;
        const length = Math.min(segmentBytes, end - at);
        if (aside?.takeDatagram(this.#bytes, at, length) === true) continue;
        engine.handleDatagram(this.#nowMs, from, this.#bytes, at, length);
      }
    }
    this.#merger.flush(); // the next receive uses the same places
  }

  #deliver(buffer: Uint8Array, offset: number, length: number): void {
    const { aside } = this.#parts;
    if (aside?.isForStack(buffer, offset, length) === true) aside.giveToStack(buffer, offset, length);
    else this.deliverToHost(buffer, offset, length);
  }

  #write(offsets: Int32Array, lengths: Int32Array, count: number): void {
    const { tun } = this.#parts;
    const written = count === 1 ? tun.write(offsets[0]!, lengths[0]!) : tun.writev(offsets, lengths, count);
    if (written < 0) this.#count(`tun-write-${errnoName(written)}`);
    else {
      this.counters.tunWrites++;
      this.#packetMs = this.#nowMs;
    }
  }
}
