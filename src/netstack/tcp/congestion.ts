// How much may be in flight: slow start (RFC 5681, with HyStart++ of RFC 9406 the first time), the reduction during a
// recovery (PRR, RFC 9937), initial window of ten segments (RFC 6928), restart after idling (RFC 5681 §4.1). How the
// window grows without loss, and what a loss leaves of it, is an algorithm's: CUBIC or NewReno. In bytes and ms.
import { Cubic } from "./cubic.ts";
import { HyStart } from "./hystart.ts";
import { NewReno } from "./new-reno.ts";

const INITIAL_SEGMENTS = 10;
const INITIAL_MAX_BYTES = 14_600;
/** RFC 9406 §4.2 without pacing: one acknowledgment counts for so many segments at most. */
const ACKED_SEGMENTS_MAX = 8;

export interface CongestionAlgorithm {
  /** By how much the window grows in congestion avoidance for `ackedBytes`. */
  growth(nowMs: number, windowBytes: number, ackedBytes: number, rttMs: number, mssBytes: number): number;
  /** The window wasn't what limited the sender in these ms: they don't count as time to grow. */
  idled(forMs: number): void;
  /** A loss at this window: what is left of it. */
  reduced(windowBytes: number, mssBytes: number): number;
  /** All that it remembers, to be put back should a reduction turn out to have been for nothing. */
  keep(): () => void;
}

export type CongestionName = "cubic" | "newreno";

function algorithmOf(name: CongestionName): CongestionAlgorithm {
  return name === "cubic" ? new Cubic() : new NewReno();
}

interface Before {
  readonly windowBytes: number;
  readonly thresholdBytes: number;
  restore(): void;
}

export class Congestion {
  #windowBytes: number;
  #thresholdBytes = Number.POSITIVE_INFINITY;
  readonly #maxBytes: number;
  #mssBytes: number;
  readonly #algorithm: CongestionAlgorithm;
  /** Of the first slow start. */
  #hystart: HyStart | undefined = new HyStart();
  #grewMs = -1;
  /** PRR: what has arrived and gone since the recovery began, and what was in flight then. */
  #deliveredBytes = 0;
  #sentBytes = 0;
  #flightBytes = 0;
  #before: Before | undefined;

  /** `maxBytes`: a larger window could never be filled. */
  constructor(mssBytes: number, maxBytes: number, name: CongestionName = "cubic") {
    this.#mssBytes = mssBytes;
    this.#maxBytes = maxBytes;
    this.#windowBytes = initialWindow(mssBytes);
    this.#algorithm = algorithmOf(name);
  }

  get windowBytes(): number {
    return this.#windowBytes;
  }

  get thresholdBytes(): number {
    return this.#thresholdBytes;
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

  /** Nothing was sent for longer than the retransmission timeout. */
  afterIdle(nowMs: number): void {
    if (this.#grewMs >= 0) this.#algorithm.idled(nowMs - this.#grewMs);
    this.#grewMs = nowMs;
    this.#windowBytes = Math.min(this.#windowBytes, initialWindow(this.#mssBytes));
  }

  /**
   * So much was acknowledged outside of a recovery. `isLimit`: the window is what kept more from being sent; else it
   * doesn't grow (RFC 7661 §4.3). `una`, `next`: sequence numbers, for rounds. `sampleMs`: −1 without a sample.
   */
  acknowledged(
    nowMs: number,
    ackedBytes: number,
    isLimit: boolean,
    una: number,
    next: number,
    sampleMs: number,
    smoothedMs: number,
  ): void {
    const sinceMs = this.#grewMs < 0 ? 0 : nowMs - this.#grewMs;
    this.#grewMs = nowMs;
    const isSlowStart = this.#windowBytes < this.#thresholdBytes;
    if (isSlowStart && this.#hystart !== undefined) this.#hystart.acknowledged(una, next, sampleMs);
    if (!isLimit || isSlowStart) this.#algorithm.idled(sinceMs);
    if (!isLimit || ackedBytes === 0) return;
    if (isSlowStart) this.#growSlowly(ackedBytes);
    else {
      this.#windowBytes += this.#algorithm.growth(nowMs, this.#windowBytes, ackedBytes, smoothedMs, this.#mssBytes);
    }
    this.#windowBytes = Math.min(this.#windowBytes, this.#maxBytes);
  }

  /** Which is by as much as arrives. */
  #growSlowly(ackedBytes: number): void {
    const growth = Math.min(ackedBytes, ACKED_SEGMENTS_MAX * this.#mssBytes);
    this.#windowBytes += growth / (this.#hystart?.divisor ?? 1);
    if (this.#hystart?.isOver) {
      this.#thresholdBytes = this.#windowBytes;
      this.#hystart = undefined;
    } else if (this.#windowBytes > this.#thresholdBytes) this.#windowBytes = this.#thresholdBytes;
  }

  /** Segments were lost: a recovery begins. `outstandingBytes`: sent and not acknowledged, lost ones too. */
  recoveryBegins(outstandingBytes: number, sackedBytes: number): void {
    this.#reduce(outstandingBytes);
    this.#flightBytes = Math.max(outstandingBytes - sackedBytes, this.#mssBytes);
    this.#deliveredBytes = 0;
    this.#sentBytes = 0;
  }

  #reduce(outstandingBytes: number): void {
    this.#before ??= {
      windowBytes: this.#windowBytes,
      thresholdBytes: this.#thresholdBytes,
      restore: this.#algorithm.keep(),
    };
    const usedBytes = Math.min(this.#windowBytes, Math.max(outstandingBytes, this.#mssBytes));
    this.#thresholdBytes = Math.max(this.#algorithm.reduced(usedBytes, this.#mssBytes), 2 * this.#mssBytes);
    this.#hystart = undefined;
  }

  /** RFC 9937 §6: an acknowledgment in a recovery. `isSafe`: it moved UNA and told of no further loss. */
  recovers(newlyDeliveredBytes: number, pipeBytes: number, isSafe: boolean): void {
    this.#deliveredBytes += newlyDeliveredBytes;
    const threshold = this.#thresholdBytes;
    let bytes: number;
    if (pipeBytes > threshold) {
      bytes = Math.ceil((this.#deliveredBytes * threshold) / this.#flightBytes) - this.#sentBytes;
    } else {
      bytes = Math.max(this.#deliveredBytes - this.#sentBytes, newlyDeliveredBytes) + (isSafe ? this.#mssBytes : 0);
      bytes = Math.min(threshold - pipeBytes, bytes);
    }
    if (this.#sentBytes === 0) bytes = Math.max(bytes, this.#mssBytes); // the fast retransmit itself
    this.#windowBytes = Math.max(pipeBytes + Math.max(bytes, 0), this.#mssBytes);
  }

  /** Anything, while it recovers. */
  sent(bytes: number): void {
    this.#sentBytes += bytes;
  }

  recoveryEnds(): void {
    this.#windowBytes = Math.min(this.#thresholdBytes, this.#maxBytes);
    this.#before = undefined;
  }

  /** One loss that was mended as it was found (RFC 8985 §7.4.2). */
  reduceOnce(outstandingBytes: number): void {
    this.#reduce(outstandingBytes);
    this.recoveryEnds();
  }

  /** The retransmission timer fired. `isFirst`: not yet for this segment. `pipeBytes`: what may still be on its way. */
  timedOut(outstandingBytes: number, pipeBytes: number, isFirst: boolean): void {
    if (isFirst) this.#reduce(outstandingBytes);
    this.#windowBytes = pipeBytes + this.#mssBytes;
  }

  /** After a timeout all is well again. */
  timeoutEnds(): void {
    this.#before = undefined;
  }

  /** What seemed lost was late (RFC 4015): as if nothing had been. */
  undo(): void {
    if (this.#before === undefined) return;
    this.#windowBytes = Math.max(this.#windowBytes, this.#before.windowBytes);
    this.#thresholdBytes = this.#before.thresholdBytes;
    this.#before.restore();
    this.#before = undefined;
  }
}

function initialWindow(mssBytes: number): number {
  return Math.min(INITIAL_SEGMENTS * mssBytes, Math.max(2 * mssBytes, INITIAL_MAX_BYTES)); // RFC 6928 (1)
}
