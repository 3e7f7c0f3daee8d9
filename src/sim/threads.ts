// Many seeds on all cores: each thread takes the next few, until all are done or one broke something. A seed does the
// same on any thread, so that a failure is run again, cut down and shown by whoever asked.
import { Worker } from "node:worker_threads";
import { addTotals, noTotals, type Totals } from "./totals.ts";
import type { Share, ShareDone } from "./worker.ts";

const SEEDS_OF_A_SHARE = 25;

export interface ThreadsOptions {
  readonly seed: number;
  readonly count: number;
  readonly threads: number;
  /** URL of a module that exports `sabotage`. */
  readonly sabotage?: string | undefined;
  /** After each share. */
  readonly progress?: (totals: Totals) => void;
}

export interface ThreadsRun {
  readonly totals: Totals;
  /** The lowest seed that broke something, of those that were run; the first break ends the run. */
  readonly failedSeed: number | undefined;
}

export async function runOnThreads(options: ThreadsOptions): Promise<ThreadsRun> {
  const { seed, count, threads, sabotage, progress } = options;
  const totals = noTotals();
  let nextSeed = seed;
  let failedSeed: number | undefined;
  const takeShare = (): Share | undefined => {
    if (nextSeed >= seed + count || failedSeed !== undefined) return undefined;
    const share = { seed: nextSeed, count: Math.min(SEEDS_OF_A_SHARE, seed + count - nextSeed) };
    nextSeed += share.count;
    return share;
  };
  const work = async (): Promise<void> => {
    const worker = new Worker(new URL("worker.ts", import.meta.url), { workerData: { simSabotage: sabotage } });
    try {
      for (let share = takeShare(); share !== undefined; share = takeShare()) {
        const done = await answer(worker, share);
        addTotals(totals, done.totals);
        if (done.failedSeed !== undefined) failedSeed = Math.min(done.failedSeed, failedSeed ?? done.failedSeed);
        progress?.(totals);
      }
    } finally {
      await worker.terminate();
    }
  };
  await Promise.all(Array.from({ length: threads }, work));
  return { totals, failedSeed };
}

/** One share at a time on each thread. */
function answer(worker: Worker, share: Share): Promise<ShareDone> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number): void => reject(new Error(`a thread of the simulator ended with ${code}`));
    worker.once("exit", onExit);
    worker.once("error", reject);
    worker.once("message", (done: ShareDone) => {
      worker.off("exit", onExit).off("error", reject);
      resolve(done);
    });
    worker.postMessage(share);
  });
}
