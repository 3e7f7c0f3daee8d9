// What a packet costs does not grow with what the filter holds: ratios of times in one run, with bounds far from what
// is measured (benchmarks/filter.ts has the figures), for the machine may be busy.
import { expect, test } from "vitest";
import { FilterLoad } from "../../benchmarks/filter.ts";

const ROUNDS = 5;
const PACKETS = 5_000;

/** The quickest of a few rounds each, by turns, in ms. */
function times(...works: (() => void)[]): number[] {
  const best = works.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, work] of works.entries()) {
      const startedMs = performance.now();
      work();
      best[i] = Math.min(best[i]!, performance.now() - startedMs);
    }
  }
  return best;
}

test("a packet of a known flow costs the same under one rule and under 100,000, and a new flow nearly so", () => {
  const [few, many] = [new FilterLoad({ rules: 1 }), new FilterLoad({ rules: 100_000 })];
  few.open(1);
  many.open(1);
  const [knownFew, knownMany] = times(
    () => few.pass(PACKETS),
    () => many.pass(PACKETS),
  );
  expect(knownMany! / knownFew!).toBeLessThan(3);
  const [newFew, newMany] = times(
    () => few.open(PACKETS),
    () => many.open(PACKETS),
  );
  expect(newMany! / newFew!).toBeLessThan(3);
});

test("100,000 flows more make a packet of one of them no ten times slower", () => {
  const [few, many] = [new FilterLoad({ rules: 1 }), new FilterLoad({ rules: 1 })];
  few.open(1);
  many.open(100_000);
  const [passFew, passMany] = times(
    () => few.pass(PACKETS),
    () => many.pass(PACKETS),
  );
  expect(passMany! / passFew!).toBeLessThan(20); // memory that is not in a cache; a walk over them would be thousands
});

test("a revision of 100,000 rules is taken in as ten times as long as one of 10,000 at the most, and a little", () => {
  const ms = (rules: number): number => {
    const load = new FilterLoad({ rules });
    return times(() => {
      load.apply();
      load.open(1);
    })[0]!;
  };
  ms(1_000); // warm
  expect(ms(100_000) / ms(10_000)).toBeLessThan(50);
});
