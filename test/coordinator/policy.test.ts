import { afterEach, beforeEach, expect, test } from "vitest";
import { canSchema, policyCheckSchema, policySchema, sessionListSchema } from "../../src/coordinator/http/schema.ts";
import { TestNetwork } from "./network.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
});
afterEach(async () => {
  await network.end();
});

const POLICY = {
  services: {
    staging: { at: "10.20.0.5 tcp:80", via: ["node:gw-1"] },
    production: { at: "10.30.0.5 tcp:80", via: ["node:gw-1"], discoverable: true },
  },
  grants: [{ id: "coder-staging", from: "agent:coder", to: "service:staging" }],
};
const serves = (...names: string[]) => ({ offers: { routes: [], serves: names } });

test("without a policy nobody knows anybody", async () => {
  const gateway = await network.join("node:gw-1", serves("*"));
  const coder = await network.join("agent:coder");
  expect(gateway.view.peers).toEqual([]);
  expect(coder.view.peers).toEqual([]);
});

test("a grant makes the two ends known to each other at once, each with its own rules", async () => {
  const gateway = await network.join("node:gw-1", serves("staging"));
  const coder = await network.join("agent:coder");
  const auditor = await network.join("agent:auditor");
  await network.setPolicy(POLICY);
  await coder.until(() => coder.view.policyVersion === 1, "the policy is there");
  await gateway.until(() => gateway.view.policyVersion === 1, "the policy is there");
  await auditor.until(() => auditor.view.policyVersion === 1, "the policy is there");
  expect(coder.view.peers.map(({ session }) => session)).toEqual([gateway.session]);
  expect(gateway.view.peers.map(({ session }) => session)).toEqual([coder.session]);
  expect(auditor.view.peers).toEqual([]);
  const [service] = coder.view.services.filter(({ name }) => name === "staging");
  expect(service!.gateways).toEqual([{ session: gateway.session, address: gateway.view.serves[0]!.address }]);
  expect(gateway.view.serves[0]).toMatchObject({ name: "staging", host: "10.20.0.5", protocol: "tcp" });
  expect(gateway.view.inbound.map(({ id, sessions }) => [id, sessions])).toEqual([["coder-staging", [coder.session]]]);
  expect(coder.view.outbound.map(({ id }) => id)).toEqual(["coder-staging"]);
  const [peer] = coder.view.peers;
  expect(peer!.prefixes).toContain(`${service!.gateways[0]!.address}/128`);
  expect(peer!.identity).toBe("node:gw-1");
});

test("a discoverable service is shown with why it is denied; any other is not shown at all", async () => {
  await network.join("node:gw-1", serves("*"));
  await network.setPolicy(POLICY);
  const auditor = await network.join("agent:auditor");
  expect(auditor.view.services.map(({ name, denied }) => [name, denied?.reason])).toEqual([["production", "NO_GRANT"]]);
});

test("an offer that nothing names is refused to its peer, shown to the admin and audited", async () => {
  await network.setPolicy(POLICY);
  const stray = await network.join("node:stray", { offers: { routes: ["0.0.0.0/0", "::/0"], serves: ["staging"] } });
  expect(stray.view.refusedOffers.map(({ offer }) => offer).sort()).toEqual(["0.0.0.0/0", "::/0", "service:staging"]);
  expect(stray.view.routes).toEqual([]);
  expect(stray.view.serves).toEqual([]);
  const { sessions } = await network.admin(sessionListSchema, "GET", "/v1/sessions");
  expect(sessions[0]!.refusedOffers).toHaveLength(3);
  const audit = await network.auditActions();
  expect(audit).toContain("offer.refuse");
});

test("a token's mayRoute lets its sessions offer what the policy doesn't name", async () => {
  const gateway = await network.join("node:gw-9", {
    mayRoute: ["10.99.0.0/16"],
    offers: { routes: ["10.99.0.0/16", "10.98.0.0/16"], serves: [] },
  });
  expect(gateway.view.routes.map(({ destination }) => destination)).toEqual(["10.99.0.0/16"]);
  expect(gateway.view.refusedOffers.map(({ offer }) => offer)).toEqual(["10.98.0.0/16"]);
});

test("a gateway that the policy names but that offers nothing serves nothing; the admin sees it", async () => {
  await network.setPolicy(POLICY);
  const gateway = await network.join("node:gw-1");
  const coder = await network.join("agent:coder");
  expect(gateway.view.serves).toEqual([]);
  expect(coder.view.services.find(({ name }) => name === "staging")).toBeUndefined();
  expect(coder.view.peers).toEqual([]);
  const { sessions } = await network.admin(sessionListSchema, "GET", "/v1/sessions");
  const missing = sessions.find(({ id }) => id === gateway.session)!.missingOffers;
  expect(missing.sort()).toEqual(["service:production", "service:staging"]);
});

test("an offer made later reaches those whom it concerns, and taking it back too", async () => {
  await network.setPolicy(POLICY);
  const gateway = await network.join("node:gw-1");
  const coder = await network.join("agent:coder");
  gateway.client.setOffers({ routes: [], serves: ["staging"] });
  await coder.until(() => coder.view.peers.length === 1, "the gateway is known");
  gateway.client.setOffers({ routes: [], serves: [] });
  await coder.until(() => coder.view.peers.length === 0, "the gateway is forgotten");
});

test("a grant's end reaches the netmaps without anybody doing anything", async () => {
  const gateway = await network.join("node:gw-1", serves("staging"));
  const coder = await network.join("agent:coder");
  const until = new Date(network.clock.nowMs() + 3_600_000).toISOString();
  await network.setPolicy({ ...POLICY, grants: [{ ...POLICY.grants[0], until }] });
  await coder.until(() => coder.view.peers.length === 1, "the grant is there");
  network.clock.aheadMs += 3_600_000;
  await coder.until(() => coder.view.peers.length === 0, "the grant has ended");
  await gateway.until(() => gateway.view.inbound.length === 0, "the grant has ended");
});

test("every version is kept with author, reason and diff, and an older one can be read", async () => {
  await network.admin(policySchema, "PUT", "/v1/policy", { text: "{}", author: "ana", reason: "begin" });
  const text = '{\n  // staging first\n  "grants": []\n}\n';
  const second = await network.admin(policySchema, "PUT", "/v1/policy", { text, expectVersion: 1 });
  expect(second).toMatchObject({ version: 2, text, author: "admin" });
  expect(second.diff).toContain("+  // staging first");
  expect(second.diff).toContain("-{}");
  expect(await network.admin(policySchema, "GET", "/v1/policy?version=1")).toMatchObject({
    author: "ana",
    reason: "begin",
  });
  expect(await network.admin(policySchema, "GET", "/v1/policy")).toMatchObject({ version: 2, policy: { grants: [] } });
  expect((await network.refusal("GET", "/v1/policy?version=7")).code).toBe("NOT_FOUND");
  const conflict = await network.refusal("PUT", "/v1/policy", { text: "{}", expectVersion: 1 });
  expect(conflict).toMatchObject({ code: "POLICY_CONFLICT", status: 409 });
});

test("a bad document is refused with line, column and hint, and nothing changes", async () => {
  const text = '{\n  "grants": [{ "from": "agents:coder", "to": "service:x" }]\n}';
  const refusal = await network.refusal("PUT", "/v1/policy", { text });
  expect(refusal).toMatchObject({ code: "POLICY_INVALID", status: 422 });
  expect(refusal.diagnostics![0]).toMatchObject({ line: 2, path: "grants[0].from" });
  expect(refusal.diagnostics![0]!.hint).toBeTruthy();
  const check = await network.admin(policyCheckSchema, "POST", "/v1/policy/check", { text });
  expect(check.ok).toBe(false);
  expect((await network.admin(policySchema, "GET", "/v1/policy")).version).toBe(0);
});

test("a document whose own tests fail is refused, and says which", async () => {
  const policy = { ...POLICY, tests: [{ from: "agent:coder", to: "service:staging", expect: "deny" }] };
  const refusal = await network.refusal("PUT", "/v1/policy", { text: JSON.stringify(policy) });
  expect(refusal.code).toBe("POLICY_TESTS_FAILED");
  expect(refusal.diagnostics!.map(({ path }) => path)).toEqual(["tests[0]"]);
  const text = `// ours\n${JSON.stringify(policy, undefined, 1)}`;
  const { diagnostics } = await network.refusal("PUT", "/v1/policy", { text });
  const { line, column } = diagnostics![0]!;
  expect(text.split("\n")[line! - 1]!.slice(column! - 1)).toBe("{"); // of the test that failed
  expect(text.split("\n")[line!]).toContain('"from": "agent:coder"');
  const check = await network.admin(policyCheckSchema, "POST", "/v1/policy/check", { text: JSON.stringify(policy) });
  expect(check.tests[0]).toMatchObject({ expect: "deny", got: "allow", passed: false });
});

test("lease lengths come from the policy", async () => {
  await network.setPolicy({ leases: { agent: "90s" } });
  const coder = await network.join("agent:coder");
  expect(coder.leases[0]!.lifetimeMs).toBe(90_000);
  expect(coder.view.self.leaseMs).toBe(90_000);
});

test("can says yes, no and why, for identities with and without a session", async () => {
  await network.join("node:gw-1", serves("staging"));
  await network.token({ as: "agent:coder" });
  await network.token({ as: "agent:auditor" });
  await network.setPolicy({
    ...POLICY,
    grants: [...POLICY.grants, { id: "coder-production", from: "agent:coder", to: "service:production" }],
    never: [{ id: "no-auditor", from: "agent:auditor", to: "service:staging" }],
  });
  const can = (from: string, dest: string) =>
    network.admin(canSchema, "GET", `/v1/can?from=${encodeURIComponent(from)}&dest=${encodeURIComponent(dest)}`);
  for (const round of ["before enrolment", "after"]) {
    expect(await can("agent:coder", "service:staging"), round).toMatchObject({
      allowed: true,
      reason: "ALLOWED_BY_RULE",
      ruleId: "coder-staging",
      policyVersion: 1,
    });
    expect(await can("agent:auditor", "service:staging")).toMatchObject({ allowed: false, reason: "NEVER" });
    const unserved = await can("agent:coder", "service:production");
    expect(unserved).toMatchObject({ allowed: false, reason: "NO_GATEWAY", ruleId: "coder-production" });
    expect(unserved.explanation.join()).toContain("--serve production");
    const denied = await can("agent:auditor", "service:production");
    expect(denied).toMatchObject({ allowed: false, reason: "NO_GRANT" });
    expect(denied.explanation.join()).toContain('"from": "agent:auditor"');
    if (round === "before enrolment") await Promise.all([network.join("agent:coder"), network.join("agent:auditor")]);
  }
  const refusals = [
    ["agent:nobody", "service:staging", "NOT_FOUND"],
    ["kind:agent", "service:staging", "CONFIG_INVALID"],
    ["agent:coder", "10.0.0.0/8 tcp:1", "CONFIG_INVALID"],
    ["agent:coder", "nonsense thing more", "CONFIG_INVALID"],
  ] as const;
  for (const [from, dest, code] of refusals) {
    const path = `/v1/can?from=${encodeURIComponent(from)}&dest=${encodeURIComponent(dest)}`;
    expect((await network.refusal("GET", path)).code).toBe(code);
  }
});

test("a node that is not there yet, or no more, still joins the lists that say what is the same thing", async () => {
  // gw-2 is in both lists: so gw-1, which routes to 10.20.7.7, reaches what `web` is, and a never on it closes that.
  const policy = {
    services: { web: { at: "10.20.7.7 tcp:80", via: ["tag:red"] } },
    routes: { "10.20.0.0/16": { via: ["node:*"] } },
    grants: [{ id: "wide", from: "kind:agent", to: "10.20.0.0/16 any" }],
    never: [{ id: "not-web", from: "kind:agent", to: "service:web" }],
  };
  const gateway = await network.join("node:gw-1", { offers: { routes: ["10.20.0.0/16"], serves: [] } });
  await network.join("agent:coder");
  const closing = (): readonly string[] =>
    gateway.view.inbound.filter(({ action }) => action === "deny").map(({ id }) => id);
  await network.setPolicy(policy);
  await gateway.until(() => gateway.view.policyVersion === 1, "the policy is there");
  expect(closing()).toEqual([]);
  await network.token({ as: "node:gw-2", tags: ["red"] });
  await gateway.until(() => closing().length > 0, "the never reaches it");
  expect(closing()).toEqual(["not-web"]);
  await network.setPolicy({ ...policy, tests: [] });
  await gateway.until(() => gateway.view.policyVersion === 2, "the next policy is there");
  expect(closing()).toEqual(["not-web"]);
});
