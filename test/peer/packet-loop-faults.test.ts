// The poll driver where system calls fail: a device and a socket in memory that fail as they are told, by errno.
import { expect, test } from "vitest";
import { READS_FAIL_MAX_MS } from "../../src/base/limits.ts";
import { EAGAIN, EBADF, EBADFD, EINVAL, EIO, ENOBUFS } from "../../src/io/ffi/errno.ts";
import { POLLERR, POLLHUP, POLLIN, POLLNVAL } from "../../src/io/ffi/poller.ts";
import { splitNaively } from "../wire/naive-split.ts";
import { type LoopEnd, loopPair } from "./loop-pair.ts";

const ENOMEM = 12;
const ECONNABORTED = 103;
const MSS_BYTES = 1_368;

/** A tunnel between the two, and nothing under way. */
function joined(gso = true) {
  const world = loopPair(gso);
  world.a.sends({ payload: new Uint8Array(1) });
  world.rounds();
  expect(world.b.received()).toHaveLength(1);
  return world;
}

/** A packet of `a` arrives at `b`, and one of `b` at `a`. */
function expectAlive({ a, b, rounds }: ReturnType<typeof loopPair>): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const sent = from.sends({ payload: new Uint8Array(77).fill(9) });
    rounds();
    expect(to.received()).toEqual(splitNaively(sent));
  }
}

function failReads(end: LoopEnd, errno: number): void {
  end.tun.read = () => -errno;
}

test.each([EIO, EINVAL, ENOMEM, ENOBUFS])(
  "a read of the device that fails by %i once: counted, and it goes on",
  (errno) => {
    const world = joined();
    const { a, clock } = world;
    a.ready.tun = POLLIN;
    failReads(a, errno);
    a.loop.round();
    clock.now += READS_FAIL_MAX_MS - 1;
    a.loop.round();
    expect(a.lost).toBeUndefined();
    expect(Object.entries(a.loop.counters).filter(([name]) => name.startsWith("tun-read-"))).toHaveLength(1);
    a.heal();
    expectAlive(world);
  },
);

test.each(["tun", "udp"] as const)("failures of the %s that lie apart are none that go on and on", (what) => {
  const { a, clock } = joined();
  const fail = (): void => {
    a.ready[what] = POLLIN;
    if (what === "tun") failReads(a, EIO);
    else a.udp.receive = () => -ECONNABORTED;
    a.loop.round();
    clock.now += READS_FAIL_MAX_MS;
    a.heal();
  };
  fail();
  a.loop.round(); // nothing is ready
  fail();
  a.ready[what] = POLLIN;
  a.loop.round(); // ready, and does not fail
  fail();
  expect(a.lost).toBeUndefined();
});

test("a device whose every read fails for a second is taken for gone", () => {
  const { a, clock } = joined();
  a.ready.tun = POLLIN;
  failReads(a, EIO);
  a.loop.round();
  clock.now += READS_FAIL_MAX_MS;
  a.loop.round();
  expect(a.lost).toEqual(["tun", EIO]);
});

test.each([
  [EBADFD, 0],
  [EBADF, 0],
  [EIO, POLLERR],
  [EIO, POLLHUP],
  [EIO, POLLNVAL],
])("a device that is gone is told of at its first read (errno %i, poll says %i)", (errno, sign) => {
  const { a } = joined();
  a.ready.tun = POLLIN | sign;
  failReads(a, errno);
  a.loop.round();
  expect(a.lost).toEqual(["tun", errno]);
});

test("a socket that is gone is told of; an error that came back for something sent is not", () => {
  const world = joined();
  const { a, b, clock } = world;
  a.ready.udp = POLLIN | POLLERR;
  a.udp.receive = () => -ECONNABORTED; // SOCK_DESTROY
  a.loop.round();
  expect(a.lost).toBeUndefined();
  a.heal();
  expectAlive(world);

  a.ready.udp = POLLIN | POLLERR;
  a.udp.receive = () => -ENOMEM;
  a.loop.round();
  clock.now += READS_FAIL_MAX_MS;
  a.loop.round();
  expect(a.lost).toEqual(["udp", ENOMEM]);

  b.ready.udp = POLLNVAL;
  b.udp.close();
  b.loop.round();
  expect(b.lost).toEqual(["udp", EBADF]);
});

test("ready without end, and nothing there: each round ends, timers go on, and so does the rest", () => {
  const world = joined();
  const { a, b, clock } = world;
  a.ready.tun = POLLIN;
  a.ready.udp = POLLIN;
  const { rounds, tunReads } = a.loop.counters;
  for (let i = 0; i < 1_000; i++) a.loop.round();
  expect(a.loop.counters).toMatchObject({ rounds: rounds + 1_000, tunReads });
  expect(a.lost).toBeUndefined();
  b.sends({ payload: new Uint8Array(40) });
  world.rounds();
  expect(a.received()).toHaveLength(1);
  const sentBefore = a.loop.counters.datagramsOut;
  clock.now += 11_000; // a passive keepalive is due
  a.loop.round();
  expect(a.loop.counters.datagramsOut).toBe(sentBefore + 1);
});

test.each([EIO, EAGAIN, ENOBUFS, EINVAL])(
  "packets that the device doesn't take (errno %i) are lost by name",
  (errno) => {
    const world = joined();
    const { a, b, rounds } = world;
    b.tun.write = () => -errno;
    b.tun.writev = () => -errno;
    a.sends({ payload: new Uint8Array(20 * MSS_BYTES), gsoSize: MSS_BYTES });
    rounds();
    expect(b.received()).toEqual([]);
    const failures = Object.entries(b.loop.counters).filter(([name]) => name.startsWith("tun-write-E"));
    expect(failures).toHaveLength(1);
    expect(failures[0]![1]).toBeGreaterThan(0);
    expect(b.lost).toBeUndefined();
    b.heal();
    expectAlive(world);
  },
);

test("no room to send: the device waits, what comes in has its turn, and all goes on when there is room", () => {
  const world = joined();
  const { a, b, network, clock } = world;
  const bulk = () => a.sends({ payload: new Uint8Array(45 * MSS_BYTES), gsoSize: MSS_BYTES });
  for (let i = 0; i < 60; i++) bulk();
  a.udp.bufferBytes = 100_000;
  network.stop();
  // A socket waits up to 20 ms each time: 32 packets of the device would be most of a second.
  const waitsOf = () => a.udp.counters["send-waits"] ?? 0;
  let worst = 0;
  for (let i = 0; i < 60; i++) {
    const before = waitsOf();
    clock.now += 20;
    a.loop.round();
    worst = Math.max(worst, waitsOf() - before);
  }
  expect(a.udp.counters["send-EAGAIN"]).toBeGreaterThan(1_000);
  expect(worst).toBe(1);
  expect(a.lost).toBeUndefined();
  network.go();
  world.rounds();
  b.received();
  a.received();
  expectAlive(world);
});

test("a handshake is made within two retries of its start though sending has failed all the while before", () => {
  const world = loopPair();
  const { a, b, network, clock } = world;
  network.stop();
  a.udp.bufferBytes = 100; // less than an initiation
  a.sends({ payload: new Uint8Array(50) });
  for (let second = 0; second < 30; second++) {
    clock.now += 1_000;
    a.loop.round();
    b.loop.round();
  }
  expect(a.udp.counters["send-EAGAIN"]).toBeGreaterThanOrEqual(5);
  a.udp.bufferBytes = 1 << 20;
  network.go();
  for (let i = 0; i < 60; i++) {
    clock.now += 200;
    a.loop.round();
    b.loop.round();
  }
  expect(b.received()).toHaveLength(1);
});
