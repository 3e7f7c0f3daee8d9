// Congestion control: slow start, congestion avoidance and fast recovery of RFC 5681 with NewReno (RFC 6582), byte
// counting with L = 2 (RFC 3465), initial window of ten segments (RFC 6928), restart after idling (RFC 5681 §4.1).
// Numbers in bytes.
import { sequenceAfter, sequenceDifference } from "./sequence.ts";

const INITIAL_SEGMENTS = 10;
const INITIAL_MAX_BYTES = 14_600;
export const DUPLICATE_ACKS_MAX = 3;

export class Congestion {
  #windowBytes: number;
  #thresholdBytes = Number.POSITIVE_INFINITY;
  #maxBytes: number;
  #mssBytes: number;
  #duplicates = 0;
  #inRecovery = false;
  /** RFC 6582: acknowledgments up to here belong to the loss already answered. */
  #recover: number;
  #afterTimeout = false;

  /** `maxBytes`: the send buffer; a larger window could never be filled. */
  constructor(mssBytes: number, initialSequence: number, maxBytes: number) {
    this.#mssBytes = mssBytes;
    this.#maxBytes = maxBytes;
    this.#recover = initialSequence;
    this.#windowBytes = initialWindow(mssBytes);
  }

  get windowBytes(): number {
    return this.#windowBytes;
  }

  get inRecovery(): boolean {
    return this.#inRecovery;
  }

  get duplicates(): number {
    return this.#duplicates;
  }

  /** At the end of the handshake, or when the path turned out narrower. */
  setMss(mssBytes: number, restart: boolean): void {
    this.#mssBytes = mssBytes;
    if (restart) this.#windowBytes = initialWindow(mssBytes);
  }

  /** A SYN was lost: RFC 6928 §2 asks for one segment. */
  afterSynLoss(): void {
    this.#windowBytes = this.#mssBytes;
  }

  afterIdle(): void {
    this.#windowBytes = Math.min(this.#windowBytes, initialWindow(this.#mssBytes));
  }

  /** New data was acknowledged up to `una`. True: a partial acknowledgment, so the segment at `una` is missing too. */
  acknowledged(una: number, ackedBytes: number, flightBefore: number): boolean {
    this.#duplicates = 0;
    const mss = this.#mssBytes;
    if (this.#inRecovery) {
      if (!sequenceAfter(this.#recover, una)) {
        const flightBytes = flightBefore - ackedBytes;
        this.#inRecovery = false; // RFC 6582 §3.2 (3), the careful way: no burst
        this.#windowBytes = Math.min(this.#thresholdBytes, Math.max(flightBytes, mss) + mss);
        return false;
      }
      this.#windowBytes = Math.max(this.#windowBytes - ackedBytes + (ackedBytes >= mss ? mss : 0), mss);
      return true;
    }
    if (this.#afterTimeout && !sequenceAfter(this.#recover, una)) this.#afterTimeout = false;
    if (flightBefore * 2 < this.#windowBytes) return false; // not what limits the sender: no growth (RFC 7661 §4.3)
    if (this.#windowBytes < this.#thresholdBytes) {
      this.#windowBytes += Math.min(ackedBytes, this.#afterTimeout ? mss : 2 * mss);
    } else {
      this.#windowBytes += Math.max(1, (mss * Math.min(ackedBytes, 2 * mss)) / this.#windowBytes);
    }
    this.#windowBytes = Math.min(this.#windowBytes, this.#maxBytes);
    return false;
  }

  /** One more acknowledgment of `una`. True: retransmit the segment at `una` now. */
  duplicate(una: number, sequenceMax: number): boolean {
    this.#duplicates++;
    if (this.#inRecovery) {
      this.#windowBytes += this.#mssBytes; // a segment has left the network
      return false;
    }
    if (this.#duplicates !== DUPLICATE_ACKS_MAX) return false;
    if (!sequenceAfter(una, this.#recover)) return false; // RFC 6582 §3.2 (2): echoes of an older loss
    this.#thresholdBytes = this.#half(sequenceDifference(sequenceMax, una));
    this.#recover = sequenceMax;
    this.#inRecovery = true;
    this.#windowBytes = this.#thresholdBytes + DUPLICATE_ACKS_MAX * this.#mssBytes;
    return true;
  }

  /** How far beyond the window the first duplicates let new data go: limited transmit, RFC 3042. */
  get allowanceBytes(): number {
    return this.#inRecovery ? 0 : Math.min(this.#duplicates, 2) * this.#mssBytes;
  }

  /** The retransmission timer fired. `first`: not yet for this segment. */
  timedOut(sequenceMax: number, flightBytes: number, first: boolean): void {
    if (first) this.#thresholdBytes = this.#half(flightBytes);
    this.#windowBytes = this.#mssBytes;
    this.#inRecovery = false;
    this.#duplicates = 0;
    this.#afterTimeout = true;
    this.#recover = sequenceMax;
  }

  #half(flightBytes: number): number {
    return Math.max(flightBytes / 2, 2 * this.#mssBytes); // RFC 5681 (4)
  }
}

function initialWindow(mssBytes: number): number {
  return Math.min(INITIAL_SEGMENTS * mssBytes, Math.max(2 * mssBytes, INITIAL_MAX_BYTES)); // RFC 6928 (1)
}
