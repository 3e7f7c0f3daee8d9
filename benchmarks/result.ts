// One measured figure, as every benchmark gives it.

export interface BenchResult {
  /** What was measured, in words: "handshakes, native". */
  readonly name: string;
  readonly value: number;
  /** "1/s", "MB/s", "ms", "KiB" … */
  readonly unit: string;
}

/** CPU time of this thread in ms: a busy machine makes a run longer, not the figure smaller. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

/**
 * Runs `work` for about `forMs` of CPU time and gives how often per second of it it ran. `work` is called before for a
 * tenth of that, so that what it needs is compiled.
 */
export function measureRate(work: () => void, forMs = 1_000): number {
  repeat(work, forMs / 10);
  const { count, elapsedMs } = repeat(work, forMs);
  return (count * 1_000) / elapsedMs;
}

function repeat(work: () => void, forMs: number): { count: number; elapsedMs: number } {
  const startMs = cpuMs();
  let count = 0;
  let elapsedMs = 0;
  for (let batch = 1; elapsedMs < forMs; batch = Math.min(batch * 2, 256)) {
    for (let i = 0; i < batch; i++) work();
    count += batch;
    elapsedMs = cpuMs() - startMs;
  }
  return { count, elapsedMs };
}
