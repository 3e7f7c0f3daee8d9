// The coordinator is killed: known peers go on, with flows that live and new ones, until leases end; then both end.
// When it is back, everybody comes back by himself.
import type { Socket } from "node:net";
import { expect, test } from "vitest";
import { exchange, TestNetwork } from "../scripts/network.ts";
import { until } from "../scripts/program.ts";

const LEASE_MS = 30_000;
const SOCKS_NOT_ALLOWED = /SOCKS reply 2/;

/** A unix socket knows no reset: its end is the cut. */
function ended(socket: Socket): Promise<void> {
  socket.on("error", () => undefined);
  socket.resume();
  return new Promise((resolve) => socket.once("close", () => resolve()).once("end", () => resolve()));
}

test("known peers go on until leases end, then nothing passes; with the coordinator all comes back", async () => {
  await using network = await TestNetwork.start();
  const service = await network.service("echo");
  await network.setPolicy({
    leases: { agent: `${LEASE_MS}ms`, node: `${LEASE_MS}ms` },
    services: { echo: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw"] } },
    grants: [{ from: "kind:agent", to: "service:echo" }],
  });
  const gateway = await network.join("node:gw", ["--serve", `echo=${service.at}`]);
  const coder = await network.join("agent:coder", ["--socks"]);
  const stream = await coder.connect("echo", service.port);
  expect(await exchange(stream, "before")).toBe("before");

  await network.coordinator.kill();
  const killedMs = Date.now();
  await until("the loss, noticed", async () => !(await coder.status()).coordinator?.connected || undefined);
  expect(await exchange(stream, "alive")).toBe("alive");
  expect(await coder.echo("echo", service.port, "anew")).toBe("anew");
  const leaseLeftMs = (await coder.status()).lease?.remainingMs ?? 0;
  expect(leaseLeftMs).toBeGreaterThan(0);
  expect(leaseLeftMs).toBeLessThanOrEqual(LEASE_MS);

  const idle = await coder.connect("echo", service.port);
  expect(await exchange(idle, "idle")).toBe("idle");
  const cut = ended(stream);
  const idleCut = ended(idle); // nobody writes to it: it has to be told all the same
  // A live flow, fed all the time: what the service received after the last lease's end is what leaked.
  let sent = 0;
  const feeding = setInterval(() => stream.write(`tick ${++sent} ${Date.now()};`), 100);
  await cut;
  await idleCut;
  clearInterval(feeding);
  const cutMs = Date.now();
  expect(cutMs - killedMs).toBeGreaterThan(LEASE_MS / 3); // leases are renewed at half of their life
  expect(cutMs - killedMs).toBeLessThan(LEASE_MS + 10_000);
  const ticks = service.received.flatMap(({ text }) =>
    [...(text ?? "").matchAll(/tick \d+ (\d+);/g)].map((m) => +m[1]!),
  );
  expect(ticks.length).toBeGreaterThan(10);
  expect(Math.max(...ticks)).toBeLessThan(killedMs + LEASE_MS + 1_000);
  await until(
    "the end of the service's connection",
    () => service.received.filter(({ event }) => event === "closed").length === 3 || undefined,
  );
  await expect(coder.connect("echo", service.port)).rejects.toThrow(SOCKS_NOT_ALLOWED);
  const [last] = (await coder.denials()).slice(-1);
  expect(last).toMatchObject({ reason: "LEASE_ENDED" });
  expect((await coder.status()).coordinator?.connected).toBe(false);

  await network.startCoordinator();
  const answer = await until("traffic after its return", async () => {
    try {
      return await coder.echo("echo", service.port, "again");
    } catch {
      return undefined; // not yet: it comes back with a jittered delay
    }
  });
  expect(answer).toBe("again");
  expect((await gateway.status()).coordinator?.connected).toBe(true);
});
