import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { equalBytes, fromHex, toHex } from "../../src/base/bytes.ts";
import { type Random, SeededRandom } from "../../src/base/random.ts";
import { Channel, type ChannelDrop, NOISE_MESSAGE_MAX_BYTES } from "../../src/control/channel.ts";
import { NoiseInitiator, type NoiseKeys, respond } from "../../src/control/noise-nk.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";

const crypto = new PortableCrypto();
const hex = (text: string): Uint8Array => fromHex(text)!;

/** Gives the vector's ephemeral key. */
function fixed(text: string): Random {
  return { fill: (bytes) => bytes.set(hex(text)) };
}

interface Vector {
  readonly source: string;
  readonly prologue: string;
  readonly initiatorEphemeral: string;
  readonly remoteStatic: string;
  readonly responderStatic: string;
  readonly responderEphemeral: string;
  readonly handshakeHash: string | null;
  readonly messages: readonly [payload: string, ciphertext: string][];
}

const VECTORS = JSON.parse(readFileSync(new URL("../vectors/noise-nk.json", import.meta.url), "utf8")) as Vector[];

test.each(VECTORS)("both ends give the published messages of $source, transport messages too", (vector) => {
  const prologue = hex(vector.prologue);
  const staticKeys = { privateKey: hex(vector.responderStatic), publicKey: hex(vector.remoteStatic) };
  const initiator = new NoiseInitiator(crypto, fixed(vector.initiatorEphemeral), prologue, hex(vector.remoteStatic));
  const [first, second, ...transport] = vector.messages;
  if (first === undefined || second === undefined) return expect.unreachable();
  const message1 = initiator.writeMessage1(hex(first[0]))!;
  expect(toHex(message1)).toBe(first[1]);
  const answer = respond(crypto, fixed(vector.responderEphemeral), prologue, staticKeys, message1, hex(second[0]));
  if (typeof answer === "string") return expect.unreachable(answer);
  expect(toHex(answer.payload)).toBe(first[0]);
  expect(toHex(answer.message2)).toBe(second[1]);
  const done = initiator.readMessage2(answer.message2);
  if (typeof done === "string") return expect.unreachable(done);
  expect(toHex(done.payload)).toBe(second[0]);
  expect(done.keys.handshakeHash).toEqual(answer.keys.handshakeHash);
  if (vector.handshakeHash !== null) expect(toHex(done.keys.handshakeHash)).toBe(vector.handshakeHash);
  for (const [index, [payload, ciphertext]] of transport.entries()) {
    const [from, to] = index % 2 === 0 ? [done.keys, answer.keys] : [answer.keys, done.keys];
    const counter = Math.floor(index / 2);
    expect(toHex(crypto.seal(from.send, counter, hex(payload), new Uint8Array(0)))).toBe(ciphertext);
    expect(toHex(crypto.open(to.receive, counter, hex(ciphertext), new Uint8Array(0))!)).toBe(payload);
  }
});

function handshake(seed = 1): { initiator: NoiseKeys; responder: NoiseKeys; message1: Uint8Array } {
  const random = new SeededRandom(seed);
  const privateKey = new Uint8Array(32).fill(9);
  const staticKeys = { privateKey, publicKey: crypto.publicKey(privateKey) };
  const initiator = new NoiseInitiator(crypto, random, new Uint8Array(0), staticKeys.publicKey);
  const message1 = initiator.writeMessage1()!;
  const answer = respond(crypto, random, new Uint8Array(0), staticKeys, message1);
  if (typeof answer === "string") return expect.unreachable(answer);
  const done = initiator.readMessage2(answer.message2);
  if (typeof done === "string") return expect.unreachable(done);
  return { initiator: done.keys, responder: answer.keys, message1 };
}

test("every one-bit change of either handshake message is refused by name", () => {
  const random = new SeededRandom(3);
  const privateKey = new Uint8Array(32).fill(9);
  const staticKeys = { privateKey, publicKey: crypto.publicKey(privateKey) };
  for (let byte = 0; byte < 48; byte += 8) {
    const initiator = new NoiseInitiator(crypto, random, new Uint8Array(0), staticKeys.publicKey);
    const message1 = initiator.writeMessage1()!;
    const changed = message1.slice();
    changed[byte]! ^= 1;
    expect(respond(crypto, random, new Uint8Array(0), staticKeys, changed)).toBe("noise-forged");
    const answer = respond(crypto, random, new Uint8Array(0), staticKeys, message1);
    if (typeof answer === "string") return expect.unreachable(answer);
    answer.message2[byte]! ^= 1;
    expect(initiator.readMessage2(answer.message2)).toBe("noise-forged");
  }
});

test("a low-order ephemeral key, a short message, another prologue and another static key are named drops", () => {
  const random = new SeededRandom(4);
  const privateKey = new Uint8Array(32).fill(9);
  const staticKeys = { privateKey, publicKey: crypto.publicKey(privateKey) };
  const none = new Uint8Array(0);
  expect(respond(crypto, random, none, staticKeys, new Uint8Array(48))).toBe("noise-low-order");
  expect(respond(crypto, random, none, staticKeys, new Uint8Array(47))).toBe("noise-bad-length");
  const initiator = new NoiseInitiator(crypto, random, Uint8Array.of(1), staticKeys.publicKey);
  const message1 = initiator.writeMessage1()!;
  expect(respond(crypto, random, Uint8Array.of(2), staticKeys, message1)).toBe("noise-forged");
  const other = { privateKey: new Uint8Array(32).fill(8), publicKey: crypto.publicKey(new Uint8Array(32).fill(8)) };
  expect(respond(crypto, random, Uint8Array.of(1), other, message1)).toBe("noise-forged");
  expect(new NoiseInitiator(crypto, random, none, new Uint8Array(32)).writeMessage1()).toBeUndefined();
  expect(initiator.readMessage2(new Uint8Array(48))).toBe("noise-low-order");
  expect(initiator.readMessage2(new Uint8Array(47))).toBe("noise-bad-length");
});

test("a message 1 that is played again leads to another channel, where nothing of the first is accepted", () => {
  const privateKey = new Uint8Array(32).fill(9);
  const staticKeys = { privateKey, publicKey: crypto.publicKey(privateKey) };
  const { initiator, message1, responder } = handshake();
  const again = respond(crypto, new SeededRandom(99), new Uint8Array(0), staticKeys, message1);
  if (typeof again === "string") return expect.unreachable(again);
  expect(again.keys.handshakeHash).not.toEqual(responder.handshakeHash);
  const sealed = new Channel(crypto, initiator, 1_000).seal(Uint8Array.of(1, 2, 3));
  expect(new Channel(crypto, again.keys, 1_000).open(sealed[0] as Uint8Array)).toBe("channel-forged");
});

function pair(maxBytes: number, firstCounter = 0): [Channel, Channel] {
  const { initiator, responder } = handshake();
  return [
    new Channel(crypto, initiator, maxBytes, firstCounter),
    new Channel(crypto, responder, maxBytes, firstCounter),
  ];
}

function pass(from: Channel, to: Channel, record: Uint8Array): Uint8Array | ChannelDrop {
  const messages = from.seal(record);
  if (typeof messages === "string") return messages;
  let opened: ReturnType<Channel["open"]> = "more";
  for (const message of messages) {
    expect(message.length).toBeLessThanOrEqual(NOISE_MESSAGE_MAX_BYTES);
    opened = to.open(message);
    if (opened !== "more" && typeof opened === "string") return opened;
  }
  return opened === "more" ? expect.unreachable() : opened;
}

test("records of every size around the fragment's bounds come through, both ways", () => {
  const [a, b] = pair(150_000);
  for (const length of [0, 1, 65_517, 65_518, 65_519, 131_036, 131_037, 150_000]) {
    const record = new Uint8Array(length).fill(length % 251);
    for (const received of [pass(a, b, record), pass(b, a, record)])
      expect(received instanceof Uint8Array && equalBytes(received, record), String(length)).toBe(true);
  }
});

test("a record of one byte over the limit ends the channel by name", () => {
  const [a, b] = pair(100_000);
  expect(pass(a, b, new Uint8Array(100_000))).toHaveLength(100_000);
  expect(pass(a, b, new Uint8Array(100_001))).toBe("channel-record-too-large");
  expect(b.closed).toBe(true);
  expect(b.open(new Uint8Array(20))).toBe("channel-closed");
});

test("replayed, reordered, changed and short messages are named drops", () => {
  const fresh = (): [Channel, Uint8Array[]] => {
    const [a, b] = pair(1_000);
    return [b, [a.seal(Uint8Array.of(1)), a.seal(Uint8Array.of(2))].flat() as Uint8Array[]];
  };
  const [b1, [first]] = fresh();
  expect(b1.open(first!)).toEqual(Uint8Array.of(1));
  expect(b1.open(first!)).toBe("channel-forged");
  const [b2, [, second]] = fresh();
  expect(b2.open(second!)).toBe("channel-forged");
  const [b3, [changed]] = fresh();
  changed![5]! ^= 1;
  expect(b3.open(changed!)).toBe("channel-forged");
  const [b4] = fresh();
  expect(b4.open(new Uint8Array(16))).toBe("channel-bad-length");
  const [b5] = fresh();
  expect(b5.open(new Uint8Array(65_536))).toBe("channel-bad-length");
});

test("a fragment that goes on must be full, and its flag 0 or 1", () => {
  const { initiator, responder } = handshake();
  for (const plaintext of [Uint8Array.of(1, 9), Uint8Array.of(2, 9)]) {
    const message = crypto.seal(initiator.send, 0, plaintext, new Uint8Array(0));
    expect(new Channel(crypto, responder, 1_000).open(message)).toBe("channel-bad-fragment");
  }
});

test("a closed channel seals and opens nothing: its keys are zeros", () => {
  const [a, b] = pair(1_000);
  const [message] = a.seal(Uint8Array.of(1)) as Uint8Array[];
  for (const channel of [a, b]) channel.close();
  expect(a.seal(Uint8Array.of(2))).toBe("channel-closed");
  expect(b.open(message!)).toBe("channel-closed");
});

test("nor does a channel open behind its last counter", () => {
  const { initiator, responder } = handshake();
  const sealed = crypto.seal(initiator.send, 2 ** 32 - 1, Uint8Array.of(0, 7), new Uint8Array(0));
  expect(new Channel(crypto, responder, 1_000, 2 ** 32 - 1).open(sealed)).toBe("channel-counter-spent");
});

test("a channel ends before its counter could come round", () => {
  const [a, b] = pair(1_000, 2 ** 32 - 2);
  expect(pass(a, b, Uint8Array.of(7))).toEqual(Uint8Array.of(7));
  expect(a.seal(Uint8Array.of(8))).toBe("channel-counter-spent");
});
