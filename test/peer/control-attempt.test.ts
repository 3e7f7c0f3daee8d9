// The peer's end of the control channel against a coordinator that has the right keys and does as it likes: each frame
// that no honest one sends ends the attempt by a name, and none of it reaches the client.
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type WebSocket, WebSocketServer } from "ws";
import { toBase64 } from "../../src/base/bytes.ts";
import { CONTROL_RECORD_MAX_BYTES } from "../../src/base/limits.ts";
import { randomBytes } from "../../src/base/random.ts";
import { Channel, NOISE_MESSAGE_MAX_BYTES } from "../../src/control/channel.ts";
import { PROTOCOL_VERSION, prologueOf } from "../../src/control/contexts.ts";
import { type CoordinatorMessage, encodeBytesRecord, encodeJsonRecord } from "../../src/control/messages.ts";
import { type NoiseKeys, respond } from "../../src/control/noise-nk.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { ControlAttempt } from "../../src/peer/control-attempt.ts";
import { crypto } from "../coordinator/network.ts";

const privateKey = randomBytes(osRandom, 32);
const KEYS = { privateKey, publicKey: crypto.publicKey(privateKey) };
const NO_DATA = new Uint8Array(0);
const CHALLENGE: CoordinatorMessage = { type: "challenge", key: toBase64(KEYS.publicKey) };
const PONG = (n: number): Uint8Array => encodeJsonRecord({ type: "pong", n, timeMs: 1 });

/** The coordinator's end of one attempt. */
interface End {
  readonly socket: WebSocket;
  readonly channel: Channel;
  readonly keys: NoiseKeys;
  readonly message2: Uint8Array;
  /** The first record that the peer sent, sealed. */
  readonly heard: Promise<Uint8Array>;
}

interface Outcome {
  readonly code: string;
  readonly message: string;
  /** What reached the client. */
  readonly records: readonly string[];
}

let server: WebSocketServer;
beforeEach(async () => {
  server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await new Promise((resolve) => server.once("listening", resolve));
});
afterEach(async () => {
  for (const client of server.clients) client.terminate();
  await new Promise((resolve) => server.close(resolve));
});

/** One attempt from its beginning to its end; `act` once message 1 has been answered, or answers it itself. */
async function attempt(act: (end: End) => unknown, answers = true): Promise<Outcome> {
  const records: string[] = [];
  server.once("connection", (socket) => {
    socket.once("message", (message1: Buffer) => {
      const answer = respond(crypto, osRandom, prologueOf(PROTOCOL_VERSION), KEYS, message1.subarray(1));
      if (typeof answer === "string") throw new Error(answer);
      const heard = new Promise<Uint8Array>((resolve) => socket.once("message", resolve));
      const channel = new Channel(crypto, answer.keys, 2 ** 20);
      if (answers) socket.send(answer.message2);
      act({ socket, channel, keys: answer.keys, message2: answer.message2, heard });
    });
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const options = { url, coordinatorKey: KEYS.publicKey, crypto, random: osRandom };
  return await new Promise((resolve) => {
    const peer = new ControlAttempt(options, {
      onChallenge: () => void peer.send({ type: "ping", n: 1 }),
      onRecord: (record) => records.push(record.kind === "message" ? record.message.type : record.kind),
      onEnd: ({ code, message }) => resolve({ code, message, records }),
    });
  });
}

function sealed(channel: Channel, record: Uint8Array): Uint8Array[] {
  const messages = channel.seal(record);
  if (typeof messages === "string") throw new Error(messages);
  return messages;
}

function send({ socket }: Pick<End, "socket">, ...messages: readonly (Uint8Array | undefined)[]): void {
  for (const message of messages) socket.send(message!);
}

const challenge = ({ channel }: End): Uint8Array => sealed(channel, encodeJsonRecord(CHALLENGE))[0]!;

/** What another attempt, as honest as can be, was answered with. */
async function another(): Promise<End> {
  let other: End | undefined;
  await attempt((end) => {
    other = end;
    end.socket.terminate();
  });
  return other!;
}

test("what an honest coordinator sends reaches the client, up to a record of exactly the limit", async () => {
  const { records } = await attempt((end) => {
    const largest = encodeBytesRecord(2, new Uint8Array(CONTROL_RECORD_MAX_BYTES - 1));
    send(end, challenge(end), ...sealed(end.channel, PONG(1)), ...sealed(end.channel, largest));
    end.socket.close();
  });
  expect(records).toEqual(["pong", "netmap"]);
});

test("a message 2 of another handshake, played again, is not the coordinator's", async () => {
  const other = await another();
  const outcome = await attempt(({ socket }) => socket.send(other.message2), false);
  expect(outcome).toMatchObject({ code: "COORDINATOR_UNTRUSTED", records: [] });
});

test("a message 2 that comes twice is a forged record the second time", async () => {
  const { message, records } = await attempt((end) => send(end, end.message2));
  expect(message).toContain("(channel-forged)");
  expect(records).toEqual([]);
});

interface Case {
  readonly what: string;
  readonly drop: string;
  /** Records that the client has by then. */
  readonly before: readonly string[];
  readonly act: (end: End) => unknown;
}

const CASES: readonly Case[] = [
  {
    what: "a record that comes twice",
    drop: "(channel-forged)",
    before: ["pong"],
    act: (end) => {
      const pong = sealed(end.channel, PONG(1))[0];
      send(end, pong, pong);
    },
  },
  {
    what: "two records in the wrong order",
    drop: "(channel-forged)",
    before: [],
    act: (end) => {
      const [first, second] = [sealed(end.channel, PONG(1))[0], sealed(end.channel, PONG(2))[0]];
      send(end, second, first);
    },
  },
  {
    what: "the peer's own record, sent back",
    drop: "(channel-forged)",
    before: [],
    act: async (end) => send(end, await end.heard),
  },
  {
    what: "a record of another handshake with the same keys",
    drop: "(channel-forged)",
    before: [],
    act: async (end) => {
      const socket = end.socket;
      const other = await anotherChannel();
      sealed(other, PONG(0)); // its challenge: the counters agree
      send({ socket }, sealed(other, PONG(1))[0]);
    },
  },
  {
    what: "a record one byte over the limit",
    drop: "(channel-record-too-large)",
    before: [],
    act: (end) => send(end, ...sealed(end.channel, new Uint8Array(CONTROL_RECORD_MAX_BYTES + 1).fill(2))),
  },
  {
    what: "a message cut short",
    drop: "(channel-forged)",
    before: [],
    act: (end) => send(end, sealed(end.channel, PONG(1))[0]!.subarray(0, -1)),
  },
  {
    what: "a part of a record that is not full",
    drop: "(channel-bad-fragment)",
    before: [],
    act: ({ socket, keys }) => socket.send(crypto.seal(keys.send, 1, Uint8Array.of(1, 5, 5), NO_DATA)),
  },
  {
    what: "a message over Noise's limit",
    drop: "Max payload size exceeded",
    before: [],
    act: (end) => send(end, new Uint8Array(NOISE_MESSAGE_MAX_BYTES + 1)),
  },
  {
    what: "a record of no kind",
    drop: "(record-unknown-kind)",
    before: [],
    act: (end) => send(end, ...sealed(end.channel, Uint8Array.of(99))),
  },
  {
    what: "a record that only peers send",
    drop: "(record-bad-shape)",
    before: [],
    act: (end) => send(end, ...sealed(end.channel, encodeJsonRecord({ type: "renew" }))),
  },
  {
    what: "a text frame",
    drop: "it sent a text frame",
    before: [],
    act: ({ socket }) => socket.send("hello"),
  },
];

/** A channel of a real handshake with the same coordinator, by somebody else. */
async function anotherChannel(): Promise<Channel> {
  return (await another()).channel;
}

test.each(CASES)("$what ends the attempt: $drop", async ({ drop, before, act }) => {
  const { code, message, records } = await attempt((end) => {
    send(end, challenge(end));
    act(end);
  });
  expect(message).toContain(drop);
  expect(code).toBe("COORDINATOR_UNREACHABLE");
  expect(records).toEqual(before);
});

test("whatever comes before the challenge is no challenge", async () => {
  for (const record of [PONG(1), encodeBytesRecord(2, new Uint8Array(80)), encodeBytesRecord(4, new Uint8Array(95))]) {
    const { message, records } = await attempt((end) => send(end, ...sealed(end.channel, record)));
    expect(message).toContain("it sent no challenge");
    expect(records).toEqual([]);
  }
});
