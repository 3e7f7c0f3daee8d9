// What a hostile network sends to a device: each message a named drop with its counter, never a throw, and nothing
// changed by it.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeV4, parseEndpoint } from "../../src/base/address.ts";
import { fromHex } from "../../src/base/bytes.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { encodeCookieReply, encodeDataHeader, encodeInitiation, encodeResponse } from "../../src/wire/wireguard.ts";
import { CookieAsker } from "../../src/wireguard/cookies.ts";
import { createInitiation, newEphemeral } from "../../src/wireguard/handshake.ts";
import type { DropReason } from "../../src/wireguard/received.ts";
import { encodeTai64n } from "../../src/wireguard/tai64n.ts";
import { type SlowCrypto, slowCrypto } from "./slow-crypto.ts";
import { type Passed, START_MS, World, type WorldDevice } from "./world.ts";

const crypto = createNativeCrypto();
const ELSEWHERE = parseEndpoint("198.51.100.66:666")!;

/** A pair with a session, and one message of each kind as it was on the wire. */
function established(seed = 1): {
  world: World;
  a: WorldDevice;
  b: WorldDevice;
  sent: Record<"initiation" | "response" | "data", Passed>;
} {
  const world = new World(seed, crypto);
  const [a, b, toB] = world.pair();
  a.send(toB, 64);
  world.run(1_000);
  const sent = {
    initiation: a.sent.find((passed) => passed.kind === "initiation")!,
    response: b.sent.find((passed) => passed.kind === "response")!,
    data: a.sent.find((passed) => passed.kind === "data")!,
  };
  return { world, a, b, sent };
}

/** The drop's counter went up by one, no other did, and nothing was sent. */
function expectDrop(device: WorldDevice, bytes: Uint8Array, reason: DropReason, from = ELSEWHERE): void {
  const before = { ...device.device.counters };
  const sentBefore = device.sent.length;
  expect(device.receive(from, bytes)).toBe(reason);
  expect(device.device.counters).toEqual({ ...before, [reason]: before[reason] + 1 });
  expect(device.sent.length).toBe(sentBefore);
}

const bent = (bytes: Uint8Array, at: number): Uint8Array => {
  const copy = bytes.slice();
  copy[at]! ^= 0x40;
  return copy;
};

/** mac1 made right again after a change, as an attacker who knows the public key can. */
function withMacs(to: WorldDevice, bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  new CookieAsker(crypto, to.device.publicKey).addMacs(START_MS, copy);
  return copy;
}

describe("a handshake message", () => {
  test("without the right mac1 is MAC1_WRONG, whatever else is right", () => {
    const { b, a, sent } = established();
    for (const at of [4, 8, 60, 115, 116, 131]) expectDrop(b, bent(sent.initiation.bytes, at), "MAC1_WRONG");
    for (const at of [4, 20, 60, 75]) expectDrop(a, bent(sent.response.bytes, at), "MAC1_WRONG");
    expectDrop(a, sent.initiation.bytes, "MAC1_WRONG"); // made for another key
  });

  test("replayed is TIMESTAMP_OLD, from anywhere, at any time", () => {
    const { world, b, sent } = established();
    expectDrop(b, sent.initiation.bytes, "TIMESTAMP_OLD");
    world.nowMs += 3_600_000;
    expectDrop(b, sent.initiation.bytes, "TIMESTAMP_OLD");
  });

  test("with a bent inside and a right mac1 is INITIATION_FORGED", () => {
    const { b, sent } = established();
    for (const at of [9, 45, 90, 110]) expectDrop(b, withMacs(b, bent(sent.initiation.bytes, at)), "INITIATION_FORGED");
  });

  test("with a low-order ephemeral key is LOW_ORDER_POINT", () => {
    const { b, sent } = established();
    const bytes = sent.initiation.bytes.slice();
    bytes.fill(0, 8, 40);
    expectDrop(b, withMacs(b, bytes), "LOW_ORDER_POINT");
  });

  test("well made by a key that nobody told us of is UNKNOWN_PEER", () => {
    const { world, b } = established();
    const stranger = world.add("192.0.2.3:1003");
    const toB = world.introduce(stranger, b);
    stranger.send(toB, 10);
    expectDrop(b, stranger.sent[0]!.bytes, "UNKNOWN_PEER", stranger.endpoint);
  });

  test("by a known key, faster than one in 20 ms, is INITIATION_TOO_SOON", () => {
    const world = new World(1, crypto);
    const b = world.add("192.0.2.2:1002");
    const keyPair = world.newKeyPair();
    b.device.addPeer(world.nowMs, { owner: "flooder", publicKey: keyPair.publicKey });
    const shared = crypto.dh(keyPair.privateKey, b.device.publicKey)!;
    const initiation = (atMs: number): Uint8Array => {
      const ephemeral = newEphemeral(crypto, world.random);
      const made = createInitiation(crypto, keyPair, b.device.publicKey, shared, ephemeral, encodeTai64n(atMs))!;
      return withMacs(b, encodeInitiation({ senderIndex: 1, ...made.fields }));
    };
    expect(b.receive(ELSEWHERE, initiation(START_MS))).toBe("HANDSHAKE");
    world.nowMs += 19;
    expectDrop(b, initiation(START_MS + 1_000), "INITIATION_TOO_SOON");
    world.nowMs += 1;
    expect(b.receive(ELSEWHERE, initiation(START_MS + 2_000))).toBe("HANDSHAKE");
    expect(b.device.indexCount).toBe(1); // the unconfirmed session before was dropped
  });

  test("that answers nobody, or something long over, is UNKNOWN_INDEX", () => {
    const { a, b, sent } = established();
    expectDrop(a, sent.response.bytes, "UNKNOWN_INDEX"); // the same response again: no handshake is in flight any more
    const nobody = encodeResponse({
      senderIndex: 1,
      receiverIndex: 12345,
      ephemeral: new Uint8Array(32).fill(9),
      sealedEmpty: new Uint8Array(16),
    });
    expectDrop(b, withMacs(b, nobody), "UNKNOWN_INDEX");
  });

  test("forged in answer to a handshake in flight is RESPONSE_FORGED, and the true one is still taken", () => {
    const world = new World(1, crypto);
    const [a, b, toB] = world.pair();
    world.link = () => undefined;
    a.send(toB, 64);
    b.receive(a.endpoint, a.sent[0]!.bytes);
    const response = b.sent[0]!.bytes;
    expectDrop(a, withMacs(a, bent(response, 50)), "RESPONSE_FORGED");
    expectDrop(a, withMacs(a, bent(response, 14)), "RESPONSE_FORGED");
    const lowOrder = response.slice();
    lowOrder.fill(0, 12, 44);
    expectDrop(a, withMacs(a, lowOrder), "LOW_ORDER_POINT");
    expect(toB.endpoint).toEqual(b.endpoint);
    expect(a.receive(b.endpoint, response)).toBe("HANDSHAKE");
  });
});

describe("a data message", () => {
  test("replayed is REPLAYED; bent is DATA_FORGED; of no session or the wrong end is UNKNOWN_INDEX", () => {
    const { a, b, sent } = established();
    expectDrop(b, sent.data.bytes, "REPLAYED");
    const fresh = sent.data.bytes.slice();
    fresh[8] = 77; // another counter under the same ciphertext
    expectDrop(b, fresh, "DATA_FORGED");
    expectDrop(b, bent(sent.data.bytes, 5), "UNKNOWN_INDEX");
    expectDrop(a, sent.data.bytes, "UNKNOWN_INDEX");
  });

  test("with the counter 2^64 − 1, or at REJECT_AFTER_MESSAGES, is COUNTER_LIMIT", () => {
    const { b, sent } = established();
    for (const low of [0xffffffff, 0xffffdfff]) {
      const bytes = sent.data.bytes.slice();
      const index = new DataView(bytes.buffer).getInt32(4, true);
      encodeDataHeader(bytes, 0, index, low, 0xffffffff);
      expectDrop(b, bytes, "COUNTER_LIMIT");
      encodeDataHeader(bytes, 0, index, 0xffffdffe, 0xffffffff);
      expectDrop(b, bytes, "DATA_FORGED");
    }
  });

  test("for the index of a handshake in flight is UNKNOWN_INDEX", () => {
    const world = new World(1, crypto);
    const [a, , toB] = world.pair();
    world.link = () => undefined;
    a.send(toB, 64);
    const bytes = new Uint8Array(64);
    encodeDataHeader(bytes, 0, new DataView(a.sent[0]!.bytes.buffer).getInt32(4, true), 0, 0);
    expectDrop(a, bytes, "UNKNOWN_INDEX");
  });
});

describe("under load", () => {
  /** `a` takes 5 ms for a curve operation, and has more to do than that allows; `b` has asked it a moment ago. */
  function loaded(): {
    world: World;
    a: WorldDevice;
    b: WorldDevice;
    flood: () => void;
    message: () => Uint8Array;
    slow: SlowCrypto;
  } {
    const slow = slowCrypto(crypto, 5);
    const world = new World(1, crypto);
    const a = world.add("192.0.2.1:1001", slow);
    const b = world.add("192.0.2.2:1002");
    const stranger = world.add("192.0.2.3:1003");
    const toA = world.introduce(stranger, a);
    world.link = (message) => (message.from === stranger.endpoint ? undefined : 10);
    stranger.send(toA, 10);
    const flood = (): void => {
      for (let i = 0; i < 16; i++) a.receive(ELSEWHERE, stranger.sent[0]!.bytes);
      a.receive(b.endpoint, stranger.sent[0]!.bytes);
      expect(a.device.isUnderLoad(world.nowMs)).toBe(true);
    };
    return { world, a, b, flood, message: () => stranger.sent[0]!.bytes, slow };
  }

  test("an initiation is answered by a cookie, shorter than itself, without any Diffie–Hellman", () => {
    const { a, flood, slow, message } = loaded();
    flood();
    const [before, sent] = [slow.count(), a.sent.length];
    expect(a.receive(ELSEWHERE, message())).toBe("COOKIE_REQUIRED");
    expect(slow.count()).toBe(before);
    expect(a.sent.slice(sent).map((passed) => [passed.kind, passed.bytes.length, passed.to])).toEqual([
      ["cookie", 64, ELSEWHERE],
    ]);
  });

  test("with the cookie the next initiation passes; a peer gets through a flood that goes on", () => {
    const { world, a, b, flood } = loaded();
    world.introduce(a, b);
    const toA = world.introduce(b, a);
    flood();
    b.send(toA, 64);
    for (let i = 0; i < 70; i++) {
      world.run(100);
      flood();
    }
    expect(b.device.counters.COOKIES_RECEIVED).toBe(1);
    expect(b.count("initiation")).toBe(2);
    expect(a.delivered.length).toBe(1);
  });

  test("a cookie serves one source only, and for two minutes", () => {
    const { world, a, b, flood } = loaded();
    world.introduce(a, b);
    const toA = world.introduce(b, a);
    flood();
    b.send(toA, 64);
    world.run(50);
    world.link = () => undefined;
    world.run(6_000);
    const withCookie = b.sent.at(-1)!;
    expect(withCookie.bytes.subarray(132).some((byte) => byte !== 0)).toBe(true);
    flood();
    const otherPort = { ...b.endpoint, port: 9 };
    expect(a.receive(ELSEWHERE, withCookie.bytes)).toBe("COOKIE_REQUIRED");
    expect(a.receive(otherPort, withCookie.bytes)).toBe("COOKIE_REQUIRED");
    world.nowMs += 120_000;
    a.device.handleTimeout(world.nowMs);
    flood();
    expect(a.receive(b.endpoint, withCookie.bytes)).toBe("COOKIE_REQUIRED");
    b.send(toA, 64);
    world.run(30_000);
    expect(
      b.sent
        .at(-1)!
        .bytes.subarray(132)
        .every((byte) => byte === 0),
    ).toBe(true); // the asker forgot it too
  });

  test("a source with a cookie that asks too often is RATE_LIMITED", () => {
    const { world, a, b, flood } = loaded();
    world.introduce(a, b);
    const toA = world.introduce(b, a);
    flood();
    b.send(toA, 64);
    world.run(50);
    world.link = () => undefined;
    world.run(6_000);
    const withCookie = b.sent.at(-1)!.bytes;
    flood();
    for (let i = 0; i < 5; i++) expect(a.receive(b.endpoint, withCookie)).toBe("HANDSHAKE_WAITING");
    expectDrop(a, withCookie, "RATE_LIMITED", b.endpoint);
    world.run(5_000);
    expect(a.device.counters.INITIATIONS_RECEIVED).toBe(1);
    expect(a.device.counters.TIMESTAMP_OLD).toBe(4);
  });

  test("a cookie for nobody is UNKNOWN_INDEX; bent, made for another mac1 or repeated it is COOKIE_FORGED", () => {
    const { world, a, b, flood } = loaded();
    const toA = world.introduce(b, a);
    flood();
    b.send(toA, 64);
    world.link = () => undefined;
    a.receive(b.endpoint, b.sent[0]!.bytes);
    const cookie = a.sent.at(-1)!.bytes;
    expect(a.sent.at(-1)!.kind).toBe("cookie");
    expectDrop(b, bent(cookie, 4), "UNKNOWN_INDEX");
    expectDrop(b, bent(cookie, 10), "COOKIE_FORGED");
    expectDrop(b, bent(cookie, 63), "COOKIE_FORGED");
    const index = new DataView(cookie.buffer).getInt32(4, true);
    const foreign = a.sent[0]!.bytes.slice(); // a true cookie, for the stranger's mac1
    new DataView(foreign.buffer).setInt32(4, index, true);
    expectDrop(b, foreign, "COOKIE_FORGED");
    expect(b.receive(a.endpoint, cookie)).toBe("COOKIE");
    expectDrop(b, cookie, "COOKIE_FORGED");
    const random = encodeCookieReply({
      receiverIndex: index,
      nonce: new Uint8Array(24),
      sealedCookie: new Uint8Array(32),
    });
    expectDrop(b, random, "COOKIE_FORGED");
  });
});

describe("peers", () => {
  const world = new World(1, crypto);
  const { device } = world.add("192.0.2.1:1001", { peersMax: 2 });
  const add = (publicKey: Uint8Array) => device.addPeer(START_MS, { owner: "x", publicKey });

  test("our own key, zero, low-order keys, a second time and one too many are refused by name", () => {
    expect(add(device.publicKey)).toBe("OWN_KEY");
    expect(add(new Uint8Array(32))).toBe("ZERO_KEY");
    expect(add(fromHex(`${"ff".repeat(31)}7f`.replace(/^ff/, "ec"))!)).toBe("LOW_ORDER_KEY");
    const key = world.newKeyPair().publicKey;
    expect(typeof add(key)).toBe("object");
    expect(add(key)).toBe("DUPLICATE_KEY");
    expect(typeof add(world.newKeyPair().publicKey)).toBe("object");
    expect(add(world.newKeyPair().publicKey)).toBe("TOO_MANY_PEERS");
    expect(device.removePeer(key)).toBe(true);
    expect(device.removePeer(key)).toBe(false);
    expect(device.tunnelByKey(key)).toBeUndefined();
    expect(typeof add(key)).toBe("object");
    device.close();
    expect([...device.tunnels()]).toEqual([]);
  });

  test("a key in a caller's buffer is copied", () => {
    const lent = Buffer.from(world.newKeyPair().publicKey);
    const { device: other } = world.add("192.0.2.9:1009");
    const tunnel = other.addPeer(START_MS, { owner: "x", publicKey: lent });
    if (typeof tunnel === "string") throw new Error(tunnel);
    lent.fill(0);
    expect(tunnel.publicKey.some((byte) => byte !== 0)).toBe(true);
  });

  test("a clock set back does not lock a key out: what was sent last is kept and passed on", () => {
    const first = new World(1, crypto);
    const keyPair = first.newKeyPair();
    const a = first.add("192.0.2.1:1001", { keyPair });
    const b = first.add("192.0.2.2:1002");
    const toB = first.introduce(a, b);
    first.introduce(b, a);
    a.send(toB, 64);
    first.run(1_000);
    expect(b.delivered.length).toBe(1);
    const { lastTimestamp } = a.device;
    for (const [kept, delivered] of [
      [undefined, 1],
      [lastTimestamp!, 2],
    ] as const) {
      const again = first.add("192.0.2.1:1001", { keyPair, ...(kept === undefined ? {} : { lastTimestamp: kept }) });
      const tunnel = first.introduce(again, b);
      const nowMs = first.nowMs - 3_600_000;
      again.device.startHandshake(nowMs, tunnel);
      b.receive(again.endpoint, again.sent[0]!.bytes);
      expect(b.device.counters.INITIATIONS_RECEIVED).toBe(delivered);
    }
    expect(b.device.counters.TIMESTAMP_OLD).toBe(1);
  });
});

test("no datagram makes it throw or grow, whatever its bytes and length", () => {
  const { world, a, b, sent } = established();
  const base = fc.constantFrom(sent.initiation.bytes, sent.response.bytes, sent.data.bytes);
  const edit = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 });
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.tuple(base, edit, fc.boolean(), fc.nat(160)).map(([bytes, edits, macs, length]) => {
      const copy = bytes.slice();
      for (const [at, value] of edits) if (at < copy.length) copy[at] = value;
      return macs && copy.length !== 96 ? withMacs(b, copy) : copy.slice(0, length);
    }),
  );
  const indexes = b.device.indexCount;
  fc.assert(
    fc.property(hostile, fc.nat(0xffff), (bytes, host) => {
      world.nowMs += 1;
      b.receive({ address: makeV4(host), port: 1 + host }, bytes);
    }),
    { numRuns: 400 },
  );
  expect(b.device.indexCount).toBe(indexes);
  expect(a.device.tunnelByKey(b.device.publicKey)?.hasSession(world.nowMs)).toBe(true);
});

test("what is received lies in the caller's buffer at any offset, and the bytes before it stay", () => {
  const world = new World(1, crypto);
  const [a, b, toB] = world.pair();
  a.send(toB, 64);
  world.run(1_000);
  a.send(toB, 64, 9);
  const message = a.sent.at(-1)!.bytes;
  const buffer = new Uint8Array(300).fill(0xaa);
  buffer.set(message, 37);
  const received = b.device.receive(world.nowMs, a.endpoint, buffer, 37, message.length);
  expect([received.kind, received.offset, received.length, received.tunnel?.owner]).toEqual(["DATA", 53, 64, "peer"]);
  expect([...buffer.subarray(53, 117)].every((byte) => byte === 9)).toBe(true);
  expect([...buffer.subarray(0, 37)].every((byte) => byte === 0xaa)).toBe(true);
});
