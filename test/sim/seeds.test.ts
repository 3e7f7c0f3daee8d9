import { expect, test } from "vitest";
import { report, runSeeds } from "../../src/sim/report.ts";
import { drawScenario } from "../../src/sim/scenario.ts";
import { simulate } from "../../src/sim/simulation.ts";

const SEEDS = 50;

test("50 seeds: nothing forbidden or twice delivered, bounds hold, every allowed pair talks after the faults", {
  timeout: 120_000,
}, () => {
  const run = runSeeds({ seed: 1, count: SEEDS });
  expect(run.failed && report(run)).toBeUndefined();
  expect(run.outcomes).toHaveLength(SEEDS);
  // The worlds are worth the name: some traffic gets through, and each way to be stopped is met.
  const total = (name: string): number => run.outcomes.reduce((sum, { counters }) => sum + (counters[name] ?? 0), 0);
  expect(run.outcomes.reduce((sum, { delivered }) => sum + delivered, 0)).toBeGreaterThan(2_000);
  expect(run.outcomes.reduce((sum, { pairs }) => sum + pairs, 0)).toBeGreaterThan(50);
  const met = [
    "inbound-denied-NO_GRANT",
    "inbound-denied-NEVER",
    "inbound-denied-LEASE_ENDED",
    "inbound-denied-AGAINST_FLOW",
    "inbound-denied-ICMP_WITHOUT_FLOW",
    "inbound-denied-FRAGMENT_WITHOUT_FIRST",
    "inbound-source-not-allowed",
    "inbound-no-lease",
    "outbound-denied-NO_GRANT",
    "wireguard-REPLAYED",
    "wireguard-DATA_FORGED",
    "filter-inbound-ALLOWED_BY_FLOW",
  ];
  expect(met.filter((name) => total(name) === 0)).toEqual([]);
});

test("the same seed gives the same trace, another one another", () => {
  const first = simulate(drawScenario(4));
  const again = simulate(drawScenario(4));
  expect(again.hash).toBe(first.hash);
  expect(again.turns).toBe(first.turns);
  expect(simulate(drawScenario(5)).hash).not.toBe(first.hash);
});
