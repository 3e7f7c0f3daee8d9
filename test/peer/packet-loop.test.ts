// The poll driver over twins in memory: two loops with real engines, a super-packet in at one end and out at the other.
import { expect, test } from "vitest";
import { splitNaively } from "../wire/naive-split.ts";
import { loopPair as pair } from "./loop-pair.ts";

const MSS_BYTES = 1_368;

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

test("a round reads no more of the device than some 256 KB: what comes in has its turn in between", () => {
  const { a, b, rounds } = pair();
  a.sends({ payload: new Uint8Array(1) });
  rounds();
  b.received();
  const sent = Array.from({ length: 10 }, () => a.sends({ payload: new Uint8Array(60_000), gsoSize: MSS_BYTES }));
  const before = a.loop.counters.tunReads;
  a.loop.round();
  expect(a.loop.counters.tunReads - before).toBe(5);
  a.loop.round();
  expect(a.loop.counters.tunReads - before).toBe(10);
  rounds();
  const bytes = b.received().reduce((sum, packet) => sum + packet.length, 0);
  expect(bytes).toBe(sent.flatMap((frame) => splitNaively(frame)!).reduce((sum, packet) => sum + packet.length, 0));
});

test("for 60 ms after a packet it wakes now and then to stay warm, then sleeps; keepalives are none", () => {
  const { a, b, rounds, clock } = pair();
  a.sends({ payload: new Uint8Array(1) });
  rounds();
  expect(b.received()).toHaveLength(1);
  const rest = (ms: number, stepMs: number): void => {
    for (const endMs = clock.now + ms; clock.now < endMs; clock.now += stepMs)
      for (const { loop } of [a, b]) loop.round();
  };
  rest(100, 1);
  a.sends({ payload: new Uint8Array(1) });
  b.warmed = 0;
  rest(4, 1);
  expect(b.waitedMs).toBe(1);
  rest(40, 1);
  expect(b.waitedMs).toBe(4);
  expect(b.warmed).toBeGreaterThan(30); // this clock goes on a millisecond a round, however long that would wait
  rest(300, 1);
  expect(b.warmed).toBeLessThanOrEqual(61);
  expect(b.loop.counters.warmRounds).toBeGreaterThan(b.warmed);
  expect(b.waitedMs).toBeGreaterThan(100);
  const before = [b.warmed, a.warmed];
  const datagrams = a.loop.counters.datagramsIn;
  rest(30_000, 50);
  expect(a.loop.counters.datagramsIn).toBeGreaterThan(datagrams);
  expect([b.warmed, a.warmed]).toEqual(before);
});

test("what is left of the warm-up is done while nothing comes, without a wait, and not before what comes", () => {
  const { a, b, rounds } = pair();
  expect(b.warmUpLeft).toBe(3);
  a.sends({ payload: new Uint8Array(1) });
  a.loop.round();
  expect(a.waitedMs).toBe(0);
  expect(a.warmUpLeft).toBe(3); // the packet's turn
  rounds();
  expect(b.received()).toHaveLength(1);
  for (let i = 0; i < 10; i++) b.loop.round();
  expect(b.warmUpLeft).toBe(0);
  expect(b.waitedMs).toBeGreaterThan(0);
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
  a.ready.tun = 8 | 16;
  a.loop.round();
  expect(a.lost?.[0]).toBe("tun");
  expect(a.lost?.[1]).toBeGreaterThan(0);
});
