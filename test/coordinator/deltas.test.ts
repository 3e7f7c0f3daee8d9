// A world that changes at random: each connected peer's map, made of deltas alone, equals a map built afresh.
import fc from "fast-check";
import { expect, test } from "vitest";
import { toNetmapView } from "../../src/control/netmap-codec.ts";
import { revoke } from "../../src/coordinator/revocation.ts";
import { admit, makeWorld, type TestWorld, Watcher } from "./memory-world.ts";

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

type Step =
  | { readonly do: "join"; readonly who: number; readonly offers: number }
  | { readonly do: "policy"; readonly grants: number; readonly nevers: number }
  | {
      readonly do: "offer" | "endpoint" | "leave" | "revoke" | "drop" | "resume";
      readonly at: number;
      readonly n: number;
    }
  | { readonly do: "wait" };

async function perform(world: TestWorld, all: Watcher[], step: Step): Promise<void> {
  const { core, desk, policies, netmaps, clock } = world;
  if (step.do === "join") {
    const watcher = new Watcher();
    all.push(watcher);
    const identity = IDENTITIES[step.who % IDENTITIES.length]!;
    const tags = identity === "node:box" || identity === "agent:auditor" ? ["lab"] : [];
    await admit(world, watcher, identity, OFFERS[step.offers % OFFERS.length]!, tags);
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
