// From ready line to exit code for the commands that stay: SIGINT, SIGTERM or SIGHUP ends them cleanly, a second one
// at once.
import { WirebadgeError } from "../base/errors.ts";

const STOP_WITHIN_MS = 1_400; // a clean end takes at most 1.5 s
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface Running {
  /** Ends it; never rejects for what it could not tell others. */
  stop(): Promise<void>;
  /** Resolves when it ended by itself: an error when that is a failure. */
  readonly stopped: Promise<Error | undefined>;
}

/** The part of `process` that is needed; tests give an EventEmitter. */
export interface SignalSource {
  on(signal: (typeof SIGNALS)[number], listener: () => void): unknown;
  off(signal: (typeof SIGNALS)[number], listener: () => void): unknown;
  exit(code: number): never;
}

/**
 * Starts, calls `ready`, and stays until a signal or the thing's own end. Resolves to the exit code 0; throws what
 * it ended with. A signal while still starting ends the wait too.
 */
export async function runUntilStopped<T extends Running>(
  signals: SignalSource,
  start: () => Promise<T>,
  ready: (running: T) => void,
): Promise<number> {
  let count = 0;
  let ask = (): void => undefined;
  const asked = new Promise<"asked">((resolve) => {
    ask = () => resolve("asked");
  });
  const listener = (): void => {
    count += 1;
    if (count > 1) signals.exit(130);
    ask();
  };
  for (const signal of SIGNALS) signals.on(signal, listener);
  try {
    const starting = start();
    const first = await Promise.race([starting, asked]);
    if (first === "asked") {
      await withinMs(
        starting.then((running) => running.stop()).catch(() => undefined),
        STOP_WITHIN_MS,
      );
      return 0;
    }
    ready(first);
    const end = await Promise.race([first.stopped, asked]);
    const stopped = await withinMs(first.stop(), STOP_WITHIN_MS);
    if (end instanceof Error) throw end;
    if (!stopped && end === undefined) throw new WirebadgeError("TIMEOUT", "it ended, but did not stop in time");
    return 0;
  } finally {
    for (const signal of SIGNALS) signals.off(signal, listener);
  }
}

/** True when it was done in time. */
async function withinMs(work: Promise<unknown>, limitMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), limitMs);
  });
  const done = await Promise.race([work.then(() => true as const), late]);
  clearTimeout(timer);
  return done;
}
