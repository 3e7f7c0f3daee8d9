// A coordinator whose data folder was put back to an older state, without a word: the first peer that has seen more
// shows it. A new epoch begins, and sessions revoked in between stay out.
import { cpSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fromBase64, toBase64 } from "../../src/base/bytes.ts";
import { CONTROL_ANSWER_MAX_MS } from "../../src/base/limits.ts";
import { openBookmark } from "../../src/control/bookmark.ts";
import {
  auditSchema,
  backupSchema,
  healthSchema,
  sessionListSchema,
  tokenListSchema,
} from "../../src/coordinator/http/schema.ts";
import type { ControlTimers } from "../../src/peer/control-client.ts";
import type { KeptState } from "../../src/peer/kept-for-coordinator.ts";
import { TestNetwork, TestPeer } from "./network.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
  await network.setPolicy({
    services: { staging: { at: "10.20.0.5 tcp:80", via: ["node:gw-1"] } },
    grants: [{ id: "g", from: "kind:agent", to: "service:staging" }],
  });
});
afterEach(async () => {
  rmSync(saved(), { recursive: true, force: true });
  await network.end();
});

const saved = (): string => `${network.dataDir}-saved`;
const epoch = async (): Promise<number> => (await network.admin(healthSchema, "GET", "/v1/health")).epoch;

/** Pings, and thus bookmarks, several times a second; back soon after each end. */
const HASTY: ControlTimers = {
  after: (delayMs, fire) => {
    const timer = setTimeout(fire, delayMs === CONTROL_ANSWER_MAX_MS ? delayMs : Math.min(delayMs, 200));
    return () => clearTimeout(timer);
  },
};

async function gateway(): Promise<TestPeer> {
  const offers = { routes: [], serves: ["staging"] };
  const peer = network.peer(await network.token({ as: "node:gw-1" }), { offers, timers: HASTY });
  peer.client.start();
  await peer.client.ready;
  return peer;
}

/** Its process started again, with what its state file holds. */
async function anew(peer: TestPeer, kept: KeptState): Promise<TestPeer> {
  const { session, options } = peer;
  const next = new TestPeer({ ...options, session, kept });
  next.client.start();
  await next.client.ready;
  return next;
}

async function save(): Promise<void> {
  await network.running.stop();
  cpSync(network.dataDir, saved(), { recursive: true });
  await network.startAgain();
}

/** As somebody does who copies the folder back. */
async function putBack(): Promise<void> {
  await network.running.stop();
  for (const name of ["network.db", "network.db-wal", "network.db-shm"])
    rmSync(join(network.dataDir, name), { force: true });
  cpSync(saved(), network.dataDir, { recursive: true });
  await network.startAgain();
}

async function backAgain(peer: TestPeer): Promise<void> {
  const views = peer.views.length;
  await peer.until(() => peer.views.length > views && peer.client.state === "connected", "it is back");
}

async function oldCopy(): Promise<Record<string, unknown> | undefined> {
  const { entries, verified } = await network.admin(auditSchema, "GET", "/v1/audit?limit=1000");
  expect(verified).toBe(true);
  return entries.find(({ action }) => action === "network.old-copy")?.details;
}

test("a session revoked after the copy stays out: those that knew it show its signed revocation", async () => {
  const gw = await gateway();
  const coder = await network.join("agent:coder");
  await gw.until(() => gw.view.peers.length === 1, "the agent is known");
  const unused = await network.token({ as: "agent:later" });
  await save();
  await backAgain(gw);
  await network.revoke("agent:coder");
  await gw.until(() => gw.view.revoked.length === 1, "the revocation is known");
  expect(gw.view.revoked[0]?.signature).toHaveLength(88);
  const before = await epoch();
  await putBack();
  await backAgain(gw);
  expect(await oldCopy()).toMatchObject({ sessions: [coder.session], tokens: [unused.id] });
  expect(await epoch()).toBeGreaterThan(before);
  await gw.until(() => gw.leases.at(-1)?.epoch === gw.view.epoch && gw.view.epoch > before, "the new epoch is here");
  expect(gw.view.peers).toEqual([]);
  const { sessions } = await network.admin(sessionListSchema, "GET", "/v1/sessions?all=true");
  expect(sessions.find(({ id }) => id === coder.session)?.state).toBe("revoked");
  const { tokens } = await network.admin(tokenListSchema, "GET", "/v1/tokens");
  expect(tokens.find(({ id }) => id === unused.id)?.state).toBe("revoked");
  const { signSeed, wireguardKey } = coder.options;
  const again = network.peer(unused, { signSeed, wireguardKey, session: coder.session });
  again.client.on("revoked", () => void again.client.stop()); // as a peer does
  again.client.start();
  await expect(again.client.ready).rejects.toMatchObject({ code: "SESSION_REVOKED" });
  await network.join("agent:new");
});

test("the revoked session comes first: those that kept its revocation don't let it in; it is expelled", async () => {
  const gw = await gateway();
  const coder = await network.join("agent:coder");
  await gw.until(() => gw.view.peers.length === 1, "the agent is known");
  await save();
  await backAgain(gw);
  await network.revoke("agent:coder");
  await gw.until(() => gw.view.revoked.length === 1, "the revocation is known");
  await gw.client.stop();
  await putBack();
  const { signSeed, wireguardKey } = coder.options;
  const again = network.peer(await network.token({ as: "agent:x" }), {
    signSeed,
    wireguardKey,
    session: coder.session,
  });
  again.client.start();
  await again.client.ready; // nobody has said anything yet
  const back = await anew(gw, gw.kept);
  expect(back.views.every(({ peers }) => peers.every(({ session }) => session !== coder.session))).toBe(true);
  await again.until(() => again.revoked, "it is expelled");
});

test("a change that no revocation tells of, and a restart without an audit entry, show by the bookmark", async () => {
  const gw = await gateway();
  await save();
  await backAgain(gw);
  await network.setPolicy({ grants: [] });
  await network.running.stop();
  await network.startAgain();
  await backAgain(gw); // its bookmark is of after the change
  await putBack();
  await backAgain(gw);
  const first = await epoch();
  expect(first).toBeGreaterThan(1);
  expect(await oldCopy()).toMatchObject({ sessions: [] });

  await save();
  await backAgain(gw);
  await network.running.stop();
  await network.startAgain(); // lease serials go on where the copy doesn't know of
  await backAgain(gw);
  await putBack();
  await backAgain(gw);
  expect(await epoch()).toBeGreaterThan(first);
  await gw.until(() => gw.leases.at(-1)?.epoch === gw.view.epoch, "leases are of the new epoch");
});

test.each([false, true])(
  "a copy made while it ran shows by the audit log: grown again meanwhile: %s",
  async (grown) => {
    const gw = await gateway();
    await gw.client.stop();
    const { file } = await network.admin(backupSchema, "POST", "/v1/backups");
    const snapshot = join(network.dataDir, "snapshot.db");
    renameSync(join(network.dataDir, file), snapshot);
    await network.setPolicy({ grants: [] });
    const before = await anew(gw, gw.kept);
    await before.client.stop();
    await network.running.stop();
    for (const end of ["", "-wal", "-shm"]) rmSync(join(network.dataDir, `network.db${end}`), { force: true });
    renameSync(snapshot, join(network.dataDir, "network.db"));
    await network.startAgain();
    if (grown) await network.setPolicy({ groups: { other: [] } });
    const after = await anew(gw, before.kept);
    expect(await epoch()).toBeGreaterThan(1);
    await after.client.stop();
  },
);

test("restarts, and bookmarks and revocations that nobody signed, change nothing", async () => {
  const gw = await gateway();
  const coder = await network.join("agent:coder");
  const { bookmark } = gw.kept;
  const forged = fromBase64(bookmark ?? "")!;
  forged[20] = forged[20]! ^ 1;
  const liar = network.peer(await network.token({ as: "agent:liar" }), {
    kept: {
      bookmark: toBase64(forged),
      revocations: [{ session: coder.session, signature: `${"A".repeat(86)}==`, forgetMs: 2 ** 50 }],
    },
  });
  liar.client.start();
  await liar.client.ready;
  expect(await network.counter("revocation-bad-signature")).toBe(1);
  for (let n = 0; n < 2; n++) {
    await network.running.stop();
    await network.startAgain();
    await backAgain(gw);
  }
  expect(await epoch()).toBe(1);
  expect(await oldCopy()).toBeUndefined();
  expect(coder.revoked).toBe(false);
});

test("what a bookmark says can't be read by the peer that keeps it", async () => {
  const gw = await gateway();
  const sealed = fromBase64(gw.kept.bookmark ?? "")!;
  expect(openBookmark(gw.options.crypto, gw.options.signSeed, sealed)).toBeUndefined();
});
