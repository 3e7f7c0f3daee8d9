// One target's part of a run: its inputs, and whether memory grew with them.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type FuzzOptions, type FuzzResult, fuzz } from "./fuzzer.ts";
import type { FuzzTarget } from "./target.ts";

const GROWTH_MAX_BYTES = 48 * 2 ** 20; // the pool of inputs, compiled code and the collector's own ease

setFlagsFromString("--expose-gc");
// Else another thread gives freed buffers back, on a busy machine whenever it gets its turn: until then they count.
setFlagsFromString("--no-concurrent-array-buffer-sweeping");
const collect = runInNewContext("gc") as () => void;

/** Held after a collection: objects, and the buffers behind them. */
function heldBytes(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

export interface JobResult extends FuzzResult {
  /** In the last three quarters of the inputs. */
  readonly grewBytes: number;
  /** Of this thread. */
  readonly cpuSeconds: number;
}

/** Fuzzes one target; more memory held at the end than after the first quarter is a failure too. */
export async function runJob(target: FuzzTarget, options: FuzzOptions): Promise<JobResult> {
  let warmBytes: number | undefined;
  const before = process.threadCpuUsage();
  const onProgress = (count: number): void => {
    if (warmBytes === undefined && count >= options.inputs / 4) warmBytes = heldBytes();
    options.onProgress?.(count);
  };
  const made = await fuzz(target, { ...options, onProgress });
  const grewBytes = warmBytes === undefined ? 0 : heldBytes() - warmBytes;
  const { user, system } = process.threadCpuUsage(before);
  const result = { ...made, grewBytes, cpuSeconds: (user + system) / 1e6 };
  if (made.failure !== undefined || grewBytes <= GROWTH_MAX_BYTES) return result;
  const message = `the heap grew by ${Math.round(grewBytes / 2 ** 20)} MiB in the last three quarters of the inputs`;
  const empty = new Uint8Array(0);
  const where = { target: target.name, seed: options.seed, index: made.inputs, input: empty, smallest: empty };
  return { ...result, failure: { ...where, message } };
}
