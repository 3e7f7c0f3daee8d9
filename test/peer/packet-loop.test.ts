// The poll driver over twins in memory: two loops with real engines, a super-packet in at one end and out at the other.
import { expect, test } from "vitest";
import { makeV4, parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { Engine } from "../../src/engine/engine.ts";
import { MemoryTun } from "../../src/io/memory-tun.ts";
import { MemoryUdpNetwork, type MemoryUdpSocket } from "../../src/io/memory-udp-socket.ts";
import { PacketLoop } from "../../src/peer/packet-loop.ts";
import { quietSink } from "../engine/quiet-sink.ts";
import { splitNaively } from "../wire/naive-split.ts";
import { type SuperFields, superPacket } from "../wire/super-packets.ts";
import { loopMemory } from "./loop-memory.ts";

const crypto = new PortableCrypto();
const PORT = 51_820;
const MTU_BYTES = 1_420;
const MSS_BYTES = 1_368;

const keyOf = (number: number) => {
  const privateKey = new Uint8Array(32).fill(number);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
};
const outerOf = (number: number) => ({ address: makeV4(0xc0000200 + number), port: PORT });

class End {
  readonly memory = loopMemory();
  readonly tun: MemoryTun;
  readonly udp: MemoryUdpSocket;
  readonly loop: PacketLoop;
  readonly engine: Engine;
  lost: [string, number] | undefined;
  broken = 0;

  constructor(number: 1 | 2, network: MemoryUdpNetwork, clock: { nowMs(): number }, gso: boolean) {
    this.tun = new MemoryTun(this.memory, `tun${number}`);
    this.udp = network.open(this.memory, { family: 4, port: PORT, address: outerOf(number).address, gso, gro: gso });
    this.loop = new PacketLoop({
      memory: this.memory,
      tun: this.tun,
      v4: this.udp,
      v6: undefined,
      poller: {
        wait: () => 0,
        events: (index) =>
          index === 1 ? (this.tun.isReadable ? 1 : 0) | this.broken : index === 2 && this.udp.isReadable ? 1 : 0,
      },
      clock,
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

  frames = 0;
}

function pair(gso = true): { a: End; b: End; clock: { now: number; nowMs(): number }; rounds(): void } {
  const clock = { now: 1_700_000_000_000, nowMs: () => clock.now };
  const network = new MemoryUdpNetwork();
  const [a, b] = [new End(1, network, clock, gso), new End(2, network, clock, gso)];
  const rounds = (): void => {
    for (let i = 0; i < 20; i++) {
      clock.now += 1;
      a.loop.round();
      b.loop.round();
    }
  };
  return { a, b, clock, rounds };
}

test.each([true, false])("a super-packet goes out in runs and comes in merged, byte for byte (GSO %s)", (gso) => {
  const { a, b, rounds } = pair(gso);
  a.sends({ payload: new Uint8Array(1) }); // makes the tunnel
  rounds();
  expect(b.received()).toHaveLength(1);
  for (const version of [4, 6] as const) {
    const payload = new Uint8Array(40 * MSS_BYTES + 7).map((_, i) => i * 7);
    const frame = a.sends({ version, payload, gsoSize: MSS_BYTES - (version === 6 ? 20 : 0) });
    const frames = b.frames;
    rounds();
    expect(b.received()).toEqual(splitNaively(frame));
    expect(b.frames - frames).toBeLessThanOrEqual(2);
  }
  expect(a.loop.counters.datagramsOut).toBeGreaterThan(80);
  if (gso) expect(a.loop.counters.runsOut).toBeLessThan(12);
});

test("a round reads at most 32 packets of the device, and what many sent comes in order", () => {
  const { a, b, rounds } = pair();
  a.sends({ payload: new Uint8Array(1) });
  rounds();
  b.received();
  const sent = Array.from({ length: 100 }, (_, i) =>
    a.sends({ payload: new Uint8Array(100).fill(i), sourcePort: 1_000 + (i % 7) }),
  );
  const before = a.loop.counters.tunReads;
  a.loop.round();
  expect(a.loop.counters.tunReads - before).toBe(32);
  rounds();
  const came = b.received();
  expect(came).toHaveLength(100);
  for (let flow = 0; flow < 7; flow++) {
    const of = (packets: readonly Uint8Array[]) =>
      packets.filter((packet) => ((packet[20]! << 8) | packet[21]!) === 1_000 + flow);
    expect(of(came)).toEqual(of(sent.map((frame) => splitNaively(frame)![0]!)));
  }
});

test("what the device should not have given is dropped by name, and the rest goes on", () => {
  const { a, b, rounds } = pair();
  a.sends({ payload: new Uint8Array(1) });
  rounds();
  b.received();
  a.sends({ payload: new Uint8Array(4_000), gsoSize: 0, gsoType: 1 });
  const fine = a.sends({ payload: new Uint8Array(33) });
  rounds();
  expect(b.received()).toEqual(splitNaively(fine));
  expect(a.loop.counters["split-GSO_SIZE_ZERO"]).toBe(1);
});

test("packets that come before the handshake is done go out after it, in their order", () => {
  const { a, b, rounds } = pair();
  const sent = Array.from({ length: 60 }, (_, i) =>
    a.sends({ payload: new Uint8Array(60).fill(i), sourcePort: 2_000 }),
  );
  a.loop.round();
  a.loop.round();
  expect(a.engine.holdings().stagedOfOnePeer).toBe(60);
  rounds();
  expect(b.received()).toEqual(sent.map((frame) => splitNaively(frame)![0]!));
});

test("a device that is gone is told once by its errno, and ends nothing else by itself", () => {
  const { a } = pair();
  a.tun.close();
  a.broken = 8 | 16;
  a.loop.round();
  expect(a.lost?.[0]).toBe("tun");
  expect(a.lost?.[1]).toBeGreaterThan(0);
});
