// Two packet loops with real engines over twins in memory of their devices and sockets.
import { expect } from "vitest";
import { makeV4, parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { Engine } from "../../src/engine/engine.ts";
import { quietSink } from "../../src/engine/quiet-sink.ts";
import { POLLIN } from "../../src/io/ffi/poller.ts";
import { PacketLoop } from "../../src/peer/packet-loop.ts";
import { MemoryTun } from "../io/memory-tun.ts";
import { MemoryUdpNetwork, type MemoryUdpSocket } from "../io/memory-udp-socket.ts";
import { plainMemory } from "../io/plain-memory.ts";
import { splitNaively } from "../wire/naive-split.ts";
import { type SuperFields, superPacket } from "../wire/super-packets.ts";

const crypto = new PortableCrypto();
const PORT = 51_820;
const MTU_BYTES = 1_420;

const keyOf = (number: number) => {
  const privateKey = new Uint8Array(32).fill(number);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
};
const outerOf = (number: number) => ({ address: makeV4(0xc0000200 + number), port: PORT });

export class LoopEnd {
  readonly memory = plainMemory(8 << 20);
  readonly tun: MemoryTun;
  readonly udp: MemoryUdpSocket;
  readonly loop: PacketLoop;
  readonly engine: Engine;
  lost: [string, number] | undefined;
  /** What poll(2) says besides what is so. */
  readonly ready = { tun: 0, udp: 0 };
  frames = 0;
  /** How long the last round would have waited. */
  waitedMs = 0;
  warmed = 0;
  warmUpLeft = 3;

  constructor(number: 1 | 2, network: MemoryUdpNetwork, clock: { nowMs(): number }, gso: boolean) {
    this.tun = new MemoryTun(this.memory, `tun${number}`);
    this.udp = network.open(this.memory, { family: 4, port: PORT, address: outerOf(number).address, gso, gro: gso });
    this.loop = new PacketLoop({
      memory: this.memory,
      tun: this.tun,
      v4: this.udp,
      v6: undefined,
      poller: {
        wait: (timeoutMs) => {
          this.waitedMs = timeoutMs;
          return [1, 2].filter((index) => this.#events(index) !== 0).length;
        },
        events: (index) => this.#events(index),
      },
      clock,
      warm: { goOn: () => --this.warmUpLeft > 0, keepWarm: () => this.warmed++ },
      onWake: () => undefined,
      onLost: (what, errno) => {
        this.lost = [what, errno];
      },
    });
    this.engine = new Engine({
      crypto,
      random: new SeededRandom(number),
      keyPair: keyOf(number),
      mode: "wg",
      mtuBytes: MTU_BYTES,
      stopwatch: () => 0,
      leases: { verify: () => undefined },
      sink: {
        ...this.loop.engineSink,
        ...quietSink,
      },
    });
    this.loop.attach(this.engine);
    const peer = keyOf(3 - number).publicKey;
    this.engine.apply(clock.nowMs(), {
      epoch: 0,
      revision: 1,
      mode: "wg",
      addresses: [],
      transit: [],
      filter: undefined,
      peers: [
        {
          session: "peer",
          publicKey: peer,
          kind: "stock",
          prefixes: [parsePrefix("0.0.0.0/0")!, parsePrefix("::/0")!],
          endpoints: [outerOf(3 - number)],
        },
      ],
    });
  }

  #events(index: number): number {
    if (index === 1) return (this.tun.isReadable ? POLLIN : 0) | this.ready.tun;
    return index === 2 ? (this.udp.isReadable ? POLLIN : 0) | this.ready.udp : 0;
  }

  sends(fields: SuperFields): Uint8Array {
    const frame = superPacket(fields);
    expect(this.tun.kernelSends(frame.slice(10), frame.slice(0, 10))).toBe(true);
    return frame;
  }

  /** All that the kernel was given, split again. */
  received(): Uint8Array[] {
    const packets: Uint8Array[] = [];
    for (let frame = this.tun.kernelReceives(); frame !== undefined; frame = this.tun.kernelReceives()) {
      this.frames++;
      packets.push(...splitNaively(frame)!);
    }
    return packets;
  }

  /** Device and socket do again what they do, and poll(2) says what is so. */
  heal(): void {
    for (const name of ["read", "write", "writev"]) Reflect.deleteProperty(this.tun, name);
    Reflect.deleteProperty(this.udp, "receive");
    Object.assign(this.ready, { tun: 0, udp: 0 });
  }
}

export interface LoopPair {
  readonly a: LoopEnd;
  readonly b: LoopEnd;
  readonly network: MemoryUdpNetwork;
  readonly clock: { now: number; nowMs(): number };
  /** Twenty at each end, a millisecond apart. */
  rounds(): void;
}

export function loopPair(gso = true): LoopPair {
  const clock = { now: 1_700_000_000_000, nowMs: () => clock.now };
  const network = new MemoryUdpNetwork();
  const [a, b] = [new LoopEnd(1, network, clock, gso), new LoopEnd(2, network, clock, gso)];
  const rounds = (): void => {
    for (let i = 0; i < 20; i++) {
      clock.now += 1;
      a.loop.round();
      b.loop.round();
    }
  };
  return { a, b, network, clock, rounds };
}
