// At most so many in each second of the clock. For answers that a flood of bad packets would otherwise multiply.
import { SECOND_MS } from "../base/units.ts";

export class RateLimit {
  readonly #perSecondMax: number;
  #second = -1;
  #taken = 0;

  constructor(perSecondMax: number) {
    this.#perSecondMax = perSecondMax;
  }

  /** False: not now. */
  take(nowMs: number): boolean {
    const second = Math.floor(nowMs / SECOND_MS);
    if (second !== this.#second) {
      this.#second = second;
      this.#taken = 0;
    }
    if (this.#taken >= this.#perSecondMax) return false;
    this.#taken++;
    return true;
  }
}
