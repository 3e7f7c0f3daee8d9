// Handshakes and packets between two packet loops in memory, before any real one: code that V8 has not yet compiled
// takes ten times as long, and a tunnel that carries little would be served by such code for minutes. A first reply
// came after 30 ms without it, and handshakes are rationed by the time they take. And packets between the same two
// loops whenever real ones have stopped for a moment: after 20 ms of rest a ping took 0.9 ms, so kept warm 0.5.
import { type Address, hostPrefix, makeV4 } from "../base/address.ts";
import type { Random } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import { Engine } from "../engine/engine.ts";
import { quietSink } from "../engine/quiet-sink.ts";
import { cpuStopwatch, stopwatch } from "../io/clock.ts";
import { MemoryTun } from "../io/memory-tun.ts";
import { MemoryUdpNetwork, type MemoryUdpSocket } from "../io/memory-udp-socket.ts";
import { plainMemory } from "../io/plain-memory.ts";
import { writeIpHeader } from "../wire/ip-header.ts";
import { IPV4_HEADER_BYTES } from "../wire/ipv4.ts";
import { PROTOCOL_UDP } from "../wire/packet.ts";
import { UDP_HEADER_BYTES, writeUdpHeader } from "../wire/udp.ts";
import { PacketLoop } from "./packet-loop.ts";

const HANDSHAKES = 8;
const PACKETS_EACH_WAY = 60; // of each handshake's session
const PACKET_BYTES = 84; // a ping's
const MTU_BYTES = 1_280;
const APART_MS = 300_000; // each handshake is a new one
const PORT = 1;
const MEMORY_BYTES = 1 << 20;
const SLOT_BYTES = 1 << 16;

export interface WarmUp {
  /** Packets that arrived, for its test. */
  readonly delivered: number;
  /** One more packet, some 20 µs: what it needs is in the caches again. */
  readonly keepWarm: () => void;
}

/** Some 100 ms of work; nothing of it is on any wire, and of its keys none is kept but those of the last two ends. */
export function warmUp(crypto: Crypto, random: Random): WarmUp {
  let nowMs = APART_MS;
  const network = new MemoryUdpNetwork();
  const keys = [newKeyPair(crypto, random), newKeyPair(crypto, random)] as const;
  const end = (own: 0 | 1): End => new End(crypto, random, network, () => nowMs, keys, own);
  const ends = [end(0), end(1)] as const;
  const pass = (from: End): void => {
    from.tun.kernelSends(from.packet);
    for (let rounds = 0; rounds < 3 && isBusy(ends); rounds++) for (const { loop } of ends) loop.round();
  };
  let delivered = 0;
  for (let handshake = 0; handshake < HANDSHAKES; handshake++, nowMs += APART_MS) {
    for (let packet = 0; packet < PACKETS_EACH_WAY; packet++) {
      for (const from of handshake % 2 === 0 ? ends : [...ends].reverse()) pass(from);
      for (const { tun } of ends) while (tun.kernelReceives() !== undefined) delivered++;
    }
  }
  nowMs -= APART_MS; // back to the last session, which then never ends
  let turn = 0;
  const keepWarm = (): void => {
    const from = ends[turn++ & 1]!;
    pass(from);
    for (const { tun } of ends) while (tun.kernelReceives() !== undefined) delivered++;
  };
  return {
    get delivered() {
      return delivered;
    },
    keepWarm,
  };
}

const isBusy = (ends: readonly End[]): boolean => ends.some(({ tun, udp }) => tun.isReadable || udp.isReadable);

const innerOf = (end: number): Address => makeV4(0x0a000001 + end);
const outerOf = (end: number): Address => makeV4(0x7f000001 + end);

class End {
  readonly tun: MemoryTun;
  readonly udp: MemoryUdpSocket;
  readonly loop: PacketLoop;
  readonly engine: Engine;
  readonly packet: Uint8Array;

  constructor(
    crypto: Crypto,
    random: Random,
    network: MemoryUdpNetwork,
    nowMs: () => number,
    keys: readonly KeyPair[],
    own: 0 | 1,
  ) {
    const memory = plainMemory(MEMORY_BYTES + PacketLoop.arenaBytes + SLOT_BYTES);
    const other = 1 - own;
    this.tun = new MemoryTun(memory, "warm-up");
    this.udp = network.open(memory, { family: 4, port: PORT, address: outerOf(own), receiveSlots: 1 });
    this.loop = new PacketLoop({
      memory,
      tun: this.tun,
      v4: this.udp,
      v6: undefined,
      poller: {
        wait: () => 0,
        events: (index) => Number((index === 1 && this.tun.isReadable) || (index === 2 && this.udp.isReadable)),
      },
      clock: { nowMs },
      onWake: () => undefined,
      onLost: () => undefined,
    });
    this.engine = new Engine({
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
    this.loop.attach(this.engine);
    this.engine.apply(
      nowMs(),
      stateOf([
        {
          session: "peer",
          publicKey: keys[other]!.publicKey,
          kind: "stock",
          prefixes: [hostPrefix(innerOf(other))],
          endpoints: [{ address: outerOf(other), port: PORT }],
        },
      ]),
    );
    this.packet = packetBetween(innerOf(own), innerOf(other));
  }
}

function stateOf(peers: Parameters<Engine["apply"]>[1]["peers"]): Parameters<Engine["apply"]>[1] {
  return { epoch: 0, revision: 1, mode: "wg", addresses: [], transit: [], filter: undefined, peers };
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
