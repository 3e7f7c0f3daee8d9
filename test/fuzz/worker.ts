// One thread of `npm run fuzz`: takes targets by name until it is told that there are no more, or to stop.
import { parentPort, workerData } from "node:worker_threads";
import { corpusOf } from "./corpus.ts";
import { blockCoverage } from "./coverage.ts";
import { type FuzzResult, fuzz } from "./fuzzer.ts";
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
  | { readonly kind: "done"; readonly result: FuzzResult; readonly grewBytes: number };

const { stop, isCovered } = workerData as WorkerSetup;
const stopFlag = new Int32Array(stop);
const port = parentPort!;
const HEAP_GROWTH_MAX_BYTES = 48 * 2 ** 20; // the pool of inputs, compiled code and the collector's own ease

const collect = (globalThis as { gc?: () => void }).gc;
function heapBytes(): number {
  collect?.();
  return process.memoryUsage().heapUsed;
}

async function run({ target: name, seed, inputs }: Job): Promise<void> {
  const target = TARGETS.find((one) => one.name === name)!;
  let warmBytes: number | undefined;
  let shownMs = performance.now();
  const onProgress = (count: number): void => {
    if (warmBytes === undefined && count >= inputs / 4) warmBytes = heapBytes();
    if (performance.now() - shownMs < 1_000) return;
    shownMs = performance.now();
    port.postMessage({ kind: "progress", target: name, inputs: count } satisfies FromWorker);
  };
  const stopped = (): boolean => Atomics.load(stopFlag, 0) === 1;
  const coverage = isCovered ? blockCoverage() : undefined;
  const made = await fuzz(target, {
    seed,
    inputs,
    corpus: corpusOf(name),
    withLong: true,
    stopped,
    onProgress,
    ...(coverage === undefined ? {} : { coverage }),
  });
  coverage?.close();
  const grewBytes = warmBytes === undefined ? 0 : heapBytes() - warmBytes;
  const message = `the heap grew by ${Math.round(grewBytes / 2 ** 20)} MiB in the last three quarters of the inputs`;
  const empty = new Uint8Array(0);
  const growth = { target: name, seed, index: made.inputs, message, input: empty, smallest: empty };
  const result = made.failure === undefined && grewBytes > HEAP_GROWTH_MAX_BYTES ? { ...made, failure: growth } : made;
  port.postMessage({ kind: "done", result, grewBytes } satisfies FromWorker);
}

port.on("message", (job: Job) => void run(job));
