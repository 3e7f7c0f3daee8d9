// `npm run mutants [-- PATH…]`: takes each guard out, one at a time, and says which test misses it. Exit 0: each one
// is missed by a test, or stands among those that nothing can miss, with the reason. 1: one is not, or a reason is
// not for exactly one guard. 2: the command was not understood.
import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { record } from "../proof/form.ts";
import { EXCUSED, type Excuse } from "./excused.ts";
import { type Guard, guardsOf } from "./guards.ts";
import { MUTATED, type MutatedSource } from "./sources.ts";
import type { Answer, Job } from "./worker.ts";

const USAGE = `usage: npm run mutants [-- PATH …] [--core] [--workers N]

  PATH          only sources whose path begins so
  --core        only those that \`npm test\` takes: inbound path, signed leases, replay window
  --workers N   processes at once (2)
`;
const HANG_MS = 120_000; // a mutant that loops for ever: its test would never end, which is missing it too
const ALL_TESTS_MAX_MS = 900_000; // all of them once, on a busy machine
const top = fileURLToPath(new URL("../..", import.meta.url));

interface Outcome {
  readonly guard: Guard;
  readonly failed: string | undefined;
}

/** One process that runs jobs one at a time; begun anew when a mutant hangs it. */
class Worker {
  #child: ChildProcess | undefined;

  async run(job: Job, withinMs = HANG_MS): Promise<string | undefined> {
    this.#child ??= await this.#start();
    const child = this.#child;
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const timer = setTimeout(() => resolve("(hangs)"), withinMs);
    const answered = (answer: Answer): void => resolve(answer.failed);
    const exited = (code: number | null): void => resolve(`(ends the process: ${code})`);
    child.once("message", answered).once("exit", exited);
    child.send(job);
    const failed = await promise;
    clearTimeout(timer);
    child.off("message", answered).off("exit", exited);
    if (failed?.startsWith("(") === true) this.close();
    return failed;
  }

  close(): void {
    this.#child?.kill("SIGKILL");
    this.#child = undefined;
  }

  async #start(): Promise<ChildProcess> {
    const child = fork(join(top, "test/mutants/worker.ts"), {
      cwd: top,
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    await new Promise<void>((resolve, reject) => {
      child.once("message", () => resolve());
      child.once("exit", (code) => reject(new Error(`the worker ended with ${code}`)));
    });
    child.removeAllListeners("exit");
    return child;
  }
}

function guardsOfSource({ file, tables }: MutatedSource): Guard[] {
  return guardsOf(file, readFileSync(join(top, file), "utf8"), tables);
}

const isFor = (excuse: Excuse, { file, inside, text }: Guard): boolean =>
  excuse.file === file && excuse.inside === inside && excuse.text === text;

const isExcused = (guard: Guard): boolean => EXCUSED.some((excuse) => isFor(excuse, guard));

/** The tests of a source with the one that missed the last guard in front: it is likely to miss the next. */
class Order {
  #tests: string[];

  constructor(source: MutatedSource) {
    this.#tests = [...new Set(source.tests)];
  }

  tests(): readonly string[] {
    return this.#tests;
  }

  missed(failed: string): void {
    const file = failed.split(" > ")[0]!;
    if (this.#tests.includes(file)) this.#tests = [file, ...this.#tests.filter((test) => test !== file)];
  }
}

async function runSources(worker: Worker, next: () => MutatedSource | undefined, tell: (outcome: Outcome) => void) {
  for (let source = next(); source !== undefined; source = next()) {
    const order = new Order(source);
    for (const [id, guard] of guardsOfSource(source).entries()) {
      if (isExcused(guard)) continue;
      const failed = await worker.run({ id, guard, tests: order.tests() });
      if (failed !== undefined) order.missed(failed);
      tell({ guard, failed });
    }
  }
  worker.close();
}

/** The tests must pass as things are, or a failure would prove nothing. */
async function failingAlready(worker: Worker, sources: readonly MutatedSource[]): Promise<string | undefined> {
  const tests = [...new Set(sources.flatMap((source) => source.tests))];
  return await worker.run({ id: 0, tests }, ALL_TESTS_MAX_MS);
}

interface Options {
  readonly sources: readonly MutatedSource[];
  readonly workers: number;
}

function readOptions(): Options {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      core: { type: "boolean", default: false },
      workers: { type: "string", default: "2" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n${MUTATED.map(({ file }) => `  ${file}\n`).join("")}`);
    process.exit(0);
  }
  const workers = Number(values.workers);
  if (!Number.isInteger(workers) || workers < 1) throw new TypeError("--workers is a number from 1 up");
  const sources = MUTATED.filter(
    ({ file, core }) =>
      (!values.core || core === true) &&
      (positionals.length === 0 || positionals.some((prefix) => file.startsWith(prefix))),
  );
  if (sources.length === 0) throw new TypeError(`no mutated source begins with ${positionals.join(", ")}`);
  return { sources, workers: Math.min(workers, sources.length) };
}

function optionsOrExit(): Options {
  try {
    return readOptions();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    process.stderr.write(`${error.message}\n\n${USAGE}`);
    process.exit(2);
  }
}

const { sources, workers: count } = optionsOrExit();
const workers = Array.from({ length: count }, () => new Worker());
process.on("exit", () => {
  for (const worker of workers) worker.close();
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));

const broken = await failingAlready(workers[0]!, sources);
if (broken !== undefined) {
  process.stdout.write(`fails with every guard in its place: ${broken}\n`);
  process.exit(1);
}
const waiting = [...sources];
const unmissed: Guard[] = [];
let missed = 0;
const tell = ({ guard, failed }: Outcome): void => {
  if (failed === undefined) unmissed.push(guard);
  else missed += 1;
  process.stdout.write(`${failed === undefined ? "NOT MISSED" : "missed"} ${guard.file}:${guard.line} ${guard.text}\n`);
  if (failed !== undefined) process.stdout.write(`    ${failed}\n`);
};
await Promise.all(workers.map((worker) => runSources(worker, () => waiting.shift(), tell)));
const guards = sources.flatMap((source) => guardsOfSource(source));
const excuses = EXCUSED.filter(({ file }) => sources.some((source) => source.file === file));
const unfit = excuses
  .map((excuse) => ({ excuse, count: guards.filter((guard) => isFor(excuse, guard)).length }))
  .filter(({ count }) => count !== 1);
process.stdout.write(`${missed} guards missed by a test, ${unmissed.length} not, ${excuses.length} excused\n`);
for (const { file, line, text } of unmissed) process.stdout.write(`  ${file}:${line} ${text}\n`);
for (const { excuse, count } of unfit)
  process.stdout.write(`  excused, but there ${count} times: ${excuse.file} ${excuse.inside} ${excuse.text}\n`);
record({
  what: "guards taken out, one at a time",
  count: missed + unmissed.length,
  figure: `${excuses.length} excused`,
});
process.exitCode = unmissed.length + unfit.length === 0 ? 0 : 1;
