// Which blocks of src/ have been run, by V8's own counting: what tells a fuzzer that an input reached something new
// where its outcome doesn't say so.
import { type Profiler, Session } from "node:inspector";

export interface BlockCoverage {
  reset(): void;
  /** True when blocks of src/ have run that had not before the last call. */
  grew(): boolean;
  close(): void;
}

export function blockCoverage(): BlockCoverage {
  const session = new Session();
  session.connect();
  const seen = new Set<string>();
  // An inspector session answers before `post` returns.
  session.post("Profiler.enable");
  session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  const take = (): number => {
    let fresh = 0;
    session.post(
      "Profiler.takePreciseCoverage",
      (error: Error | null, taken: Profiler.TakePreciseCoverageReturnType) => {
        if (error !== null) throw error;
        for (const { url, functions } of taken.result) {
          if (!url.includes("/src/")) continue;
          for (const { ranges } of functions)
            for (const { startOffset, endOffset, count } of ranges) {
              if (count === 0) continue;
              const key = `${url}:${startOffset}-${endOffset}`;
              if (!seen.has(key)) fresh++;
              seen.add(key);
            }
        }
      },
    );
    return fresh;
  };
  return {
    reset: () => void take(),
    grew: () => take() > 0,
    close: () => {
      session.post("Profiler.stopPreciseCoverage");
      session.disconnect();
    },
  };
}
