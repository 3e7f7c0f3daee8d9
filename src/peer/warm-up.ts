// Handshakes and packets between two packet loops of their own, before any real one: code that V8 has not yet compiled
// takes ten times as long, and a tunnel that carries little would be served by such code for minutes. A first reply
// came after 30 ms without it, and handshakes are rationed by the time they take. And packets between the same two
// loops whenever real ones have stopped for a moment: after 20 ms of rest a ping took 0.9 ms, so kept warm 0.4. And a
// TCP stream in super-packets, both ways: the first 5 s of a real one took 13 % more of the CPU than the next.
import { type Address, type Endpoint, hostPrefix, makeV4 } from "../base/address.ts";
import { writeU16, writeU32 } from "../base/bytes.ts";
import type { Random } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import { Engine } from "../engine/engine.ts";
import { quietSink } from "../engine/quiet-sink.ts";
import { cpuStopwatch, SystemClock, stopwatch } from "../io/clock.ts";
import type { DatagramSocket, PacketDevice, PacketMemory } from "../io/data-plane.ts";
import { foldChecksum, sumPseudoHeader } from "../wire/checksum.ts";
import { writeIpHeader } from "../wire/ip-header.ts";
import { IPV4_HEADER_BYTES } from "../wire/ipv4.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP, TCP_ACK } from "../wire/packet.ts";
import type { Sums } from "../wire/sums.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES, writeTcpHeader } from "../wire/tcp.ts";
import { UDP_HEADER_BYTES, writeUdpHeader } from "../wire/udp.ts";
import { GSO_NONE, GSO_TCP4, VNET_HEADER_BYTES, VNET_NEEDS_CHECKSUM, writeVnetHeader } from "../wire/vnet-header.ts";
import { type LoopPoller, PacketLoop } from "./packet-loop.ts";

const HANDSHAKES = 8;
const PACKETS_EACH_WAY = 60; // of each handshake's session
const PACKET_BYTES = 84; // a ping's
const MTU_BYTES = 1_280;
const APART_MS = 300_000; // each handshake is a new one
const LIKE_NOW_MS = 2 ** 41 + 0.5; // what is compiled for small integers is of no use for real times
const PORT = 1;
const ROUNDS_MAX = 8; // of a packet that needs a handshake first
const ROUND_MS = 1; // an answer may be due so much later
const SUPER_PACKETS = 400; // in all; after every second one an acknowledgment comes the other way
const SEGMENTS = 32; // of a super-packet
const TCP_OPTIONS = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]; // NOP, NOP, timestamps, as Linux sends them (RFC 7323)
const SEGMENT_BYTES = MTU_BYTES - IPV4_HEADER_BYTES - TCP_HEADER_BYTES - TCP_OPTIONS.length;
const FIRST_SEQUENCE = 2 ** 32 - (SUPER_PACKETS * SEGMENTS * SEGMENT_BYTES) / 2; // passes all that 32 bits can hold

/** One of two that reach each other: io/ffi/warm-ends.ts, in tests its twin in memory. */
export interface WarmEnd {
  readonly tun: PacketDevice;
  readonly udp: DatagramSocket;
  /** Never waits. */
  readonly poller: LoopPoller;
  /** Where the other one sends to. */
  readonly endpoint: Endpoint;
  /** A packet with its vnet header before it, as the host's kernel would hand it over. */
  hostSends(frame: Uint8Array): void;
  /** Whether there was one, which then is gone. */
  hostReceives(): boolean;
}

export interface WarmUpParts {
  readonly crypto: Crypto;
  readonly random: Random;
  /** Where the ends' packets lie. */
  readonly memory: PacketMemory;
  readonly sums: Sums | undefined;
  readonly ends: readonly [WarmEnd, WarmEnd];
}

/** What it takes of that memory, besides its ends. */
export const WARM_UP_ARENA_BYTES = 2 * PacketLoop.arenaBytes;

export interface WarmUp {
  /** Packets that arrived, for its test. */
  readonly delivered: number;
  /** A part of what is left to do, a stream: about 1 ms. Whether there is more. */
  goOn(): boolean;
  /** One more packet, some 30 µs: what it needs is in the caches again. */
  keepWarm(): void;
}

/**
 * Some 100 ms of work, and `goOn` for when there is time. Of its keys none is kept but those of the last two sessions.
 */
export function warmUp(parts: WarmUpParts): WarmUp {
  const { crypto, random } = parts;
  let nowMs = LIKE_NOW_MS;
  const clock = new SystemClock(
    () => nowMs,
    () => nowMs,
  );
  const keys = [newKeyPair(crypto, random), newKeyPair(crypto, random)] as const;
  const ends = [new End(parts, clock, keys, 0), new End(parts, clock, keys, 1)] as const;
  let delivered = 0;
  const pass = (from: 0 | 1, frame: Uint8Array, roundMs: number): void => {
    const [sender, receiver] = [ends[from], ends[1 - from]!];
    sender.end.hostSends(frame);
    for (let round = 0; round < ROUNDS_MAX; round++) {
      sender.loop.round();
      receiver.loop.round();
      if (receiver.end.hostReceives()) {
        while (receiver.end.hostReceives());
        delivered++;
        return;
      }
      nowMs += roundMs;
    }
  };
  for (let handshake = 0; handshake < HANDSHAKES; handshake++) {
    nowMs += APART_MS;
    const [first, second] = handshake % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const);
    for (let packet = 0; packet < 2 * PACKETS_EACH_WAY; packet++) {
      const from = packet % 2 === 0 ? first : second;
      pass(from, ends[from].packet, ROUND_MS);
    }
  }
  let superPackets = 0;
  let turn = 0;
  return {
    get delivered() {
      return delivered;
    },
    goOn() {
      const [from, to] = superPackets % 4 < 2 ? ([0, 1] as const) : ([1, 0] as const);
      pass(from, ends[from].nextOfStream(), 0);
      if (superPackets % 2 === 0) pass(to, ends[to].acknowledgment, 0);
      return ++superPackets < SUPER_PACKETS;
    },
    keepWarm() {
      const from = turn++ % 2 === 0 ? 0 : 1;
      pass(from, ends[from].packet, 0); // within the last session, which then never ends
    },
  };
}

const innerOf = (end: number): Address => makeV4(0x0a000001 + end);

class End {
  readonly end: WarmEnd;
  readonly loop: PacketLoop;
  readonly packet: Uint8Array;
  readonly acknowledgment: Uint8Array;
  readonly #superPacket: Uint8Array;
  #sequence = FIRST_SEQUENCE;

  constructor(
    { crypto, random, memory, sums, ends }: WarmUpParts,
    clock: SystemClock,
    keys: readonly KeyPair[],
    own: 0 | 1,
  ) {
    const other = own === 0 ? 1 : 0;
    this.end = ends[own];
    this.loop = new PacketLoop({
      memory,
      sums,
      tun: this.end.tun,
      v4: this.end.udp,
      v6: undefined,
      poller: this.end.poller,
      clock,
      aside: undefined,
      onWake: () => undefined,
      onLost: () => undefined,
    });
    const engine = new Engine({
      crypto,
      random,
      keyPair: keys[own]!,
      mode: "wg",
      mtuBytes: MTU_BYTES,
      stopwatch,
      cpuStopwatch,
      leases: { verify: () => undefined },
      sink: {
        ...this.loop.engineSink,
        ...quietSink,
      },
    });
    this.loop.attach(engine);
    engine.apply(clock.nowMs(), {
      epoch: 0,
      revision: 1,
      mode: "wg",
      addresses: [],
      transit: [],
      filter: undefined,
      peers: [
        {
          session: "peer",
          publicKey: keys[other]!.publicKey,
          kind: "stock",
          prefixes: [hostPrefix(innerOf(other))],
          endpoints: [ends[other].endpoint],
        },
      ],
    });
    this.packet = datagramBetween(innerOf(own), innerOf(other));
    this.#superPacket = segmentsBetween(innerOf(own), innerOf(other), SEGMENTS);
    this.acknowledgment = segmentsBetween(innerOf(own), innerOf(other), 0);
  }

  /** One more super-packet of its stream. */
  nextOfStream(): Uint8Array {
    writeU32(this.#superPacket, TCP_AT + 4, this.#sequence >>> 0);
    this.#sequence += SEGMENTS * SEGMENT_BYTES;
    return this.#superPacket;
  }
}

const IP_AT = VNET_HEADER_BYTES;
const TCP_AT = IP_AT + IPV4_HEADER_BYTES;

function writeIpv4(frame: Uint8Array, protocol: number, { w3: source }: Address, { w3: destination }: Address): void {
  const payloadBytes = frame.length - TCP_AT;
  writeIpHeader(frame, IP_AT, 4, payloadBytes, protocol, 0, 0, 0xffff, source, 0, 0, 0xffff, destination);
}

function datagramBetween(source: Address, destination: Address): Uint8Array {
  const frame = new Uint8Array(VNET_HEADER_BYTES + PACKET_BYTES);
  const udpBytes = PACKET_BYTES - IPV4_HEADER_BYTES;
  writeIpv4(frame, PROTOCOL_UDP, source, destination);
  writeUdpHeader(frame, TCP_AT, PORT, PORT, udpBytes); // no checksum, as IPv4 allows
  return frame.fill(1, TCP_AT + UDP_HEADER_BYTES);
}

/** So many segments of a TCP stream as the host leaves them to its device; none: an acknowledgment. */
function segmentsBetween(source: Address, destination: Address, segments: number): Uint8Array {
  const tcpHeaderBytes = TCP_HEADER_BYTES + TCP_OPTIONS.length;
  const frame = new Uint8Array(TCP_AT + tcpHeaderBytes + segments * SEGMENT_BYTES).fill(1);
  const gsoType = segments === 0 ? GSO_NONE : GSO_TCP4;
  const gsoBytes = segments === 0 ? 0 : SEGMENT_BYTES;
  const headerBytes = IPV4_HEADER_BYTES + tcpHeaderBytes;
  writeVnetHeader(frame, 0, VNET_NEEDS_CHECKSUM, gsoType, headerBytes, gsoBytes, IPV4_HEADER_BYTES, TCP_CHECKSUM_AT);
  writeIpv4(frame, PROTOCOL_TCP, source, destination);
  writeTcpHeader(frame, TCP_AT, PORT, PORT, FIRST_SEQUENCE, FIRST_SEQUENCE, tcpHeaderBytes, TCP_ACK, 0xffff);
  frame.set(TCP_OPTIONS, TCP_AT + TCP_HEADER_BYTES);
  const { w3: from } = source;
  const { w3: to } = destination;
  const sum = sumPseudoHeader(0, 0, 0xffff, from, 0, 0, 0xffff, to, PROTOCOL_TCP, frame.length - TCP_AT);
  writeU16(frame, TCP_AT + TCP_CHECKSUM_AT, ~foldChecksum(sum)); // the pseudo-header's alone, not complemented
  return frame;
}

function newKeyPair(crypto: Crypto, random: Random): KeyPair {
  const privateKey = new Uint8Array(32);
  random.fill(privateKey);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
}
