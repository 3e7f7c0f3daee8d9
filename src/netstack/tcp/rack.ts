// Which segments are lost, told by time: RACK of RFC 8985 §6. A segment is lost when one sent later has arrived and the
// time since leaves no doubt: a round trip and a part of another for packets that overtake each other. The scoreboard
// holds the segments, this the times. All in ms.
import { LeastRtt } from "./least-rtt.ts";
import type { DeliveryWitness, Scoreboard } from "./scoreboard.ts";
import { sequenceAfter, sequenceBefore } from "./sequence.ts";

export const DUPLICATE_ACKS_MAX = 3; // DupThresh
const REORDER_PERSIST = 16; // recoveries (§6.2, step 4)
const TIMESTAMPS_TICK_MS = 1;

export class Rack implements DeliveryWitness {
  readonly #least = new LeastRtt();
  #nowMs = 0;
  /** What this acknowledgment answers was sent then; −1: it doesn't say. */
  #echoedMs = -1;
  /** RACK.xmit_ts and RACK.end_seq: the one sent last of all that have arrived. */
  #sentMs = -1;
  #end: number;
  /** RACK.rtt */
  #rttMs = 0;
  /** RACK.fack: the highest that has arrived. */
  #highest: number;
  #hasReordered = false;
  #reorderParts = 1;
  #reorderPersist = 0;
  /** RACK.dsack_round */
  #roundEnd: number | undefined;
  /** When what is not lost yet would be. */
  judgeAtMs = Number.POSITIVE_INFINITY;
  /** Round trip of a segment that this acknowledgment named and that was sent once; −1: of none. The newest of them. */
  rttSampleMs = -1;

  constructor(initialSequence: number) {
    this.#end = initialSequence;
    this.#highest = initialSequence;
  }

  /** An acknowledgment came; its deliveries follow. `elapsedMs`: how old what it echoes is, −1 when it doesn't say. */
  begin(nowMs: number, elapsedMs: number): void {
    this.#nowMs = nowMs;
    this.#echoedMs = elapsedMs < 0 ? -1 : nowMs - elapsedMs;
    this.rttSampleMs = -1;
  }

  /** Steps 1 to 3 for one segment. */
  delivered(sentMs: number, end: number, wasResent: boolean): void {
    if (sequenceAfter(end, this.#highest)) this.#highest = end;
    else if (!wasResent && sequenceBefore(end, this.#highest)) this.#hasReordered = true;
    const rttMs = this.#nowMs - sentMs;
    if (!wasResent) {
      this.#least.sample(this.#nowMs, rttMs);
      this.rttSampleMs = this.rttSampleMs < 0 ? rttMs : Math.min(this.rttSampleMs, rttMs);
    } else if (this.#isOfEarlierCopy(sentMs, rttMs)) return;
    if (sentMs > this.#sentMs || (sentMs === this.#sentMs && sequenceAfter(end, this.#end))) {
      this.#sentMs = sentMs;
      this.#end = end;
      this.#rttMs = rttMs;
    }
  }

  /** Step 2: what it echoes is older than the copy sent last, or there was no time for that one. */
  #isOfEarlierCopy(sentMs: number, rttMs: number): boolean {
    return rttMs < this.#least.ms || (this.#echoedMs >= 0 && this.#echoedMs + TIMESTAMPS_TICK_MS < sentMs);
  }

  /** A loss that was none: packets overtake each other here. */
  reordered(): void {
    this.#hasReordered = true;
  }

  /**
   * Step 4, the first half: the other end had a segment twice (RFC 2883): it was not lost but late, and next time more
   * patience is due. Once a round trip.
   */
  duplicateArrived(una: number, next: number): void {
    if (this.#isWithinRound(una)) return;
    this.#roundEnd = next;
    this.#reorderParts++;
    this.#reorderPersist = REORDER_PERSIST;
  }

  /** RACK.dsack_round is not over yet. */
  #isWithinRound(una: number): boolean {
    if (this.#roundEnd === undefined) return false;
    if (sequenceBefore(una, this.#roundEnd)) return true;
    this.#roundEnd = undefined;
    return false;
  }

  /** Step 4, the second half: a recovery has ended. */
  recovered(): void {
    if (--this.#reorderPersist <= 0) this.#reorderParts = 1;
  }

  /** Step 5: marks what is lost. */
  judge(nowMs: number, scoreboard: Scoreboard, isRecovering: boolean, smoothedRttMs: number): void {
    this.judgeAtMs = Number.POSITIVE_INFINITY;
    if (this.#sentMs < 0) return;
    const reorderMs = this.#reorderWindowMs(scoreboard, isRecovering, smoothedRttMs);
    this.judgeAtMs = scoreboard.judge(nowMs, this.#sentMs, this.#end, this.#rttMs + reorderMs);
  }

  /** At a timeout (§6.3): all that was sent longer than a round trip ago. */
  judgeAll(nowMs: number, scoreboard: Scoreboard): void {
    this.judgeAtMs = Number.POSITIVE_INFINITY;
    const reorderMs = this.#reorderWindowMs(scoreboard, true, this.#rttMs);
    scoreboard.judge(nowMs, Number.POSITIVE_INFINITY, 0, this.#rttMs + reorderMs);
  }

  /** RACK_update_reo_wnd: none where three segments behind a gap, or a recovery, speak for a loss. */
  #reorderWindowMs(scoreboard: Scoreboard, isRecovering: boolean, smoothedRttMs: number): number {
    if (!this.#hasReordered && (isRecovering || scoreboard.sackedSegments >= DUPLICATE_ACKS_MAX)) return 0;
    return Math.min((this.#reorderParts * this.#least.ms) / 4, Math.max(smoothedRttMs, 0));
  }
}
