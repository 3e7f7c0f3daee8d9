// A world that changes at random: each connected peer's map, made of deltas alone, equals a map built afresh.
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { expect, test } from "vitest";
import { randomId } from "../../src/base/base32.ts";
import { toBase64 } from "../../src/base/bytes.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import { RECORD_DELTA, RECORD_LEASE, RECORD_NETMAP } from "../../src/control/messages.ts";
import type { Netmap } from "../../src/control/netmap.ts";
import { applyDelta, openDelta, openNetmap, toNetmapView } from "../../src/control/netmap-codec.ts";
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
import { revoke } from "../../src/coordinator/revocation.ts";
import { Roster } from "../../src/coordinator/roster.ts";
import { SqlStore } from "../../src/coordinator/store/sql-store.ts";
import { sqliteDialect } from "../../src/coordinator/store/sqlite.ts";
import { createToken } from "../../src/coordinator/tokens.ts";
import { World } from "../../src/coordinator/world.ts";
import { crypto, LogLines } from "./network.ts";

const IDENTITIES = ["node:gw-1", "node:gw-2", "node:box", "agent:coder", "agent:auditor", "user:ana@example.com"];
const OFFERS = [
  { routes: [], serves: [] },
  { routes: [], serves: ["*"] },
  { routes: ["10.20.0.0/16"], serves: ["staging"] },
  { routes: ["host:*.staging.internal", "0.0.0.0/0"], serves: ["prod", "nothing"] },
];
const SERVICES = {
  staging: { at: "10.20.0.5 tcp:80", via: ["node:gw-1", "node:gw-2"] },
  prod: { at: "10.30.0.5 tcp:80", via: ["node:gw-1"], tags: ["pci"], discoverable: true },
};
const ROUTES = { "10.20.0.0/16": { via: ["node:gw-1"] }, "host:*.staging.internal": { via: ["node:gw-2"] } };
const GRANTS = [
  { id: "g0", from: "kind:agent", to: "service:staging" },
  { id: "g1", from: "agent:coder", to: ["service:prod", "node:box tcp:22"] },
  { id: "g2", from: "user:ana@example.com", to: "10.20.0.0/16 any" },
  { id: "g3", from: "tag:lab", to: "host:*.staging.internal tcp:443" },
  { id: "g4", from: "kind:node", to: "node:* icmp", until: "2027-06-01T00:00:00Z" },
  { id: "g5", from: "kind:user", to: "tag:lab any" },
];
const NEVERS = [
  { id: "n0", from: "agent:auditor", to: "service:prod" },
  { id: "n1", from: "kind:user", to: "10.20.0.5 tcp:80" },
];
const START_MS = Date.parse("2027-05-31T23:00:00Z");

type Step =
  | { readonly do: "join"; readonly who: number; readonly offers: number }
  | { readonly do: "policy"; readonly grants: number; readonly nevers: number }
  | {
      readonly do: "offer" | "endpoint" | "leave" | "revoke" | "drop" | "resume";
      readonly at: number;
      readonly n: number;
    }
  | { readonly do: "wait" };

class Watcher {
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

async function makeWorld() {
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
  return { core, clock, store, builder, netmaps, policies, desk, roster, leases, signKey: keys.sign.publicKey, logger };
}
type TestWorld = Awaited<ReturnType<typeof makeWorld>>;

async function admit(world: TestWorld, watcher: Watcher, identity: string, offers: (typeof OFFERS)[number]) {
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
  const tags = identity === "node:box" || identity === "agent:auditor" ? ["lab"] : [];
  const created = await createToken(core, tokenCreateSchema.parse({ as: identity, tags }), "test");
  const { id, secret } = parseJoinToken(created.token);
  watcher.session = await desk.admit({
    ...keys,
    request: { type: "enroll", token: id, secret: toBase64(secret), ...common },
  });
}

async function perform(world: TestWorld, all: Watcher[], step: Step): Promise<void> {
  const { core, desk, policies, netmaps, clock } = world;
  if (step.do === "join") {
    const watcher = new Watcher();
    all.push(watcher);
    await admit(world, watcher, IDENTITIES[step.who % IDENTITIES.length]!, OFFERS[step.offers % OFFERS.length]!);
    return;
  }
  if (step.do === "policy") {
    const grants = GRANTS.filter((_, index) => step.grants & (1 << index));
    const never = NEVERS.filter((_, index) => step.nevers & (1 << index));
    const text = JSON.stringify({ services: SERVICES, routes: ROUTES, grants, never });
    await policies.set({ text, author: "test", reason: "" }, () => netmaps.refreshAll());
    return;
  }
  if (step.do === "wait") {
    clock.ms += 1_800_000;
    netmaps.refreshDue(clock.ms);
    netmaps.refresh(core.world.forgetOldRevocations(clock.ms));
    return;
  }
  const alive = all.filter((watcher) => !watcher.gone && (step.do === "resume") === watcher.closed);
  const watcher = alive[step.at % Math.max(1, alive.length)];
  if (watcher === undefined) return;
  const offers = OFFERS[step.n % OFFERS.length]!;
  const { session, connection } = watcher;
  if (step.do === "offer") await desk.handle(session, { type: "offers", ...offers }, connection);
  if (step.do === "endpoint")
    await desk.handle(session, { type: "endpoints", endpoints: [`192.0.2.${step.n}:51820`] }, connection);
  if (step.do === "drop") {
    watcher.closed = true;
    desk.detach(session, connection);
  }
  if (step.do === "resume") {
    watcher.closed = false;
    watcher.netmap = undefined;
    await admit(world, watcher, "", offers);
  }
  if (step.do === "leave" || step.do === "revoke") {
    watcher.gone = true;
    if (step.do === "leave") await desk.handle(session, { type: "leave" }, connection);
    else await revoke(world, `session:${session}`, "", "test");
  }
}

const at = fc.nat(9);
const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("join" as const), who: fc.nat(9), offers: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("policy" as const), grants: fc.nat(63), nevers: fc.nat(3) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("offer", "offer", "endpoint", "leave", "revoke", "drop", "resume"),
      at,
      n: fc.nat(9),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "wait" as const }) },
);

test("after every change, each connected peer's map of deltas equals one built afresh", {
  timeout: 60_000,
}, async () => {
  const numRuns = Number(process.env["DELTA_RUNS"] ?? 25);
  await fc.assert(
    fc.asyncProperty(fc.array(stepArbitrary, { minLength: 5, maxLength: 30 }), async (steps) => {
      const world = await makeWorld();
      const all: Watcher[] = [];
      await perform(world, all, { do: "policy", grants: 63, nevers: 1 });
      for (const step of steps) {
        await perform(world, all, step);
        for (const watcher of all) {
          if (watcher.gone || watcher.closed) continue;
          watcher.read(world.signKey);
          expect(watcher.netmap!.entries).toEqual(world.builder.build(watcher.session).entries);
          expect(toNetmapView(watcher.netmap!)).not.toHaveProperty("message");
        }
      }
      await world.core.idle();
      expect(world.logger.lines).toEqual([]);
      await world.store.close();
    }),
    { numRuns },
  );
});
