// `npm run fuzz`: hostile input for every target of targets.ts, on all cores. A failing input is made smaller and
// kept in test/fuzz/corpus, which `npm run check` runs again for ever.
// Exit 0: nothing failed. 1: something did. 2: the command was not understood.
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { relative } from "node:path";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { record } from "../proof/form.ts";
import { corpusOf, keep } from "./corpus.ts";
import { type FuzzFailure, tryInput } from "./fuzzer.ts";
import type { JobResult } from "./job.ts";
import type { FuzzTarget } from "./target.ts";
import { splitOf, TARGETS } from "./targets.ts";
import type { FromWorker, Job, WorkerSetup } from "./worker.ts";

const shown = (count: number): string => count.toLocaleString("en");
const SHORT_INPUTS = 1_000_000;
const LONG_INPUTS = 10_000_000;
const USAGE = `usage: npm run fuzz -- [--long] [--target NAME] [--seed N] [--inputs N] [--coverage] [--keep]
       npm run fuzz -- --target NAME --replay FILE

  --long         ${shown(LONG_INPUTS)} inputs instead of ${shown(SHORT_INPUTS)}, and a new seed
  --target NAME  only targets whose name begins so
  --seed N       the first seed; a run repeats itself under the same seed and inputs
  --inputs N     how many, over all targets
  --coverage     inputs that reach new code are mutated further (about half the speed)
  --keep         keep inputs that reached something new in the corpus
  --replay FILE  run this one input of --target
`;

class UsageError extends Error {}

function wholeNumber(name: string, text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`--${name} is a whole number`);
  return Number(text);
}

function options() {
  const { values } = parseArgs({
    args: process.argv.slice(2).filter((word) => word !== "--"),
    options: {
      long: { type: "boolean", default: false },
      target: { type: "string" },
      seed: { type: "string" },
      inputs: { type: "string" },
      coverage: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      replay: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const targets = TARGETS.filter(({ name }) => name.startsWith(values.target ?? ""));
  if (targets.length === 0) throw new UsageError(`no such target: ${TARGETS.map(({ name }) => name).join(", ")}`);
  const inputs = values.inputs === undefined ? undefined : wholeNumber("inputs", values.inputs);
  const fresh = values.long ? Math.floor(Date.now() / 1_000) : 1;
  return {
    ...values,
    targets,
    inputs: inputs ?? (values.long ? LONG_INPUTS : SHORT_INPUTS),
    seed: values.seed === undefined ? fresh : wholeNumber("seed", values.seed),
  };
}

async function replay(target: FuzzTarget, file: string): Promise<number> {
  const said = await tryInput(target, new Uint8Array(readFileSync(file)));
  console.log(`${target.name}: ${said ?? "nothing wrong"}`);
  return said === undefined ? 0 : 1;
}

interface Row extends JobResult {
  readonly kept: number;
}

function tell(failure: FuzzFailure): void {
  const { target, seed, index, message, smallest } = failure;
  console.error(`\n${target}, seed ${seed}, input ${index}: ${message}`);
  if (smallest.length === 0 && message.startsWith("the heap")) return;
  const path = relative(process.cwd(), keep(target, smallest));
  console.error(`  kept as ${path}\n  npm run fuzz -- --target ${target} --replay ${path}`);
}

/** Runs the jobs on workers, in their order; Ctrl-C ends them with what they have. */
async function runJobs(jobs: readonly Job[], isCovered: boolean, onDone: (result: JobResult) => void): Promise<void> {
  const stop = new SharedArrayBuffer(4);
  const onSignal = (): void => void Atomics.store(new Int32Array(stop), 0, 1);
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  const waiting = [...jobs];
  const under = new Map<Worker, string>();
  const startedMs = performance.now();
  const show = (): void => {
    if (!process.stderr.isTTY) return;
    const seconds = Math.round((performance.now() - startedMs) / 1_000);
    process.stderr.write(`\r\u001b[K${seconds} s, ${waiting.length} targets to go: ${[...under.values()].join(", ")}`);
  };
  const one = async (): Promise<void> => {
    const setup: WorkerSetup = { stop, isCovered };
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      workerData: setup,
    });
    try {
      for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
        const result = await new Promise<JobResult>((resolve, reject) => {
          worker.removeAllListeners();
          worker.once("error", reject);
          worker.on("message", (message: FromWorker) => {
            if (message.kind === "done") return resolve(message.result);
            under.set(worker, `${message.target} ${message.inputs.toLocaleString("en")}`);
            show();
          });
          worker.postMessage(job);
        });
        under.delete(worker);
        onDone(result);
        if (Atomics.load(new Int32Array(stop), 0) === 1) waiting.length = 0;
      }
    } finally {
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), jobs.length) }, one));
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
}

function table(rows: readonly Row[]): string {
  const lines = [...rows]
    .sort((a, b) => a.target.localeCompare(b.target))
    .map((row) => [
      row.target,
      row.inputs.toLocaleString("en"),
      Math.round(row.inputs / Math.max(row.cpuSeconds, 0.001)).toLocaleString("en"),
      `${row.cpuSeconds.toFixed(1)} s`,
      `${row.slowestMs.toFixed(0)} ms`,
      String(row.outcomes.size),
      String(row.kept),
      row.failure === undefined ? "0" : "1",
    ]);
  const head = ["target", "inputs", "inputs/s", "CPU", "slowest", "outcomes", "new in corpus", "failures"];
  const widths = head.map((name, column) => Math.max(name.length, ...lines.map((line) => line[column]!.length)));
  const text = (line: readonly string[]): string =>
    line.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("  ");
  return [text(head), ...lines.map(text)].join("\n");
}

async function main(): Promise<number> {
  const { targets, inputs, seed, coverage, keep: keeps, replay: file, help } = options();
  if (help) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (file !== undefined) return await replay(targets[0]!, file);
  const split = splitOf(inputs, targets);
  // The dearest first, so that no core has a long one left at the end.
  const jobs = [...split]
    .sort(([a], [b]) => a.share - b.share)
    .map(([{ name: target }, n]) => ({ target, seed, inputs: n }));
  console.log(`seed ${seed}, ${shown(inputs)} inputs, ${targets.length} targets:`);
  console.log(`${jobs.map((job) => `${job.target} ${shown(job.inputs)}`).join(", ")}\n`);
  const rows: Row[] = [];
  const startedMs = performance.now();
  await runJobs(jobs, coverage, (row) => {
    const { target, failure, fresh } = row;
    if (failure !== undefined) tell(failure);
    const before = corpusOf(target).length;
    if (keeps) for (const input of fresh.filter((one) => one.length <= 2_048).slice(0, 40)) keep(target, input);
    rows.push({ ...row, kept: corpusOf(target).length - before });
  });
  const total = rows.reduce((sum, row) => sum + row.inputs, 0);
  const failures = rows.filter((row) => row.failure !== undefined).length;
  const seconds = Math.round((performance.now() - startedMs) / 1_000);
  console.log(
    `\n${table(rows)}\n\n${total.toLocaleString("en")} inputs, seed ${seed}, ${failures} failures, ${seconds} s`,
  );
  record({ what: "fuzz inputs", count: total, figure: `${rows.length} targets, seed ${seed}, ${seconds} s` });
  return failures === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof UsageError) && !(error instanceof TypeError)) throw error;
  console.error(`${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}
