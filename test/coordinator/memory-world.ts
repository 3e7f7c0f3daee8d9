// A coordinator's parts over a store in memory, and peers on fake connections: what tests of single parts share.
import { DatabaseSync } from "node:sqlite";
import { expect } from "vitest";
import { randomId } from "../../src/base/base32.ts";
import { toBase64 } from "../../src/base/bytes.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import { type Offers, RECORD_DELTA, RECORD_LEASE, RECORD_NETMAP } from "../../src/control/messages.ts";
import type { Netmap } from "../../src/control/netmap.ts";
import { applyDelta, openDelta, openNetmap } from "../../src/control/netmap-codec.ts";
import { parseJoinToken } from "../../src/control/token.ts";
import { randomPool4, randomUla } from "../../src/coordinator/addresses.ts";
import { Continuity } from "../../src/coordinator/continuity.ts";
import type { ControlConnection } from "../../src/coordinator/control-connection.ts";
import { ControlDesk } from "../../src/coordinator/control-desk.ts";
import { Core } from "../../src/coordinator/core.ts";
import { Counters } from "../../src/coordinator/counters.ts";
import { tokenCreateSchema } from "../../src/coordinator/http/schema.ts";
import { Leases } from "../../src/coordinator/leases.ts";
import { NetmapBuilder } from "../../src/coordinator/netmap-builder.ts";
import { Netmaps } from "../../src/coordinator/netmaps.ts";
import { Policies } from "../../src/coordinator/policies.ts";
import { ProbeServer } from "../../src/coordinator/probe-server.ts";
import type { PeerRecords } from "../../src/coordinator/records.ts";
import { ReservedCounter } from "../../src/coordinator/reserved-counter.ts";
import { Roster } from "../../src/coordinator/roster.ts";
import { SqlStore } from "../../src/coordinator/store/sql-store.ts";
import { sqliteDialect } from "../../src/coordinator/store/sqlite.ts";
import { createToken } from "../../src/coordinator/tokens.ts";
import { World } from "../../src/coordinator/world.ts";
import { crypto, LogLines } from "./network.ts";

const START_MS = Date.parse("2027-05-31T23:00:00Z");

/** One connected peer: it keeps what it was sent. */
export class Watcher {
  readonly bytes: [kind: number, bytes: Uint8Array][] = [];
  readonly keys = { sign: randomBytes(new SeededRandom(watchers), 32), wireguard: new Uint8Array(32) };
  readonly connection: ControlConnection;
  session = "";
  netmap: Netmap | undefined;
  closed = false;
  gone = false;

  constructor() {
    new SeededRandom(1_000_000 + watchers++).fill(this.keys.wireguard);
    const fake: Pick<ControlConnection, "sendMessage" | "sendBytes" | "close" | "refuse"> = {
      sendMessage: () => undefined,
      sendBytes: (kind, bytes) => void this.bytes.push([kind, bytes]),
      close: () => {
        this.closed = true;
      },
      refuse: () => {
        this.closed = true;
      },
    };
    this.connection = fake as unknown as ControlConnection;
  }

  /** Takes in what it was sent, as a peer does. */
  read(signKey: Uint8Array): void {
    for (const [kind, bytes] of this.bytes.splice(0)) {
      if (kind === RECORD_LEASE) continue;
      const opened =
        kind === RECORD_NETMAP
          ? openNetmap(crypto, signKey, this.session, bytes)
          : openDelta(crypto, signKey, this.session, bytes);
      expect(kind === RECORD_DELTA || kind === RECORD_NETMAP).toBe(true);
      if (typeof opened === "string") throw new Error(opened);
      const next = "entries" in opened ? opened : applyDelta(this.netmap!, opened);
      if (typeof next === "string") throw new Error(next);
      expect(next.revision).toBeGreaterThan(this.netmap?.revision ?? 0);
      this.netmap = next;
    }
  }
}
let watchers = 0;

/** In memory, over fake connections: nobody is expelled. */
export async function makeWorld() {
  const random = new SeededRandom(77);
  const clock = { ms: START_MS, nowMs: () => clock.ms };
  const store = await SqlStore.open(sqliteDialect(new DatabaseSync(":memory:"), "memory"));
  await store.transaction(async (tx) => {
    const [id, ula, pool4] = [randomId(random, "n"), randomUla(random), randomPool4(random)];
    await tx.insertNetwork({ id, name: "test", ula, pool4, createdMs: 0 });
    await tx.addToCounter("epoch", 1);
  });
  const world = (await World.load(store, 0, Policies.emptyVersion(0)))!;
  const seeds = { noise: randomBytes(random, 32), sign: randomBytes(random, 32) };
  const keys = {
    noise: { privateKey: seeds.noise, publicKey: crypto.publicKey(seeds.noise) },
    sign: { privateKey: seeds.sign, publicKey: crypto.signPublicKey(seeds.sign) },
  };
  const [counters, logger] = [new Counters(), new LogLines()];
  const common = { store, world, keys, crypto, random, clock, logger, counters };
  const core = new Core({ ...common, url: "http://127.0.0.1:1", probes: [], software: "test" });
  const roster = new Roster(world, Policies.parseStored(world.policy));
  const policies = new Policies(core, roster, 0);
  const builder = new NetmapBuilder(core, roster);
  const revisions = await ReservedCounter.open(store, "revision");
  const netmaps = new Netmaps(core, revisions, (id) => builder.build(id));
  const serials = await ReservedCounter.open(store, "serial");
  const leases = new Leases(core, serials, (session) => builder.leaseMs(session));
  const probes = new ProbeServer(crypto, random, clock, counters);
  const records = {} as PeerRecords;
  const parts = { core, netmaps, leases, policies, roster, desk: { expel: () => undefined } };
  const continuity = new Continuity(parts, { serials, revisions });
  const desk = new ControlDesk({ core, netmaps, leases, probes, records, roster, continuity });
  const signKey = keys.sign.publicKey;
  const counted = { serials, revisions };
  return {
    core,
    clock,
    store,
    builder,
    netmaps,
    policies,
    desk,
    roster,
    leases,
    continuity,
    signKey,
    logger,
    ...counted,
  };
}
export type TestWorld = Awaited<ReturnType<typeof makeWorld>>;

/** Enrols, or resumes the session that it has. */
export async function admit(
  world: TestWorld,
  watcher: Watcher,
  identity: string,
  offers: Offers = { routes: [], serves: [] },
  tags: readonly string[] = [],
): Promise<void> {
  const { core, desk } = world;
  const keys = {
    signKey: toBase64(crypto.signPublicKey(watcher.keys.sign)),
    publicKey: toBase64(crypto.publicKey(watcher.keys.wireguard)),
    software: "test",
    connection: watcher.connection,
  };
  const common = { publicKey: keys.publicKey, proof: "", offers, endpoints: [] };
  if (watcher.session !== "") {
    const request = { type: "resume" as const, session: watcher.session, ...common };
    await desk.admit({ ...keys, request });
    return;
  }
  const created = await createToken(core, tokenCreateSchema.parse({ as: identity, tags }), "test");
  const { id, secret } = parseJoinToken(created.token);
  watcher.session = await desk.admit({
    ...keys,
    request: { type: "enroll", token: id, secret: toBase64(secret), ...common },
  });
}
