// One connection of the control channel by itself, with a handler that takes as long as a test wants: what waits behind
// an answer, what comes after the end, and what a peer can't be made to say by a polite one.
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { CONTROL_RECORDS_WAITING_MAX } from "../../src/base/limits.ts";
import { CLOSE } from "../../src/control/close-codes.ts";
import { prologueOf } from "../../src/control/contexts.ts";
import { NoiseInitiator } from "../../src/control/noise-nk.ts";
import {
  type ConnectionContext,
  ControlConnection,
  type ControlHandler,
} from "../../src/coordinator/control-connection.ts";
import { Counters } from "../../src/coordinator/counters.ts";
import { SourceLimits } from "../../src/coordinator/source-limits.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { crypto } from "./network.ts";
import { RawPeer } from "./raw-peer.ts";

const SESSION = "s_0123456789abcdef";
const noiseSeed = new Uint8Array(32).fill(3);
const noiseKeys = { privateKey: noiseSeed, publicKey: crypto.publicKey(noiseSeed) };
const servers: WebSocketServer[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) {
    for (const client of server.clients) client.terminate();
    server.close();
  }
});

interface Desk {
  readonly counters: Counters;
  readonly connections: ControlConnection[];
  /** Sessions whose connection is gone. */
  readonly detached: string[];
  /** Types of the records that were handled. */
  readonly handled: string[];
  /** Who asked to be let in. */
  readonly asked: string[];
  peer(): RawPeer;
}

/** Lets everybody in, when `admission` says so. */
async function desk(options: { admission?: Promise<unknown>; handshakes?: SourceLimits } = {}): Promise<Desk> {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  servers.push(server);
  await once(server, "listening");
  const [connections, detached, handled] = [[] as ControlConnection[], [] as string[], [] as string[]];
  const asked: string[] = [];
  const counters = new Counters();
  const handler: ControlHandler = {
    admit: async () => {
      asked.push(SESSION);
      await options.admission;
      return SESSION;
    },
    handle: (_session, message) => void handled.push(message.type),
    detach: (session) => void detached.push(session),
  };
  const silent = (): void => undefined;
  const context: ConnectionContext = {
    crypto,
    random: osRandom,
    clock: new SystemClock(),
    logger: { debug: silent, info: silent, warn: silent, error: silent } as ConnectionContext["logger"],
    counters,
    noiseKeys,
    handler,
    handshakes: options.handshakes ?? new SourceLimits(),
  };
  server.on("connection", (socket) => {
    connections.push(new ControlConnection(context, socket, "127.0.0.1/32", () => undefined));
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const token = { url, coordinatorKey: noiseKeys.publicKey, id: "t_0123456789abcdef", secret: new Uint8Array(32) };
  return { counters, connections, detached, handled, asked, peer: () => new RawPeer(token) };
}

const drops = (at: Desk): Record<string, number> => at.counters.toObject();
const PING = { type: "ping", n: 1 };

async function admitted(at: Desk): Promise<RawPeer> {
  const peer = await at.peer().shaken();
  peer.send(peer.hello());
  peer.send(peer.enroll());
  await soon(() => at.connections.at(-1)!.admitted).toBe(true);
  return peer;
}

/** On a busy machine, too: a second is soon gone. */
function soon<T>(ask: () => T) {
  return expect.poll(ask, { timeout: 20_000 });
}

test("so many records may wait behind one that is worked on; one more ends the channel, none is handled", async () => {
  for (const more of [0, 1]) {
    const admission = Promise.withResolvers<void>();
    const at = await desk({ admission: admission.promise });
    const peer = await at.peer().shaken();
    peer.send(peer.hello());
    peer.send(peer.enroll());
    await soon(() => at.asked).toEqual([SESSION]); // else hello and enrolment might wait among the others
    for (let i = 0; i < CONTROL_RECORDS_WAITING_MAX + more; i++) peer.send(PING);
    if (more === 1) {
      expect((await peer.closed()).code).toBe(CLOSE.tooMany);
      admission.resolve();
      await soon(() => at.detached).toEqual([SESSION]); // what was still being admitted is gone, too
      expect(at.handled).toEqual([]);
      expect(drops(at)).toEqual({ "control-records-waiting": 1 });
    } else {
      await new Promise((resolve) => setTimeout(resolve, 50));
      admission.resolve();
      await soon(() => at.handled.length).toBe(CONTROL_RECORDS_WAITING_MAX);
      expect(drops(at)).toEqual({});
    }
  }
});

test("a peer that leaves while it is being admitted is not there afterwards", async () => {
  const admission = Promise.withResolvers<void>();
  const at = await desk({ admission: admission.promise });
  const peer = await at.peer().shaken();
  peer.send(peer.hello());
  peer.send(peer.enroll());
  await new Promise((resolve) => setTimeout(resolve, 50));
  peer.end();
  await soon(() => at.connections[0]!.ended).toBe(true);
  expect(at.detached).toEqual([]); // it was nobody yet
  admission.resolve();
  await soon(() => at.detached).toEqual([SESSION]);
  expect(at.connections[0]!.admitted).toBe(false);
});

test("what comes behind a frame that ended the channel is not looked at", async () => {
  const at = await desk();
  const peer = await at.peer().shaken();
  for (let i = 0; i < 5; i++) peer.sendRaw("text");
  await peer.closed();
  expect(drops(at)).toEqual({ "control-text-frame": 1 });
});

test("a source gets so many handshakes, and one more is refused before any curve operation", async () => {
  const at = await desk({ handshakes: new SourceLimits(0.001, 2) });
  const peers = [await at.peer().shaken(), await at.peer().shaken()];
  expect((await (await at.peer().shaken()).closed()).code).toBe(CLOSE.tooMany);
  expect(drops(at)).toEqual({ "control-handshakes": 1 });
  for (const peer of peers) peer.end();
});

test("a payload in message 1, which nobody has proved anything for yet, is refused", async () => {
  const at = await desk();
  const peer = await at.peer().opened();
  const initiator = new NoiseInitiator(crypto, osRandom, prologueOf(1), noiseKeys.publicKey);
  peer.sendRaw(Uint8Array.of(1, ...initiator.writeMessage1(Uint8Array.of(1))!));
  expect((await peer.closed()).code).toBe(CLOSE.handshakeRefused);
  expect(Object.keys(drops(at))).toEqual([expect.stringMatching(/^noise-/)]);
});

test.each(["hello", "enroll", "resume"] as const)("once admitted, %s is out of order", async (type) => {
  const at = await desk();
  const peer = await admitted(at);
  const again = {
    hello: () => peer.hello(),
    enroll: () => peer.enroll(),
    resume: () => ({ ...peer.enroll(), type: "resume", session: SESSION }),
  };
  peer.send(again[type]());
  expect((await peer.closed()).code).toBe(CLOSE.badRecord);
  expect(drops(at)).toEqual({ "control-out-of-order": 1 });
  expect(at.handled).toEqual([]);
});

const NO_BASE64 = (length: number): string => "!".repeat(length);
test.each([
  ["a signing key", (peer: RawPeer) => [{ ...peer.hello(), signKey: NO_BASE64(44) }]],
  ["a signature", (peer: RawPeer) => [{ ...peer.hello(), signature: NO_BASE64(88) }]],
  ["a WireGuard key", (peer: RawPeer) => [peer.hello(), peer.enroll({ publicKey: NO_BASE64(44) })]],
  ["a proof", (peer: RawPeer) => [peer.hello(), peer.enroll({ proof: NO_BASE64(24) })]],
] as const)("%s of the right length that is no Base64 is a record of bad shape", async (_what, records) => {
  const at = await desk();
  const peer = await at.peer().shaken();
  for (const record of records(peer)) peer.send(record);
  expect((await peer.closed()).code).toBe(CLOSE.badRecord);
  expect(drops(at)).toEqual({ "record-bad-shape": 1 });
});
