// A process of the mutation check: holds one vitest and runs, for each guard that it is told of, the tests that should
// miss it. Told by messages, answers by messages; the one that started it ends it when a mutant hangs.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createVitest, type TestModule, type TestSpecification } from "vitest/node";
import { type Guard, without } from "./guards.ts";

/** What a worker is to do: run these test files, one after the other, until one misses the guard. */
export interface Job {
  readonly id: number;
  /** None: the sources as they are. */
  readonly guard?: Guard;
  readonly tests: readonly string[];
}

export interface Answer {
  readonly id: number;
  /** "test/a.test.ts > suite > name" of the first test that failed. */
  readonly failed: string | undefined;
}

const top = fileURLToPath(new URL("../..", import.meta.url));
let mutated: { readonly path: string; readonly guard: Guard } | undefined;

const vitest = await createVitest(
  "test",
  {
    root: top,
    config: false,
    watch: false,
    include: ["test/**/*.test.ts"],
    reporters: [{}],
    pool: "threads",
    maxWorkers: 1,
    testTimeout: 100_000,
    bail: 1,
  },
  {
    logLevel: "silent",
    plugins: [
      {
        name: "take-a-guard-out",
        enforce: "pre",
        transform: (text, id) => (id === mutated?.path ? without(text, mutated.guard) : undefined),
      },
    ],
  },
);
await vitest.standalone();

const specifications = new Map<string, TestSpecification[]>();
async function specificationsOf(test: string): Promise<TestSpecification[]> {
  const known = specifications.get(test) ?? (await vitest.globTestSpecifications([join(top, test)]));
  specifications.set(test, known);
  if (known.length === 0) throw new Error(`${test}: no such test file`);
  return known;
}

/** Of this file alone: vitest gives back every module that it ever ran, as each was when it last ran. */
function firstFailed(modules: readonly TestModule[], test: string): string | undefined {
  for (const module of modules) {
    if (module.moduleId !== join(top, test)) continue;
    const file = module.moduleId.slice(top.length);
    for (const test of module.children.allTests("failed")) return `${file} > ${test.fullName}`;
    if (!module.ok()) return `${file} > (does not load)`;
  }
  return undefined;
}

async function run(job: Job): Promise<Answer> {
  mutated = job.guard && { path: join(top, job.guard.file), guard: job.guard };
  if (mutated !== undefined) vitest.invalidateFile(mutated.path);
  let failed: string | undefined;
  for (const test of job.tests) {
    const result = await vitest.runTestSpecifications(await specificationsOf(test));
    failed = firstFailed(result.testModules, test);
    if (failed === undefined && result.unhandledErrors.length > 0) failed = `${test} > (an error outside of tests)`;
    if (failed !== undefined) break;
  }
  if (mutated !== undefined) vitest.invalidateFile(mutated.path);
  mutated = undefined;
  return { id: job.id, failed };
}

let queue = Promise.resolve();
process.on("message", (job: Job) => {
  queue = queue.then(async () => {
    process.send!((await run(job)) satisfies Answer);
  });
});
process.on("disconnect", () => process.exit(0));
process.send!("ready");
