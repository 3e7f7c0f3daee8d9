import { describe, expect, test } from "vitest";
import { FLOWS_PER_SESSION_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { FlowTable } from "../../src/filter/flow-table.ts";
import { Bench, packet, rule, state } from "./packets.ts";

const FLOW = packet({ protocol: "udp", from: "fd00::9", sourcePort: 9, to: "fd00::1", destinationPort: 53 });
const NO_BYTES = new Uint8Array(0);

/** The i-th flow of a session: one source address each, so that ports never run out. */
function open(b: Bench, session: string, i: number, nowMs = i): boolean {
  FLOW.source2 = i;
  return b.filter.judgeInbound(nowMs, b.filter.slot(session), FLOW, NO_BYTES, 0).allowed;
}

function bench(flows: FlowTable | undefined, ...sessions: string[]): Bench {
  const b = new Bench(flows);
  for (const session of sessions) b.admit(session);
  b.filter.apply(0, state(1, { inbound: [rule("all", "fd00::1", "udp", { sessions })] }));
  return b;
}

function countOf(b: Bench, session: string): number {
  return b.filter.flows(1e6).filter((flow) => flow.session === session).length;
}

describe("limits", () => {
  test("at its own limit a session gives one of its own flows for a new one, and nobody else's", () => {
    const b = bench(undefined, "s_a", "s_b");
    for (let i = 0; i < 100; i++) open(b, "s_b", i, 0);
    for (let i = 0; i < FLOWS_PER_SESSION_MAX; i++) open(b, "s_a", i, 1);
    expect(b.ended).toEqual([]);
    expect(open(b, "s_a", FLOWS_PER_SESSION_MAX, 2)).toBe(true);
    expect(b.ended.map((flow) => [flow.session, flow.end])).toEqual([["s_a", "evicted"]]);
    expect(b.filter.flowCount).toBe(FLOWS_PER_SESSION_MAX + 100);
    expect(countOf(b, "s_b")).toBe(100);
  });

  test("in a full table whoever holds more than an equal share makes room: a newcomer is never shut out", () => {
    const b = bench(new FlowTable(new SeededRandom(1), 100, 80), "s_a", "s_b", "s_c");
    for (let i = 0; i < 80; i++) open(b, "s_a", i);
    for (let i = 0; i < 20; i++) open(b, "s_b", i);
    expect(b.ended).toEqual([]);
    for (let i = 0; i < 200; i++) expect(open(b, "s_c", i)).toBe(true);
    expect(b.filter.flowCount).toBe(100);
    expect(countOf(b, "s_b")).toBe(20); // within its share of a third: never touched
    expect(countOf(b, "s_a")).toBeLessThan(50);
    expect(new Set(b.ended.map((flow) => flow.session))).toEqual(new Set(["s_a", "s_c"]));
  });

  test("more sessions than places: the table still holds its limit and every new flow gets in", () => {
    const sessions = Array.from({ length: 9 }, (_, i) => `s_${i}`);
    const b = bench(new FlowTable(new SeededRandom(1), 4, 4), ...sessions);
    for (let i = 0; i < 100; i++) {
      expect(open(b, sessions[i % 9]!, i)).toBe(true);
      expect(b.filter.flowCount).toBeLessThanOrEqual(4);
    }
  });

  test("what goes is unused for long: a flow that is used all the time stays", () => {
    const b = bench(new FlowTable(new SeededRandom(1), 100, 50), "s_a");
    open(b, "s_a", 0);
    for (let i = 1; i < 1_000; i++) {
      open(b, "s_a", i, i);
      open(b, "s_a", 0, i);
    }
    expect(b.ended.some((flow) => flow.startedMs === 0 && flow.bytesIn > 60)).toBe(false);
  });
});

test("holds its lists together under random opening, ending and growth", () => {
  const b = bench(new FlowTable(new SeededRandom(3), 1_500, 1_000), "s_a", "s_b", "s_c");
  const random = new SeededRandom(9);
  let nowMs = 0;
  for (let step = 0; step < 30_000; step++) {
    nowMs += random.below(40);
    const session = random.pick(["s_a", "s_b", "s_c"]);
    if (random.chance(0.0005)) {
      b.filter.forgetSession(session);
      b.admit(session);
    } else open(b, session, random.below(4_000), nowMs);
    if (random.chance(0.02)) b.filter.expire(nowMs);
  }
  const flows = b.filter.flows(1e6);
  expect(flows.length).toBe(b.filter.flowCount);
  expect(flows.length).toBeGreaterThan(1_000);
  b.filter.expire(nowMs + 1e6);
  expect(b.filter.flowCount).toBe(0);
  expect(new Set(b.ended.map((flow) => flow.end))).toEqual(new Set(["idle", "forgotten", "evicted"]));
});
