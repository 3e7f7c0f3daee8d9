// Which rule an opening finds, and what a gateway asks of the filter before it dials.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import type { PortRange, Verdict } from "../../src/filter/contract.ts";
import { type CompiledRule, hostMatches, PortTable, PortWalk } from "../../src/filter/rules.ts";
import { TCP_SYN } from "../../src/wire/packet.ts";
import { Bench, bench, HOST, LOCAL, packet, REMOTE, rule, state, tcp, WEB } from "./packets.ts";

describe("rules", () => {
  test("deny beats allow at every width, and an IPv4 address is seen through NAT64 and 6to4", () => {
    const b = bench(
      rule("all4", "0.0.0.0/0", "any"),
      rule("all6", "::/0", "any"),
      rule("host", "10.30.0.5", "any"),
      rule("no", "10.30.0.0/16", "any", { action: "deny" }),
    );
    const slot = b.filter.slot("s_a");
    const ask = (to: string): string => b.filter.judgeAddress(0, "inbound", slot, parseAddress(to)!, "tcp", 1).reason;
    for (const to of ["10.30.0.5", "::ffff:10.30.0.5", "64:ff9b::10.30.0.5", "2002:a1e:5::1"])
      expect(ask(to)).toBe("NEVER");
    for (const to of ["10.31.0.5", "64:ff9b::10.31.0.5", "64:ff9b:1::10.30.0.5"])
      expect(ask(to)).toBe("ALLOWED_BY_RULE");
  });

  test("::/0 says nothing about IPv4, 0.0.0.0/0 nothing about IPv6", () => {
    const six = bench(rule("six", "::/0", "any"));
    const four = bench(rule("four", "0.0.0.0/0", "any"));
    for (const [b, allowed, denied] of [
      [six, "fd00::1", "10.0.0.1"],
      [four, "10.0.0.1", "fd00::1"],
    ] as const) {
      const slot = b.filter.slot("s_a");
      expect(b.filter.judgeAddress(0, "inbound", slot, parseAddress(allowed)!, "udp", 1).allowed).toBe(true);
      expect(b.filter.judgeAddress(0, "inbound", slot, parseAddress(denied)!, "udp", 1).allowed).toBe(false);
    }
  });

  test("names: `*.a` is everything below a, not a; never beats; a resolved address is judged by never alone", () => {
    const b = new Bench();
    const host = { sessions: ["s_a"], protocol: "tcp", ports: [[443, 443]] } as const;
    b.filter.apply(
      0,
      state(1, {
        inboundHosts: [
          { id: "staging", action: "allow", pattern: "*.staging.internal", ...host },
          { id: "no", action: "deny", pattern: "pay.staging.internal", ...host },
        ],
        inbound: [rule("no-net", "10.30.0.0/16", "any", { action: "deny" })],
      }),
    );
    const slot = b.filter.slot("s_a");
    const ask = (name: string, port = 443): string => b.filter.judgeHost(0, "inbound", slot, name, "tcp", port).reason;
    expect(ask("a.staging.internal")).toBe("ALLOWED_BY_RULE");
    expect(ask("A.b.Staging.Internal.")).toBe("ALLOWED_BY_RULE");
    expect(ask("staging.internal")).toBe("NO_GRANT");
    expect(ask("xstaging.internal")).toBe("NO_GRANT");
    expect(ask("pay.staging.internal")).toBe("NEVER");
    expect(ask("a.staging.internal", 80)).toBe("NO_GRANT");
    const name = b.filter.judgeHost(0, "inbound", slot, "a.staging.internal", "tcp", 443);
    const resolved = (to: string): string =>
      b.filter.judgeResolved(0, slot, name, parseAddress(to)!, "tcp", 443).reason;
    expect(resolved("10.20.0.1")).toBe("ALLOWED_BY_RULE");
    expect(resolved("10.30.0.1")).toBe("NEVER");
    b.filter.setRemoteLease(slot, 0);
    expect(resolved("10.20.0.1")).toBe("LEASE_ENDED");
  });

  test("10,000 rules of one session cost a first packet no more than a few look-ups", () => {
    const many = (count: number): Bench =>
      bench(
        ...Array.from({ length: count }, (_, i) =>
          rule(`r${i}`, i % 2 === 0 ? `10.${i >> 8}.${i & 255}.0/24` : LOCAL, "tcp", { ports: [[i + 1, i + 1]] }),
        ),
      );
    const b = many(10_000);
    expect(b.in(0, tcp(TCP_SYN, 9_998)).ruleId).toBe("r9997");
    expect(b.in(0, tcp(TCP_SYN, 9_997)).reason).toBe("NO_GRANT");
    const info = packet(tcp(TCP_SYN, 65_000));
    const timeOf = (one: Bench): number => {
      const slot = one.filter.slot("s_a");
      const bestMs = Array.from({ length: 5 }, () => {
        const startedMs = performance.now();
        for (let i = 0; i < 5_000; i++) one.filter.judgeInbound(0, slot, info, new Uint8Array(0), 0);
        return performance.now() - startedMs;
      });
      return Math.min(...bestMs);
    };
    timeOf(b); // warm
    expect(timeOf(b) / timeOf(many(10))).toBeLessThan(50); // a walk over the rules would be a thousand
  });

  test("in `wg` mode everything passes and nothing is kept", () => {
    const b = new Bench();
    b.filter.setOwnLease(undefined);
    b.filter.allowAll();
    expect(b.in(0, tcp(TCP_SYN)).reason).toBe("ALLOW_ALL");
    expect(b.filter.flowCount).toBe(0);
    for (const verdict of asked(b, 0)) expect(verdict.reason).toBe("ALLOW_ALL");
  });

  test("`*` covers every name, `*.a` none that is empty before the dot", () => {
    const b = new Bench();
    b.filter.apply(0, state(1, { inboundHosts: [{ ...HOST, pattern: "*" }] }));
    expect(b.filter.judgeHost(0, "inbound", 0, "example.com", "tcp", 443).reason).toBe("ALLOWED_BY_RULE");
    expect(hostMatches("*", "example.com")).toBe(true);
    expect(hostMatches("*.a", "b.a")).toBe(true);
    expect(hostMatches("*.a", ".a")).toBe(false);
  });

  test("ports are of TCP and UDP alone: a rule that names some opens no other protocol", () => {
    const b = bench(rule("web", LOCAL, "any", { ports: [[80, 80]] }));
    expect(b.in(0, tcp(TCP_SYN)).allowed).toBe(true);
    expect(b.in(0, { protocol: "icmp", from: REMOTE, to: LOCAL, icmpType: 128 }).reason).toBe("NO_GRANT");
    expect(b.in(0, { protocol: "sctp", from: REMOTE, to: LOCAL }).reason).toBe("NO_GRANT");
  });

  /** What a gateway asks before it dials: an address, a name, and what the name resolved to. */
  function asked(b: Bench, nowMs: number): Verdict[] {
    const slot = b.filter.slot("s_a");
    const allowed: Verdict = { allowed: true, reason: "ALLOWED_BY_RULE", ruleId: "web" };
    return [
      b.filter.judgeAddress(nowMs, "inbound", slot, parseAddress(LOCAL)!, "tcp", 80),
      b.filter.judgeHost(nowMs, "inbound", slot, "a.internal", "tcp", 443),
      b.filter.judgeResolved(nowMs, slot, allowed, parseAddress("10.0.0.1")!, "tcp", 443),
    ];
  }

  test("what a gateway asks for is refused without leases in order, and after a revocation", () => {
    const b = new Bench();
    const rules = { inbound: [WEB], inboundHosts: [HOST] };
    b.filter.apply(0, state(1, rules));
    const reasons = (nowMs: number): string[] => asked(b, nowMs).map((verdict) => verdict.reason);
    const all = (reason: string): string[] => [reason, reason, reason];
    expect(reasons(0)).toEqual(all("ALLOWED_BY_RULE"));
    b.filter.setRemoteLease(b.filter.slot("s_a"), undefined);
    expect(reasons(0)).toEqual(all("NO_LEASE"));
    b.filter.setRemoteLease(b.filter.slot("s_a"), 1_000);
    expect(reasons(999)).toEqual(all("ALLOWED_BY_RULE"));
    expect(reasons(1_000)).toEqual(all("LEASE_ENDED"));
    b.admit("s_a");
    b.filter.setOwnLease(1_000);
    expect(reasons(1_000)).toEqual(all("LEASE_ENDED"));
    b.filter.setOwnLease(undefined);
    expect(reasons(0)).toEqual(all("NO_LEASE"));
    b.filter.setOwnLease(1_000);
    b.filter.apply(0, state(2, { ...rules, revoked: ["s_a"] }));
    expect(reasons(0)).toEqual(all("SESSION_REVOKED"));
  });
});

test("a walk over a few rules and a table of their ports say the same", () => {
  const port = fc.integer({ min: 0, max: 20 }).map((i) => (i > 15 ? 65_515 + i : i));
  const range = fc.tuple(port, port).map(([a, b]): PortRange => [Math.min(a, b), Math.max(a, b)]);
  const ported = fc.record({
    compiled: fc.constantFrom(1, 2, Number.POSITIVE_INFINITY).map((untilMs) => ({ untilMs }) as CompiledRule),
    protocol: fc.constant("tcp" as const),
    ports: fc.array(range, { maxLength: 3 }),
  });
  fc.assert(
    fc.property(fc.array(ported, { minLength: 1, maxLength: 6 }), (rules) => {
      const [walk, table] = [new PortWalk(rules), new PortTable(rules)];
      for (let at = 0; at <= 65_535; at += at === 17 ? 65_510 : 1) expect(walk.find(at)).toBe(table.find(at));
    }),
  );
});

describe("who a rule lists", () => {
  const ids = (b: Bench, session: string): (string | undefined)[] =>
    [1, 2, 3].map((port) => b.in(0, tcp(TCP_SYN, port), session).ruleId);
  const of = (id: string, port: number, ...sessions: string[]): ReturnType<typeof rule> =>
    rule(id, LOCAL, "tcp", { sessions, ports: [[port, port]] });

  test("each session has the rules that list it, and only those, however the lists overlap", () => {
    const b = new Bench();
    for (const session of ["s_b", "s_c", "s_d"]) b.admit(session);
    const shared = ["s_a", "s_b"];
    b.filter.apply(
      0,
      state(1, { inbound: [of("one", 1, ...shared), of("two", 2, "s_b", "s_c", "s_b"), of("three", 3, ...shared)] }),
    );
    expect(ids(b, "s_a")).toEqual(["one", undefined, "three"]);
    expect(ids(b, "s_b")).toEqual(["one", "two", "three"]);
    expect(ids(b, "s_c")).toEqual([undefined, "two", undefined]);
    expect(ids(b, "s_d")).toEqual([undefined, undefined, undefined]);
  });

  test("of rules that last equally long the first is named, also between lists of different sessions", () => {
    const b = new Bench();
    b.admit("s_b");
    const inbound = [of("b", 1, "s_b"), of("all", 1, "s_a", "s_b"), of("b2", 2, "s_a", "s_b"), of("last", 2, "s_b")];
    b.filter.apply(0, state(1, { inbound: [of("first", 3, "s_a", "s_b"), ...inbound, of("late", 3, "s_b")] }));
    expect(ids(b, "s_b")).toEqual(["b", "b2", "first"]);
    expect(ids(b, "s_a")).toEqual(["all", "b2", "first"]);
  });
});
