// Round-trip time and retransmission timeout: RFC 6298, with two stated deviations. The floor: RTO = SRTT + max(200 ms,
// 4·RTTVAR) instead of "at least 1 s" (§2.4), as Linux has it: within a tunnel a lost tail would otherwise cost a
// second, and 200 ms stays above any peer's delayed acknowledgment (ours waits 40 ms, RFC 9293 allows 500 but none in
// use exceeds 200). The ceiling is 60 s (§2.5).
import { SECOND_MS } from "../../base/units.ts";

export const RTO_INITIAL_MS = 1 * SECOND_MS; // §2.1
export const RTO_AFTER_SYN_LOSS_MS = 3 * SECOND_MS; // §5.7
export const RTO_VARIANCE_MIN_MS = 200;
export const RTO_MAX_MS = 60 * SECOND_MS;

export class RttEstimator {
  #smoothedMs = -1;
  #varianceMs = 0;
  #timeoutMs = RTO_INITIAL_MS;
  #backoffs = 0;

  /** SRTT, −1 before the first sample. */
  get smoothedMs(): number {
    return this.#smoothedMs;
  }

  /** With backoff. */
  get timeoutMs(): number {
    return Math.min(this.#timeoutMs * 2 ** this.#backoffs, RTO_MAX_MS);
  }

  get backoffs(): number {
    return this.#backoffs;
  }

  /** Never of a segment that was sent twice (Karn). */
  sample(rttMs: number): void {
    if (this.#smoothedMs < 0) {
      this.#smoothedMs = rttMs; // §2.2
      this.#varianceMs = rttMs / 2;
    } else {
      this.#varianceMs = 0.75 * this.#varianceMs + 0.25 * Math.abs(this.#smoothedMs - rttMs); // §2.3, β = 1/4
      this.#smoothedMs = 0.875 * this.#smoothedMs + 0.125 * rttMs; // α = 1/8
    }
    this.#timeoutMs = this.#smoothedMs + Math.max(RTO_VARIANCE_MIN_MS, 4 * this.#varianceMs);
    this.#backoffs = 0;
  }

  /** The timer fired: twice as long next time (§5.5). */
  backOff(): void {
    if (this.timeoutMs < RTO_MAX_MS) this.#backoffs++;
  }

  /** New data was acknowledged: the path works again, also when Karn forbids a sample. */
  progress(): void {
    this.#backoffs = 0;
  }

  /** The SYN had to be sent again: its time says little (§5.7). */
  afterSynLoss(): void {
    if (this.#smoothedMs < 0) this.#timeoutMs = RTO_AFTER_SYN_LOSS_MS;
    this.#backoffs = 0;
  }
}
