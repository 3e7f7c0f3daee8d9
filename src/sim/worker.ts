// One thread of sim/threads.ts: takes runs of seeds, gives back their totals and the first seed that broke something.
import { parentPort, workerData } from "node:worker_threads";
import type { SimulationOptions } from "./outcome.ts";
import { runSeeds } from "./report.ts";
import type { Totals } from "./totals.ts";

export interface Share {
  readonly seed: number;
  readonly count: number;
}

export interface ShareDone {
  readonly totals: Totals;
  /** The seed that broke something; those after it were not run. */
  readonly failedSeed: number | undefined;
}

/** The module named by `npm run sim -- --with FILE`. */
export async function loadSabotage(module: string | undefined): Promise<SimulationOptions> {
  return module === undefined ? {} : ((await import(module)) as SimulationOptions);
}

interface WorkerData {
  readonly simSabotage?: string;
}

// Imported for loadSabotage alone by the main thread, and by test runners that have threads of their own.
const data = workerData as WorkerData | null;
if (parentPort !== null && data !== null && typeof data === "object" && "simSabotage" in data) {
  const port = parentPort;
  const options = await loadSabotage(data.simSabotage);
  port.on("message", ({ seed, count }: Share) => {
    const { totals, failed } = runSeeds({ ...options, seed, count });
    port.postMessage({ totals, failedSeed: failed?.outcome.seed } satisfies ShareDone);
  });
}
