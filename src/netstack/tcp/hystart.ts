// When slow start has found the path's rate, by its growing round-trip time instead of a burst of losses: HyStart++,
// RFC 9406 §4.2. All in ms.
import { sequenceAfter } from "./sequence.ts";

const RTT_THRESHOLD_MIN_MS = 4;
const RTT_THRESHOLD_MAX_MS = 16;
const RTT_PARTS = 8; // MIN_RTT_DIVISOR
const SAMPLES_MIN = 8; // N_RTT_SAMPLE
const CAREFUL_DIVISOR = 4; // CSS_GROWTH_DIVISOR
const CAREFUL_ROUNDS = 5; // CSS_ROUNDS
const NEVER = Number.POSITIVE_INFINITY;

export class HyStart {
  #roundEnd: number | undefined;
  #lastLeastMs = NEVER;
  #leastMs = NEVER;
  #samples = 0;
  /** In conservative slow start: the round trip that it began with. */
  #baselineMs = NEVER;
  #carefulRounds = 0;
  isOver = false;

  /** By how many times slower than in slow start the window grows. */
  get divisor(): number {
    return this.#baselineMs === NEVER ? 1 : CAREFUL_DIVISOR;
  }

  /** An acknowledgment up to `una`, with `next` to be sent next. `sampleMs` −1: it has no sample. */
  acknowledged(una: number, next: number, sampleMs: number): void {
    if (this.#roundEnd === undefined || !sequenceAfter(this.#roundEnd, una)) this.#beginRound(next);
    if (sampleMs < 0) return;
    this.#samples++;
    this.#leastMs = Math.min(this.#leastMs, sampleMs);
    if (this.#samples < SAMPLES_MIN) return;
    if (this.#baselineMs === NEVER) {
      const threshold = Math.min(Math.max(this.#lastLeastMs / RTT_PARTS, RTT_THRESHOLD_MIN_MS), RTT_THRESHOLD_MAX_MS);
      if (this.#leastMs >= this.#lastLeastMs + threshold) {
        this.#baselineMs = this.#leastMs;
        this.#carefulRounds = 0;
      }
    } else if (this.#leastMs < this.#baselineMs) this.#baselineMs = NEVER; // it was no queue
  }

  #beginRound(next: number): void {
    this.#roundEnd = next;
    this.#lastLeastMs = this.#leastMs;
    this.#leastMs = NEVER;
    this.#samples = 0;
    if (this.#baselineMs !== NEVER && ++this.#carefulRounds >= CAREFUL_ROUNDS) this.isOver = true;
  }
}
