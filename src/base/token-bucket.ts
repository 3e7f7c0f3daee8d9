// A token bucket: so many a second on average, and at most a burst of them at once.
import { DOUBLE_ZERO } from "./double-zero.ts";
import { SECOND_MS } from "./units.ts";

export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens = DOUBLE_ZERO;
  #filledMs = DOUBLE_ZERO;

  /** Full at first. `nowMs`: from when on it earns. */
  constructor(nowMs: number, perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#filledMs = nowMs;
  }

  /** One token, if `spare` more are left behind. */
  take(nowMs: number, spare = 0): boolean {
    const earned = (Math.max(0, nowMs - this.#filledMs) * this.#perSecond) / SECOND_MS;
    this.#tokens = Math.min(this.#burst, this.#tokens + earned);
    this.#filledMs = nowMs;
    if (this.#tokens < 1 + spare) return false;
    this.#tokens--;
    return true;
  }
}
