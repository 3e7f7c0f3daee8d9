import { expect, test } from "vitest";
import { formatPrefix } from "../../src/base/address.ts";
import { compilerOf, policyOf, worldOf } from "./named-world.ts";

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
    ["s_gw_1", ["fd77:7777:7777::3/128", "fd77:7777:7777:5::3:1/128", "10.30.0.0/16"]],
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
