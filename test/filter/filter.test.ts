import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import {
  DENIAL_REPEAT_MS,
  DENIALS_MAX,
  DENIALS_PER_SECOND_MAX,
  FIRST_FRAGMENTS_PER_SESSION_MAX,
  FLOW_IDLE_ICMP_MS,
  FLOW_IDLE_TCP_CLOSING_MS,
  FLOW_IDLE_TCP_MS,
  FLOW_IDLE_TCP_OPENING_MS,
  FLOW_IDLE_UDP_MS,
  FLOWS_REJUDGED_PER_TURN_MAX,
  FRAGMENTS_TIMEOUT_MS,
} from "../../src/base/limits.ts";
import { decodePacket, PacketInfo, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { Bench, back, bench, LOCAL, type PacketInput, REMOTE, rule, state, tcp, udp, WEB } from "./packets.ts";

describe("flows", () => {
  test("an opening passes by its rule, its answers by the flow, and nothing else passes", () => {
    const b = bench(WEB);
    expect(b.out(0, back(tcp(TCP_SYN | TCP_ACK))).reason).toBe("AGAINST_FLOW");
    expect(b.in(0, tcp(TCP_SYN))).toEqual({ allowed: true, reason: "ALLOWED_BY_RULE", ruleId: "web" });
    expect(b.out(0, back(tcp(TCP_SYN | TCP_ACK)))).toEqual({ allowed: true, reason: "ALLOWED_BY_FLOW", ruleId: "web" });
    expect(b.in(0, tcp(TCP_ACK)).reason).toBe("ALLOWED_BY_FLOW");
    expect(b.in(0, tcp(TCP_SYN, 81)).reason).toBe("NO_GRANT");
    expect(b.out(0, back(tcp(TCP_ACK, 80, 4001))).reason).toBe("AGAINST_FLOW");
    expect(b.filter.counters.inbound).toMatchObject({ ALLOWED_BY_RULE: 1, ALLOWED_BY_FLOW: 1, NO_GRANT: 1 });
    expect(b.filter.counters.outbound).toMatchObject({ AGAINST_FLOW: 2, ALLOWED_BY_FLOW: 1 });
  });

  test("a segment without SYN reopens a flow in the grant's direction, never against it", () => {
    const b = bench(WEB); // as after a restart: the connection is old, the table is new
    expect(b.out(0, back(tcp(TCP_ACK))).reason).toBe("AGAINST_FLOW");
    expect(b.in(0, tcp(TCP_ACK)).reason).toBe("ALLOWED_BY_RULE");
    expect(b.out(0, back(tcp(TCP_ACK))).reason).toBe("ALLOWED_BY_FLOW");
  });

  test("the end that answers can't open a connection of its own through the flow", () => {
    const b = bench(WEB);
    b.in(0, tcp(TCP_SYN));
    expect(b.out(0, back(tcp(TCP_SYN))).reason).toBe("NO_GRANT");
    expect(b.out(0, back(tcp(TCP_ACK))).reason).toBe("ALLOWED_BY_FLOW"); // which is not cut by the attempt
  });

  test("after a connection has closed the other end may open one on the same ports by its own grant", () => {
    const b = new Bench();
    const outbound = [rule("out", REMOTE, "tcp")];
    b.filter.apply(0, state(1, { inbound: [WEB], outbound }));
    b.in(0, tcp(TCP_SYN));
    b.in(0, tcp(TCP_RST));
    expect(b.out(0, back(tcp(TCP_SYN))).ruleId).toBe("out");
    expect(b.filter.flows(9).map((flow) => flow.opener)).toEqual(["local"]);
    expect(b.ended.map((flow) => flow.end)).toEqual(["closed"]);
  });

  test("connections that cross on the same ports share the flow, each on its own grant; its denial is recorded", () => {
    const b = new Bench();
    b.filter.apply(0, state(1, { inbound: [WEB], outbound: [rule("out", REMOTE, "tcp")] }));
    b.in(0, tcp(TCP_SYN));
    expect(b.out(0, back(tcp(TCP_SYN))).ruleId).toBe("out");
    expect(b.ended).toEqual([]);
    expect(b.filter.flows(9).map((flow) => flow.opener)).toEqual(["remote"]);
    b.filter.apply(1, state(2, { inbound: [WEB] }));
    expect(b.out(1, back(tcp(TCP_SYN))).reason).toBe("NO_GRANT");
    expect(b.denied.map((record) => [record.hop, record.reason])).toEqual([["source", "NO_GRANT"]]);
  });

  test("AGAINST_FLOW is said of TCP alone", () => {
    const b = bench(rule("all", LOCAL, "any"));
    expect(b.out(0, back(udp(80))).reason).toBe("NO_GRANT");
    expect(b.out(0, back(tcp(TCP_ACK))).reason).toBe("AGAINST_FLOW");
  });

  test("two sessions that use the same addresses and ports have two flows", () => {
    const b = bench(rule("web", LOCAL, "tcp", { ports: [[80, 80]], sessions: ["s_a"] }));
    b.admit("s_b");
    b.in(0, tcp(TCP_SYN), "s_a");
    expect(b.in(0, tcp(TCP_ACK), "s_b").reason).toBe("NO_GRANT");
    expect(b.out(0, back(tcp(TCP_ACK)), "s_b").reason).toBe("NO_GRANT");
    expect(b.out(0, back(tcp(TCP_ACK)), "s_a").reason).toBe("ALLOWED_BY_FLOW");
  });

  test("echo replies pass behind their request only; both ends may ping with one identifier", () => {
    const b = new Bench();
    const ping = (icmpType: number): PacketInput => ({
      protocol: "icmp",
      from: REMOTE,
      to: LOCAL,
      sourcePort: 5,
      destinationPort: 5,
      icmpType,
    });
    b.filter.apply(0, state(1, { inbound: [rule("ping", LOCAL, "icmp")] }));
    expect(b.out(0, back(ping(129))).reason).toBe("ICMP_WITHOUT_FLOW");
    expect(b.in(0, ping(128)).allowed).toBe(true);
    expect(b.out(0, back(ping(129))).reason).toBe("ALLOWED_BY_FLOW");
    expect(b.out(0, back(ping(128))).reason).toBe("NO_GRANT"); // a request of its own, not an answer
    expect(b.in(0, ping(129)).reason).toBe("ICMP_WITHOUT_FLOW");
  });

  test("an IPv4 echo reply passes behind its request only; a later fragment, whose type reads as 0, is none", () => {
    const b = new Bench();
    const ping = (icmpType: number, more: Partial<PacketInput> = {}): PacketInput => ({
      protocol: "icmp4",
      from: "10.0.0.9",
      to: "10.0.0.1",
      sourcePort: 5,
      destinationPort: 5,
      icmpType,
      ...more,
    });
    const rules = { inbound: [rule("in", "10.0.0.1", "icmp")], outbound: [rule("out", "10.0.0.9", "icmp")] };
    b.filter.apply(0, state(1, rules));
    expect(b.in(0, ping(0)).reason).toBe("ICMP_WITHOUT_FLOW");
    expect(b.out(0, back(ping(0))).reason).toBe("ICMP_WITHOUT_FLOW");
    expect(b.in(0, ping(8, { fragmentId: 7 })).reason).toBe("ALLOWED_BY_RULE");
    expect(b.in(0, ping(8, { fragmentId: 7, later: true })).reason).toBe("ALLOWED_BY_FLOW");
    b.filter.apply(1, state(2, {}));
    expect(b.in(1, ping(8, { fragmentId: 7, later: true })).reason).toBe("NO_GRANT");
  });

  test("the record at the end says who, what, by which rule, how much and why", () => {
    const b = bench(WEB);
    b.in(1_000, { ...tcp(TCP_SYN), bytes: 60 });
    b.out(2_000, { ...back(tcp(TCP_SYN | TCP_ACK)), bytes: 70 });
    b.in(3_000, { ...tcp(TCP_FIN | TCP_ACK), bytes: 80 });
    b.out(4_000, back(tcp(TCP_FIN | TCP_ACK)));
    b.filter.expire(4_000 + FLOW_IDLE_TCP_CLOSING_MS);
    expect(b.ended).toEqual([
      {
        session: "s_a",
        opener: "remote",
        source: parseAddress(REMOTE),
        destination: parseAddress(LOCAL),
        protocol: 6,
        sourcePort: 4000,
        destinationPort: 80,
        ruleId: "web",
        revision: 1,
        startedMs: 1_000,
        lastMs: 4_000,
        bytesIn: 140,
        bytesOut: 130,
        end: "closed",
      },
    ]);
  });
});

describe("time", () => {
  const idle: [name: string, opening: PacketInput, answer: PacketInput | undefined, idleMs: number][] = [
    ["TCP that nobody answered", tcp(TCP_SYN), undefined, FLOW_IDLE_TCP_OPENING_MS],
    ["TCP", tcp(TCP_SYN), back(tcp(TCP_SYN | TCP_ACK)), FLOW_IDLE_TCP_MS],
    ["TCP after a reset", tcp(TCP_SYN), back(tcp(TCP_RST | TCP_ACK)), FLOW_IDLE_TCP_CLOSING_MS],
    ["UDP", udp(80), back(udp(80)), FLOW_IDLE_UDP_MS],
    ["ICMP", { protocol: "icmp", from: REMOTE, to: LOCAL, icmpType: 128 }, undefined, FLOW_IDLE_ICMP_MS],
    ["any other protocol", { protocol: "sctp", from: REMOTE, to: LOCAL }, undefined, FLOW_IDLE_UDP_MS],
  ];
  for (const [name, opening, answer, idleMs] of idle) {
    test(`${name} is forgotten when idle for its time, not a millisecond sooner`, () => {
      for (const [afterMs, count] of [
        [idleMs - 1, 1],
        [idleMs, 0],
      ] as const) {
        const b = bench(rule("all", LOCAL, "any"));
        b.in(5_000, opening);
        if (answer !== undefined) b.out(5_000, answer);
        b.filter.expire(5_000 + afterMs);
        expect(b.filter.flowCount).toBe(count);
      }
    });
  }

  test("deadlines lead to the end of every flow, each a little later than the one before", () => {
    const b = bench(rule("all", LOCAL, "any"));
    expect(b.filter.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
    for (let i = 0; i < 50; i++) b.in(i * 777, i % 2 === 0 ? udp(80, i) : tcp(TCP_SYN, 80, i));
    let nowMs = 50 * 777;
    let turns = 0;
    while (b.filter.flowCount > 0) {
      const nextMs = b.filter.nextDeadlineMs();
      expect(nextMs).toBeLessThan(Number.POSITIVE_INFINITY);
      nowMs = Math.max(nowMs + 1, nextMs);
      b.filter.expire(nowMs);
      expect(turns++).toBeLessThan(200);
    }
    expect(b.filter.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
  });

  test("a flow that will be idle in two hours wakes nobody before, but once", () => {
    const b = bench(rule("all", LOCAL, "any"));
    b.in(0, tcp(TCP_SYN));
    b.out(0, back(tcp(TCP_SYN | TCP_ACK)));
    const woken: number[] = [];
    for (let next = b.filter.nextDeadlineMs(); next < FLOW_IDLE_TCP_MS; next = b.filter.nextDeadlineMs()) {
      b.filter.expire(next);
      woken.push(next);
    }
    expect(b.filter.flowCount).toBe(1);
    expect(woken.length).toBeLessThanOrEqual(2);
  });

  test("an `until` ends the flow at that moment of the coordinator's clock, unless another rule allows it", () => {
    const b = bench(rule("short", LOCAL, "tcp", { untilMs: 10_000 }));
    b.filter.setCoordinatorOffset(2_000);
    b.in(0, tcp(TCP_SYN));
    expect(b.filter.nextDeadlineMs()).toBe(8_000);
    expect(b.in(7_999, tcp(TCP_ACK)).allowed).toBe(true);
    expect(b.in(8_000, tcp(TCP_ACK)).reason).toBe("NO_GRANT");
    const c = bench(rule("short", LOCAL, "tcp", { untilMs: 10_000 }), rule("long", `${LOCAL}/64`, "tcp"));
    c.in(0, tcp(TCP_SYN));
    expect(c.in(10_000, tcp(TCP_ACK))).toMatchObject({ allowed: true, ruleId: "long" });
    expect(c.ended).toEqual([]);
  });

  test("a flow whose `until` passes while nobody sends is ended by expire", () => {
    const b = bench(rule("short", LOCAL, "tcp", { untilMs: 10_000 }));
    b.in(0, tcp(TCP_SYN));
    b.filter.expire(10_000);
    expect(b.ended.map((flow) => flow.end)).toEqual(["policy"]);
  });

  test("a lease's end ends its flows and lets nothing pass; so does the end of one's own", () => {
    for (const whose of ["remote", "own"] as const) {
      const b = bench(WEB);
      b.in(0, tcp(TCP_SYN));
      if (whose === "own") b.filter.setOwnLease(5_000);
      else b.filter.setRemoteLease(b.filter.slot("s_a"), 5_000);
      expect(b.in(4_999, tcp(TCP_ACK)).allowed).toBe(true);
      expect(b.filter.nextDeadlineMs()).toBe(5_000);
      expect(b.in(5_000, tcp(TCP_ACK)).reason).toBe("LEASE_ENDED");
      expect(b.out(5_000, back(tcp(TCP_ACK))).reason).toBe("LEASE_ENDED");
      b.filter.expire(5_000);
      expect(b.ended.map((flow) => flow.end)).toEqual(["lease"]);
    }
  });

  test("without a lease nothing passes", () => {
    const b = bench(WEB);
    b.filter.slot("s_new");
    expect(b.in(0, tcp(TCP_SYN), "s_new").reason).toBe("NO_LEASE");
    b.filter.setOwnLease(undefined);
    expect(b.in(0, tcp(TCP_SYN)).reason).toBe("NO_LEASE");
  });
});

describe("revisions", () => {
  test("50 revisions that don't concern them cut none of 100 flows each way", () => {
    const b = new Bench();
    const mine = { inbound: [rule("in", LOCAL, "any")], outbound: [rule("out", REMOTE, "any")] };
    b.filter.apply(0, state(1, mine));
    const mineOf = (i: number): PacketInput => (i % 2 === 0 ? tcp(TCP_SYN, 80, 1000 + i) : udp(53, 1000 + i));
    for (let i = 0; i < 100; i++) {
      b.in(0, mineOf(i));
      b.out(0, back({ ...mineOf(i), sourcePort: 3000 + i }));
    }
    for (let revision = 2; revision <= 51; revision++) {
      const other = rule(`other-${revision}`, LOCAL, "any", { sessions: ["s_other"] });
      const never = rule("no", LOCAL, "tcp", { action: "deny", ports: [[81, 99]] });
      b.filter.apply(revision * 10, state(revision, { ...mine, inbound: [other, ...mine.inbound, never] }));
      for (let i = 0; i < 100; i++) {
        expect(b.out(revision * 10, back({ ...mineOf(i), flags: TCP_ACK })).reason).toBe("ALLOWED_BY_FLOW");
        expect(b.in(revision * 10, { ...mineOf(i), sourcePort: 3000 + i, flags: TCP_ACK }).reason).toBe(
          "ALLOWED_BY_FLOW",
        );
      }
      b.filter.expire(revision * 10);
    }
    expect(b.ended).toEqual([]);
    expect(b.filter.flowCount).toBe(200);
  });

  test("a revision that takes the grant away cuts a busy flow at its next packet and an idle one in expire", () => {
    const b = bench(WEB);
    b.in(0, tcp(TCP_SYN, 80, 1));
    b.in(0, tcp(TCP_SYN, 80, 2));
    b.filter.apply(10, state(2, {}));
    expect(b.out(10, back(tcp(TCP_ACK, 80, 1))).reason).toBe("NO_GRANT");
    expect(b.filter.nextDeadlineMs()).toBeLessThanOrEqual(11);
    b.filter.expire(11);
    expect(b.ended.map((flow) => [flow.sourcePort, flow.end])).toEqual([
      [1, "policy"],
      [2, "policy"],
    ]);
  });

  test("a never that a revision brings cuts the flow and is named", () => {
    const b = bench(WEB);
    b.in(0, tcp(TCP_SYN));
    b.filter.apply(10, state(2, { inbound: [WEB, rule("no", `${LOCAL}/64`, "any", { action: "deny" })] }));
    expect(b.in(10, tcp(TCP_ACK))).toEqual({ allowed: false, reason: "NEVER", ruleId: "no" });
  });

  test("judging flows again is spread over turns when there are many", () => {
    const b = bench(WEB);
    const count = FLOWS_REJUDGED_PER_TURN_MAX + 1;
    for (let i = 0; i < count; i++) b.in(0, tcp(TCP_SYN, 80, i));
    b.filter.apply(10, state(2, {}));
    b.filter.expire(10);
    expect(b.filter.flowCount).toBe(1);
    expect(b.filter.nextDeadlineMs()).toBe(11);
    b.filter.expire(11);
    expect(b.filter.flowCount).toBe(0);
  });

  test("a revoked session's flows end at once and it reaches nothing, whatever the rules say", () => {
    const b = bench(WEB);
    b.in(0, tcp(TCP_SYN));
    b.filter.apply(10, state(2, { inbound: [WEB], revoked: ["s_a"] }));
    expect(b.ended.map((flow) => flow.end)).toEqual(["revoked"]);
    expect(b.in(10, tcp(TCP_SYN)).reason).toBe("SESSION_REVOKED");
    b.filter.forgetSession("s_a");
    expect(b.filter.judgeAddress(10, "inbound", b.admit("s_a"), parseAddress(LOCAL)!, "tcp", 80).reason).toBe(
      "SESSION_REVOKED",
    );
  });

  test("forgetting a session that nobody knows does nothing", () => {
    const b = bench(WEB);
    b.in(0, tcp(TCP_SYN));
    b.filter.forgetSession("s_unknown");
    expect(b.filter.flowCount).toBe(1);
  });

  test("a forgotten session's slot brings its successor no flow, lease or rule", () => {
    const b = bench(WEB);
    b.in(0, tcp(TCP_SYN));
    const slot = b.filter.slot("s_a");
    b.filter.forgetSession("s_a");
    expect(b.ended.map((flow) => flow.end)).toEqual(["forgotten"]);
    expect(b.filter.slot("s_b")).toBe(slot);
    expect(b.in(0, tcp(TCP_ACK), "s_b").reason).toBe("NO_LEASE");
    b.admit("s_b");
    expect(b.in(0, tcp(TCP_ACK), "s_b").reason).toBe("NO_GRANT");
  });
});

describe("fragments", () => {
  const first = (id: number, sourcePort = 4000): PacketInput => ({ ...udp(80, sourcePort), fragmentId: id });
  const later = (id: number): PacketInput => ({ ...udp(0), fragmentId: id, later: true });
  const all = rule("all", LOCAL, "udp", { ports: [[80, 80]] });

  test("later fragments pass only behind a first one that was allowed, for a while", () => {
    const b = bench(all);
    expect(b.in(0, later(1)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
    b.in(0, first(1));
    expect(b.in(0, later(1)).reason).toBe("ALLOWED_BY_FLOW");
    expect(b.in(0, later(2)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
    expect(b.out(0, back(later(1))).reason).toBe("FRAGMENT_WITHOUT_FIRST");
    expect(b.in(0, { ...first(3), destinationPort: 81 }).allowed).toBe(false);
    expect(b.in(0, later(3)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
    expect(b.in(FRAGMENTS_TIMEOUT_MS - 1, later(1)).allowed).toBe(true);
    expect(b.in(FRAGMENTS_TIMEOUT_MS, later(1)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
  });

  test("behind a first one that was denied none passes, though one before it had the same id", () => {
    const b = bench(all);
    b.in(0, first(1));
    b.in(0, first(1)); // twice, as a network may bring it
    expect(b.in(0, { ...first(1), destinationPort: 81 }).allowed).toBe(false);
    expect(b.in(0, later(1)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
    b.in(0, first(1));
    b.filter.setOwnLease(undefined);
    expect(b.in(0, first(1)).reason).toBe("NO_LEASE");
    b.filter.setOwnLease(Number.MAX_SAFE_INTEGER);
    expect(b.in(0, later(1)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
  });

  test("a later fragment is judged as a packet of the first one's flow", () => {
    const b = bench(all);
    b.in(0, first(1));
    b.filter.apply(1, state(2, {}));
    expect(b.in(1, later(1)).reason).toBe("NO_GRANT");
  });

  test("a session remembers its last first fragments, and pushes out nobody else's", () => {
    const b = new Bench();
    b.admit("s_b");
    b.filter.apply(0, state(1, { inbound: [{ ...all, sessions: ["s_a", "s_b"] }] }));
    b.in(0, first(0), "s_b");
    for (let id = 0; id <= FIRST_FRAGMENTS_PER_SESSION_MAX; id++) b.in(0, first(id));
    expect(b.in(0, later(0)).reason).toBe("FRAGMENT_WITHOUT_FIRST");
    expect(b.in(0, later(1)).allowed).toBe(true);
    expect(b.in(0, later(0), "s_b").allowed).toBe(true);
  });
});

describe("ICMP errors", () => {
  /** Port unreachable (RFC 4443 §3.1) from `from` to `to` about a UDP packet `to`:53 → `about`:4000. */
  function unreachable(
    from: string,
    to: string,
    about: string,
    sourcePort: number,
    destinationPort: number,
  ): Uint8Array {
    const bytes = new Uint8Array(40 + 8 + 48);
    const view = new DataView(bytes.buffer);
    const header = (at: number, protocol: number, length: number, s: string, d: string): void => {
      view.setUint8(at, 0x60);
      view.setUint16(at + 4, length);
      view.setUint8(at + 6, protocol);
      view.setUint8(at + 7, 64);
      for (const [place, text] of [
        [8, s],
        [24, d],
      ] as const) {
        const a = parseAddress(text)!;
        for (const [i, word] of [a.w0, a.w1, a.w2, a.w3].entries()) view.setUint32(at + place + 4 * i, word);
      }
    };
    header(0, 58, 56, from, to);
    view.setUint8(40, 1);
    view.setUint8(41, 4);
    header(48, 17, 8, to, about);
    view.setUint16(88, sourcePort);
    view.setUint16(90, destinationPort);
    view.setUint16(92, 8);
    return bytes;
  }
  function judge(b: Bench, bytes: Uint8Array): string {
    const info = new PacketInfo();
    expect(decodePacket(bytes, 0, bytes.length, info)).toBeUndefined();
    expect(info.innerOffset).toBe(48);
    return b.filter.judgeInbound(1, b.filter.slot("s_a"), info, bytes, 0).reason;
  }

  test("one that quotes a packet of a live flow passes, to its sender alone; any other doesn't", () => {
    const b = new Bench();
    b.filter.apply(0, state(1, { outbound: [rule("dns", REMOTE, "udp")] }));
    b.out(0, { protocol: "udp", from: LOCAL, sourcePort: 53, to: REMOTE, destinationPort: 4000 });
    expect(judge(b, unreachable(REMOTE, LOCAL, REMOTE, 53, 4000))).toBe("ALLOWED_BY_FLOW");
    expect(judge(b, unreachable(REMOTE, LOCAL, REMOTE, 53, 4001))).toBe("ICMP_WITHOUT_FLOW");
    expect(judge(b, unreachable(REMOTE, LOCAL, "fd00::8", 53, 4000))).toBe("ICMP_WITHOUT_FLOW");
    const astray = unreachable(REMOTE, LOCAL, REMOTE, 53, 4000);
    astray[39] = 2; // to fd00::2, about a packet of fd00::1
    expect(judge(b, astray)).toBe("ICMP_WITHOUT_FLOW");
    b.filter.apply(1, state(2, {}));
    expect(judge(b, unreachable(REMOTE, LOCAL, REMOTE, 53, 4000))).toBe("ICMP_WITHOUT_FLOW");
  });
});

describe("denials", () => {
  test("one record for each opening within a second, however often it is tried", () => {
    const b = bench();
    for (let i = 0; i < 10; i++) b.in(i, tcp(TCP_SYN));
    b.in(DENIAL_REPEAT_MS, tcp(TCP_SYN));
    expect(b.denied.map((d) => d.atMs)).toEqual([0, DENIAL_REPEAT_MS]);
    expect(b.filter.denialsUnrecorded).toBe(9);
    expect(b.filter.counters.inbound.NO_GRANT).toBe(11);
    expect(b.denied[0]).toMatchObject({ hop: "destination", session: "s_a", destinationPort: 80, sourcePort: 4000 });
    expect(b.denied[0]!.id).toMatch(/^d_[0-9a-hjkmnp-tv-z]{10}$/);
    expect(b.denied[1]!.id).not.toBe(b.denied[0]!.id);
  });

  test("a scan is recorded at a rate, of each session for itself, and counted whole", () => {
    const b = bench();
    b.admit("s_b");
    for (let port = 1; port <= DENIALS_PER_SECOND_MAX + 1; port++) b.in(0, tcp(TCP_SYN, port));
    expect(b.denied.length).toBe(DENIALS_PER_SECOND_MAX);
    b.in(0, tcp(TCP_SYN), "s_b");
    expect(b.denied.length).toBe(DENIALS_PER_SECOND_MAX + 1);
    expect(b.filter.counters.inbound.NO_GRANT).toBe(DENIALS_PER_SECOND_MAX + 2);
  });

  test("the log keeps the latest and no more", () => {
    const b = bench();
    for (let i = 0; i <= DENIALS_MAX; i++) b.in(i * 100, tcp(TCP_SYN, 1 + i));
    const ports = b.filter.denials().map((d) => d.destinationPort);
    expect([ports.length, ports[0], ports.at(-1)]).toEqual([DENIALS_MAX, 2, DENIALS_MAX + 1]);
  });

  test("a shell's denial gives the first record again when it is repeated", () => {
    const b = bench();
    const flow = { hop: "source", session: "s_a", name: "db.internal", destinationPort: 443, protocol: 6 } as const;
    const one = b.filter.recordDenial(0, flow, { reason: "NO_GRANT", ruleId: undefined });
    expect(b.filter.recordDenial(500, flow, { reason: "NO_GRANT", ruleId: undefined })).toBe(one);
    const other = b.filter.recordDenial(500, { ...flow, name: "x" }, { reason: "NO_GRANT", ruleId: undefined });
    expect(other.id).not.toBe(one.id);
    expect(b.denied).toEqual([one, other]);
  });
});
