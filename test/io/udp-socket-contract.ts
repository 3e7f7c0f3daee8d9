// What every DatagramSocket does: held to the kernel's on loopback, and to its twin in memory.
import { describe, expect, it } from "vitest";
import type { Address, Endpoint } from "../../src/base/address.ts";
import { writeU32Le } from "../../src/base/bytes.ts";
import type { DatagramSocket } from "../../src/io/data-plane.ts";
import type { Arena } from "../../src/io/ffi/arena.ts";
import { ip } from "../wire/packets.ts";

export interface UdpWorld {
  readonly arena: Arena;
  open(options: { family: 4 | 6; port: number; receiveSlots?: number; sendSlots?: number }): DatagramSocket;
}

export const LOOPBACK: Readonly<Record<4 | 6, Address>> = { 4: ip("127.0.0.1"), 6: ip("::1") };
const ARRIVAL_MAX_MS = 2_000;

/** Bytes that tell where they belong: each 4 of them their own place, so that nothing can be swapped unseen. */
export function fillRun(arena: Arena, at: number, length: number, seed: number): void {
  for (let i = 0; i < length; i++) arena.bytes[at + i] = (Math.imul(i >>> 2, 0x9e3779b1) ^ seed) >>> (8 * (i & 3));
}

export interface Datagram {
  readonly bytes: Buffer;
  readonly from: Endpoint;
}

/** What comes until `bytes` of it are there, cut into datagrams. Fails when less comes. */
export function receiveBytes(arena: Arena, socket: DatagramSocket, bytes: number): Datagram[] {
  const got: Datagram[] = [];
  let left = bytes;
  for (const endMs = performance.now() + ARRIVAL_MAX_MS; left > 0 && performance.now() < endMs; ) {
    const count = socket.receive();
    expect(count).toBeGreaterThanOrEqual(0);
    for (let i = 0; i < count; i++) {
      const at = socket.messageAt(i);
      const end = at + socket.messageBytes(i);
      for (let from = at; from < end; from += socket.segmentBytes(i)) {
        const to = Math.min(end, from + socket.segmentBytes(i));
        got.push({ bytes: Buffer.from(arena.bytes.slice(from, to)), from: socket.source(i) });
        left -= to - from;
      }
    }
  }
  expect(left).toBe(0);
  return got;
}

/** The datagrams that a run consists of. */
export function cut(arena: Arena, at: number, length: number, segmentBytes: number): Buffer[] {
  const out: Buffer[] = [];
  for (let done = 0; done < length; done += segmentBytes) {
    out.push(Buffer.from(arena.bytes.slice(at + done, at + Math.min(length, done + segmentBytes))));
  }
  return out;
}

/** The same datagrams in the same order; says which is the first that isn't. */
export function expectSame(got: readonly Datagram[], expected: readonly Buffer[]): void {
  expect(got.map(({ bytes }) => bytes.length)).toEqual(expected.map((bytes) => bytes.length));
  expect(got.findIndex(({ bytes }, i) => !bytes.equals(expected[i]!))).toBe(-1);
}

function numbered(arena: Arena, at: number, value: number): void {
  writeU32Le(arena.bytes, at, value);
}

export function udpSocketContract(name: string, makeWorld: () => UdpWorld, families: readonly (4 | 6)[]): void {
  describe.each(families)(`${name}, IPv%i`, (family) => {
    function pair(options: { receiveSlots?: number; sendSlots?: number } = {}) {
      const world = makeWorld();
      const [a, b] = [world.open({ family, port: 0, ...options }), world.open({ family, port: 0, ...options })];
      const at = world.arena.allocateAt(4 * 65_536);
      const [toA, toB] = [a, b].map(({ port }) => ({ address: LOOPBACK[family], port })) as [Endpoint, Endpoint];
      const close = (): void => {
        a.close();
        b.close();
      };
      return { world, arena: world.arena, a, b, at, toA, toB, [Symbol.dispose]: close };
    }

    it("carries a datagram, and its sender is an endpoint that can be answered", () => {
      using w = pair();
      expect(w.b.receive()).toBe(0);
      fillRun(w.arena, w.at, 148, 1);
      w.a.push(w.at, 148, 148, w.toB);
      w.a.flush();
      const [got, ...more] = receiveBytes(w.arena, w.b, 148);
      expect(more).toEqual([]);
      expect(got!.bytes).toEqual(Buffer.from(w.arena.bytes.slice(w.at, w.at + 148)));
      expect(got!.from).toEqual(w.toA);
      w.b.push(w.at, 32, 32, got!.from);
      w.b.flush();
      expect(receiveBytes(w.arena, w.a, 32)[0]!.from).toEqual(w.toB);
    });

    it.each([
      ["44 segments, the last one odd", 43 * 1452 + 777, 1452],
      ["64 segments of equal size", 64 * 1000, 1000],
      ["65,000 bytes in one", 65_000, 65_000],
      ["one byte and a half: two segments, the last of one byte", 1453, 1452],
      ["64 segments of one byte", 64, 1],
    ])("carries a run of %s", (_, length, segmentBytes) => {
      using w = pair();
      fillRun(w.arena, w.at, length, 2);
      w.a.push(w.at, length, segmentBytes, w.toB);
      w.a.flush();
      expectSame(receiveBytes(w.arena, w.b, length), cut(w.arena, w.at, length, segmentBytes));
    });

    it("joins at the receiver what left as a run, and tells where to cut", () => {
      using w = pair();
      if (!w.a.gso || !w.b.gro) throw new Error("a kernel since 5.0 has both");
      w.a.push(w.at, 10 * 1452 + 5, 1452, w.toB);
      w.a.flush();
      expect(w.b.receive()).toBe(1);
      expect([w.b.messageBytes(0), w.b.segmentBytes(0)]).toEqual([10 * 1452 + 5, 1452]);
      // A single one after it in the same slot: what was told of the run is not told of this.
      w.a.push(w.at, 5000, 5000, w.toB);
      w.a.flush();
      expect(w.b.receive()).toBe(1);
      expect([w.b.messageBytes(0), w.b.segmentBytes(0)]).toEqual([5000, 5000]);
      // And a run after the single one.
      w.a.push(w.at, 4000, 1400, w.toB);
      w.a.flush();
      expect(w.b.receive()).toBe(1);
      expect([w.b.messageBytes(0), w.b.segmentBytes(0)]).toEqual([4000, 1400]);
      expect(w.b.source(0)).toEqual(w.toA);
    });

    it("gives the same object for the same sender, and others for others", () => {
      using w = pair();
      const other = w.world.open({ family, port: 0 });
      const seen: Endpoint[] = [];
      for (const socket of [w.a, w.a, other, w.a, other]) {
        socket.push(w.at, 100, 100, w.toB);
        socket.flush();
        seen.push(receiveBytes(w.arena, w.b, 100)[0]!.from);
      }
      expect(seen.map(({ port }) => port)).toEqual([w.a, w.a, other, w.a, other].map(({ port }) => port));
      expect(seen[1]).toBe(seen[0]);
      expect(seen[2]).not.toBe(seen[0]);
      expect(new Set([seen[3], seen[4]]).size).toBe(2);
      other.close();
    });

    it("tells many senders apart", () => {
      using w = pair();
      const others = Array.from({ length: 100 }, () =>
        w.world.open({ family, port: 0, receiveSlots: 1, sendSlots: 1 }),
      );
      for (const round of [0, 1]) {
        for (const socket of others) socket.push(w.at + round, 10, 10, w.toB);
        const got = receiveBytes(w.arena, w.b, 10 * others.length);
        expect(got.map(({ from }) => from.port)).toEqual(others.map(({ port }) => port));
      }
      for (const socket of others) socket.close();
    });

    it("sends by itself when 64 runs wait, and not before", () => {
      using w = pair();
      for (let i = 0; i < 63; i++) {
        numbered(w.arena, w.at + 100 * i, i);
        w.a.push(w.at + 100 * i, 100, 100, w.toB);
      }
      expect(w.b.receive()).toBe(0);
      expect(w.a.counters["send-calls"]).toBe(0);
      numbered(w.arena, w.at + 6300, 63);
      w.a.push(w.at + 6300, 100, 100, w.toB);
      expect(w.a.counters).toMatchObject({ "send-calls": 1, "send-runs": 64 });
      const got = receiveBytes(w.arena, w.b, 6400);
      expect(got.map(({ bytes }) => bytes.readUInt32LE())).toEqual(Array.from({ length: 64 }, (_, i) => i));
      w.a.flush();
      expect(w.a.counters["send-calls"]).toBe(1);
    });

    it("reads the bytes at the flush: until then they may still be written", () => {
      using w = pair();
      numbered(w.arena, w.at, 1);
      w.a.push(w.at, 4, 4, w.toB);
      numbered(w.arena, w.at, 2);
      w.a.flush();
      numbered(w.arena, w.at, 3);
      expect(receiveBytes(w.arena, w.b, 4)[0]!.bytes.readUInt32LE()).toBe(2);
    });

    it("keeps the order of what goes to several, and each gets its own", () => {
      using w = pair();
      const c = w.world.open({ family, port: 0 });
      const toC = { address: LOOPBACK[family], port: c.port };
      for (let i = 0; i < 150; i++) {
        numbered(w.arena, w.at + 3000 * (i % 64), i);
        w.a.push(w.at + 3000 * (i % 64), 2500 + (i % 7), 1200, i % 3 === 0 ? toC : w.toB);
      }
      w.a.flush();
      for (const [socket, mine] of [
        [w.b, (i: number) => i % 3 !== 0],
        [c, (i: number) => i % 3 === 0],
      ] as const) {
        const runs = Array.from({ length: 150 }, (_, i) => i).filter(mine);
        const bytes = runs.reduce((sum, i) => sum + 2500 + (i % 7), 0);
        const got = receiveBytes(w.arena, socket, bytes);
        const firsts = got.filter((_, i) => i % 3 === 0).map((datagram) => datagram.bytes.readUInt32LE());
        expect(firsts).toEqual(runs);
      }
      c.close();
    });

    it("gives the rest at the next call when more wait than there are slots", () => {
      using w = pair({ receiveSlots: 4 });
      for (let i = 0; i < 10; i++) {
        numbered(w.arena, w.at + 8 * i, i);
        w.a.push(w.at + 8 * i, 8, 8, w.toB);
      }
      w.a.flush();
      const got = receiveBytes(w.arena, w.b, 80);
      expect(got.map(({ bytes }) => bytes.readUInt32LE())).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      expect(got.every(({ from }) => from.port === w.a.port)).toBe(true);
      expect(w.b.counters["receive-calls"]).toBeGreaterThanOrEqual(3);
      expect(w.b.counters["receive-messages"]).toBe(10);
    });

    it("loses without a word what nobody waits for", () => {
      using w = pair();
      w.b.close();
      w.a.push(w.at, 100, 100, w.toB);
      w.a.flush();
      w.a.push(w.at, 100, 100, w.toB);
      w.a.flush();
      expect(w.a.receive()).toBe(0);
      const failed = Object.keys(w.a.counters).filter((key) => key.startsWith("send-E") || key.startsWith("receive-E"));
      expect(failed).toEqual([]);
    });

    it("refuses runs that no kernel would take: that is our own bug", () => {
      using w = pair();
      const wrong = { address: LOOPBACK[family === 4 ? 6 : 4], port: w.b.port };
      const size = w.arena.bytes.length;
      for (const [at, length, segmentBytes, to] of [
        [w.at, 65, 1, w.toB], // 65 segments
        [w.at, 64 * 1000 + 1, 1000, w.toB],
        [w.at, 65_001, 1452, w.toB],
        [w.at, 0, 1452, w.toB],
        [w.at, 100, 0, w.toB],
        [size - 99, 100, 100, w.toB],
        [-1, 100, 100, w.toB],
        [w.at, 100, 100, wrong],
      ] as const) {
        expect(() => w.a.push(at, length, segmentBytes, to), `${at} ${length} ${segmentBytes}`).toThrow("assertion");
      }
      w.a.flush();
      expect(w.a.counters["send-calls"]).toBe(0);
    });

    it("says PORT_TAKEN with a hint, and the system's reason as its cause", () => {
      using w = pair();
      const error = (() => {
        try {
          return w.world.open({ family, port: w.a.port });
        } catch (thrown) {
          return thrown;
        }
      })();
      expect(error).toMatchObject({
        code: "PORT_TAKEN",
        hint: expect.stringContaining("--listen-port"),
        cause: { code: "EADDRINUSE" },
      });
    });

    it("tells by name that it is closed", () => {
      using w = pair();
      w.a.close();
      w.a.close();
      expect(w.a.fd).toBe(-1);
      expect(w.a.receive()).toBe(-9);
      w.a.push(w.at, 3000, 1000, w.toB);
      w.a.flush();
      expect(w.a.counters).toMatchObject({ "receive-EBADF": 1, "send-EBADF": 3 });
    });
  });
}

/** A link that stands still: each world makes one in its own way. */
export interface StoppedLink {
  readonly arena: Arena;
  readonly sender: DatagramSocket;
  readonly receiver: DatagramSocket;
  readonly to: Endpoint;
  /** Moves again: what was taken arrives. */
  go(): void;
}

/** The sender's buffer is full, and stays so: bounded waiting, then loss that is counted, datagram by datagram. */
export function expectFullBufferToDrop({ arena, sender, receiver, to, go }: StoppedLink): void {
  const runs = 24;
  const segments = 20;
  const length = segments * 1000;
  const at = arena.allocateAt(runs * length);
  for (let i = 0; i < runs * segments; i++) numbered(arena, at + i * 1000, i);
  const begunMs = performance.now();
  for (let i = 0; i < runs; i++) sender.push(at + i * length, length, 1000, to);
  sender.flush();
  expect(performance.now() - begunMs).toBeLessThan(500);
  const lost = sender.counters["send-EAGAIN"] ?? 0;
  expect(lost).toBeGreaterThan(0);
  expect(lost).toBeLessThan(runs * segments);
  expect(sender.counters["send-waits"]).toBeGreaterThan(0);
  go();
  const got = receiveBytes(arena, receiver, runs * length - lost * 1000);
  const numbers = got.map(({ bytes }) => bytes.readUInt32LE());
  expect(numbers).toEqual(Array.from({ length: runs * segments - lost }, (_, i) => i)); // the first, in order
  sender.push(at, 1000, 1000, to);
  sender.flush();
  expect(receiveBytes(arena, receiver, 1000)).toHaveLength(1);
  expect(sender.counters["send-EAGAIN"]).toBe(lost);
}
