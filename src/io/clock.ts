// The one clock of a process: milliseconds close to Unix time that never decrease.
import { clearTimeout, setTimeout } from "node:timers";
import { threadClock } from "./ffi/thread-clock.ts";

export interface Clock {
  nowMs(): number;
}

/** For durations: ms with fractions, never set by anyone. */
export const stopwatch = (): number => performance.now();

/** Of all threads of this process alike, in ms; stands still while the machine is suspended. */
export const sharedMs = (): number => Number(process.hrtime.bigint()) / 1e6;

const coarseCpuStopwatch = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
};

let chosenCpuStopwatch: (() => number) | undefined;

/** Of this thread: stands still while it waits for a CPU. */
export const cpuStopwatch = (): number => {
  chosenCpuStopwatch ??= threadClock() ?? coarseCpuStopwatch;
  return chosenCpuStopwatch();
};

/** Wall time is taken for set, or the machine for suspended, when it has moved by this much more than the monotonic. */
const STEP_MS = 100;

/**
 * Wall time at the start, and from there on the monotonic clock. Where the wall clock steps ahead of that, because it
 * was set or the machine was suspended, this one goes along (leases get shorter, never longer); where it steps back,
 * this one goes on as if nothing had happened, also when the step takes back one that came before.
 */
export class SystemClock implements Clock {
  readonly #wallMs: () => number;
  readonly #monotonicMs: () => number;
  /** Of this clock over the monotonic one; only ever grows. */
  #aheadMs: number;
  /** Of the wall clock over the monotonic one when it last stepped. */
  #wallAheadMs: number;

  constructor(wallMs: () => number = Date.now, monotonicMs: () => number = () => performance.now()) {
    this.#wallMs = wallMs;
    this.#monotonicMs = monotonicMs;
    this.#wallAheadMs = wallMs() - monotonicMs();
    this.#aheadMs = this.#wallAheadMs;
  }

  nowMs(): number {
    const monotonicMs = this.#monotonicMs();
    const steppedMs = this.#wallMs() - monotonicMs - this.#wallAheadMs;
    if (Math.abs(steppedMs) > STEP_MS) {
      this.#wallAheadMs += steppedMs;
      if (steppedMs > 0) this.#aheadMs += steppedMs;
    }
    return this.#aheadMs + monotonicMs;
  }
}

/** A clock that begins no earlier than a moment which has been already, and then goes at another's pace. */
export class ClockFrom implements Clock {
  readonly #clock: Clock;
  /** By how much the other was behind. */
  readonly aheadMs: number;

  constructor(clock: Clock, notBeforeMs: number) {
    this.#clock = clock;
    this.aheadMs = Math.max(0, notBeforeMs - clock.nowMs());
  }

  nowMs(): number {
    return this.#clock.nowMs() + this.aheadMs;
  }
}

/** One re-armable timer: arming for a later time than armed costs nothing, the early wake-up re-arms. */
export class DeadlineTimer {
  readonly #clock: Clock;
  readonly #fire: () => void;
  #timer: NodeJS.Timeout | undefined;
  #armedMs = Number.POSITIVE_INFINITY;

  constructor(clock: Clock, fire: () => void) {
    this.#clock = clock;
    this.#fire = fire;
  }

  armAt(deadlineMs: number): void {
    if (deadlineMs >= this.#armedMs) return;
    clearTimeout(this.#timer);
    this.#armedMs = deadlineMs;
    const delayMs = Math.min(Math.max(0, Math.ceil(deadlineMs - this.#clock.nowMs())), 2 ** 31 - 1);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#armedMs = Number.POSITIVE_INFINITY;
      this.#fire();
    }, delayMs).unref(); // what is open keeps a process alive, not what is due
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#armedMs = Number.POSITIVE_INFINITY;
  }
}
