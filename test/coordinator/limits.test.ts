import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { RECORDS_QUEUED_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { DAY_MS } from "../../src/base/units.ts";
import { CLOSE } from "../../src/control/close-codes.ts";
import { encodeProbe } from "../../src/control/probe.ts";
import { allocateAddresses, randomPool4, randomUla, serviceAddress } from "../../src/coordinator/addresses.ts";
import type { ControlConnection } from "../../src/coordinator/control-connection.ts";
import { ControlServer } from "../../src/coordinator/control-server.ts";
import type { Core } from "../../src/coordinator/core.ts";
import { Counters } from "../../src/coordinator/counters.ts";
import { diffLines } from "../../src/coordinator/diff.ts";
import { parseListen } from "../../src/coordinator/listen.ts";
import type { Netmaps } from "../../src/coordinator/netmaps.ts";
import { Netmaps as NetmapsClass } from "../../src/coordinator/netmaps.ts";
import { ProbeServer } from "../../src/coordinator/probe-server.ts";
import { PeerRecords } from "../../src/coordinator/records.ts";
import type { ReservedCounter } from "../../src/coordinator/reserved-counter.ts";
import { SourceLimits, sourceOf } from "../../src/coordinator/source-limits.ts";
import type { SessionRow } from "../../src/coordinator/store/rows.ts";
import { SqlStore } from "../../src/coordinator/store/sql-store.ts";
import { sqliteDialect } from "../../src/coordinator/store/sqlite.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { crypto, LogLines } from "./network.ts";
import { RawPeer } from "./raw-peer.ts";

test("a source may do its burst and then its rate; another source isn't affected", () => {
  const limits = new SourceLimits(10, 20, 8);
  const used = Array.from({ length: 21 }, () => limits.allows("a", 1_000));
  expect(used.lastIndexOf(true)).toBe(19);
  expect(limits.allows("b", 1_000)).toBe(true);
  expect(limits.allows("a", 1_099)).toBe(false);
  expect(limits.allows("a", 1_100)).toBe(true);
  expect(limits.allows("a", 500)).toBe(false); // a clock that stood still gives nothing
});

test("as many sources are remembered as may be, and of one more the longest idle is forgotten", () => {
  const limits = new SourceLimits(1, 1, 3);
  for (const source of ["a", "b", "c", "a", "d"]) limits.allows(source, 1_000);
  expect(limits.size).toBe(3);
  expect(limits.allows("a", 1_000)).toBe(false); // still remembered
  expect(limits.allows("b", 1_000)).toBe(true); // forgotten
});

test.each([
  ["192.0.2.7", "192.0.2.7/32"],
  ["::ffff:192.0.2.7", "192.0.2.7/32"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["fe80::1%eth0", "fe80::/64"],
  [undefined, "unknown"],
  ["", "unknown"],
])("the source of %s is %s", (address, source) => {
  expect(sourceOf(address)).toBe(source);
});

test("of strangers there are as many as may be: one more puts out the oldest", async () => {
  const privateKey = new Uint8Array(32).fill(3);
  const noiseKeys = { privateKey, publicKey: crypto.publicKey(privateKey) };
  const handler = { admit: async () => "", handle: () => undefined, detach: () => undefined };
  const clock = { nowMs: () => performance.now() };
  const counters = new Counters();
  const common = { crypto, random: osRandom, clock, logger: new LogLines(), counters, noiseKeys, handler };
  const server = new ControlServer({ ...common, handshakes: new SourceLimits() }, 3);
  const port = await server.bind(parseListen("--listen", "127.0.0.1:0"));
  server.open();
  const coordinatorKey = noiseKeys.publicKey;
  const token = { url: `http://127.0.0.1:${port}`, coordinatorKey, id: "", secret: new Uint8Array(32) };
  const peers: RawPeer[] = [];
  for (let n = 0; n < 4; n++) peers.push(await new RawPeer(token).opened());
  expect((await peers[0]!.closed()).code).toBe(CLOSE.tooMany);
  expect(server.strangers).toBe(3);
  expect(counters.get("control-strangers-full")).toBe(1);
  await peers[3]!.shaken();
  expect(peers[3]!.records).toHaveLength(1);
  for (const peer of peers) peer.end();
  await server.stop();
});

test("of connected sessions there are as many as may be: one more is refused, one that is there may come again", () => {
  const connection = { close: () => undefined } as unknown as ControlConnection;
  const netmaps: Netmaps = new NetmapsClass(
    {} as Core,
    {} as ReservedCounter,
    () => ({ entries: {}, nextChangeMs: undefined }),
    2,
  );
  netmaps.attach("s_1", connection);
  netmaps.checkRoom(undefined);
  netmaps.attach("s_2", connection);
  expect(() => netmaps.checkRoom(undefined)).toThrow("as many peers connected");
  expect(() => netmaps.checkRoom("s_3")).toThrow("as many peers connected");
  netmaps.checkRoom("s_2");
});

test("records wait up to their limit, the rest is counted; of stored ones the oldest go", () => {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-records-"));
  const counters = new Counters();
  const records = new PeerRecords(join(folder, "records.db"), counters, 10);
  records.add("flow", "s_1", Array(RECORDS_QUEUED_MAX + 3).fill({ n: 1 }), 5);
  expect(counters.get("records-dropped")).toBe(3);
  records.add("flow", "s_1", [{ n: 2 }], 5);
  expect(counters.get("records-dropped")).toBe(4);
  expect(records.list("flow", 0, 1_000)).toHaveLength(10);
  records.add("flow", "s_2", [{ n: 3 }], 6);
  const kept = records.list("flow", 0, 1_000);
  expect(kept).toHaveLength(10);
  expect(kept.at(-1)).toMatchObject({ reporter: "s_2", receivedMs: 6, record: { n: 3 } });
  records.close();
  rmSync(folder, { recursive: true });
});

test("a key's probes are answered up to their rate, and each sequence number once", () => {
  const clock = { ms: 0, nowMs: () => clock.ms };
  const server = new ProbeServer(crypto, new SeededRandom(1), clock, new Counters());
  const key = server.add();
  const from = { address: "192.0.2.1", port: 9 };
  const answered = Array.from({ length: 25 }, (_, n) => server.answer(encodeProbe(crypto, key, n), from) !== undefined);
  expect(answered.lastIndexOf(true)).toBe(19);
  clock.ms = 1_000;
  expect(server.answer(encodeProbe(crypto, key, 100), from)).toHaveLength(64);
  expect(server.answer(encodeProbe(crypto, key, 100), from)).toBeUndefined();
  server.remove(key);
  expect(server.answer(encodeProbe(crypto, key, 101), from)).toBeUndefined();
});

test("an IPv4 address rests a day before another identity gets it; an IPv6 address is given once", async () => {
  const random = new SeededRandom(2);
  const network = { id: "n_1", name: "x", ula: randomUla(random), pool4: "10.7.0.0/30", createdMs: 0 }; // two usable
  const store = await SqlStore.open(sqliteDialect(new DatabaseSync(":memory:"), "memory"));
  const given = async (id: string, identity: string, nowMs: number): Promise<readonly string[]> =>
    await store.transaction(async (tx) => {
      const kind = "node" as const;
      await tx.putIdentity({ name: identity, kind, sponsor: undefined, tags: [], createdMs: 0, removedMs: undefined });
      const addresses = await allocateAddresses(tx, network, random, identity, kind, nowMs);
      if ((await tx.token("t")) === undefined) {
        const base = { id: "t", secretHash: "", identity, tags: [], mayRoute: [], uses: 1, usesLeft: 1 };
        await tx.insertToken({ ...base, createdMs: 0, expiresMs: 0, revokedMs: undefined });
      }
      const row = { id, identity, token: "t", mayRoute: [], signKey: id, publicKey: id, state: "active", addresses };
      const times = { enrolledMs: nowMs, endedMs: undefined, lastSeenMs: nowMs };
      await tx.insertSession({ ...row, ...times, offeredRoutes: [], offeredServes: [], software: "" } as SessionRow);
      return addresses;
    });
  const [, a4] = await given("a", "node:a", 0);
  await given("b", "node:b", 0);
  await expect(given("c", "node:c", 0)).rejects.toMatchObject({ code: "CONFLICT" });
  await store.transaction((tx) => tx.endSession("a", "left", 1_000));
  await expect(given("c", "node:c", 1_000 + DAY_MS - 1)).rejects.toMatchObject({ code: "CONFLICT" });
  const [a6again, a4again] = await given("a2", "node:a", 2_000);
  expect(a4again).toBe(a4);
  await store.transaction((tx) => tx.endSession("a2", "left", 3_000));
  expect((await given("c", "node:c", 3_000 + DAY_MS))[1]).toBe(a4);
  const history = await store.transaction((tx) => tx.addressHistory(a4!));
  expect(history.map(({ identity }) => identity)).toEqual(["node:c", "node:a", "node:a"]);
  expect(await store.transaction((tx) => tx.addressEverGiven(a6again!))).toBe(true);
  await store.close();
});

test("prefixes are of the promised form, and a service's address is its own at each gateway", () => {
  for (let seed = 0; seed < 50; seed++) {
    expect(randomUla(new SeededRandom(seed))).toMatch(/^fd[0-9a-f]{2}:[0-9a-f:]+\/48$/);
    expect(randomPool4(new SeededRandom(seed))).toMatch(/^10\.\d{1,3}\.0\.0\/16$/);
  }
  const network = { id: "n_1", name: "x", ula: "fd00:1:2::/48", pool4: "10.7.0.0/16", createdMs: 0 };
  const addresses = ["s_1", "s_2"].flatMap((session) =>
    ["a", "b"].map((name) => serviceAddress(network, name, session)),
  );
  expect(new Set(addresses).size).toBe(4);
  expect(serviceAddress(network, "a", "s_1")).toBe(addresses[0]);
  for (const address of addresses) expect(address.startsWith("fd00:1:2:2:")).toBe(true);
});

test("a diff shows what went and what came, with what stands around it", () => {
  expect(diffLines("a\nb\n", "a\nb\n")).toBe("");
  expect(diffLines("1\n2\n3\n4\n5\nx\n6\n", "1\n2\n3\n4\n5\ny\nz\n6\n")).toBe(
    "@@ line 3 @@\n 3\n 4\n 5\n-x\n+y\n+z\n 6\n",
  );
  expect(diffLines("", "a\n")).toContain("+a");
});
