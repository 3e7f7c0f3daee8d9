// 5,000 WebSockets that say nothing: closed after 5 s, cheap meanwhile, and in nobody's way.
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { MIB } from "../../src/base/units.ts";
import { healthSchema } from "../../src/coordinator/http/schema.ts";
import { ChildCoordinator } from "../coordinator/child.ts";

const SOCKETS = 5_000;
const coordinator = new ChildCoordinator();
const sockets: Socket[] = [];
beforeAll(async () => {
  await coordinator.start();
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await coordinator.end();
});

/** Resolves once the coordinator has said 101. */
async function silentWebSocket(host: string, port: number): Promise<{ socket: Socket; closedMs: Promise<number> }> {
  const socket = connect({ host, port });
  sockets.push(socket);
  const closedMs = new Promise<number>((resolve) => socket.once("close", () => resolve(performance.now())));
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.once("data", (data) => {
      if (data.includes("101 Switching")) resolve();
      else reject(new Error(data.toString()));
    });
    socket.write(
      `GET /control HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
    );
  });
  socket.on("error", () => undefined);
  return { socket, closedMs };
}

test("5,000 silent WebSockets cost at most 50 MB and are closed after 5 s; a good peer joins at once", async () => {
  const { hostname, port } = new URL(coordinator.url);
  const warm = await coordinator.peer("agent:warm");
  warm.client.start();
  await warm.client.ready;
  await warm.client.stop();
  const good = await coordinator.peer("agent:good");
  const beforeBytes = await coordinator.memoryBytes();
  const opened: { openedMs: number; closedMs: Promise<number> }[] = [];
  for (let n = 0; n < SOCKETS; n += 250) {
    const lot = await Promise.all(Array.from({ length: 250 }, () => silentWebSocket(hostname, Number(port))));
    for (const { closedMs } of lot) opened.push({ openedMs: performance.now(), closedMs });
  }
  const heldBytes = (await coordinator.memoryBytes()) - beforeBytes;
  const startedMs = performance.now();
  good.client.start();
  await good.client.ready;
  const joinedMs = performance.now() - startedMs;
  const lives: number[] = [];
  for (const { openedMs, closedMs } of opened) lives.push((await closedMs) - openedMs);
  lives.sort((a, b) => a - b);
  const health = await coordinator.admin(healthSchema, "GET", "/v1/health");
  console.log(
    `held ${(heldBytes / MIB).toFixed(1)} MiB, a peer joined in ${joinedMs.toFixed(0)} ms, ` +
      `sockets lived ${lives[0]!.toFixed(0)} to ${lives.at(-1)!.toFixed(0)} ms`,
  );
  expect(heldBytes).toBeLessThanOrEqual(50 * MIB);
  expect(joinedMs).toBeLessThan(1_000);
  expect(lives[0]).toBeGreaterThan(3_000);
  expect(lives.at(-1)).toBeLessThan(10_000);
  expect(health.counters["control-silent"]).toBe(SOCKETS);
  await good.client.stop();
});
