// Loaded into a process of a test by NODE_OPTIONS=--import: on SIGUSR2 it collects garbage and tells on standard error,
// a JSON line, what the process still holds.
import { readdirSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** What a process holds once its garbage is gone. */
export interface Gauge {
  readonly event: "gauge";
  /** The first one is 1. */
  readonly number: number;
  /** Objects and buffers. */
  readonly heapBytes: number;
  readonly rssBytes: number;
  /** Open file descriptors. */
  readonly files: number;
  /** Handles and requests that keep the event loop going, by kind. */
  readonly resources: Readonly<Record<string, number>>;
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;
let number = 0;

process.on("SIGUSR2", () => {
  collectGarbage();
  collectGarbage(); // what the first one's finalizers let go
  const { heapUsed, external, rss } = process.memoryUsage();
  const resources: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
  const files = readdirSync("/proc/self/fd").length;
  number++;
  const gauge: Gauge = { event: "gauge", number, heapBytes: heapUsed + external, rssBytes: rss, files, resources };
  process.stderr.write(`${JSON.stringify(gauge)}\n`);
});
