// `never` is judged on what is reached, not on how it was named. Each row is asked of the oracle and of the compiled
// filters of both ends; the world's only difference between rows is what is asked.
import { describe, expect, test } from "vitest";
import { type Address, parseAddress } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { FilterProtocol } from "../../src/filter/contract.ts";
import { Filter } from "../../src/filter/filter.ts";
import { evaluate } from "../../src/policy/evaluate.ts";
import type { Policy } from "../../src/policy/policy.ts";
import { NAME_DIAL_PORT, type World } from "../../src/policy/world.ts";
import { compilerOf, policyOf, serviceAddress, worldOf } from "./named-world.ts";

/** The oracle's reason, after the filters of both ends were found to agree with it. */
function ask(
  policy: Policy,
  world: World,
  at: string,
  to: Address | string,
  protocol: FilterProtocol,
  port: number,
): string {
  const verdict = evaluate(policy, world, { from: "s_coder", at, to, protocol, port }, 0);
  const compiler = compilerOf(policy, world);
  for (const [self, remote, direction] of [
    ["s_coder", at, "outbound"],
    [at, "s_coder", "inbound"],
  ] as const) {
    const filter = new Filter({ random: new SeededRandom(1) });
    filter.setOwnLease(1e15);
    const slot = filter.slot(remote);
    filter.setRemoteLease(slot, 1e15);
    filter.apply(0, { ...compiler.compilePeer(self, 0)!, revision: 1, policyVersion: 1, revoked: [] });
    const got =
      typeof to === "string"
        ? filter.judgeHost(0, direction, slot, to, protocol, port)
        : filter.judgeAddress(0, direction, slot, to, protocol, port);
    expect([direction, got.allowed]).toEqual([direction, verdict.allowed]);
  }
  return verdict.reason;
}

const WORLD = worldOf({
  "agent:coder": {},
  "node:gw-1": {
    serves: ["db", "twin", "local", "named"],
    routes: ["10.0.0.0/8", "64:ff9b::/96", "host:*"],
    v4: "10.77.0.2",
  },
  "node:gw-2": { serves: ["twin-2"], routes: ["10.0.0.0/8"] },
  "node:gw-3": { serves: ["chain"], routes: ["10.0.0.0/8"] },
  "node:gw-4": { routes: ["10.0.0.0/9"] },
});
const at = (text: string): Address => parseAddress(text)!;
const GW_1 = at("fd77:7777:7777::2");
const [DB, TWIN, LOCAL, NAMED] = [1, 2, 3, 4].map((i) => serviceAddress(2, i)) as [Address, Address, Address, Address];
const [TWIN_2, CHAIN] = [serviceAddress(3, 1), serviceAddress(4, 1)];

function policy(never: object): Policy {
  return policyOf({
    services: {
      db: { at: "10.30.0.5 tcp:5432", via: ["node:gw-1"], tags: ["pci"] },
      twin: { at: "10.30.0.5 tcp:5433", via: ["node:gw-1"] },
      local: { at: "127.0.0.1 tcp:22", via: ["node:gw-1"] },
      named: { at: "pay.internal tcp:443", via: ["node:gw-1"] },
      "twin-2": { at: "10.30.0.5 tcp:5432", via: ["node:gw-2"] },
      // gw-3 reaches what gw-2 reaches at 10.30.0.5, says this service's `via`
      chain: { at: "10.30.0.5 tcp:9000", via: ["node:gw-2", "node:gw-3"] },
    },
    routes: {
      "10.0.0.0/8": { via: ["node:gw-1"] },
      "10.0.0.0/9": { via: ["node:gw-4"] },
      "64:ff9b::/96": { via: ["node:gw-1"] },
      "host:*": { via: ["node:gw-1"] },
    },
    grants: [
      { from: "agent:coder", to: ["service:*", "node:* any", "0.0.0.0/0 any", "::/0 any", "host:* any"] },
      { from: "agent:coder", to: "fd77:7777:7777:5::/64 any" },
    ],
    never: [{ from: "kind:agent", ...never }],
  });
}

describe("never", () => {
  type Row = [
    never: string,
    session: string,
    to: Address | string,
    protocol: FilterProtocol,
    port: number,
    reason: string,
  ];
  const rows: Row[] = [
    ["service:db", "s_gw_1", DB, "tcp", 5432, "NEVER"],
    ["tag:pci", "s_gw_1", DB, "tcp", 5432, "NEVER"],
    ["10.30.0.0/16", "s_gw_1", DB, "tcp", 5432, "NEVER"], // by its `at`
    ["10.30.0.0/16 udp:any", "s_gw_1", DB, "tcp", 5432, "ALLOWED_BY_RULE"],
    ["fd77:7777:7777:5::/64", "s_gw_1", DB, "tcp", 5432, "NEVER"],
    ["node:gw-1", "s_gw_1", DB, "tcp", 5432, "ALLOWED_BY_RULE"], // what is reached is the service, not its gateway
    ["service:db", "s_gw_1", at("10.30.0.5"), "tcp", 5432, "NEVER"], // the pair (gateway, at) inside a wider CIDR
    ["service:db", "s_gw_1", at("10.30.0.5"), "tcp", 5433, "ALLOWED_BY_RULE"],
    ["service:db", "s_gw_1", at("64:ff9b::10.30.0.5"), "tcp", 5432, "NEVER"], // in NAT64's clothes
    ["service:db", "s_gw_1", at("64:ff9b::10.30.0.6"), "tcp", 5432, "ALLOWED_BY_RULE"],
    ["service:db", "s_gw_1", TWIN, "tcp", 5433, "ALLOWED_BY_RULE"], // the same host, another port
    ["service:db", "s_gw_4", at("10.30.0.5"), "tcp", 5432, "ALLOWED_BY_RULE"], // another thing: another gateway
    ["service:twin-2", "s_gw_2", TWIN_2, "tcp", 5432, "NEVER"],
    ["service:twin-2", "s_gw_1", DB, "tcp", 5432, "ALLOWED_BY_RULE"], // two things at one private address
    ["service:chain", "s_gw_3", CHAIN, "tcp", 9000, "NEVER"],
    ["node:gw-1", "s_gw_1", GW_1, "tcp", 22, "NEVER"],
    ["node:gw-1 tcp:22", "s_gw_1", GW_1, "tcp", 23, "ALLOWED_BY_RULE"],
    ["node:gw-1 tcp:22", "s_gw_1", LOCAL, "tcp", 22, "NEVER"], // its loopback is the node itself
    ["kind:node tcp:22", "s_gw_1", LOCAL, "tcp", 22, "NEVER"],
    ["node:gw-2 tcp:22", "s_gw_1", LOCAL, "tcp", 22, "ALLOWED_BY_RULE"],
    ["127.0.0.0/8", "s_gw_1", LOCAL, "tcp", 22, "NEVER"],
    ["host:*.internal", "s_gw_1", NAMED, "tcp", 443, "NEVER"],
    ["host:*.internal tcp:80", "s_gw_1", NAMED, "tcp", 443, "ALLOWED_BY_RULE"],
    ["host:*.internal", "s_gw_1", "pay.internal", "tcp", 443, "NEVER"],
    ["host:*.internal", "s_gw_1", "pay.example", "tcp", 443, "ALLOWED_BY_RULE"],
    ["service:named", "s_gw_1", "pay.internal", "tcp", 443, "NEVER"], // the pair (gateway, name)
    ["service:named", "s_gw_1", "pay.internal", "tcp", 80, "ALLOWED_BY_RULE"],
    ["node:gw-1", "s_gw_1", "any.example", "tcp", 443, "NEVER"], // names are told to a port of the gateway
    [`node:gw-1 tcp:${NAME_DIAL_PORT}`, "s_gw_1", GW_1, "tcp", NAME_DIAL_PORT, "NEVER"],
    ["service:*", "s_gw_1", TWIN, "tcp", 5433, "NEVER"],
    ["0.0.0.0/0", "s_gw_1", at("10.77.0.2"), "tcp", 1, "NEVER"], // a wide never closes overlay addresses too
    ["0.0.0.0/0", "s_gw_1", GW_1, "tcp", 1, "ALLOWED_BY_RULE"],
  ];
  for (const [never, session, to, protocol, port, reason] of rows) {
    const what = typeof to === "string" ? to : [...rows].indexOf(rows.find((row) => row[2] === to)!);
    test(`${never}: ${session} ${what} ${protocol}:${port} is ${reason}`, () => {
      expect(ask(policy({ to: never }), WORLD, session, to, protocol, port)).toBe(reason);
    });
  }

  test("two gateways that one `via` names reach the same thing, also what only a route of one leads to", () => {
    const document = {
      services: { db: { at: "10.30.0.5 tcp:5432", via: ["node:gw-1"] } },
      routes: { "10.30.0.0/16": { via: ["node:gw-1", "node:gw-2"] } },
      grants: [{ from: "agent:coder", to: "10.0.0.0/8 any" }],
      never: [{ from: "agent:coder", to: "service:db" }],
    };
    const world = worldOf({
      "agent:coder": {},
      "node:gw-1": {},
      "node:gw-2": { routes: ["10.30.0.0/16"] },
      "node:gw-3": { routes: ["10.30.0.0/16"], mayRoute: ["10.30.0.0/16"] },
    });
    const of = (session: string, port: number): string =>
      ask(policyOf(document), world, session, at("10.30.0.5"), "tcp", port);
    expect([of("s_gw_2", 5432), of("s_gw_2", 5433), of("s_gw_3", 5432)]).toEqual([
      "NEVER",
      "ALLOWED_BY_RULE",
      "ALLOWED_BY_RULE",
    ]);
  });

  test("it concerns who opens: the other direction stays open, and answers pass", () => {
    const document = {
      grants: [{ from: "node:gw-1", to: "agent:coder tcp:1" }],
      never: [{ from: "kind:agent", to: "node:*" }],
    };
    const world = worldOf({ "agent:coder": {}, "node:gw-1": {} });
    const asked = { from: "s_gw_1", at: "s_coder", to: at("fd77:7777:7777::1"), protocol: "tcp", port: 1 } as const;
    expect(evaluate(policyOf(document), world, asked, 0).allowed).toBe(true);
    expect(
      compilerOf(policyOf(document), world)
        .compilePeer("s_coder", 0)!
        .inbound.map((rule) => rule.action),
    ).toEqual(["allow"]);
  });
});

describe("a wide grant", () => {
  const wide = policyOf({
    routes: { "0.0.0.0/0": { via: ["node:gw-1"] }, "::/0": { via: ["node:gw-1"] } },
    grants: [{ from: "agent:coder", to: ["0.0.0.0/0 any", "::/0 any"] }],
  });
  const world = worldOf({
    "agent:coder": {},
    "node:gw-1": { routes: ["0.0.0.0/0", "::/0"], v4: "10.77.0.2" },
    "node:gw-2": { v4: "10.77.0.3" },
  });
  const rows: [to: string, reason: string][] = [
    ["192.0.2.1", "ALLOWED_BY_RULE"],
    ["10.76.255.255", "ALLOWED_BY_RULE"],
    ["10.78.0.0", "ALLOWED_BY_RULE"],
    ["fd77:7777:7778::1", "ALLOWED_BY_RULE"],
    ["10.77.0.2", "NO_GRANT"], // the gateway's own
    ["fd77:7777:7777::2", "NO_GRANT"],
    ["10.77.0.3", "NO_GRANT"], // another peer's, through the gateway
    ["fd77:7777:7777::3", "NO_GRANT"],
  ];
  for (const [to, reason] of rows) {
    test(`names what is behind gateways, not the overlay: ${to}`, () => {
      expect(ask(wide, world, "s_gw_1", at(to), "tcp", 22)).toBe(reason);
    });
  }
});
