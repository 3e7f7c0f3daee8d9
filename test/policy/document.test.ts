import { describe, expect, test } from "vitest";
import {
  POLICY_GRANTS_MAX,
  POLICY_ISSUES_MAX,
  POLICY_LIST_MAX,
  POLICY_MAX_BYTES,
  POLICY_PORT_RANGES_MAX,
} from "../../src/base/limits.ts";
import { definePolicy } from "../../src/policy/define.ts";
import { canonicalPolicy, formatIssue, parsePolicy, parsePolicyValue } from "../../src/policy/document.ts";
import type { PolicyIssueCode } from "../../src/policy/issue.ts";
import { policyJsonSchema } from "../../src/policy/schema.ts";

const grant = (to: string): string => `{"grants":[{"from":"agent:a","to":"${to}"}]}`;
const from = (text: string): string => `{"grants":[{"from":"${text}","to":"service:*"}]}`;
const service = (at: string, via = '["node:g"]'): string => `{"services":{"db":{"at":"${at}","via":${via}}}}`;

/** Column of the first character of `mark` in a one-line document. */
const BAD: readonly [name: string, text: string, code: PolicyIssueCode, mark: string | number, hint: RegExp][] = [
  ["an empty document", "", "SYNTAX", 1, /smallest policy is \{\}/],
  ["a missing comma", '{"groups":{} "routes":{}}', "SYNTAX", '"routes"', /","/],
  ["a missing brace", '{"groups":{}', "SYNTAX", 13, /"\}" is missing/],
  ["a missing bracket", '{"grants":[', "SYNTAX", 12, /"\]" is missing/],
  ["keys without quotes", "{groups:{}}", "SYNTAX", "groups", /double quotes/],
  ["texts without quotes", '{"grants":foo}', "SYNTAX", "foo", /double quotes/],
  ["an open comment", "{} /* no end", "SYNTAX", "/*", /\*\//],
  ["something behind the end", "{} {}", "SYNTAX", 4, /before this/],
  ["nesting without end", "[".repeat(100_000), "TOO_DEEP", 33, /4 deep/],
  ["a key twice", '{"groups":{},"groups":{}}', "DUPLICATE_KEY", 14, /only one would count/],
  ["a service twice", '{"services":{"a":1,"a":2}}', "DUPLICATE_KEY", '"a":2', /join the two/],
  ["__proto__", '{"__proto__":{"groups":{}}}', "UNKNOWN_KEY", '"__proto__"', /take it out/],
  ["an unknown key", '{"grant":[]}', "UNKNOWN_KEY", '"grant"', /did you mean "grants"\?/],
  [
    "an unknown key inside",
    '{"grants":[{"from":"agent:a","too":"service:x","to":[]}]}',
    "UNKNOWN_KEY",
    '"too"',
    /mean "to"\?/,
  ],
  ["requestable", '{"requestable":[]}', "UNKNOWN_KEY", '"requestable"', /the keys are groups, services/],
  ["a list as document", "[]", "WRONG_TYPE", 1, /one object/],
  ["grants as an object", '{"grants":{}}', "WRONG_TYPE", "{}}", /"grants": \[/],
  ["a number as selector", '{"grants":[{"from":["agent:a",7],"to":[]}]}', "WRONG_TYPE", "7", /"from": "agent:coder"/],
  ["a missing `to`", '{"grants":[{"from":"agent:a"}]}', "MISSING_KEY", '{"from"', /add "to": "service:staging-db"/],
  [
    "a missing `via`",
    '{"services":{"db":{"at":"10.0.0.1 tcp:1"}}}',
    "MISSING_KEY",
    '{"at"',
    /add "via": \["node:gw-1"\]/,
  ],
  [
    "an unknown expectation",
    '{"tests":[{"from":"agent:a","to":"service:x","expect":"permit"}]}',
    "WRONG_VALUE",
    '"permit"',
    /"allow" or "deny"/,
  ],
  ["a selector without kind", from("coder"), "BAD_SELECTOR", '"coder"', /agent:coder, node:coder/],
  ["everybody", from("*"), "BAD_SELECTOR", '"*"', /kind:agent/],
  ["a mistyped kind", from("agnet:coder"), "BAD_SELECTOR", '"agnet', /did you mean agent:coder\?/],
  ["an unknown kind", from("kind:robot"), "BAD_SELECTOR", '"kind:robot', /user, node and agent/],
  ["capitals in a name", from("agent:Coder"), "BAD_NAME", '"agent:Coder', /letters a-z/],
  ["a name that ends in a hyphen", from("node:gw-"), "BAD_NAME", '"node:gw-', /inner hyphens/],
  ["a name of 64 characters", from(`agent:${"a".repeat(64)}`), "BAD_NAME", '"agent:aaa', /at most 63/],
  ["a user in capitals", from("user:Ana@example.com"), "BAD_NAME", '"user:Ana', /lower case and ASCII/],
  ["a user who looks like another", from("user:аna@example.com"), "BAD_NAME", '"user:', /ASCII/],
  ["a sponsor that is no user", from("sponsor:node:gw-1"), "BAD_SELECTOR", '"sponsor', /sponsor:user:/],
  [
    "an unknown group",
    '{"groups":{"platform":[]},"grants":[{"from":"group:platfrom","to":[]}]}',
    "UNKNOWN_GROUP",
    '"group:platfrom"',
    /did you mean "platform"\?/,
  ],
  ["a group in a group", '{"groups":{"a":["group:b"],"b":[]}}', "GROUP_IN_GROUP", '"group:b"', /list its members/],
  ["a session in a group", '{"groups":{"a":["session:s_0123456789abcdef"]}}', "BAD_SELECTOR", '"session:', /`from`/],
  ["a name of a group", '{"groups":{"A b":[]}}', "BAD_NAME", '"A b"', /letters a-z/],
  ["no protocol", grant("node:gw-1"), "BAD_DESTINATION", '"node:gw-1', /"node:gw-1 tcp:443", or "node:gw-1 any"/],
  ["no ports", grant("node:gw-1 tcp"), "BAD_DESTINATION", '"node:gw-1', /tcp:443, or tcp:any/],
  ["ports of any", grant("node:gw-1 any:80"), "BAD_DESTINATION", '"node:gw-1', /tcp:80, or udp/],
  ["ports of icmp", grant("node:gw-1 icmp:8"), "BAD_DESTINATION", '"node:gw-1', /"icmp" alone/],
  ["an unknown protocol", grant("node:gw-1 http:80"), "BAD_DESTINATION", '"node:gw-1', /tcp:PORTS/],
  ["port 0", grant("node:gw-1 tcp:0"), "BAD_DESTINATION", '"node:gw-1', /1 to 65535/],
  ["port 65536", grant("node:gw-1 tcp:65536"), "BAD_DESTINATION", '"node:gw-1', /1 to 65535/],
  ["a range backwards", grant("node:gw-1 tcp:90-80"), "BAD_DESTINATION", '"node:gw-1', /write 80-90/],
  [
    "too many ranges",
    grant(`node:gw-1 tcp:${Array.from({ length: POLICY_PORT_RANGES_MAX + 1 }, (_, i) => 2 * i + 1)}`),
    "BAD_DESTINATION",
    '"node:gw-1',
    /join neighbours/,
  ],
  ["two spaces", grant("node:gw-1  tcp:1"), "BAD_DESTINATION", '"node:gw-1', /one space/],
  ["host bits in a CIDR", grant("10.20.0.5/16 tcp:1"), "BAD_DESTINATION", '"10.20', /write 10\.20\.0\.0\/16/],
  ["no address", grant("10.20.0.256 tcp:1"), "BAD_DESTINATION", '"10.20', /such as 10\.20\.0\.0\/16/],
  ["an octal address", grant("010.20.0.1 tcp:1"), "BAD_DESTINATION", '"010', /such as/],
  ["everything", grant("* any"), "BAD_DESTINATION", '"* any', /0\.0\.0\.0\/0 any/],
  ["a DNS name without host:", grant("db.internal tcp:1"), "BAD_DESTINATION", '"db.internal', /host:db\.internal/],
  ["a star inside a name", grant("host:db.*.internal tcp:1"), "BAD_NAME", '"host:db', /leading labels only/],
  ["half a label as star", grant("host:db*.internal tcp:1"), "BAD_NAME", '"host:db', /leading labels only/],
  ["an address as name", grant("host:10.0.0.1 tcp:1"), "BAD_DESTINATION", '"host:10', /without "host:"/],
  [
    "an unknown service",
    '{"services":{"db":{"at":"10.0.0.1 tcp:1","via":[]}},"grants":[{"from":[],"to":"service:bd"}]}',
    "UNKNOWN_SERVICE",
    '"service:bd"',
    /declare it/,
  ],
  [
    "an unknown bare name",
    '{"services":{"staging":{"at":"10.0.0.1 tcp:1","via":[]}},"grants":[{"from":[],"to":"stagin"}]}',
    "UNKNOWN_SERVICE",
    '"stagin"',
    /did you mean "staging"\?/,
  ],
  ["a service with ports", grant("service:db tcp:1"), "BAD_DESTINATION", '"service:db', /leave them out/],
  ["a service at any port", service("10.0.0.1 tcp:any"), "BAD_DESTINATION", '"10.0.0.1', /not any: tcp:5432/],
  ["a service of any protocol", service("10.0.0.1 any"), "BAD_DESTINATION", '"10.0.0.1', /such as "10\.20/],
  ["a service at a CIDR", service("10.0.0.0/8 tcp:1"), "BAD_DESTINATION", '"10.0.0.0', /use routes/],
  ["a service nowhere", service("tcp:1"), "BAD_DESTINATION", '"tcp:1', /such as "10\.20/],
  ["a service via an agent", service("10.0.0.1 tcp:1", '["agent:a"]'), "VIA_NOT_NODE", '"agent:a"', /node:gw-1/],
  [
    "a route via a group",
    '{"groups":{"g":[]},"routes":{"10.0.0.0/8":{"via":["group:g"]}}}',
    "VIA_NOT_NODE",
    '"group:g"',
    /node:\*/,
  ],
  [
    "services that overlap",
    '{"services":{"a":{"at":"10.0.0.1 tcp:1-9","via":["node:g"]},"b":{"at":"10.0.0.1 tcp:9","via":["node:*"]}}}',
    "SERVICE_OVERLAP",
    '"10.0.0.1 tcp:9"',
    /its own ports/,
  ],
  ["a route that is none", '{"routes":{"service:db":{"via":[]}}}', "BAD_DESTINATION", '"service:db"', /CIDR or host/],
  [
    "a route twice in other words",
    '{"routes":{"10.0.0.0/8":{"via":[]},"::ffff:10.0.0.0/104":{"via":[]}}}',
    "DUPLICATE_ROUTE",
    '"::ffff',
    /join their/,
  ],
  [
    "a time without zone",
    '{"grants":[{"from":[],"to":[],"until":"2027-01-01T00:00:00"}]}',
    "BAD_TIME",
    '"2027',
    /zone/,
  ],
  [
    "a day that is none",
    '{"grants":[{"from":[],"to":[],"until":"2027-02-30T00:00:00Z"}]}',
    "BAD_TIME",
    '"2027',
    /2027-01-01/,
  ],
  ["a lease of a second", '{"leases":{"agent":"1s"}}', "BAD_DURATION", '"1s"', /from 10s to 30d/],
  ["a lease in words", '{"leases":{"node":"forever"}}', "BAD_DURATION", '"forever"', /whole number/],
  ["a lease for a robot", '{"leases":{"robot":"5m"}}', "UNKNOWN_KEY", '"robot"', /user, node, agent/],
  [
    "an id twice",
    '{"grants":[{"id":"x","from":[],"to":[]}],"never":[{"id":"x","from":[],"to":[]}]}',
    "DUPLICATE_ID",
    57,
    /its own/,
  ],
  ["an id with a space", '{"grants":[{"id":"a b","from":[],"to":[]}]}', "BAD_NAME", '"a b"', /coder-reads-staging/],
  [
    "a test of a whole CIDR",
    '{"tests":[{"from":"agent:a","to":"10.0.0.0/8 tcp:1","expect":"deny"}]}',
    "TEST_NOT_ONE_THING",
    '"10.0',
    /one service, address/,
  ],
  [
    "a test of all names",
    '{"tests":[{"from":"agent:a","to":"host:* tcp:1","expect":"deny"}]}',
    "TEST_NOT_ONE_THING",
    '"host:',
    /host name/,
  ],
  [
    "a test from a session",
    '{"tests":[{"from":"session:s_0123456789abcdef","to":"10.0.0.1 any","expect":"deny"}]}',
    "TEST_NOT_ONE_THING",
    '"session',
    /agent:coder/,
  ],
  ["a text without end", `{"grants":[{"from":"${"a".repeat(513)}","to":[]}]}`, "TOO_LONG", '"aaa', /512/],
  [
    "a list too long",
    `{"groups":{"g":[${Array.from({ length: POLICY_LIST_MAX + 1 }, () => '"agent:a"')}]}}`,
    "TOO_MANY",
    '["agent',
    /join/,
  ],
  [
    "grants at limit + 1",
    `{"grants":[${Array.from({ length: POLICY_GRANTS_MAX + 1 }, () => '{"from":[],"to":[]}')}]}`,
    "TOO_MANY",
    "[{",
    /join/,
  ],
  ["a document too large", `{}${" ".repeat(POLICY_MAX_BYTES)}`, "TOO_LARGE", 1, /join/],
];

describe("a bad document is refused with what, where and how to mend it", () => {
  for (const [name, text, code, mark, hint] of BAD) {
    test(name, () => {
      const result = parsePolicy(text, 1);
      if (result.ok) expect.fail("it was taken");
      const [issue] = result.issues;
      const column = typeof mark === "number" ? mark : text.indexOf(mark) + 1;
      expect(column).toBeGreaterThan(0);
      expect([issue!.code, issue!.line, issue!.column]).toEqual([code, 1, column]);
      expect(issue!.hint).toMatch(hint);
      expect(issue!.message.length).toBeLessThan(200);
    });
  }

  test("lines and columns are those of an editor, in a document with comments", () => {
    const text = '// who\n{\n  "grants": [\n    { "from": "agent:a", /* é */ "to": "node:b" },\n  ],\n}\n';
    const result = parsePolicy(text, 1);
    if (result.ok) expect.fail("it was taken");
    expect(result.issues.map(formatIssue)).toEqual([
      '4:40: grants[0].to: "node:b" names no protocol. add one: "node:b tcp:443", or "node:b any" for all',
    ]);
  });

  test("all mistakes are told at once, up to a limit", () => {
    const two = parsePolicy('{"grants":[{"from":"x","to":"y"}],"leases":{"agent":"x"}}', 1);
    expect(two.ok ? [] : two.issues.map((issue) => issue.path)).toEqual([
      "grants[0].from",
      "grants[0].to",
      "leases.agent",
    ]);
    const many = parsePolicy(JSON.stringify({ groups: { g: Array.from({ length: 500 }, () => "x") } }), 1);
    expect(many.ok ? 0 : many.issues.length).toBe(POLICY_ISSUES_MAX);
  });

  test("what came from outside is shown short and on one line", () => {
    const result = parsePolicy(
      JSON.stringify({ grants: [{ from: `agent:\n\u001b[31m${"x".repeat(300)}`, to: [] }] }),
      1,
    );
    if (result.ok) expect.fail("it was taken");
    for (const character of ["\n", "\u001b"]) expect(result.issues[0]!.message).not.toContain(character);
  });
});

const GOOD = definePolicy({
  groups: { platform: ["user:ana@example.com", "kind:node"] },
  services: {
    "staging-db": { at: "10.20.0.5 tcp:5432", via: ["node:gw-1", "node:gw-2"], tags: ["staging"] },
    api: { at: "api.internal tcp:443", via: ["tag:edge"], discoverable: true },
  },
  routes: { "10.20.0.0/16": { via: ["node:gw-1"] }, "host:*.staging.internal": { via: ["node:*"] } },
  grants: [
    { id: "coder-reads-staging", from: "agent:coder", to: "staging-db" },
    { from: ["group:platform"], to: ["gw-1 tcp:22", "[fd00::1] udp:53"], until: "2027-01-01T00:00:00Z" },
    { from: "agent:coder", to: "host:*.staging.internal tcp:443,8000-8099" },
  ],
  never: [{ from: "kind:agent", to: ["tag:pci", "gw-3", "10.30.0.0/16"] }],
  leases: { agent: "5m", node: "1d" },
  tests: [{ from: "agent:coder", to: "service:staging-db", expect: "allow" }],
});

describe("a good document", () => {
  test("is read, bare names decided, times and leases as numbers", () => {
    const result = parsePolicyValue(GOOD, 4);
    if (!result.ok) expect.fail(result.issues.map(formatIssue).join("\n"));
    const { policy } = result;
    expect(policy.version).toBe(4);
    expect(policy.grants[0]).toMatchObject({
      id: "coder-reads-staging",
      to: [{ target: { type: "service", name: "staging-db" } }],
    });
    expect(policy.grants[1]).toMatchObject({
      untilMs: Date.UTC(2027, 0, 1),
      to: [{ target: { type: "selector", selector: { type: "identity", name: "node:gw-1" } } }, {}],
    });
    expect(policy.nevers[0]!.to[1]).toMatchObject({ target: { type: "selector" }, traffic: undefined });
    expect(policy.leaseMs).toEqual({ user: 12 * 3_600_000, node: 86_400_000, agent: 300_000 });
  });

  test("has one canonical text, which gives the same policy again; comments and order of names don't matter", () => {
    const result = parsePolicyValue(GOOD, 1);
    if (!result.ok) expect.fail();
    const canonical = canonicalPolicy(result.policy);
    const again = parsePolicy(`// a comment\n${canonical.replace("{", '{ "$schema": "x",')}`, 1);
    if (!again.ok) expect.fail();
    expect(canonicalPolicy(again.policy)).toBe(canonical);
    expect(again.policy.grants).toEqual(result.policy.grants);
    const { api, ...rest } = GOOD.services!;
    const turned = parsePolicyValue({ ...GOOD, services: { api, ...rest } }, 1);
    expect(turned.ok && canonicalPolicy(turned.policy)).toBe(canonical);
  });

  test("derived ids come from the content: an edit elsewhere renames nothing, a twin gets a name of its own", () => {
    const ids = (grants: unknown[]): string[] => {
      const result = parsePolicyValue({ grants }, 1);
      return result.ok ? result.policy.grants.map((one) => one.id) : [];
    };
    const a = { from: "agent:a", to: "node:b tcp:1" };
    const b = { from: "agent:b", to: "node:b tcp:1" };
    const [first, second] = ids([a, b]);
    expect(ids([b, { from: "agent:c", to: [] }, a])).toEqual([second, expect.any(String), first]);
    expect(ids([a, a])).toEqual([first, `${first}-2`]);
    expect(first).toMatch(/^grant-[0-9a-z]{8}$/);
  });

  test("has a JSON Schema for editors", () => {
    expect(policyJsonSchema()).toMatchObject({ type: "object", additionalProperties: false });
  });

  test("the empty policy is one, and 10,000 grants are", () => {
    expect(parsePolicy("{}", 0).ok).toBe(true);
    const grants = Array.from({ length: POLICY_GRANTS_MAX }, (_, i) => ({
      from: "agent:a",
      to: `10.0.0.1 tcp:${i + 1}`,
    }));
    expect(parsePolicy(JSON.stringify({ grants }), 1).ok).toBe(true);
  });
});

describe("a document of its full size takes seconds at most, whatever is in it", () => {
  const many = (count: number, of: (i: number) => readonly [string, unknown]): Record<string, unknown> =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => of(i)));
  const via = ["node:a"];
  const cases: readonly [name: string, document: unknown][] = [
    ["a mistake in each of 60,000 groups", { groups: many(60_000, (i) => [`g${i}`, 1]) }],
    ["80,000 unknown keys", many(80_000, (i) => [`k${i}`, 1])],
    ["9,000 grants that are alike", { grants: new Array(9_000).fill({ from: "agent:a", to: "node:b any" }) }],
    ["8,000 services at one host", { services: many(8_000, (i) => [`s${i}`, { at: `10.0.0.1 tcp:${i + 1}`, via }]) }],
    [
      "8,000 misspelt services among 4,000",
      {
        services: many(4_000, (i) => [`service-${i}`, { at: `10.0.0.1 tcp:${i + 1}`, via }]),
        grants: Array.from({ length: 8_000 }, (_, i) => ({ from: "agent:a", to: `service:servica-${i}` })),
      },
    ],
  ];
  test.each(cases)("%s", (_name, document) => {
    const before = process.threadCpuUsage();
    parsePolicy(JSON.stringify(document), 1);
    const { user, system } = process.threadCpuUsage(before);
    expect((user + system) / 1_000).toBeLessThan(2_500);
  });
});
