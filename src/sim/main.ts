// `npm run sim -- --seed N [--count N]`: runs worlds of the simulator, one for each seed; of the first that breaks an
// invariant it prints the last events and the command that runs it again. Exit 0: everything held. 1: something broke.
// 2: the command was not understood.
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { report, runSeeds } from "./report.ts";
import { runOnThreads } from "./threads.ts";
import { shownTotals, type Totals } from "./totals.ts";
import { loadSabotage } from "./worker.ts";

const USAGE = `usage: npm run sim -- [--seed N] [--count N] [--threads N] [--steps LIST] [--shrink] [--events]
                       [--with FILE]

  --seed N      the first seed (1)
  --count N     how many seeds from there (1)
  --threads N   on so many cores (1); with more than one a failure is always shrunk
  --steps LIST  only these steps of the scenario, such as 3,17-20
  --shrink      look for fewer steps that break the same invariant
  --events      print the last events also when everything held
  --with FILE   a module whose \`sabotage\` is given every engine that starts, to see whether a bug would be found
`;
const PROGRESS_EVERY_MS = 10_000;

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new TypeError(`--${name} is a whole number`);
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      count: { type: "string", default: "1" },
      threads: { type: "string", default: "1" },
      steps: { type: "string" },
      shrink: { type: "boolean", default: false },
      events: { type: "boolean", default: false },
      with: { type: "string" },
    },
  });
  return {
    ...values,
    seed: wholeNumber("seed", values.seed),
    count: wholeNumber("count", values.count),
    threads: wholeNumber("threads", values.threads),
    sabotage: values.with === undefined ? undefined : pathToFileURL(resolve(values.with)).href,
    words: values.with === undefined ? "" : ` --with ${values.with}`,
  };
}

/** The seed that broke something among all of them, found on several threads. */
async function findFailing({ seed, count, threads, sabotage }: ReturnType<typeof readOptions>, startedMs: number) {
  let shownMs = startedMs;
  const progress = (totals: Totals): void => {
    const nowMs = performance.now();
    if (nowMs - shownMs < PROGRESS_EVERY_MS) return;
    shownMs = nowMs;
    console.log(`${((nowMs - startedMs) / 1000).toFixed(0)} s: ${totals.seeds} of ${count} seeds held`);
  };
  return await runOnThreads({ seed, count, threads, sabotage, progress });
}

async function main(): Promise<number> {
  const options = readOptions();
  const { seed, count, steps, shrink, events, words } = options;
  const startedMs = performance.now();
  const sabotage = await loadSabotage(options.sabotage);
  if (options.threads > 1 && steps === undefined) {
    const { totals, failedSeed } = await findFailing(options, startedMs);
    console.log(shownTotals(totals));
    console.log(`${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
    if (failedSeed === undefined) return 0;
    for (const line of report(runSeeds({ ...sabotage, seed: failedSeed, count: 1, shrink: true }), false, words))
      console.log(line);
    return 1;
  }
  const run = runSeeds({ ...sabotage, seed, count, shrink, ...(steps === undefined ? {} : { steps }) });
  for (const line of report(run, events, words)) console.log(line);
  console.log(`${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  return run.failed === undefined ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TypeError) && !(error instanceof RangeError)) throw error;
  console.error(`${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}
