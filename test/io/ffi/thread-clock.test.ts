// The clock of a thread's own CPU time: fine enough for a part of a millisecond, still while the thread sleeps, and
// each thread's own.
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { threadClock } from "../../../src/io/ffi/thread-clock.ts";
import { needs } from "../../needs.ts";

const SHORT_MS = 0.2;

/** Works until so much wall time has passed. */
function spin(ms: number): number {
  const startedMs = performance.now();
  while (performance.now() - startedMs < ms);
  return performance.now() - startedMs;
}

describe.runIf(needs("linux"))("the clock of this thread", () => {
  test("tells 0.2 ms of work from none and from 4, which getrusage(2) does not", () => {
    const cpuMs = threadClock()!;
    let [fine, worked] = [0, 0];
    for (let i = 0; i < 200; i++) {
      const [startedMs, wallMs] = [cpuMs(), spin(SHORT_MS)];
      const tookMs = cpuMs() - startedMs;
      worked += tookMs;
      // by the tick it would be 0 nineteen times of twenty; less than half where the host took the CPU away
      if (tookMs > SHORT_MS / 4 && tookMs < wallMs + SHORT_MS) fine++;
    }
    expect(fine).toBeGreaterThan(150);
    expect(worked).toBeGreaterThan(200 * SHORT_MS * 0.5);
  });

  test("it stands still while the thread sleeps, and while another one works", async () => {
    const cpuMs = threadClock()!;
    const other = new Worker("const s = performance.now(); while (performance.now() - s < 300);", { eval: true });
    const startedMs = cpuMs();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    expect(cpuMs() - startedMs).toBeLessThan(50);
    await other.terminate();
  });
});
