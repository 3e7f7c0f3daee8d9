// What one peer shows of a newer state, taken by itself: each number of a bookmark, and revocations beside bookmarks of
// other epochs. The whole way, with stores put back, is in old-copy.test.ts.
import { afterEach, beforeEach, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { type Bookmark, sealBookmark } from "../../src/control/bookmark.ts";
import { type Kept, RECORD_LEASE, RECORD_NETMAP } from "../../src/control/messages.ts";
import { signRevocation } from "../../src/control/revocation.ts";
import { admit, makeWorld, type TestWorld, Watcher } from "./memory-world.ts";
import { crypto } from "./network.ts";

let world: TestWorld;
let gateway: Watcher;
let coder: Watcher;
beforeEach(async () => {
  world = await makeWorld();
  gateway = new Watcher();
  coder = new Watcher();
  await admit(world, gateway, "node:gw-1");
  await admit(world, coder, "agent:coder");
  for (const watcher of [gateway, coder]) watcher.bytes.length = 0; // what it was welcomed with
});
afterEach(async () => {
  await world.store.close();
});

/** Of an earlier run, and of nothing that the store doesn't know, but for what is changed. */
function mark(change: Partial<Bookmark> = {}): string {
  const { core, serials, revisions } = world;
  const { seq, hash } = core.store.auditHead();
  const numbers = { serial: serials.first - 1, revision: revisions.first - 1 };
  const whole = { epoch: 1, run: "00".repeat(8), auditSeq: seq, auditHash: hash, ...numbers, ...change };
  return toBase64(sealBookmark(crypto, core.random, core.keys.sign.privateKey, whole));
}

function revocationOf(session: string): Kept["revocations"][number] {
  return { session, signature: toBase64(signRevocation(crypto, world.core.keys.sign.privateKey, session)) };
}

async function oldCopies(): Promise<number> {
  const entries = await world.store.transaction((tx) => tx.auditEntries(0, 1_000));
  const count = entries.filter(({ action }) => action === "network.old-copy").length;
  expect(world.core.counters.get("store-older-than-peers")).toBe(count);
  return count;
}

const kindsSentTo = (watcher: Watcher): number[] => watcher.bytes.map(([kind]) => kind);

test.each([
  ["all that the store knows itself", () => ({})],
  ["more, but of an epoch before", () => ({ epoch: 0, auditSeq: 1_000, serial: 2 ** 40 })],
])("a bookmark that shows %s changes nothing", async (_what, change) => {
  await world.continuity.consider({ bookmark: mark(change()), revocations: [] });
  expect([await oldCopies(), world.core.world.epoch]).toEqual([0, 1]);
  expect(kindsSentTo(gateway)).toEqual([]);
});

test("a bookmark of this very run changes nothing, whatever was given out since the start", async () => {
  expect(world.serials.last).toBeGreaterThanOrEqual(world.serials.first);
  await world.continuity.consider({ bookmark: world.continuity.bookmark(), revocations: [] });
  expect([await oldCopies(), world.core.world.epoch]).toEqual([0, 1]);
});

test.each([
  ["a later epoch", () => ({ epoch: 2 })],
  ["a lease serial that isn't given out yet", () => ({ serial: world.serials.first })],
  ["a netmap revision that isn't given out yet", () => ({ revision: world.revisions.first })],
  ["a longer audit log", () => ({ auditSeq: world.core.store.auditHead().seq + 1 })],
  ["another audit log", () => ({ auditHash: "ab".repeat(32) })],
] as const)("a bookmark that shows %s, and nothing else, begins a new epoch", async (_what, change) => {
  await world.continuity.consider({ bookmark: mark(change()), revocations: [] });
  expect(await oldCopies()).toBe(1);
  expect(world.core.world.epoch).toBeGreaterThan(2);
  expect(kindsSentTo(gateway)).toEqual([RECORD_NETMAP, RECORD_LEASE]);
});

test("what two peers show at the same time is taken in once", async () => {
  const kept = { bookmark: mark({ epoch: 2 }), revocations: [revocationOf(coder.session)] };
  await Promise.all([world.continuity.consider(kept), world.continuity.consider(kept)]);
  expect(await oldCopies()).toBe(1);
});

test("a revocation beside a bookmark of an earlier epoch ends its session; the epoch goes on", async () => {
  await world.continuity.consider({ bookmark: mark({ epoch: 0 }), revocations: [revocationOf(coder.session)] });
  expect(await oldCopies()).toBe(1);
  expect(world.core.world.sessions.has(coder.session)).toBe(false);
  expect(world.core.world.epoch).toBe(1);
  expect(kindsSentTo(gateway)).not.toContain(RECORD_LEASE);
});

test("a session that has ended gets no lease of the new epoch, though its connection is still there", async () => {
  await world.continuity.consider({ revocations: [revocationOf(coder.session)] });
  expect(world.netmaps.connectedSessions()).toContain(coder.session);
  expect(kindsSentTo(coder)).toEqual([]);
  expect(kindsSentTo(gateway)).toContain(RECORD_LEASE);
});

test("revocations of sessions that don't live here are passed over, and the ones behind them read", async () => {
  const gone = revocationOf("s_0000000000000000");
  await world.continuity.consider({ bookmark: mark(), revocations: [gone] });
  expect(await oldCopies()).toBe(0);
  await world.continuity.consider({ bookmark: mark(), revocations: [gone, revocationOf(coder.session)] });
  expect(await oldCopies()).toBe(1);
  expect(world.core.world.sessions.has(coder.session)).toBe(false);
  expect(world.core.world.sessions.has(gateway.session)).toBe(true);
});
