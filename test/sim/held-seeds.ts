// What the seeds of `npm run check` must show; they are spread over files so that both workers share them.
import { expect, test } from "vitest";
import { report, runSeeds } from "../../src/sim/report.ts";

/** Seeds of each file; all files together: SEEDS_CHECKED. */
export const SEEDS_OF_A_FILE = 50;
export const SEEDS_CHECKED = 200;

/** Ways to be stopped that fifty worlds must meet, to be worth the name. */
const MET = [
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

/** Declares the test of one file: number `part` of SEEDS_CHECKED / SEEDS_OF_A_FILE, from 0. */
export function testSeeds(part: number): void {
  const first = 1 + part * SEEDS_OF_A_FILE;
  const last = first + SEEDS_OF_A_FILE - 1;
  const name = "nothing forbidden or twice delivered, bounds hold, every allowed pair talks after the faults";
  test(`seeds ${first} to ${last}: ${name}`, { timeout: 600_000 }, () => {
    const run = runSeeds({ seed: first, count: SEEDS_OF_A_FILE });
    expect(run.failed && report(run)).toBeUndefined();
    const { totals } = run;
    expect(totals.seeds).toBe(SEEDS_OF_A_FILE);
    expect(totals.delivered).toBeGreaterThan(2_000);
    expect(totals.pairs).toBeGreaterThan(50);
    expect(totals.streams).toBeGreaterThan(0);
    expect(MET.filter((counter) => (totals.counters[counter] ?? 0) === 0)).toEqual([]);
  });
}
