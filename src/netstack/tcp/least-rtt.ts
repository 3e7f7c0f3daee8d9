// The least round trip of late: what a path takes without queues. All in ms.

/** It is of the last one to two of these. */
const HALF_MS = 5_000;

/** The smallest of what came within the last 5 to 10 s (RFC 8985 §6.2, step 1, leaves that open). */
export class LeastRtt {
  #beforeMs = Number.POSITIVE_INFINITY;
  #thisMs = Number.POSITIVE_INFINITY;
  #untilMs = 0;

  /** Infinity before the first. */
  get ms(): number {
    return Math.min(this.#beforeMs, this.#thisMs);
  }

  sample(nowMs: number, rttMs: number): void {
    if (nowMs >= this.#untilMs) {
      const isOld = nowMs >= this.#untilMs + HALF_MS;
      this.#beforeMs = isOld ? Number.POSITIVE_INFINITY : this.#thisMs;
      this.#thisMs = rttMs;
      this.#untilMs = nowMs + HALF_MS;
    } else this.#thisMs = Math.min(this.#thisMs, rttMs);
  }
}
