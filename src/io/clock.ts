// The one clock of a process: milliseconds close to Unix time that never decrease.
import { clearTimeout, setTimeout } from "node:timers";

export interface Clock {
  nowMs(): number;
}

/**
 * Start wall time + the larger of monotonic and wall-clock advance. A suspended machine or a clock set forward moves it
 * on (leases get shorter, never longer); a clock set back does not move it back.
 */
export class SystemClock implements Clock {
  readonly #startWallMs = Date.now();
  readonly #startMonotonicMs = performance.now();
  #latestMs = this.#startWallMs;

  nowMs(): number {
    const advanceMs = performance.now() - this.#startMonotonicMs;
    const nowMs = Math.max(Date.now(), this.#startWallMs + advanceMs);
    if (nowMs > this.#latestMs) this.#latestMs = nowMs;
    return this.#latestMs;
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
    }, delayMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#armedMs = Number.POSITIVE_INFINITY;
  }
}
