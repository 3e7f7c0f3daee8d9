// Handshakes and packets between two packet loops of their own, before any real one: code that V8 has not yet compiled
// takes ten times as long, and a tunnel that carries little would be served by such code for minutes. A first reply
// came after 30 ms without it, and handshakes are rationed by the time they take. And packets between the same two
// loops whenever real ones have stopped for a moment: after 20 ms of rest a ping took 0.9 ms, so kept warm 0.4.
import { type Address, type Endpoint, hostPrefix, makeV4 } from "../base/address.ts";
import type { Random } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import { Engine } from "../engine/engine.ts";
import { quietSink } from "../engine/quiet-sink.ts";
import { cpuStopwatch, SystemClock, stopwatch } from "../io/clock.ts";
import type { DatagramSocket, PacketDevice, PacketMemory } from "../io/data-plane.ts";
import { writeIpHeader } from "../wire/ip-header.ts";
import { IPV4_HEADER_BYTES } from "../wire/ipv4.ts";
import { PROTOCOL_UDP } from "../wire/packet.ts";
import type { Sums } from "../wire/sums.ts";
import { UDP_HEADER_BYTES, writeUdpHeader } from "../wire/udp.ts";
import { type LoopPoller, PacketLoop } from "./packet-loop.ts";

const HANDSHAKES = 8;
const PACKETS_EACH_WAY = 60; // of each handshake's session
const PACKET_BYTES = 84; // a ping's
const MTU_BYTES = 1_280;
const APART_MS = 300_000; // each handshake is a new one
const PORT = 1;
const ROUNDS_MAX = 8; // of a packet that needs a handshake first
const ROUND_MS = 1; // an answer may be due so much later

/** One of two that reach each other: io/ffi/warm-ends.ts, in tests its twin in memory. */
export interface WarmEnd {
  readonly tun: PacketDevice;
  readonly udp: DatagramSocket;
  /** Never waits. */
  readonly poller: LoopPoller;
  /** Where the other one sends to. */
  readonly endpoint: Endpoint;
  /** As the host's kernel would hand it over. */
  hostSends(packet: Uint8Array): void;
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
  /** One more packet, some 30 µs: what it needs is in the caches again. */
  readonly keepWarm: () => void;
}

/** Some 100 ms of work. Of its keys none is kept but those of the last two sessions. */
export function warmUp(parts: WarmUpParts): WarmUp {
  const { crypto, random } = parts;
  let nowMs = APART_MS;
  const clock = new SystemClock(
    () => nowMs,
    () => nowMs,
  );
  const keys = [newKeyPair(crypto, random), newKeyPair(crypto, random)] as const;
  const ends = [new End(parts, clock, keys, 0), new End(parts, clock, keys, 1)] as const;
  let delivered = 0;
  const pass = (from: 0 | 1, roundMs: number): void => {
    const [sender, receiver] = [ends[from], ends[1 - from]!];
    sender.end.hostSends(sender.packet);
    for (let round = 0; round < ROUNDS_MAX; round++) {
      sender.loop.round();
      receiver.loop.round();
      if (receiver.end.hostReceives()) {
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
      pass(packet % 2 === 0 ? first : second, ROUND_MS);
    }
  }
  let turn = 0;
  return {
    get delivered() {
      return delivered;
    },
    keepWarm: () => pass(turn++ % 2 === 0 ? 0 : 1, 0), // within the last session, which then never ends
  };
}

const innerOf = (end: number): Address => makeV4(0x0a000001 + end);

class End {
  readonly end: WarmEnd;
  readonly loop: PacketLoop;
  readonly packet: Uint8Array;

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
    this.packet = packetBetween(innerOf(own), innerOf(other));
  }
}

function packetBetween({ w3: source }: Address, { w3: destination }: Address): Uint8Array {
  const packet = new Uint8Array(PACKET_BYTES);
  const udpBytes = PACKET_BYTES - IPV4_HEADER_BYTES;
  writeIpHeader(packet, 0, 4, udpBytes, PROTOCOL_UDP, 0, 0, 0xffff, source, 0, 0, 0xffff, destination);
  writeUdpHeader(packet, PACKET_BYTES - udpBytes, PORT, PORT, udpBytes); // no checksum, as IPv4 allows
  return packet.fill(1, IPV4_HEADER_BYTES + UDP_HEADER_BYTES);
}

function newKeyPair(crypto: Crypto, random: Random): KeyPair {
  const privateKey = new Uint8Array(32);
  random.fill(privateKey);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
}
