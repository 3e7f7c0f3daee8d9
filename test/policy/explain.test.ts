import { describe, expect, test } from "vitest";
import { type Explained, explainForAdmin, explainOwn } from "../../src/policy/explain.ts";
import { compilerOf, policyOf, sessionOf, worldOf } from "./named-world.ts";

const POLICY = policyOf(
  {
    services: {
      staging: { at: "10.20.0.5 tcp:5432", via: ["node:gw-1"] },
      production: { at: "10.30.0.5 tcp:5432", via: ["node:gw-1"], discoverable: true },
      secret: { at: "10.40.0.5 tcp:5432", via: ["node:gw-1"] },
      cards: { at: "10.50.0.5 tcp:5432", via: ["node:gw-1"], tags: ["pci"], discoverable: true },
      unserved: { at: "10.60.0.5 tcp:5432", via: ["node:gw-2"] },
    },
    routes: { "10.20.0.0/16": { via: ["node:gw-1"] }, "host:*.internal": { via: ["node:gw-1"] } },
    grants: [
      { id: "staging", from: "agent:coder", to: ["service:staging", "service:unserved", "service:cards"] },
      { id: "net", from: "agent:coder", to: ["10.20.0.0/16 tcp:80-90", "host:*.internal tcp:443"] },
      { id: "ssh", from: "agent:coder", to: "node:gw-1 tcp:22" },
    ],
    never: [{ id: "no-pci", from: "kind:agent", to: ["tag:pci", "10.20.9.0/24", "host:pay.internal"] }],
  },
  7,
);
const WORLD = worldOf({
  "agent:coder": {},
  "node:gw-1": { serves: ["staging", "production", "secret", "cards"], routes: ["10.20.0.0/16", "host:*.internal"] },
  "node:gw-2": {},
});
const COMPILER = compilerOf(POLICY, WORLD);
const SESSIONS = [...WORLD.sessions.values()].map(({ id, identity, addresses }) => ({
  session: id,
  identity,
  addresses,
}));

function own(text: string): Explained {
  const compiled = COMPILER.compilePeer("s_coder", 0)!;
  const known = compiled.peers.map((peer) => peer.session);
  const peers = SESSIONS.filter(({ session }) => known.includes(session));
  return explainOwn({ ...compiled, policyVersion: 7, peers }, text, 0);
}

function admin(text: string): Explained {
  const session = { id: sessionOf("agent:coder"), identity: "agent:coder" };
  return explainForAdmin(COMPILER, session, SESSIONS, text, 0);
}

const short = (explained: Explained): string =>
  explained.ok ? `${explained.explanation.reason} ${explained.explanation.ruleId ?? "-"}` : explained.refusal.code;

describe("a peer's own view", () => {
  const table: [text: string, result: string][] = [
    ["service:staging", "ALLOWED_BY_RULE staging"],
    ["staging", "ALLOWED_BY_RULE staging"],
    ["gw-1 tcp:22", "ALLOWED_BY_RULE ssh"],
    ["node:gw-1 tcp:22", "ALLOWED_BY_RULE ssh"],
    ["node:gw-1 tcp:22-23", "NO_GRANT -"],
    ["node:gw-1 any", "NO_GRANT -"],
    ["10.20.0.5 tcp:80", "ALLOWED_BY_RULE net"],
    ["10.20.0.5 tcp:80-90", "ALLOWED_BY_RULE net"],
    ["10.20.0.5 tcp:79-90", "NO_GRANT -"],
    ["10.20.9.5 tcp:80", "NEVER no-pci"],
    ["host:a.internal tcp:443", "ALLOWED_BY_RULE net"],
    ["host:pay.internal tcp:443", "NEVER no-pci"],
    ["service:production", "NO_GRANT -"],
    ["service:cards", "NEVER no-pci"],
    ["kind:node tcp:22", "BAD_DESTINATION"],
    ["10.20.0.0/16 tcp:80", "BAD_DESTINATION"],
    ["node:gw-1", "BAD_DESTINATION"],
  ];
  for (const [text, result] of table) test(text, () => expect(short(own(text))).toBe(result));

  test("what it may neither reach nor know of and what doesn't exist are answered with the same bytes", () => {
    const bytes = (text: string): string => {
      const explained = own(text);
      return JSON.stringify(explained.ok && explained.explanation);
    };
    const nothing = bytes("service:no-such-thing");
    for (const text of [
      "service:secret",
      "service:unserved",
      "secret",
      "node:gw-2 tcp:22",
      "node:none tcp:22",
      "10.40.0.5 tcp:5432",
      "host:x.example tcp:1",
    ]) {
      expect(bytes(text)).toBe(nothing);
    }
    expect(nothing).toBe('{"allowed":false,"reason":"NO_GRANT","policyVersion":7}');
  });

  test("of a discoverable service it is told what would allow it", () => {
    const explained = own("service:production");
    expect(explained.ok && explained.explanation.hint).toBe(
      'an admin can grant { "from": "agent:coder", "to": "service:production" }',
    );
  });
});

describe("an admin's view", () => {
  const table: [text: string, result: string, hint: string | undefined][] = [
    ["service:staging", "ALLOWED_BY_RULE staging", undefined],
    ["service:secret", "NO_GRANT -", '"to": "service:secret"'],
    ["service:unserved", "NO_GATEWAY staging", "wirebadge up --serve unserved"],
    ["service:cards", "NEVER no-pci", 'never "no-pci" closes it'],
    ["service:typo", "NO_GRANT -", "declare it first"],
    ["node:gw-2 tcp:22", "NO_GRANT -", '{ "from": "agent:coder", "to": "node:gw-2 tcp:22" }'],
    ["10.20.9.5 tcp:80", "NEVER no-pci", 'never "no-pci"'],
  ];
  for (const [text, result, hint] of table) {
    test(text, () => {
      const explained = admin(text);
      expect(short(explained)).toBe(result);
      const said = explained.ok ? explained.explanation.hint : "";
      if (hint === undefined) expect(said).toBeUndefined();
      else expect(said).toContain(hint);
    });
  }

  test("the smallest grant that it names does allow it", () => {
    for (const text of ["service:secret", "node:gw-2 tcp:22", "10.20.0.5 tcp:99", "host:b.internal tcp:80"]) {
      const explained = admin(text);
      const grant = JSON.parse(/\{.*\}/.exec((explained.ok && explained.explanation.hint) || "")![0]) as object;
      const document = { ...POLICY.document, grants: [...POLICY.document.grants!, grant] };
      const compiler = compilerOf(policyOf(document, 8), WORLD);
      const after = explainForAdmin(compiler, { id: "s_coder", identity: "agent:coder" }, SESSIONS, text, 0);
      expect(short(after)).toMatch(/^ALLOWED_BY_RULE/);
    }
  });
});
