// Bugs of others' control planes, played against our coordinator in this process: who is out stays out, who is in has
// one name, and nothing that was acknowledged is forgotten or goes on after it was taken away.
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { MIB } from "../../src/base/units.ts";
import { tokenListSchema } from "../../src/coordinator/http/schema.ts";
import { openSqlite } from "../../src/coordinator/store/sqlite.ts";
import { TestNetwork, type TestPeer } from "../coordinator/network.ts";
import { RawPeer } from "../coordinator/raw-peer.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
});
afterEach(async () => {
  await network.end();
});

const GRANT = { grants: [{ id: "g", from: "agent:coder", to: "node:box tcp:22" }] };

async function couple(): Promise<[coder: TestPeer, box: TestPeer]> {
  await network.setPolicy(GRANT);
  const box = await network.join("node:box");
  const coder = await network.join("agent:coder");
  await box.until(() => box.view.peers.length === 1, "the agent is known");
  return [coder, box];
}

/** Its own keys and session again, from another process. */
function again(peer: TestPeer): TestPeer {
  const { url, coordinatorKey, signSeed, wireguardKey } = peer.options;
  const token = { url, coordinatorKey, id: "", secret: new Uint8Array(0) };
  return network.peer(token, { signSeed, wireguardKey, session: peer.session, enrolment: undefined });
}

// https://github.com/juanfont/headscale/issues/3410: a deleted node's long poll went on with keep-alives, so that the
// client took itself for connected. Ours may ignore the end as long as it likes: it gets nothing more.
test("a revoked session that goes on asking gets nothing, and its channel ends (headscale#3410)", async () => {
  await network.setPolicy(GRANT);
  const zombie = await new RawPeer(await network.token({ as: "agent:coder" })).admitted();
  const before = zombie.records.length;
  const { sessions } = await network.revoke("agent:coder");
  expect(sessions).toHaveLength(1);
  for (const message of [{ type: "renew" }, { type: "full" }, { type: "ping", n: 1 }]) {
    try {
      zombie.send(message);
    } catch {
      break; // the channel is gone already
    }
  }
  await zombie.closed();
  const after = zombie.records.slice(before);
  expect(after.filter(({ kind }) => kind !== "message")).toEqual([]);
  expect(after).toMatchObject([{ message: { type: "error", code: "SESSION_REVOKED" } }]);
});

// https://github.com/juanfont/headscale/issues/3423: an ephemeral node was deleted between its registration and its
// first poll, and then polled an id that was no more.
test("who vanishes between enrolment and first netmap is there a day later (headscale#3423)", async () => {
  await network.setPolicy(GRANT);
  const token = await network.token({ as: "agent:coder", expiresInMs: 60_000 });
  const hasty = await new RawPeer(token).shaken();
  hasty.send(hasty.hello());
  hasty.send(hasty.enroll());
  hasty.end(); // nothing of the answer is read
  const spent = async (): Promise<boolean> =>
    (await network.admin(tokenListSchema, "GET", "/v1/tokens")).tokens[0]?.state === "spent";
  for (let tries = 0; tries < 200 && !(await spent()); tries++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(await spent()).toBe(true);
  network.clock.aheadMs += 86_400_000;
  await network.running.stop();
  await network.startAgain();
  const peer = network.peer(token, { signSeed: hasty.signSeed, wireguardKey: hasty.wireguardKey });
  peer.client.start();
  await peer.client.ready;
  const box = await network.join("node:box");
  await box.until(() => box.view.peers.length === 1, "it is a peer like any other");
  expect(box.view.peers[0]?.session).toBe(peer.session);
});

// https://github.com/juanfont/headscale/pull/3202 lists six rounds of it, and
// https://github.com/tailscale/tailscale/issues/8564 is the same: who joins under a name that is still taken becomes
// NAME-1 or NAME-x7k2, and policies and people who name it don't mean it.
// https://github.com/juanfont/headscale/issues/2121: two nodes of one name swapped addresses.
test("a name is never bent: sessions share it (headscale#3202, headscale#2121, tailscale#8564)", async () => {
  await network.setPolicy(GRANT);
  const box = await network.join("node:box");
  const first = await network.join("agent:coder");
  const second = await network.join("agent:coder");
  await box.until(() => box.view.peers.length === 2, "both are known");
  expect(box.view.peers.map(({ identity }) => identity)).toEqual(["agent:coder", "agent:coder"]);
  const addresses = box.view.peers.flatMap((peer) => peer.addresses.map((text) => [text, peer.session] as const));
  expect(new Map(addresses).size).toBe(addresses.length);
  for (const each of [first, second]) {
    const own = each.view.self.addresses.map((text) => [text, each.session]);
    expect(addresses.filter(([, session]) => session === each.session)).toEqual(own);
  }
  await first.client.leave();
  const third = await network.join("agent:coder");
  expect(third.view.self.identity).toBe("agent:coder");
  const { sessions } = await network.revoke("agent:coder");
  expect(sessions.toSorted()).toEqual([second.session, third.session].toSorted());
  await box.until(() => box.view.peers.length === 0, "nobody of that name is left");
});

// https://github.com/juanfont/headscale/issues/158: deleting the node that a one-time key had let in made the key good
// for another one.
const ENDINGS = ["leaves", "is revoked"];
test.each(ENDINGS)("a token that is spent stays spent when its session %s (headscale#158)", async (how) => {
  const token = await network.token({ as: "agent:coder" });
  const first = network.peer(token);
  first.client.start();
  await first.client.ready;
  if (how === "leaves") await first.client.leave();
  else await network.revoke(`session:${first.session}`);
  const other = network.peer(token);
  other.client.start();
  await expect(other.client.ready).rejects.toMatchObject({ code: "TOKEN_SPENT" });
  const same = network.peer(token, { signSeed: first.options.signSeed, wireguardKey: first.options.wireguardKey });
  same.client.start();
  await expect(same.client.ready).rejects.toMatchObject({ code: "SESSION_REVOKED" });
});

// https://github.com/slackhq/nebula/issues/1824: with a CA on the blocklist, what it had signed still came in: only the
// leaf's own fingerprint was looked at.
test("what a revocation names goes with all that came from it: a token, a sponsor (nebula#1824)", async () => {
  const sponsor = "user:ana@example.com";
  const token = await network.token({ as: "agent:coder", sponsor, uses: 3 });
  const unused = await network.token({ as: "agent:tester", sponsor });
  const join = async (from: typeof token): Promise<TestPeer> => {
    const peer = network.peer(from);
    peer.client.start();
    await peer.client.ready;
    return peer;
  };
  const [one, two] = [await join(token), await join(token)];
  const elsewhere = await network.join("agent:other");
  const byToken = await network.revoke(`token:${token.id}`);
  expect(byToken.sessions.toSorted()).toEqual([one.session, two.session].toSorted());
  await expect(join(token)).rejects.toMatchObject({ code: "TOKEN_REVOKED" });
  const three = await join(await network.token({ as: "agent:coder", sponsor }));
  const bySponsor = await network.revoke(`sponsor:${sponsor}`);
  expect(bySponsor.sessions).toEqual([three.session]);
  await expect(join(unused)).rejects.toMatchObject({ code: "TOKEN_REVOKED" });
  expect(elsewhere.revoked).toBe(false);
});

// https://github.com/juanfont/headscale/issues/3327: a deleted node stayed the primary for its prefix: others that
// offered it were never chosen.
test("a gateway that is revoked while away is no gateway any more, and the other one is (headscale#3327)", async () => {
  await network.setPolicy({
    services: { db: { at: "10.20.0.5 tcp:5432", via: ["node:*"] } },
    routes: { "10.30.0.0/16": { via: ["node:*"] } },
    grants: [{ from: "agent:coder", to: ["service:db", "10.30.0.0/16 tcp:80"] }],
  });
  const offers = { routes: ["10.30.0.0/16"], serves: ["db"] };
  const [one, two] = [await network.join("node:one", { offers }), await network.join("node:two", { offers })];
  const coder = await network.join("agent:coder");
  const gateways = (): string[] => coder.view.services[0]?.gateways.map(({ session }) => session) ?? [];
  expect(gateways().toSorted()).toEqual([one.session, two.session].toSorted());
  await one.client.stop();
  await network.revoke("node:one");
  await coder.until(() => gateways().length === 1, "one gateway is left");
  expect(gateways()).toEqual([two.session]);
  expect(coder.view.peers.map(({ session }) => session)).toEqual([two.session]);
  expect(coder.view.peers[0]?.prefixes).toContain("10.30.0.0/16");
  const back = again(one);
  back.client.start();
  await expect(back.client.ready).rejects.toMatchObject({ code: "SESSION_REVOKED" });
});

// https://github.com/juanfont/headscale/issues/1383: the last peer's removal was sent as an empty list, which a client
// read as "nothing changed": the deleted node lived on in its map.
test("the last peer of a map goes from it like any other, also over a reconnect (headscale#1383)", async () => {
  const [coder, box] = await couple();
  await coder.client.leave();
  await box.until(() => box.view.peers.length === 0, "the map is empty");
  expect(Object.keys(box.entries).filter((key) => key.startsWith("peer/") || key.startsWith("in/"))).toEqual([]);
  const later = await network.join("agent:coder");
  await box.until(() => box.view.peers.length === 1, "another one is there");
  await box.client.stop();
  await network.revoke(`session:${later.session}`);
  const back = again(box);
  back.client.start();
  await back.client.ready;
  expect(back.view.peers).toEqual([]);
  expect(back.view.revoked.map(({ session }) => session)).toEqual([later.session]);
});

// https://github.com/juanfont/headscale/issues/2204: the write-ahead log was never checkpointed and grew until the disk
// was full.
test("the store's log is written back: it doesn't grow with what is written (headscale#2204)", () => {
  const folder = mkdtempSync(join(tmpdir(), "wb-others-"));
  const path = join(folder, "network.db");
  const database = openSqlite(path);
  try {
    database.exec("create table filler (id integer primary key, bytes blob)");
    const insert = database.prepare("insert or replace into filler values (1, zeroblob(?))");
    for (let round = 0; round < 24; round++) insert.run(MIB);
    expect(statSync(`${path}-wal`).size).toBeLessThan(8 * MIB);
  } finally {
    database.close();
    rmSync(folder, { recursive: true });
  }
});
