// A flood of handshake messages against one device at virtual time, on a machine where a curve operation takes 0.2 ms:
// what it may cost, what waits, who goes first, and when strangers are asked for cookies.
import { expect, test } from "vitest";
import { type Endpoint, makeAddress, makeV4 } from "../../src/base/address.ts";
import {
  COOKIES_PER_SECOND_MAX,
  FORGED_RESPONSES_MAX,
  HANDSHAKE_SHARE_BUSY,
  HANDSHAKE_SHARE_QUIET,
  HANDSHAKES_WAITING_MAX,
  KNOWN_SOURCES_MAX,
  RATE_LIMITER_SOURCES_MAX,
} from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { INITIATION_BYTES, RESPONSE_BYTES } from "../../src/wire/wireguard.ts";
import { COOKIE_REFRESH_TIME_MS, CookieAnswerer, CookieAsker } from "../../src/wireguard/cookies.ts";
import { HandshakeGate, type SendCookie } from "../../src/wireguard/handshake-gate.ts";
import { HandshakeQueue, HandshakeWork } from "../../src/wireguard/handshake-work.ts";
import { COOKIES_BURST } from "../../src/wireguard/rate-limiter.ts";
import { newDeviceCounters } from "../../src/wireguard/received.ts";
import { type SlowCrypto, slowCrypto } from "./slow-crypto.ts";
import { START_MS, World, type WorldDevice } from "./world.ts";

const crypto = createNativeCrypto();
const CURVE_MS = 0.2;
const random = new SeededRandom(4);

const sourceOf = (number: number): Endpoint => ({ address: makeV4(0x0a420000 + number), port: 4_000 });

/** A right mac1 and garbage behind it: one Diffie–Hellman shows that it is worth nothing. */
function garbage(to: Uint8Array, bytes = INITIATION_BYTES): Uint8Array {
  const message = new Uint8Array(bytes);
  random.fill(message);
  message.fill(0, 0, 4);
  message.fill(0, bytes - 16);
  message[0] = bytes === INITIATION_BYTES ? 1 : 2;
  new CookieAsker(crypto, to).addMacs(0, message);
  return message;
}

interface Scene {
  readonly world: World;
  readonly a: WorldDevice;
  readonly slow: SlowCrypto;
  /** Garbage from `sources` addresses by turns, `perMs` of it each ms, for so long. */
  flood(forMs: number, perMs: number, sources: number, from?: (number: number) => Endpoint): void;
}

function scene(curveMs = CURVE_MS): Scene {
  const slow = slowCrypto(crypto, curveMs);
  const world = new World(1, crypto);
  const a = world.add("192.0.2.1:1001", slow);
  const messages = Array.from({ length: 50 }, () => garbage(a.device.publicKey));
  let count = 0;
  return {
    world,
    a,
    slow,
    flood(forMs, perMs, sources, from = sourceOf) {
      for (let ms = 0; ms < forMs; ms++) {
        for (let i = 0; i < perMs; i++, count++) a.receive(from(count % sources), messages[count % 50]!);
        world.run(1);
      }
    },
  };
}

test("junk with a wrong mac1, and responses to nobody with a right one, cost no work and are no load", () => {
  const { world, a, slow } = scene();
  const wrong = garbage(new Uint8Array(32).fill(9));
  const toNobody = garbage(a.device.publicKey, RESPONSE_BYTES);
  const before = slow.count();
  for (let i = 0; i < 5_000; i++) {
    expect(a.receive(sourceOf(i), wrong)).toBe("MAC1_WRONG");
    expect(a.receive(sourceOf(i), toNobody)).toBe("UNKNOWN_INDEX");
  }
  expect(slow.count()).toBe(before);
  expect(a.device.handshakeWork.messages).toBe(0);
  expect(a.device.isUnderLoad(world.nowMs)).toBe(false);
  expect([a.sent.length, a.device.handshakesWaiting]).toEqual([0, 0]);
});

test("many initiations that the device has time for are no load: 500 a second, spread out", () => {
  const { world, a, flood } = scene();
  for (let i = 0; i < 500; i++) {
    flood(1, 1, 1);
    world.run(1);
  }
  expect(a.device.counters.INITIATION_FORGED).toBe(500);
  expect(a.device.isUnderLoad(world.nowMs)).toBe(false);
  expect(a.sent.length).toBe(0);
});

test("more work than there is time for is load; it ends a second after the work does", () => {
  const { world, a, flood } = scene();
  flood(100, 20, 1);
  expect(a.device.isUnderLoad(world.nowMs)).toBe(true);
  expect(a.device.counters.COOKIE_REQUIRED).toBeGreaterThan(0);
  world.run(2_000);
  expect(a.device.isUnderLoad(world.nowMs)).toBe(false);
  expect(a.device.handshakesWaiting).toBe(0);
  const cookies = a.device.counters.COOKIE_REQUIRED;
  flood(1, 1, 1);
  world.run(10);
  expect(a.device.counters.COOKIE_REQUIRED).toBe(cookies); // and is worked on as ever
});

test.each([
  ["while data flows", HANDSHAKE_SHARE_BUSY],
  ["while nothing else happens", HANDSHAKE_SHARE_QUIET],
])("one message a turn, and no more than their share of the time, %s", (_name, share) => {
  const { world, a, slow, flood } = scene();
  const b = world.add("192.0.2.2:1002");
  world.introduce(a, b);
  const toA = world.introduce(b, a);
  b.send(toA, 64);
  world.run(1_000);
  const atStart = slow.count();
  for (let ms = 0; ms < 500; ms += 10) {
    if (share === HANDSHAKE_SHARE_BUSY) b.send(toA, 64);
    flood(10, 10, 1_000_000);
  }
  const spentMs = (slow.count() - atStart) * CURVE_MS;
  expect(spentMs).toBeLessThanOrEqual(500 * share * 1.1); // the first data comes 10 ms after the flood
  expect(spentMs).toBeGreaterThan(500 * share * 0.5);
  const before = slow.count();
  a.receive(sourceOf(1), garbage(a.device.publicKey));
  a.device.handleTimeout(world.nowMs);
  a.device.handleTimeout(world.nowMs);
  expect(slow.count() - before).toBeLessThanOrEqual(1);
});

test("under 10,000 initiations a second from 1,000 addresses new peers and known ones are served at once", () => {
  const { world, a, flood } = scene();
  const friends = Array.from({ length: 8 }, (_, i) => world.add(`198.51.100.${i + 1}:${2_000 + i}`));
  const tunnels = friends.map((friend) => {
    world.introduce(a, friend, { owner: "friend" });
    return world.introduce(friend, a);
  });
  flood(300, 10, 1_000);
  const took: number[] = [];
  for (let round = 0; round < 2; round++) {
    for (const [i, friend] of friends.entries()) {
      const startedMs = world.nowMs;
      friend.device.expireSessions(tunnels[i]!);
      friend.device.startHandshake(world.nowMs, tunnels[i]!);
      for (let ms = 0; ms < 1_000 && !tunnels[i]!.hasSession(world.nowMs); ms++) flood(1, 10, 1_000);
      took.push(world.nowMs - startedMs);
    }
    for (let ms = 0; ms < 5_000; ms += 50) {
      flood(1, 10, 1_000);
      world.run(49);
    }
  }
  expect(Math.max(...took)).toBeLessThan(300);
  expect(friends.reduce((sum, friend) => sum + friend.device.counters.COOKIES_RECEIVED, 0)).toBe(0);
});

test("who forges a peer's address keeps it from nothing: it gets a cookie, and is heard with it", () => {
  const { world, a, flood } = scene();
  const b = world.add("192.0.2.2:1002");
  world.introduce(a, b);
  const toA = world.introduce(b, a);
  const forged = (number: number): Endpoint => (number % 2 === 0 ? b.endpoint : sourceOf(number));
  flood(500, 10, 1_000, forged);
  b.device.startHandshake(world.nowMs, toA);
  const startedMs = world.nowMs;
  while (!toA.hasSession(world.nowMs) && world.nowMs < startedMs + 7_000) flood(1, 1, 1_000, forged);
  expect(b.device.counters.COOKIES_RECEIVED).toBe(1);
  expect(world.nowMs - startedMs).toBeLessThan(6_000); // REKEY_TIMEOUT, then at once
});

test("cookie replies are shorter than what they answer, never more, and bounded over all sources", () => {
  const { a, flood } = scene();
  flood(1_000, 20, 100);
  const { COOKIES_SENT, COOKIES_WITHHELD } = a.device.counters;
  const cookies = a.sent.filter((passed) => passed.kind === "cookie");
  expect(cookies.length).toBe(COOKIES_SENT);
  expect(a.sent.length).toBe(COOKIES_SENT);
  expect(cookies.every((passed) => passed.bytes.length === 64)).toBe(true);
  expect(COOKIES_SENT).toBeGreaterThan(1_000);
  expect(COOKIES_SENT).toBeLessThanOrEqual(COOKIES_PER_SECOND_MAX + COOKIES_BURST);
  expect(COOKIES_WITHHELD).toBeGreaterThan(10_000);
});

test("the cookie's secret changes under a flood: an old cookie is worth nothing, a new one is", () => {
  const { world, a, flood } = scene();
  const from = sourceOf(5_000);
  const asker = new CookieAsker(crypto, a.device.publicKey);
  const made = (): Uint8Array => {
    const message = garbage(a.device.publicKey);
    asker.addMacs(world.nowMs, message);
    return message;
  };
  const ask = (): string => a.receive(from, made());
  const takeCookie = (): void => {
    const reply = a.sent.filter((passed) => passed.to === from).at(-1)!.bytes;
    const view = { receiverIndex: 0, nonce: reply.slice(8, 32), sealedCookie: reply.slice(32) };
    expect(asker.consumeReply(world.nowMs, view)).toBe(true);
  };
  flood(50, 20, 1_000);
  world.run(20);
  for (let i = 0; i < 3 && ask() !== "COOKIE_REQUIRED"; i++);
  takeCookie();
  const old = made();
  expect(a.receive(from, old)).toBe("HANDSHAKE_WAITING");
  world.nowMs += COOKIE_REFRESH_TIME_MS - 100;
  a.device.handleTimeout(world.nowMs);
  flood(200, 20, 1_000);
  expect(a.receive(from, made())).toBe("HANDSHAKE_WAITING"); // its first for a while, which every stranger has
  expect(a.receive(from, old)).toBe("COOKIE_REQUIRED");
  for (let i = 0; i < 3 && ask() !== "COOKIE_REQUIRED"; i++);
  takeCookie();
  expect(ask()).toBe("HANDSHAKE_WAITING");
});

/** `a` has just asked `b`, whose answer is at hand and has not been brought: the test does that. */
function answered(curveMs = CURVE_MS) {
  const { world, a, slow } = scene(curveMs);
  const b = world.add("192.0.2.2:1002");
  world.introduce(b, a);
  const toB = world.introduce(a, b);
  world.link = () => undefined;
  a.device.startHandshake(world.nowMs, toB);
  b.receive(a.endpoint, a.sent[0]!.bytes);
  world.run(1); // no answer comes in the turn of its asking
  return { world, a, b, toB, slow, response: b.sent[0]!.bytes };
}

test("responses that are forged to an initiation of ours: after the limit only a sender with a cookie is heard", () => {
  const { world, a, b, slow, response } = answered();
  const forge = (): Uint8Array => {
    const message = response.slice();
    random.fill(message.subarray(12, 60));
    new CookieAsker(crypto, a.device.publicKey).addMacs(0, message);
    return message;
  };
  for (let i = 0; i < FORGED_RESPONSES_MAX; i++) {
    expect(a.receive(b.endpoint, forge())).toBe(i === 1 ? "HANDSHAKE_WAITING" : "RESPONSE_FORGED");
    if (i > 0) world.run(100); // the first goes ahead of the pause, the second does not
  }
  const before = slow.count();
  expect(a.device.counters.RESPONSE_FORGED).toBe(FORGED_RESPONSES_MAX);
  expect(a.receive(b.endpoint, forge())).toBe("COOKIE_REQUIRED");
  expect(slow.count()).toBe(before);
  expect(a.receive(b.endpoint, response)).toBe("COOKIE_REQUIRED"); // the true one too: its sender answers the next
});

test("the answer to what was asked a moment ago does not wait for the asking's pause, and makes it longer", () => {
  const { world, a, b, toB, response } = answered(2);
  const deferredTo = (): number => {
    const other = world.introduce(a, world.add(`198.51.100.${world.nowMs % 250}:2000`));
    a.device.startHandshake(world.nowMs, other); // waits for the pause to end
    const readyMs = a.device.nextDeadlineMs();
    a.device.removePeer(other.publicKey);
    return readyMs - world.nowMs;
  };
  const pauseMs = deferredTo();
  expect(pauseMs).toBeGreaterThan(1);
  expect(a.receive(b.endpoint, response)).toBe("HANDSHAKE");
  expect(toB.hasSession(world.nowMs)).toBe(true);
  expect(deferredTo()).toBeGreaterThan(pauseMs + 1);
});

test("an answer that waited until its peer was taken away is nobody's", () => {
  const { world, a, b, response } = answered(2);
  const forged = response.slice();
  forged[20]! ^= 1;
  new CookieAsker(crypto, a.device.publicKey).addMacs(0, forged);
  expect(a.receive(b.endpoint, forged)).toBe("RESPONSE_FORGED"); // ahead of the pause, which the next waits for
  expect(a.receive(b.endpoint, response)).toBe("HANDSHAKE_WAITING");
  a.device.removePeer(b.device.publicKey);
  world.run(1_000);
  expect(a.device.counters.UNKNOWN_INDEX).toBe(1);
});

/** `b` has asked `a`, of whom a curve operation takes `curveMs`; `ask` brings its initiation, one more each time. */
function asked(curveMs: number) {
  const { world, a, slow } = scene(curveMs);
  const b = world.add("192.0.2.2:1002");
  const toB = world.introduce(a, b);
  const toA = world.introduce(b, a);
  world.link = () => undefined;
  const ask = () => {
    const before = slow.count();
    b.device.startHandshake(world.nowMs, toA);
    const kind = a.receive(b.endpoint, b.sent.at(-1)!.bytes);
    return { kind, curves: slow.count() - before };
  };
  return { world, a, b, toA, toB, slow, ask };
}

/** The next turn, 1 ms later: so many curve operations, and what was sent until then. */
function nextTurn(world: World, a: WorldDevice, slow: SlowCrypto): { curves: number; answers: number } {
  const before = slow.count();
  expect(a.device.nextDeadlineMs()).toBeLessThanOrEqual(world.nowMs + 1);
  world.nowMs += 1;
  a.device.handleTimeout(world.nowMs);
  return { curves: slow.count() - before, answers: a.count("response") };
}

test("an initiation that was slow to open is answered in the next two turns, and in no other work's", () => {
  const { world, a, b, toA, slow, ask } = asked(0.3);
  expect(ask()).toEqual({ kind: "HANDSHAKE", curves: 2 }); // who asks, and the product of both static keys
  expect(a.count("response")).toBe(0);
  expect(a.device.counters.INITIATIONS_RECEIVED).toBe(1);
  a.device.handleTimeout(world.nowMs); // the same turn
  expect([a.count("response"), slow.count()]).toEqual([0, 2]);
  expect(a.device.nextDeadlineMs()).toBe(world.nowMs + 1);
  a.receive(sourceOf(1), garbage(a.device.publicKey)); // waits, for the pause after the first part
  expect(nextTurn(world, a, slow)).toEqual({ curves: 2, answers: 0 }); // an ephemeral key and a product
  expect(nextTurn(world, a, slow)).toEqual({ curves: 1, answers: 1 }); // and another
  expect(b.receive(a.endpoint, a.sent.at(-1)!.bytes)).toBe("HANDSHAKE");
  expect(toA.hasSession(world.nowMs)).toBe(true);
  expect(a.device.handshakeWork).toMatchObject({ messages: 3, longMessages: 0 });
  expect(a.device.handshakesWaiting).toBe(1);
});

test("an answer that is due while its turn has done other handshake work waits for the one after", () => {
  const { world, a, toB, slow, ask } = asked(0.3);
  ask();
  world.nowMs += 100; // the pause is over
  a.device.startHandshake(world.nowMs, toB);
  expect(slow.count()).toBe(4); // an initiation of our own
  a.device.handleTimeout(world.nowMs);
  expect([a.count("response"), slow.count()]).toEqual([0, 4]);
  expect(nextTurn(world, a, slow)).toEqual({ curves: 2, answers: 0 });
  expect(nextTurn(world, a, slow)).toEqual({ curves: 1, answers: 1 });
});

test("an initiation that was opened fast is answered at once: five curve operations of 0.1 ms fit", () => {
  const { a, ask } = asked(0.1);
  expect(ask()).toEqual({ kind: "HANDSHAKE", curves: 5 });
  expect(a.count("response")).toBe(1);
});

test("two answers that are due at once have turns of their own, and none stays due in the other's", () => {
  const { world, a, slow } = scene(0.3);
  world.link = () => undefined;
  for (const number of [2, 3]) {
    const asker = world.add(`192.0.2.${number}:${1_000 + number}`);
    world.introduce(a, asker);
    asker.device.startHandshake(world.nowMs, world.introduce(asker, a));
    expect(a.receive(asker.endpoint, asker.sent.at(-1)!.bytes)).toBe("HANDSHAKE");
    world.nowMs += 100; // the pause is over, and no turn came for the first one's answer
  }
  const turns = Array.from({ length: 4 }, () => {
    const turn = nextTurn(world, a, slow);
    expect(a.device.nextDeadlineMs()).toBeGreaterThan(world.nowMs);
    return turn;
  });
  expect(turns.map(({ curves }) => curves)).toEqual([2, 2, 1, 1]);
  expect(turns.map(({ answers }) => answers)).toEqual([0, 0, 1, 2]);
});

test("of an answer whose first half was slow the second has the next turn", () => {
  const { world, a, slow, ask } = asked(0.2);
  expect(ask()).toEqual({ kind: "HANDSHAKE", curves: 4 });
  expect(a.count("response")).toBe(0);
  expect(nextTurn(world, a, slow)).toEqual({ curves: 1, answers: 1 });
});

test("while data flows each third of an initiation's work has a turn of its own, however fast it is", () => {
  const { world, a, slow, ask } = asked(0.01);
  const c = world.add("192.0.2.3:1003");
  const toC = world.introduce(a, c);
  const flow = (): void => void a.device.send(world.nowMs, toC, new Uint8Array(200), 16, 64);
  flow();
  world.nowMs += 5;
  const before = slow.count();
  expect(ask()).toEqual({ kind: "HANDSHAKE", curves: 2 });
  flow();
  expect(nextTurn(world, a, slow)).toEqual({ curves: 2, answers: 0 });
  expect(nextTurn(world, a, slow)).toEqual({ curves: 1, answers: 1 });
  expect(slow.count() - before).toBe(5);
});

test.each([
  ["is taken away", "TAKEN_AWAY"],
  ["is cut off", "CUT"],
  ["asks again", "ASKS"],
] as const)("who %s before its answer was made gets none to what it asked", (_name, what) => {
  const { world, a, b, toB, slow, ask } = asked(0.3);
  expect(ask().curves).toBe(2);
  if (what === "TAKEN_AWAY") a.device.removePeer(b.device.publicKey);
  else if (what === "CUT") a.device.expireSessions(toB);
  else {
    world.nowMs += 5_100; // REKEY_TIMEOUT, and nothing has run meanwhile
    expect(ask()).toEqual({ kind: "HANDSHAKE", curves: 3 }); // the static product is known: opened fast
  }
  const before = slow.count();
  world.run(50);
  expect(slow.count() - before).toBe(what === "ASKS" ? 1 : 0);
  expect(a.count("response")).toBe(what === "ASKS" ? 1 : 0);
});

test("own initiations wait for each other too: fifty peers at once, one a turn, all within their share", () => {
  const { world, a, slow } = scene();
  const tunnels = Array.from({ length: 50 }, (_, i) => {
    const tunnel = world.introduce(a, world.add(`198.51.100.${i + 1}:${2_000 + i}`));
    return tunnel;
  });
  const before = slow.count();
  for (const tunnel of tunnels) a.device.startHandshake(world.nowMs, tunnel);
  expect(a.count("initiation")).toBe(1);
  expect(slow.count() - before).toBeLessThanOrEqual(3);
  expect(a.device.counters.INITIATIONS_DEFERRED).toBe(49);
  a.device.removePeer(tunnels[30]!.publicKey);
  a.device.expireSessions(tunnels[31]!);
  world.run(500);
  expect(a.count("initiation")).toBe(48); // nothing for who is gone or no longer wanted
  expect(a.device.nextDeadlineMs()).toBeGreaterThan(world.nowMs);
});

test("a handshake that waited tells the layer above where its peer is", () => {
  const { world, a, flood } = scene();
  const b = world.add("192.0.2.2:1002");
  const toB = world.introduce(a, b);
  const toA = world.introduce(b, a);
  b.send(toA, 64);
  world.run(9);
  flood(3, 30, 90);
  world.run(1_000);
  expect(a.device.counters.HANDSHAKE_WAITING).toBeGreaterThan(4);
  expect(toB.endpoint).toEqual(b.endpoint);
  expect(a.events).toContain("endpoint 1002"); // the same as before, but heard from just now
});

interface GateScene {
  readonly gate: HandshakeGate;
  readonly work: HandshakeWork;
  readonly counters: ReturnType<typeof newDeviceCounters>;
  readonly cookies: Endpoint[];
  ask(nowMs: number, from: Endpoint): string;
  answer(nowMs: number, from: Endpoint): string;
}

/** A gate alone; nothing ever gets its turn unless the test takes it. `costMs`: of the one message before. */
function gateScene(costMs: number): GateScene {
  const publicKey = crypto.publicKey(new Uint8Array(32).fill(5));
  let clockMs = 0;
  const work = new HandshakeWork(() => clockMs);
  const counters = newDeviceCounters();
  const cookies: Endpoint[] = [];
  const sendCookie: SendCookie = (_nowMs, to) => cookies.push(to);
  const gate = new HandshakeGate(new CookieAnswerer(crypto, random, publicKey), work, counters, sendCookie);
  work.begin();
  clockMs += costMs;
  work.end(START_MS);
  const message = garbage(publicKey);
  return {
    gate,
    work,
    counters,
    cookies,
    ask: (nowMs, from) => gate.admit(nowMs, from, message, 0, message.length, "asks"),
    answer: (nowMs, from) => gate.admit(nowMs, from, message, 0, message.length, "answers"),
  };
}

test("so many messages wait of strangers; at limit + 1 the oldest gives way, counted, and is offered a cookie", () => {
  const { gate, counters, cookies, ask } = gateScene(0.01);
  for (let i = 0; i < HANDSHAKES_WAITING_MAX; i++) expect(ask(START_MS, sourceOf(i))).toBe("HANDSHAKE_WAITING");
  expect([gate.waiting, counters.HANDSHAKE_PUSHED_OUT, cookies.length]).toEqual([HANDSHAKES_WAITING_MAX, 0, 0]);
  expect(ask(START_MS, sourceOf(9_999))).toBe("HANDSHAKE_WAITING");
  expect([gate.waiting, counters.HANDSHAKE_PUSHED_OUT]).toEqual([HANDSHAKES_WAITING_MAX, 1]);
  expect(cookies).toEqual([sourceOf(0)]);
  expect(gate.next(START_MS)?.from).toEqual(sourceOf(9_999)); // the newest first
});

test("what has waited until its sender asked anew is dropped, counted", () => {
  const { gate, counters, ask } = gateScene(0.01);
  ask(START_MS, sourceOf(1));
  ask(START_MS + 0.001, sourceOf(2));
  expect(gate.next(START_MS + 5_000)?.from).toEqual(sourceOf(2));
  expect(gate.next(START_MS + 5_000)).toBeUndefined();
  expect([counters.HANDSHAKE_STALE, gate.waiting]).toEqual([1, 0]);
});

test("known peers, senders with a cookie and strangers take turns, whoever came in greater number", () => {
  const queue = new HandshakeQueue<string>();
  for (let i = 0; i < 100; i++) queue.push("stranger", "stranger");
  for (let i = 0; i < 3; i++) queue.push("known", `known ${i}`);
  queue.push("proven", "proven");
  const order = Array.from({ length: 7 }, () => queue.take());
  expect(order.filter((who) => who?.startsWith("known"))).toEqual(["known 2", "known 1", "known 0"]);
  expect(order.indexOf("proven")).toBeLessThan(3);
  expect(queue.size).toBe(97);
});

test("a known source is let in under load, however many strangers there were; at limit + 1 one is forgotten", () => {
  const { gate, work, ask } = gateScene(5);
  const friend = sourceOf(1_000_000);
  gate.noteAuthenticated(START_MS, friend);
  for (let i = 0; i < RATE_LIMITER_SOURCES_MAX + 2_000; i++) ask(START_MS, sourceOf(i));
  expect(work.isLoaded(START_MS)).toBe(true);
  for (let i = 0; i < 3; i++) expect(ask(START_MS, friend)).toBe("HANDSHAKE_WAITING");
  const others = [gate.next(START_MS)!, gate.next(START_MS)!, gate.next(START_MS)!];
  expect(others.some(({ from }) => from === friend)).toBe(true);
  for (let i = 0; i < KNOWN_SOURCES_MAX; i++) gate.noteAuthenticated(START_MS, sourceOf(2_000_000 + i));
  for (let i = 0; i < 3; i++) ask(START_MS, friend);
  expect(["COOKIE_REQUIRED", "RATE_LIMITED"]).toContain(ask(START_MS, friend)); // a stranger again
});

test("under load too, who comes when nothing waits goes at once", () => {
  const { gate, work, ask } = gateScene(5);
  for (let i = 0; i < 100; i++) ask(START_MS, sourceOf(i));
  while (gate.next(START_MS) !== undefined);
  const readyMs = work.readyMs;
  expect(work.isLoaded(readyMs)).toBe(true);
  expect(ask(readyMs - 1, sourceOf(1_000))).toBe("HANDSHAKE_WAITING");
  expect(gate.next(readyMs)).toBeDefined();
  expect(ask(readyMs, sourceOf(1_001))).toBe("NOW");
});

test("under load an answer to us waits among the known, as often as its source may", () => {
  const { work, ask, answer } = gateScene(5);
  for (let i = 0; i < 100; i++) ask(START_MS, sourceOf(i));
  expect(work.isLoaded(START_MS)).toBe(true);
  for (let i = 0; i < 3; i++) expect(answer(START_MS, sourceOf(5_000))).toBe("HANDSHAKE_WAITING");
});

test("an empty queue gives nothing, and holds as many as ever afterwards", () => {
  const queue = new HandshakeQueue<number>();
  for (let i = 0; i < 10; i++) expect(queue.take()).toBeUndefined();
  for (let i = 0; i < HANDSHAKES_WAITING_MAX; i++) expect(queue.push("stranger", i)).toBeUndefined();
  expect(queue.push("stranger", -1)).toBe(0);
  expect(queue.size).toBe(HANDSHAKES_WAITING_MAX);
});

test("ten thousand IPv6 /64s leave the tables at their bounds, and the addresses of one /64 are one source", () => {
  const { gate, ask } = gateScene(5);
  const inPrefix = (prefix: number, host: number): Endpoint => ({
    address: makeAddress(0xfd660000, prefix, 0, host),
    port: 4_000,
  });
  for (let i = 0; i < 10_000; i++) ask(START_MS, inPrefix(i, 1));
  expect(gate.waiting).toBe(HANDSHAKES_WAITING_MAX);
  expect(ask(START_MS, inPrefix(20_000, 1))).toBe("HANDSHAKE_WAITING");
  expect(["COOKIE_REQUIRED", "RATE_LIMITED"]).toContain(ask(START_MS, inPrefix(20_000, 2)));
  for (const { size, limit } of gate.tables()) expect(size).toBeLessThanOrEqual(limit);
  expect(gate.tables().some(({ size }) => size === RATE_LIMITER_SOURCES_MAX)).toBe(true);
});
