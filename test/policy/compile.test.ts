import fc from "fast-check";
import { expect, test } from "vitest";
import { formatPrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { type Affected, type CompiledPeer, PolicyCompiler } from "../../src/policy/compile.ts";
import type { WorldIdentity, WorldSession } from "../../src/policy/world.ts";
import { compilerOf, NETWORK, policyOf, worldOf } from "./named-world.ts";
import { randomPolicy, randomWorld } from "./random-world.ts";

const SLOW = { timeout: 180_000 }; // with the FC_RUNS of `npm test`

const POLICY = policyOf({
  services: {
    staging: { at: "10.20.0.5 tcp:5432", via: ["node:gw-1"], tags: ["staging"] },
    production: { at: "10.30.0.5 tcp:5432", via: ["node:gw-1"], tags: ["pci"], discoverable: true },
  },
  routes: { "10.30.0.0/16": { via: ["node:gw-1"] } },
  grants: [
    { id: "coder-staging", from: "agent:coder", to: "service:staging" },
    { id: "coder-cidr", from: "agent:coder", to: "10.0.0.0/8 tcp:any" },
  ],
  never: [{ id: "no-pci", from: "kind:agent", to: "tag:pci" }],
});
const WORLD = worldOf({
  "agent:coder": {},
  "agent:auditor": {},
  "node:gw-1": { serves: ["staging", "production"], routes: ["10.30.0.0/16", "::/0"] },
});

test("a peer is told of what concerns it: who, at which addresses, by which rules", () => {
  const peer = compilerOf(POLICY, WORLD).compilePeer("s_coder", 0)!;
  expect(peer.peers.map((p) => [p.session, p.prefixes.map(formatPrefix)])).toEqual([
    ["s_gw_1", ["10.30.0.0/16", "fd77:7777:7777:5::3:1/128", "fd77:7777:7777::3/128"]],
  ]);
  expect(peer.outbound.map((rule) => rule.key)).toEqual([
    "coder-cidr 10.30.0.0/16 tcp:any",
    "coder-staging fd77:7777:7777:5::3:1/128 tcp:5432",
    "no-pci 10.30.0.5/32 tcp:5432",
  ]);
  expect(peer.services.map((s) => [s.name, s.denied?.reason])).toEqual([
    ["production", "NEVER"],
    ["staging", undefined],
  ]);
});

test("whoever has no grant is told of nobody, and the gateway of what was refused", () => {
  const compiler = compilerOf(POLICY, WORLD);
  const auditor = compiler.compilePeer("s_auditor", 0)!;
  expect([auditor.peers, auditor.inbound, auditor.outbound]).toEqual([[], [], []]);
  const gateway = compiler.compilePeer("s_gw_1", 0)!;
  expect(gateway.refusedOffers.map((offer) => offer.offer)).toEqual(["::/0"]);
  expect(gateway.inbound.map((rule) => [rule.action, rule.sessions])).toEqual([
    ["allow", ["s_coder"]],
    ["allow", ["s_coder"]],
    ["deny", ["s_coder"]],
  ]);
});

test(
  "a compiler that was changed session by session compiles as a new one, and only those it names change",
  SLOW,
  () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const random = new SeededRandom(seed);
        const policy = randomPolicy(random);
        const compiler = new PolicyCompiler(policy, NETWORK);
        const current = new Map<string, readonly [WorldIdentity, WorldSession]>();
        const outputs = new Map<string, CompiledPeer>();
        const nodes = new Map<string, WorldIdentity>(); // spoken of so far, there now or not
        const compileAll = (from: PolicyCompiler): Map<string, CompiledPeer> =>
          new Map([...current.keys()].map((id) => [id, from.compilePeer(id, 0)!]));
        for (let step = 0; step < 12; step++) {
          const world = randomWorld(random);
          const session = random.pick([...world.sessions.values()]);
          const identity = world.identities.get(session.identity)!;
          const related = new Set([session.id, ...(outputs.get(session.id)?.peers ?? []).map((peer) => peer.session)]);
          let affected: Affected = "related";
          if (random.chance(0.2)) {
            compiler.removeSession(session.id);
            current.delete(session.id);
          } else {
            affected = compiler.setSession(identity, session);
            nodes.set(identity.name, identity);
            current.set(session.id, [identity, session]);
            for (const { session: peer } of compiler.compilePeer(session.id, 0)!.peers) related.add(peer);
          }
          const after = compileAll(compiler);
          const fresh = new PolicyCompiler(policy, NETWORK);
          for (const node of nodes.values()) fresh.setIdentity(node);
          for (const [one, other] of current.values()) fresh.setSession(one, other);
          expect(after).toEqual(compileAll(fresh));
          for (const [id, output] of after) {
            if (affected === "all" || related.has(id) || !outputs.has(id)) continue;
            expect([id, output]).toEqual([id, outputs.get(id)]);
          }
          for (const [id, output] of after) outputs.set(id, output);
          for (const id of outputs.keys()) if (!current.has(id)) outputs.delete(id);
        }
      }),
      { seed: 2, numRuns: Math.ceil(Number(process.env["FC_RUNS"] ?? 2_000) / 100) },
    );
  },
);
