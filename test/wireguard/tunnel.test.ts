// The timers of [WG §6] at virtual time: each test says what happened, and counts what was sent when.
import { describe, expect, test } from "vitest";
import { STAGED_PACKETS_MAX } from "../../src/base/limits.ts";
import type { NativeCrypto } from "../../src/crypto/native.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { decodeResponse } from "../../src/wire/wireguard.ts";
import { type Passed, START_MS, World, type WorldDevice } from "./world.ts";

const SECOND = 1_000;
const crypto: NativeCrypto = createNativeCrypto();
const newWorld = (seed = 1): World => new World(seed, crypto);
const lost = (): undefined => undefined;

const kinds = (device: WorldDevice): string[] => device.sent.map((passed) => passed.kind);
const timesOf = (device: WorldDevice, kind: string): number[] =>
  device.sent.filter((passed) => passed.kind === kind).map((passed) => (passed.atMs - START_MS) / SECOND);
const isKeepalive = (passed: Passed): boolean => passed.kind === "data" && passed.bytes.length === 32;

/** Sends one packet every `everyMs` for `forMs`. */
function stream(world: World, from: WorldDevice, send: () => void, forMs: number, everyMs = 500): void {
  for (let sentMs = 0; sentMs < forMs; sentMs += everyMs) {
    send();
    world.run(everyMs);
  }
  expect(from.device.counters.PACKET_TOO_LARGE).toBe(0);
}

describe("starting", () => {
  test("an initiator with nothing to say confirms the session by a keepalive", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    a.device.startHandshake(world.nowMs, toB);
    world.run(SECOND);
    expect(kinds(a)).toEqual(["initiation", "data"]);
    expect(isKeepalive(a.sent[1]!)).toBe(true);
    expect(b.kinds).toEqual(["HANDSHAKE", "KEEPALIVE"]);
    expect(toA.hasSession(world.nowMs)).toBe(true);
    expect([toB.lastHandshakeMs, toA.lastHandshakeMs]).toEqual([START_MS + 20, START_MS + 30]);
  });

  test("the responder sends no data before the initiator has confirmed: until then it stages", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    world.link = (message) => (message.kind === "data" ? undefined : 10);
    a.device.startHandshake(world.nowMs, toB);
    world.run(100);
    expect(toB.hasSession(world.nowMs)).toBe(true);
    expect(toA.hasSession(world.nowMs)).toBe(false);
    expect(b.send(toA, 50)).toBe("STAGED");
    expect(b.count("initiation")).toBe(0); // an answer is on its way: REKEY_TIMEOUT after our response we ask ourselves
    world.link = () => 10;
    a.send(toB, 20);
    world.run(100);
    expect(a.delivered).toHaveLength(1);
    expect(b.count("initiation")).toBe(0);
  });

  test("what the session's start sends goes before the staged packets, at both ends", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    for (const device of [a, b]) device.onSessionStarted = (_nowMs, tunnel) => device.send(tunnel, 16, 1);
    a.send(toB, 16, 2);
    world.run(5);
    world.run(100);
    b.send(toA, 16, 2);
    world.run(100);
    expect(b.delivered.map((bytes) => bytes[0])).toEqual([1, 2]);
    expect(a.delivered.map((bytes) => bytes[0])).toEqual([1, 2]);
  });

  test(`at most ${STAGED_PACKETS_MAX} packets wait; the one beyond puts out the oldest`, () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    for (let i = 0; i <= STAGED_PACKETS_MAX; i++) expect(a.send(toB, 16, i)).toBe("STAGED");
    expect(toB.stagedPackets).toBe(STAGED_PACKETS_MAX);
    expect(a.device.counters.STAGED_DROPPED).toBe(1);
    world.run(SECOND);
    expect(b.delivered.map((bytes) => bytes[0])).toEqual(Array.from({ length: STAGED_PACKETS_MAX }, (_, i) => i + 1));
    expect(toB.stagedPackets).toBe(0);
  });

  test("padding goes to 16 bytes, never above the MTU; more than the MTU is refused", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    a.send(toB, 1);
    world.run(SECOND);
    for (const bytes of [1, 16, 17, 1408, 1409, 1419, 1420]) expect(a.send(toB, bytes)).toBe("SENT");
    expect(a.send(toB, 1421)).toBe("DROPPED_TOO_LARGE");
    expect(a.device.counters.PACKET_TOO_LARGE).toBe(1);
    world.run(SECOND);
    expect(b.delivered.slice(1).map((bytes) => bytes.length)).toEqual([16, 16, 32, 1408, 1420, 1420, 1420]);
    for (const [i, bytes] of [1, 16, 17, 1408, 1409, 1419, 1420].entries()) {
      expect(b.delivered[i + 1]!.subarray(bytes).every((byte) => byte === 0)).toBe(true); // nothing of ours leaks
    }
  });
});

describe("both ends at once", () => {
  test.each([1, 10, 80, 400])(
    "converge over a link of %i ms: every packet arrives, and all is quiet after",
    (delayMs) => {
      for (let seed = 1; seed <= 5; seed++) {
        const world = newWorld(seed);
        world.link = () => delayMs;
        const [a, b, toB, toA] = world.pair();
        a.send(toB, 100, 1);
        world.run(Math.floor(world.random.below(delayMs)));
        b.send(toA, 100, 2);
        world.run(4 * SECOND);
        expect([a.delivered.length, b.delivered.length]).toEqual([1, 1]);
        const before = a.count("initiation") + b.count("initiation");
        expect(before).toBeLessThanOrEqual(2);
        for (let i = 0; i < 100; i++) {
          expect(a.send(toB, 100)).toBe("SENT");
          expect(b.send(toA, 100)).toBe("SENT");
          world.run(SECOND);
        }
        world.run(SECOND);
        expect([a.delivered.length, b.delivered.length]).toEqual([101, 101]);
        expect(a.count("initiation") + b.count("initiation")).toBe(before);
      }
    },
  );

  test("with a third of all messages lost, they talk again whenever the loss ends", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const world = newWorld(seed);
      const [a, b, toB, toA] = world.pair();
      world.link = () => (world.random.chance(0.33) ? undefined : 1 + world.random.below(200));
      for (let i = 0; i < 400; i++) {
        a.send(toB, 40);
        b.send(toA, 40);
        world.run(SECOND);
      }
      world.link = () => 10;
      world.run(30 * SECOND);
      const [atA, atB] = [a.delivered.length, b.delivered.length];
      a.send(toB, 40);
      b.send(toA, 40);
      world.run(6 * SECOND);
      expect([a.delivered.length, b.delivered.length], `seed ${seed}`).toEqual([atA + 1, atB + 1]);
      expect(a.device.indexCount).toBeLessThanOrEqual(4);
      expect(b.device.indexCount).toBeLessThanOrEqual(4);
    }
  });
});

describe("retries", () => {
  test("one initiation in REKEY_TIMEOUT and jitter for REKEY_ATTEMPT_TIME; then the failure is told", () => {
    const world = newWorld();
    const [a, , toB] = world.pair();
    world.link = lost;
    a.send(toB, 100);
    world.run(300 * SECOND);
    const times = timesOf(a, "initiation");
    const gaps = times.slice(1).map((time, i) => time - times[i]!);
    expect(gaps.every((gap) => gap >= 5 && gap <= 5.334)).toBe(true);
    expect(new Set(gaps).size).toBeGreaterThan(10);
    expect(times.at(-1)!).toBeLessThan(90);
    expect(times.length).toBeGreaterThanOrEqual(17);
    expect(a.events).toEqual(["failed"]);
    expect(a.device.counters.STAGED_DROPPED).toBe(1);
    expect(toB.isHandshaking).toBe(false);
    a.send(toB, 100);
    expect(a.count("initiation")).toBe(times.length + 1);
  });

  test("no attempt begins within REKEY_TIMEOUT of the last initiation or response: it waits for its time", () => {
    const world = newWorld();
    const [a, , toB] = world.pair();
    world.link = lost;
    for (let i = 0; i < 12; i++) {
      a.device.startHandshake(world.nowMs, toB);
      world.run(SECOND);
    }
    const times = timesOf(a, "initiation");
    expect(times[0]).toBe(0);
    expect(times.every((time, i) => i === 0 || time - times[i - 1]! >= 5)).toBe(true);
    expect(times.length).toBe(3);
  });

  test("a response that is played again finds no handshake, not even while the next one runs", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    a.send(toB, 100);
    world.run(6 * SECOND);
    const response = b.sent.find((passed) => passed.kind === "response")!;
    // The second is the way of one that has waited at the gate: when it came in, the handshake was still there.
    const acceptLate = (): string => toB.acceptResponse(world.nowMs, b.endpoint, decodeResponse(response.bytes, 0));
    expect(a.receive(b.endpoint, response.bytes)).toBe("UNKNOWN_INDEX");
    expect(acceptLate()).toBe("UNKNOWN_INDEX");
    a.device.startHandshake(world.nowMs, toB);
    expect(a.count("initiation")).toBe(2);
    expect(a.receive(b.endpoint, response.bytes)).toBe("UNKNOWN_INDEX");
    expect(acceptLate()).toBe("UNKNOWN_INDEX");
    world.run(SECOND);
    expect(a.device.counters.HANDSHAKES_COMPLETED).toBe(2);
  });

  test("each initiation has another ephemeral key, another index and a later timestamp than the one before", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    world.link = lost;
    a.send(toB, 100);
    world.run(20 * SECOND);
    const [first, second] = a.sent;
    expect(first!.bytes.subarray(4, 8)).not.toEqual(second!.bytes.subarray(4, 8));
    expect(first!.bytes.subarray(8, 40)).not.toEqual(second!.bytes.subarray(8, 40));
    expect(b.receive(a.endpoint, second!.bytes)).toBe("HANDSHAKE");
    world.nowMs += 1_000;
    expect(b.receive(a.endpoint, first!.bytes)).toBe("TIMESTAMP_OLD");
    expect(a.device.indexCount).toBe(1);
  });

  test("a handler that removes the peer when its handshake failed is not called again", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    world.link = lost;
    a.onHandshakeFailed = () => void a.device.removePeer(b.device.publicKey);
    a.send(toB, 100);
    world.run(600 * SECOND);
    expect(a.events).toEqual(["failed"]);
    expect(a.device.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
    expect(a.send(toB, 10)).toBe("DROPPED_NO_PEER");
    a.device.startHandshake(world.nowMs, toB);
    expect(a.device.indexCount).toBe(0);
  });
});

describe("rekeying", () => {
  test("one-way UDP for 119 s causes no handshake: passive keepalives answer it", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    stream(world, a, () => a.send(toB, 200), 119 * SECOND);
    expect(a.count("initiation")).toBe(1);
    expect(b.count("initiation")).toBe(0);
    const keepalives = b.sent.filter(isKeepalive);
    expect(keepalives.length).toBe(11); // one in KEEPALIVE_TIMEOUT
    expect(b.delivered.length).toBe(238);
  });

  test("without those answers the silence is noticed after KEEPALIVE_TIMEOUT + REKEY_TIMEOUT", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    a.send(toB, 200);
    world.run(SECOND);
    world.link = (message) => (message.from === b.endpoint ? undefined : 10);
    stream(world, a, () => a.send(toB, 200), 60 * SECOND);
    const times = timesOf(a, "initiation");
    expect(times[1]).toBeGreaterThanOrEqual(15);
    expect(times[1]).toBeLessThanOrEqual(16.4);
  });

  test("the initiator renews after REKEY_AFTER_TIME when it sends; nothing is lost over ten renewals", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    stream(
      world,
      a,
      () => {
        a.send(toB, 100);
        if (toA.hasSession(world.nowMs)) b.send(toA, 100);
      },
      1210 * SECOND,
    );
    const times = timesOf(a, "initiation");
    expect(times.length).toBe(11);
    for (const [i, time] of times.entries()) expect(Math.abs(time - 120 * i)).toBeLessThan(6);
    expect(b.count("initiation")).toBe(0);
    expect(b.delivered.length).toBe(2420);
    expect(a.delivered.length).toBe(b.count("data") - b.sent.filter(isKeepalive).length);
    expect(a.device.indexCount).toBeLessThanOrEqual(3);
  });

  test("who receives when a passive keepalive would come too late renews at once", () => {
    for (const [ageS, renews] of [
      [164, false],
      [166, true],
    ] as const) {
      const world = newWorld();
      const [a, b, toB, toA] = world.pair();
      a.send(toB, 100);
      world.run(ageS * SECOND);
      for (let i = 0; i < 3; i++) {
        b.send(toA, 100);
        world.run(15);
      }
      expect(a.delivered.length).toBe(3);
      expect(a.count("initiation")).toBe(renews ? 2 : 1);
    }
  });

  test("an unanswered renewal is retried with jitter, however much is sent meanwhile", () => {
    const world = newWorld();
    const [a, , toB] = world.pair();
    a.send(toB, 100);
    world.run(121 * SECOND);
    world.link = (message) => (message.kind === "initiation" ? undefined : 10);
    stream(world, a, () => a.send(toB, 100), 40 * SECOND, 10);
    const times = timesOf(a, "initiation").slice(1);
    const gaps = times.slice(1).map((time, i) => time - times[i]!);
    expect(gaps.length).toBeGreaterThanOrEqual(7);
    expect(gaps.every((gap) => gap >= 5 && gap < 5.35)).toBe(true);
    expect(gaps.filter((gap) => gap > 5.02).length).toBeGreaterThan(4);
  });

  test("what the new session's first message overtook is still taken, by responder and initiator", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    a.send(toB, 100);
    world.run(121 * SECOND);
    world.link = (message) => (message.kind === "data" ? undefined : 10);
    b.send(toA, 100);
    const [oldOfB] = b.sent.slice(-1);
    a.send(toB, 100);
    const oldOfA = a.sent.filter((passed) => passed.kind === "data").at(-1);
    world.link = () => 10;
    world.run(SECOND);
    a.send(toB, 100);
    world.run(SECOND);
    expect(a.device.counters.HANDSHAKES_COMPLETED).toBe(2);
    expect(b.device.counters.HANDSHAKES_COMPLETED).toBe(2);
    expect(b.receive(a.endpoint, oldOfA!.bytes)).toBe("DATA");
    expect(a.receive(b.endpoint, oldOfB!.bytes)).toBe("DATA");
  });

  test("an idle tunnel wakes nobody: no renewal without traffic, and after zeroing no deadline at all", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    a.send(toB, 100);
    world.run(20 * SECOND);
    const turns = world.turns;
    world.run(3600 * SECOND);
    expect(world.turns - turns).toBeLessThanOrEqual(4);
    expect(a.count("initiation") + b.count("initiation")).toBe(1);
    expect(a.device.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
    expect(b.device.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("keys", () => {
  test("are overwritten 3 × REJECT_AFTER_TIME after the last were made, and their indexes freed", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    a.send(toB, 100);
    world.run(539 * SECOND);
    expect(a.device.indexCount).toBe(1);
    world.run(2 * SECOND);
    expect(a.device.indexCount).toBe(0);
    expect(b.device.indexCount).toBe(0);
    const old = a.sent.find((passed) => passed.kind === "data")!;
    expect(b.receive(a.endpoint, old.bytes)).toBe("UNKNOWN_INDEX");
  });

  test("after REJECT_AFTER_TIME nothing is sent or taken under them", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    a.send(toB, 100);
    world.run(SECOND);
    a.send(toB, 100);
    const late = a.sent.at(-1)!;
    world.run(180 * SECOND);
    expect(toA.hasSession(world.nowMs)).toBe(false);
    expect(b.receive(a.endpoint, late.bytes)).toBe("SESSION_EXPIRED");
    expect(a.send(toB, 100)).toBe("STAGED");
    world.run(SECOND);
    expect(b.delivered.length).toBe(3);
  });

  test("expireSessions cuts both directions at once and drops what waits; a new handshake heals it", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    a.send(toB, 100);
    world.run(SECOND);
    b.send(toA, 100);
    const inFlight = b.sent.at(-1)!;
    a.device.expireSessions(toB);
    expect(toB.hasSession(world.nowMs)).toBe(false);
    expect(a.device.indexCount).toBe(0);
    expect(a.receive(b.endpoint, inFlight.bytes)).toBe("UNKNOWN_INDEX");
    world.run(6 * SECOND);
    expect(a.send(toB, 100)).toBe("STAGED");
    world.run(SECOND);
    expect(b.delivered.length).toBe(2);
  });
});

describe("keepalives", () => {
  test("a persistent one opens the tunnel at once and is sent whenever the interval was silent", () => {
    const world = newWorld();
    const a = world.add("192.0.2.1:1001");
    const b = world.add("192.0.2.2:1002");
    world.introduce(b, a);
    const toB = world.introduce(a, b, { persistentKeepaliveMs: 25 * SECOND });
    world.run(100 * SECOND);
    expect(a.count("initiation")).toBe(1);
    const keepalives = a.sent.filter(isKeepalive).map((passed) => (passed.atMs - START_MS) / SECOND);
    expect(keepalives.length).toBe(4); // one confirms the session
    expect(keepalives[1]! - keepalives[0]!).toBeCloseTo(25, 0);
    a.device.updatePeer(world.nowMs, toB, { persistentKeepaliveMs: undefined });
    world.run(100 * SECOND);
    expect(a.sent.filter(isKeepalive).length).toBe(4);
    a.device.updatePeer(world.nowMs, toB, { persistentKeepaliveMs: 0 });
    expect(a.device.nextDeadlineMs()).toBeGreaterThan(world.nowMs + 60 * SECOND);
  });

  test("setting the interval that it has already sends nothing", () => {
    const world = newWorld();
    const [a, , toB] = world.pair({ persistentKeepaliveMs: 25 * SECOND });
    world.run(SECOND);
    const sent = a.sent.length;
    a.device.updatePeer(world.nowMs, toB, { persistentKeepaliveMs: 25 * SECOND });
    expect(a.sent.length).toBe(sent);
    a.device.updatePeer(world.nowMs, toB, { persistentKeepaliveMs: 20 * SECOND });
    expect(a.sent.length).toBe(sent + 1);
  });

  test("a keepalive is not answered by a keepalive", () => {
    const world = newWorld();
    const [a, b, toB] = world.pair();
    a.device.startHandshake(world.nowMs, toB);
    world.run(60 * SECOND);
    expect([a.sent.length, b.sent.length]).toEqual([2, 1]);
  });

  test("an answer in time needs no keepalive", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    stream(
      world,
      a,
      () => {
        a.send(toB, 100);
        if (toA.hasSession(world.nowMs)) b.send(toA, 100);
      },
      100 * SECOND,
      5 * SECOND,
    );
    expect(b.sent.filter(isKeepalive)).toEqual([]);
  });
});

describe("roaming", () => {
  test("the endpoint follows authenticated messages only, and says so", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    a.send(toB, 100);
    world.run(SECOND);
    a.send(toB, 100);
    const message = a.sent.at(-1)!;
    const elsewhere = { address: a.endpoint.address, port: 4242 };
    const bent = message.bytes.slice();
    bent[20]! ^= 1;
    expect(b.receive(elsewhere, bent)).toBe("DATA_FORGED");
    expect(toA.endpoint).toEqual(a.endpoint);
    expect(b.receive(elsewhere, message.bytes)).toBe("DATA");
    expect(toA.endpoint).toEqual(elsewhere);
    expect(b.events.at(-1)).toBe("endpoint 4242");
    expect(b.receive(a.endpoint, message.bytes)).toBe("REPLAYED"); // and a replay doesn't bring it back
    expect(toA.endpoint).toEqual(elsewhere);
  });

  test("a handshake from the endpoint that is known changes nothing and says nothing", () => {
    const world = newWorld();
    const [a, b, toB, toA] = world.pair();
    const known = [toB.endpoint, toA.endpoint];
    a.send(toB, 100);
    world.run(SECOND);
    expect([a.events, b.events]).toEqual([["started initiator"], ["started responder"]]);
    expect(toB.endpoint).toBe(known[0]);
    expect(toA.endpoint).toBe(known[1]);
  });

  test("a peer without an endpoint is answered where its initiation came from", () => {
    const world = newWorld();
    const a = world.add("192.0.2.1:1001");
    const b = world.add("192.0.2.2:1002");
    const toB = world.introduce(a, b);
    const toA = b.device.addPeer(world.nowMs, { owner: "a", publicKey: a.device.publicKey });
    if (typeof toA === "string") throw new Error(toA);
    a.send(toB, 100);
    world.run(SECOND);
    expect(b.delivered.length).toBe(1);
    expect(toA.endpoint).toEqual(a.endpoint);
    b.send(toA, 100);
    world.run(SECOND);
    expect(a.delivered.length).toBe(1);
  });
});

test("traffic counters add up to the bytes on the wire", () => {
  const world = newWorld();
  const [a, b, toB, toA] = world.pair();
  stream(world, a, () => a.send(toB, 300), 5 * SECOND);
  const bytesOf = (device: WorldDevice): number => device.sent.reduce((sum, passed) => sum + passed.bytes.length, 0);
  expect([toB.bytesOut, toB.bytesIn]).toEqual([bytesOf(a), bytesOf(b)]);
  expect([toA.bytesIn, toA.bytesOut]).toEqual([bytesOf(a), bytesOf(b)]);
});

test("a preshared key must be the same at both ends; set on both it works at the next handshake", () => {
  const world = newWorld();
  const a = world.add("192.0.2.1:1001");
  const b = world.add("192.0.2.2:1002");
  const presharedKey = new Uint8Array(32).fill(9);
  const toB = world.introduce(a, b, { presharedKey });
  const toA = world.introduce(b, a);
  a.send(toB, 100);
  world.run(SECOND);
  expect(a.kinds).toEqual(["RESPONSE_FORGED"]);
  expect(b.delivered.length).toBe(0);
  b.device.updatePeer(world.nowMs, toA, { presharedKey });
  world.run(6 * SECOND);
  expect(b.delivered.length).toBe(1);
});
