// `npm run sim -- --seed N [--count N]`: runs worlds of the simulator, one for each seed; of the first that breaks an
// invariant it prints the last events and the command that runs it again. Exit 0: everything held. 1: something broke.
// 2: the command was not understood.
import { parseArgs } from "node:util";
import { report, runSeeds } from "./report.ts";

const USAGE = `usage: npm run sim -- [--seed N] [--count N] [--steps LIST] [--shrink] [--events]

  --seed N      the first seed (1)
  --count N     how many seeds from there (1)
  --steps LIST  only these steps of the scenario, such as 3,17-20
  --shrink      look for fewer steps that break the same invariant
  --events      print the last events also when everything held
`;

function wholeNumber(text: string): number | undefined {
  return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

function main(): number {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      count: { type: "string", default: "1" },
      steps: { type: "string" },
      shrink: { type: "boolean", default: false },
      events: { type: "boolean", default: false },
    },
  });
  const seed = wholeNumber(values.seed);
  const count = wholeNumber(values.count);
  if (seed === undefined || count === undefined) throw new TypeError("--seed and --count are whole numbers");
  const { steps, shrink, events } = values;
  const startedMs = performance.now();
  const run = runSeeds({ seed, count, shrink, ...(steps === undefined ? {} : { steps }) });
  for (const line of report(run, events)) console.log(line);
  console.log(`${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  return run.failed === undefined ? 0 : 1;
}

try {
  process.exitCode = main();
} catch (error) {
  if (!(error instanceof TypeError) && !(error instanceof RangeError)) throw error;
  console.error(`${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}
