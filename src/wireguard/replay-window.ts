// Which counters of one session have been received: a ring of bits (RFC 6479) behind the greatest one. Counters are two
// unsigned 32-bit halves; no arithmetic here needs a whole 64-bit value.
const WORDS = 256;
const WORD_MASK = WORDS - 1;

/**
 * How far behind the greatest received counter another is still taken; at least the 8,000 that the busiest senders
 * reorder over.
 */
export const REPLAY_WINDOW_COUNTERS = (WORDS - 1) * 32;

export class ReplayWindow {
  readonly #words = new Uint32Array(WORDS);
  #lastLow = 0;
  #lastHigh = 0;

  /**
   * False when the counter was received before or lies behind the window. Changes nothing: the packet is not
   * authenticated yet.
   */
  isFresh(low: number, high: number): boolean {
    if (high > this.#lastHigh || (high === this.#lastHigh && low > this.#lastLow)) return true;
    // Exact where it matters: with a large difference in the upper halves the sum is inexact, but far beyond the
    // window.
    const behind = (this.#lastHigh - high) * 0x1_0000_0000 + (this.#lastLow - low);
    if (behind >= REPLAY_WINDOW_COUNTERS) return false;
    return (this.#words[(low >>> 5) & WORD_MASK]! & (1 << (low & 31))) === 0;
  }

  /** Only after `isFresh` and authentication. */
  mark(low: number, high: number): void {
    if (high > this.#lastHigh || (high === this.#lastHigh && low > this.#lastLow)) {
      const lastWord = this.#lastLow >>> 5;
      const words = (high - this.#lastHigh) * 0x800_0000 + ((low >>> 5) - lastWord);
      const cleared = Math.min(words, WORDS);
      for (let i = 1; i <= cleared; i++) this.#words[(lastWord + i) & WORD_MASK] = 0;
      this.#lastLow = low;
      this.#lastHigh = high;
    }
    this.#words[(low >>> 5) & WORD_MASK]! |= 1 << (low & 31);
  }
}
