// How long the calling thread has had a CPU, to the nanosecond: clock_gettime(2). getrusage(2), by which Node tells it,
// moves on only with the scheduler's tick, 4 ms here: a message of 0.5 ms would count as none, or one in eight as 4.
import { assert } from "../../base/assert.ts";
import { Arena } from "./arena.ts";
import { bindNative, hasLinuxLayouts } from "./koffi.ts";

const CLOCK_THREAD_CPUTIME_ID = 3;
const TIMESPEC_BYTES = 16;

/**
 * A stopwatch in ms for the thread that calls it; undefined where there is no such clock.
 *
 * @example
 * const cpuMs = threadClock() ?? coarse;
 * const startedMs = cpuMs();
 */
export function threadClock(): (() => number) | undefined {
  if (!hasLinuxLayouts()) return undefined;
  try {
    const read = bindNative("clock_gettime", "int", "int", "uintptr_t");
    const arena = new Arena(TIMESPEC_BYTES);
    const at = arena.allocateAt(TIMESPEC_BYTES);
    const [second, address] = [at >>> 2, arena.baseAddress + at];
    return () => {
      assert(read(CLOCK_THREAD_CPUTIME_ID, address) === 0, "Linux has a clock of each thread");
      return arena.words[second]! * 1e3 + arena.words[second + 2]! / 1e6;
    };
  } catch {
    return undefined; // without native functions, or a C library that lacks it: the caller has another clock
  }
}
