import { afterEach, beforeEach, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import type { WirebadgeError } from "../../src/base/errors.ts";
import { CONTROL_BACKOFF_MAX_MS, CONTROL_BACKOFF_MIN_MS } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { CLOSE } from "../../src/control/close-codes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { ControlClient, type ControlTimers } from "../../src/peer/control-client.ts";

const crypto = new PortableCrypto();
let server: WebSocketServer;
let url: string;
beforeEach(async () => {
  server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await new Promise((resolve) => server.once("listening", resolve));
  const bound = server.address();
  url = `http://127.0.0.1:${typeof bound === "object" ? bound?.port : 0}`;
});
afterEach(async () => {
  for (const client of server.clients) client.terminate();
  await new Promise((resolve) => server.close(resolve));
});

function makeClient(timers?: ControlTimers): ControlClient {
  return new ControlClient({
    url,
    coordinatorKey: crypto.publicKey(new Uint8Array(32).fill(1)),
    signSeed: new Uint8Array(32).fill(2),
    wireguardKey: new Uint8Array(32).fill(3),
    enrolment: { tokenId: "t_0000000000000000", secret: new Uint8Array(32) },
    crypto,
    random: new SeededRandom(4),
    clock: new SystemClock(),
    timers,
    software: "test",
  });
}

async function firstProblem(client: ControlClient): Promise<[error: WirebadgeError, final: boolean]> {
  const problem = new Promise<[WirebadgeError, boolean]>((resolve) => {
    client.on("problem", (error, final) => resolve([error, final]));
  });
  client.start();
  const result = await problem;
  await client.stop();
  return result;
}

test.each([
  ["2-3", "upgrade wirebadge on this machine"],
  ["0-0", "upgrade the coordinator"],
  ["<b>lies</b>", "upgrade the older end"],
  ["", "upgrade the older end"],
])("a coordinator that serves %j: the error says which end to upgrade", async (reason, hint) => {
  server.on("connection", (socket) => socket.once("message", () => socket.close(CLOSE.protocolVersion, reason)));
  const [error, final] = await firstProblem(makeClient());
  expect([error.code, error.hint, final]).toEqual(["PROTOCOL_VERSION", hint, true]);
  expect(error.message).not.toContain("lies");
});

test.each([
  ["refuses the handshake", (socket: { close(code: number): void }) => socket.close(CLOSE.handshakeRefused)],
  ["answers with noise", (socket: { send(data: Uint8Array): void }) => socket.send(new Uint8Array(48).fill(9))],
  ["answers too short", (socket: { send(data: Uint8Array): void }) => socket.send(new Uint8Array(3))],
])("what doesn't hold the pinned key and %s is not trusted", async (_what, act) => {
  server.on("connection", (socket) => socket.once("message", () => act(socket)));
  const [error, final] = await firstProblem(makeClient());
  expect([error.code, final]).toEqual(["COORDINATOR_UNTRUSTED", true]);
  expect(error.hint).toBeTruthy();
});

test("text frames and other ends are tried again, with delays that grow, are jittered and have a ceiling", async () => {
  let connections = 0;
  server.on("connection", (socket) => {
    connections++;
    if (connections % 2 === 0) socket.send("hello");
    else socket.close();
  });
  const delays: number[] = [];
  const timers: ControlTimers = {
    after: (delayMs, fire) => {
      if (delayMs === 10_000) return () => undefined; // waiting for answers
      delays.push(delayMs);
      const timer = setTimeout(fire, 0);
      return () => clearTimeout(timer);
    },
  };
  const client = makeClient(timers);
  const states: string[] = [];
  client.on("state", (state) => states.push(state));
  const done = new Promise<void>((resolve) => client.on("problem", () => delays.length >= 24 && resolve()));
  client.start();
  await done;
  await client.stop();
  const ceiling = CONTROL_BACKOFF_MIN_MS / 2 + CONTROL_BACKOFF_MAX_MS;
  expect(delays.every((delayMs) => delayMs >= CONTROL_BACKOFF_MIN_MS / 2 && delayMs <= ceiling)).toBe(true);
  expect(delays[0]).toBeLessThanOrEqual(1.5 * CONTROL_BACKOFF_MIN_MS);
  expect(Math.max(...delays.slice(10))).toBeGreaterThan(5_000);
  expect(new Set(delays).size).toBe(delays.length);
  expect(states.at(-1)).toBe("stopped");
  await expect(client.ready).rejects.toMatchObject({ code: "COORDINATOR_UNREACHABLE" });
});

test("nobody at the address: unreachable, with a hint, and tried again", async () => {
  await new Promise((resolve) => server.close(resolve));
  const [error, final] = await firstProblem(makeClient());
  expect([error.code, final]).toEqual(["COORDINATOR_UNREACHABLE", false]);
  expect(error.hint).toBeTruthy();
});

test("leaving without a channel says that the coordinator could not be told", async () => {
  await expect(makeClient().leave()).rejects.toMatchObject({ code: "COORDINATOR_UNREACHABLE" });
});
