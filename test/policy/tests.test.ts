import { describe, expect, test } from "vitest";
import { runPolicyTests } from "../../src/policy/tests.ts";
import type { WorldIdentity } from "../../src/policy/world.ts";
import { policyOf } from "./named-world.ts";

const BASE = {
  groups: { platform: ["user:ana@example.com"] },
  services: {
    staging: { at: "10.20.0.5 tcp:5432", via: ["node:gw-1", "node:gw-2"], tags: ["staging"] },
    production: { at: "10.30.0.5 tcp:5432-5433", via: ["node:gw-3"], tags: ["pci"] },
    open: { at: "open.internal tcp:443", via: ["node:*"] },
  },
  routes: { "10.30.0.0/16": { via: ["node:gw-3"] }, "host:*.internal": { via: ["node:gw-1"] } },
  grants: [
    { id: "coder", from: "agent:coder", to: ["service:staging", "service:production", "10.0.0.0/8 tcp:any"] },
    { id: "names", from: "agent:coder", to: "host:*.internal tcp:443" },
    { id: "ssh", from: "group:platform", to: "node:* tcp:22" },
    { id: "blue", from: "tag:blue", to: "service:open" },
    { id: "agents", from: "kind:agent", to: "service:open" },
    { id: "short", from: "agent:brief", to: "service:open", until: "1970-01-01T00:00:10Z" },
  ],
  never: [
    { id: "no-pci", from: "kind:agent", to: "tag:pci" },
    { id: "no-tester", from: "agent:tester", to: "service:open" },
  ],
};

function got(from: string, to: string, expected: "allow" | "deny", known: WorldIdentity[] = []): string {
  const policy = policyOf({ ...BASE, tests: [{ from, to, expect: expected }] });
  const [result] = runPolicyTests(policy, new Map(known.map((identity) => [identity.name, identity])), 0);
  return `${result!.passed ? "passed" : "failed"}: ${result!.got} ${result!.reason}`;
}

describe("a policy's own tests", () => {
  const table: [from: string, to: string, expected: "allow" | "deny", result: string][] = [
    ["agent:coder", "service:staging", "allow", "passed: allow ALLOWED_BY_RULE (coder)"],
    ["agent:coder", "staging", "deny", "failed: allow ALLOWED_BY_RULE (coder)"],
    ["agent:other", "service:staging", "allow", "failed: deny NO_GRANT"],
    ["agent:other", "service:staging", "deny", "passed: deny NO_GRANT"],
    ["agent:coder", "service:production", "allow", "failed: deny NEVER (no-pci)"],
    ["agent:coder", "10.30.0.5 tcp:5432", "deny", "passed: deny NEVER (no-pci)"], // the pair (gateway, at)
    ["agent:coder", "10.30.0.5 tcp:80", "allow", "passed: allow ALLOWED_BY_RULE (coder)"],
    ["agent:coder", "10.30.0.5 tcp:any", "allow", "failed: deny NEVER (no-pci)"], // some ports of all
    ["agent:coder", "10.30.0.5 tcp:any", "deny", "failed: allow ALLOWED_BY_RULE (coder)"],
    ["agent:coder", "10.99.0.1 tcp:1", "allow", "passed: allow ALLOWED_BY_RULE (coder)"], // no route: any gateway's
    ["agent:coder", "10.99.0.1 udp:1", "deny", "passed: deny NO_GRANT"],
    ["agent:coder", "host:a.internal tcp:443", "allow", "passed: allow ALLOWED_BY_RULE (names)"],
    ["agent:coder", "host:a.example tcp:443", "deny", "passed: deny NO_GRANT"],
    ["user:ana@example.com", "node:anything tcp:22", "allow", "passed: allow ALLOWED_BY_RULE (ssh)"],
    ["group:platform", "node:gw-1 tcp:22", "allow", "passed: allow ALLOWED_BY_RULE (ssh)"],
    ["group:platform", "node:gw-1 any", "allow", "failed: deny NO_GRANT"],
    ["group:platform", "node:gw-1 any", "deny", "failed: allow ALLOWED_BY_RULE (ssh)"],
    ["kind:agent", "service:open", "allow", "failed: deny NEVER (no-tester)"], // one of them may not
    ["kind:agent", "service:open", "deny", "failed: allow ALLOWED_BY_RULE (agents)"],
    ["kind:agent", "service:production", "deny", "passed: deny NO_GRANT"],
    ["agent:brief", "service:open", "allow", "passed: allow ALLOWED_BY_RULE (agents, short)"],
    ["tag:blue", "service:open", "deny", "failed: deny it names nobody or nothing that exists"],
  ];
  for (const [from, to, expected, result] of table) {
    test(`${from} to ${to}, expecting ${expected}`, () => expect(got(from, to, expected)).toBe(result));
  }

  test("tags and sponsors are known only of identities that exist", () => {
    const bob: WorldIdentity = { name: "user:bob@example.com", kind: "user", tags: ["blue"] };
    expect(got("user:bob@example.com", "service:open", "allow")).toContain("failed");
    expect(got("user:bob@example.com", "service:open", "allow", [bob])).toContain(
      "passed: allow ALLOWED_BY_RULE (blue)",
    );
    expect(got("tag:blue", "service:open", "allow", [bob])).toContain("passed");
  });

  test("an `until` that has passed allows nothing", () => {
    const policy = policyOf({
      grants: [{ from: "agent:a", to: "node:b tcp:1", until: "1970-01-01T00:00:10Z" }],
      tests: [{ from: "agent:a", to: "node:b tcp:1", expect: "allow" }],
    });
    expect(runPolicyTests(policy, new Map(), 9_999)[0]!.passed).toBe(true);
    expect(runPolicyTests(policy, new Map(), 10_000)[0]!.passed).toBe(false);
  });

  test("many tests over many grants and identities are each judged by the opener's own grants alone", () => {
    const policy = policyOf({
      grants: Array.from({ length: 2_000 }, (_, i) => ({ from: `agent:a-${i}`, to: `node:b tcp:${1 + i}` })),
      tests: Array.from({ length: 500 }, (_, i) => ({ from: `agent:a-${i}`, to: "node:b any", expect: "deny" })),
    });
    const known = new Map<string, WorldIdentity>();
    for (let i = 0; i < 2_000; i++) known.set(`agent:a-${i}`, { name: `agent:a-${i}`, kind: "agent", tags: [] });
    const results = runPolicyTests(policy, known, 0);
    expect(results.map(({ passed, reason }) => [passed, reason]).filter(([passed]) => passed)).toEqual([]);
  });
});
