// The simulator's long form, run by `npm run proof`: 10,000 seeds that were not drawn before, on all cores. Of a
// failure it prints what `npm run sim` prints, with the command that runs it again.
// `node test/sim/many-seeds.ts [FIRST] [COUNT]`
import { availableParallelism } from "node:os";
import { report, runSeeds } from "../../src/sim/report.ts";
import { runOnThreads } from "../../src/sim/threads.ts";
import { shownTotals } from "../../src/sim/totals.ts";
import { record } from "../proof/form.ts";

const PROGRESS_EVERY_MS = 30_000;

const [first, count = 10_000] = process.argv.slice(2).map(Number);
const startedMs = Date.now();
// Another ten thousand each second, so that no run repeats the one before; nine digits are what `--seed` takes.
const seed = first ?? (Math.floor(startedMs / 1000) % 90_000) * 10_000 + 1;
console.log(`seeds ${seed} to ${seed + count - 1}`);
let shownMs = startedMs;
const { totals, failedSeed } = await runOnThreads({
  seed,
  count,
  threads: availableParallelism(),
  progress: ({ seeds }) => {
    const nowMs = Date.now();
    if (nowMs - shownMs < PROGRESS_EVERY_MS) return;
    shownMs = nowMs;
    console.log(`${Math.round((nowMs - startedMs) / 1000)} s: ${seeds} of ${count} seeds`);
  },
});
console.log(shownTotals(totals));
const slowestS = Math.ceil(totals.slowestPairMs / 1000);
record({
  what: `simulator seeds from ${seed} on`,
  count: totals.seeds,
  figure: `${totals.pairs.toLocaleString("en")} allowed pairs talk within ${slowestS} s after the faults`,
});
if (failedSeed !== undefined) {
  for (const line of report(runSeeds({ seed: failedSeed, count: 1, shrink: true }))) console.log(line);
  process.exitCode = 1;
}
