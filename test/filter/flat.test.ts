// What a packet costs does not grow with what the filter holds: ratios of times in one run, with bounds far from what
// is measured (benchmarks/filter.ts has the figures), for the machine may be busy.
import { expect, test } from "vitest";
import { FilterLoad } from "../../benchmarks/filter.ts";
import { RuleSet } from "../../src/filter/rules.ts";
import { LOCAL, rule } from "./packets.ts";

const ROUNDS_MAX = 60;
const PACKETS = 5_000;

/**
 * How many times as long `slower` takes as `quicker`: the quickest of some rounds each, by turns, and of more rounds
 * for as long as it is no less than `bound`.
 */
function ratioOf(quicker: () => void, slower: () => void, bound: number): number {
  const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < ROUNDS_MAX && !(best[1]! / best[0]! < bound); round++) {
    for (const [i, work] of [quicker, slower].entries()) {
      const startedMs = performance.now();
      work();
      best[i] = Math.min(best[i]!, performance.now() - startedMs);
    }
  }
  return best[1]! / best[0]!;
}

test("a packet of a known flow costs the same under one rule and under 100,000, and a new flow nearly so", () => {
  const [few, many] = [new FilterLoad({ rules: 1 }), new FilterLoad({ rules: 100_000 })];
  few.open(1);
  many.open(1);
  const known = ratioOf(
    () => few.pass(PACKETS),
    () => many.pass(PACKETS),
    3,
  );
  expect(known).toBeLessThan(3);
  const opened = ratioOf(
    () => few.open(PACKETS),
    () => many.open(PACKETS),
    3,
  );
  expect(opened).toBeLessThan(3);
});

test("100,000 flows make a packet of one of them no twenty times slower", () => {
  const [few, many] = [new FilterLoad({ rules: 1 }), new FilterLoad({ rules: 1 })];
  few.open(1);
  many.open(100_000);
  const passed = ratioOf(
    () => few.pass(PACKETS),
    () => many.pass(PACKETS),
    20, // memory that is in no cache; a walk over them would be thousands
  );
  expect(passed).toBeLessThan(20);
});

test("sessions that the same rules list share what is made of them, others don't", () => {
  const [both, one] = [["s_a", "s_b"], ["s_c"]];
  const rules = new RuleSet(
    [rule("r", LOCAL, "tcp", { sessions: both }), rule("c", LOCAL, "udp", { sessions: one })],
    [],
  );
  expect(rules.of("s_a")).toBe(rules.of("s_b"));
  expect(rules.of("s_c")).not.toBe(rules.of("s_a"));
});
