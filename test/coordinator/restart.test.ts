import { createServer } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startCoordinator } from "../../src/coordinator/coordinator.ts";
import { auditSchema, sessionListSchema } from "../../src/coordinator/http/schema.ts";
import type { CoordinatorOptions } from "../../src/coordinator/options.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { crypto, TestNetwork } from "./network.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
});
afterEach(async () => {
  await network.end();
});

const POLICY = {
  services: { staging: { at: "10.20.0.5 tcp:80", via: ["node:gw-1"] } },
  grants: [{ id: "g", from: "agent:coder", to: "service:staging" }],
};

test("peers come back after a restart by themselves, as who they were, and nothing is lost", async () => {
  await network.setPolicy(POLICY);
  const gateway = await network.join("node:gw-1", { offers: { routes: [], serves: ["staging"] } });
  const coder = await network.join("agent:coder");
  await coder.until(() => coder.view.peers.length === 1, "the gateway is known");
  const before = { self: coder.view.self, services: coder.view.services, revision: coder.view.revision };
  const serial = coder.leases.at(-1)!.serial;
  await network.running.stop();
  await coder.until(() => coder.client.state !== "connected", "the channel is gone");
  const views = coder.views.length;
  await network.startAgain();
  await coder.until(() => coder.views.length > views && coder.view.peers.length === 1, "it is back");
  await gateway.until(() => gateway.client.state === "connected", "it is back");
  expect(coder.view.self).toEqual(before.self);
  expect(coder.view.services).toEqual(before.services);
  expect(coder.view.policyVersion).toBe(1);
  expect(coder.view.revision).toBeGreaterThan(before.revision);
  await coder.until(() => coder.leases.at(-1)!.serial > serial, "a newer lease is there");
  expect(coder.leases.at(-1)!.epoch).toBe(coder.leases[0]!.epoch);
  const { sessions } = await network.admin(sessionListSchema, "GET", "/v1/sessions");
  expect(sessions.map(({ id }) => id).sort()).toEqual([coder.session, gateway.session].sort());
});

test("a revocation while the peer is away is told when it comes back, and to those who knew it", async () => {
  await network.setPolicy(POLICY);
  const gateway = await network.join("node:gw-1", { offers: { routes: [], serves: ["staging"] } });
  const coder = await network.join("agent:coder");
  await gateway.until(() => gateway.view.peers.length === 1, "the agent is known");
  await gateway.client.stop();
  await network.revoke("agent:coder");
  await network.running.stop();
  await network.startAgain();
  const { signSeed, wireguardKey } = gateway.options;
  const { session } = gateway.client;
  const again = network.peer(await network.token({ as: "agent:x" }), {
    signSeed,
    wireguardKey,
    session,
    offers: { routes: [], serves: ["staging"] },
  });
  again.client.start();
  await again.client.ready;
  expect(again.view.peers).toEqual([]);
  expect(again.view.revoked.map((entry) => entry.session)).toEqual([coder.session]);
  expect(again.view.revoked[0]!.untilMs).toBeGreaterThan(coder.leases[0]!.issuedMs + coder.leases[0]!.lifetimeMs);
});

test("a second coordinator on the same data is refused, and the first goes on", async () => {
  await expect(network.startSecond({})).rejects.toMatchObject({ code: "STATE_LOCKED" });
  await network.join("agent:still-served");
});

test("a port that is taken is named, for each listener, and nothing stays open", async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const bound = taken.address();
  const where = `127.0.0.1:${typeof bound === "object" ? bound?.port : 0}`;
  for (const options of [{ listen: where }, { adminListen: where }]) {
    const other = await TestNetwork.start();
    await other.running.stop();
    await expect(other.startSecond(options)).rejects.toMatchObject({ code: "PORT_TAKEN" });
    await other.startAgain(); // the lock and the ports are free
    await other.end();
  }
  await new Promise((resolve) => taken.close(resolve));
});

test.each([
  [{ listen: "0.0.0.0:0" }, "--url"],
  [{ listen: "[::]:0" }, "--url"],
  [{ listen: "localhost" }, "port"],
  [{ listen: ":7470" }, "port"],
  [{ listen: "example.com:1" }, "address"],
  [{ listen: "127.0.0.1:70000" }, "port"],
  [{ url: "ftp://x" }, "--url"],
  [{ udp: "nowhere" }, "--udp"],
  [{ adminListen: "nowhere" }, "port"],
  [{ networkName: "My Net" }, "a–z"],
] satisfies [Partial<CoordinatorOptions>, string][])("options %j are refused with a hint", async (options, hint) => {
  const other: Partial<CoordinatorOptions> = { dataDir: join(network.dataDir, "other"), ...options };
  const error: unknown = await network.startSecond(other).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "CONFIG_INVALID" });
  expect((error as { hint: string }).hint).toContain(hint);
});

test("a data folder whose keys are gone is refused instead of locking everybody out", async () => {
  await network.running.stop();
  const { renameSync } = await import("node:fs");
  const keys = join(network.dataDir, "keys.json");
  renameSync(keys, `${keys}.away`);
  await expect(network.startAgain()).rejects.toMatchObject({ code: "STATE_UNREADABLE" });
  renameSync(`${keys}.away`, keys);
  await network.startAgain();
});

test("a changed audit line is found at its place", async () => {
  await network.join("agent:coder");
  await network.running.stop();
  const database = new DatabaseSync(join(network.dataDir, "network.db"));
  database.exec(`update audit set actor = 'somebody' where seq = 2`);
  database.close();
  await network.startAgain();
  const { verified, brokenAt } = await network.admin(auditSchema, "GET", "/v1/audit");
  expect([verified, brokenAt]).toEqual([false, 2]);
  await network.running.stop();
  const again = new DatabaseSync(join(network.dataDir, "network.db"));
  again.exec(`delete from audit where seq = 1`);
  again.close();
  await network.startAgain();
  expect((await network.admin(auditSchema, "GET", "/v1/audit")).brokenAt).toBe(2);
});

test("the coordinator is stopped twice without harm", async () => {
  await Promise.all([network.running.stop(), network.running.stop()]);
  await network.startAgain();
});

test("a coordinator of another software version says so in welcome, and options have defaults", async () => {
  const other = await startCoordinator({
    dataDir: join(network.dataDir, "second"),
    listen: "127.0.0.1:0",
    adminListen: "[::1]:0",
    url: "https://net.example.com/wb/",
    udp: "net.example.com:7470",
    clock: network.clock,
    logger: network.log,
    crypto,
    random: osRandom,
    software: "wirebadge 9",
  });
  expect(other.url).toBe("https://net.example.com/wb");
  expect(other.adminUrl).toMatch(/^http:\/\/\[::1\]:\d+$/);
  await other.stop();
});
