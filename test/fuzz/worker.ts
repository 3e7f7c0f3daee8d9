// One thread of `npm run fuzz`: takes targets by name until it is told that there are no more, or to stop.
import { parentPort, workerData } from "node:worker_threads";
import { corpusOf } from "./corpus.ts";
import { blockCoverage } from "./coverage.ts";
import { type JobResult, runJob } from "./job.ts";
import { TARGETS } from "./targets.ts";

export interface WorkerSetup {
  /** [0] is 1 once everybody is to stop. */
  readonly stop: SharedArrayBuffer;
  readonly isCovered: boolean;
}

export interface Job {
  readonly target: string;
  readonly seed: number;
  readonly inputs: number;
}

export type FromWorker =
  | { readonly kind: "progress"; readonly target: string; readonly inputs: number }
  | { readonly kind: "done"; readonly result: JobResult };

const { stop, isCovered } = workerData as WorkerSetup;
const stopFlag = new Int32Array(stop);
const port = parentPort!;

async function run({ target: name, seed, inputs }: Job): Promise<void> {
  let shownMs = performance.now();
  const onProgress = (count: number): void => {
    if (performance.now() - shownMs < 1_000) return;
    shownMs = performance.now();
    port.postMessage({ kind: "progress", target: name, inputs: count } satisfies FromWorker);
  };
  const coverage = isCovered ? blockCoverage() : undefined;
  const result = await runJob(TARGETS.find((one) => one.name === name)!, {
    seed,
    inputs,
    corpus: corpusOf(name),
    withLong: true,
    stopped: () => Atomics.load(stopFlag, 0) === 1,
    onProgress,
    ...(coverage === undefined ? {} : { coverage }),
  });
  coverage?.close();
  port.postMessage({ kind: "done", result } satisfies FromWorker);
}

port.on("message", (job: Job) => void run(job));
