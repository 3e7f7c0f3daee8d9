// The sending half of a connection: what is outstanding, what may go, and when to try again. RFC 9293 §3.8.1
// (retransmission), §3.8.6 (zero windows and silly windows), RFC 6298 (timer); what is lost is loss-recovery.ts's to
// say. Nagle's delay is off: this carries other programs' traffic, and they have made that choice already. UNA ≤ NEXT ≤
// MAX: what a probe of a closed window tries lies between NEXT and MAX.
import { TCP_RETRANSMIT_MAX_MS, TCP_SEGMENTS_OUTSTANDING_MAX } from "../../base/limits.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH } from "../../wire/packet.ts";
import type { CongestionName } from "./congestion.ts";
import { LossRecovery } from "./loss-recovery.ts";
import { RTO_MAX_MS, type RttEstimator } from "./rtt.ts";
import type { Segment } from "./segment.ts";
import { type ChunkPool, SendBuffer } from "./send-buffer.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDifference } from "./sequence.ts";
import type { Timestamps } from "./timestamps.ts";

/** The connection: it adds acknowledgment and window. */
export interface SegmentSink {
  sendData(nowMs: number, sequence: number, flags: number, offset: number, dataBytes: number): void;
  /** Our FIN went out for the first time. */
  finSent(): void;
  /** A segment goes again. */
  resent(): void;
  /** Segments are shorter from now on: long ones vanish on this path. */
  shortened(): void;
}

export interface SenderOptions {
  readonly chunks: ChunkPool;
  /** Of the buffer: at first, and where a fast and long path needs it. */
  readonly bufferBytes: number;
  readonly bufferMaxBytes: number;
  readonly initialSequence: number;
  readonly mssBytes: number;
  readonly timestamps: Timestamps;
  readonly congestion: CongestionName;
}

/** Below it even the smallest buffer carries a gigabyte a second, and a larger one but leaves the caches. */
const LONG_RTT_MS = 1;
/** So many timeouts running, with nothing acknowledged, as Linux: some 3 s of silence on a short path. */
const BLACK_HOLE_TIMEOUTS = 4;
const NEVER = Number.POSITIVE_INFINITY;

export class Sender {
  readonly #sink: SegmentSink;
  readonly buffer: SendBuffer;
  readonly recovery: LossRecovery;
  readonly initialSequence: number;
  una: number;
  next: number;
  max: number;
  /** SND.WND, scaled. */
  windowBytes = 0;
  /** The largest ever offered (MAX.SND.WND). */
  windowMaxBytes = 0;
  windowShift = 0;
  #windowSequence = 0;
  #windowAcknowledgment = 0;
  mssBytes: number;
  /** What to fall back to where long segments vanish without a word, the longest first. */
  shorterMssBytes: readonly number[] = [];
  /** Since the last new acknowledgment, of a segment that could be shorter. */
  #vainTimeouts = 0;
  /** Our SYN has been acknowledged. */
  isOpen = false;
  finQueued = false;
  #finSent = false;
  /** The sequence number behind our FIN, once it was sent. */
  #finEnd = 0;

  #retransmitAtMs = NEVER;
  #probeAtMs = NEVER;
  persistAtMs = NEVER;
  #persistBackoffs = 0;
  #persistSinceMs = 0;
  /** Since when the oldest outstanding byte waits. */
  #unansweredSinceMs = 0;
  /** When the remote end last said anything valid. */
  heardMs = 0;
  #lastSentMs = 0;
  /** The congestion window kept something back since the last acknowledgment. */
  #isLimited = false;

  constructor(sink: SegmentSink, options: SenderOptions) {
    const { initialSequence, mssBytes, bufferMaxBytes } = options;
    this.#sink = sink;
    this.buffer = new SendBuffer(options.chunks, options.bufferBytes, bufferMaxBytes);
    this.initialSequence = initialSequence;
    this.una = initialSequence;
    this.next = initialSequence;
    this.max = initialSequence;
    this.mssBytes = mssBytes;
    this.recovery = new LossRecovery(initialSequence, mssBytes, bufferMaxBytes, options.timestamps, options.congestion);
  }

  get rtt(): RttEstimator {
    return this.recovery.rtt;
  }

  get outstandingBytes(): number {
    return sequenceDifference(this.max, this.una);
  }

  /**
   * Of a segment without data: behind everything that was ever sent, but not behind the window if the remote end drew
   * it back, as Linux does when its memory runs short: it would refuse the acknowledgment too (RFC 9293 §3.10.7.4). A
   * window that looks smaller by the rounding of its scale has not been drawn back.
   */
  get acceptableSequence(): number {
    const { windowBytes } = this;
    const beyondBytes = this.outstandingBytes - windowBytes;
    const isDrawnBack = windowBytes === 0 || beyondBytes >= 1 << this.windowShift;
    return beyondBytes > 0 && isDrawnBack ? sequenceAdd(this.una, windowBytes) : this.max;
  }

  /** True once the remote end has everything, FIN included. */
  get finAcknowledged(): boolean {
    return this.#finSent && this.una === this.#finEnd;
  }

  /** Our SYN went out (again). */
  synSent(nowMs: number): void {
    const end = sequenceAdd(this.initialSequence, 1);
    if (this.max === this.initialSequence) {
      this.next = end;
      this.max = end;
      this.recovery.sent(nowMs, end, 1);
      this.#unansweredSinceMs = nowMs;
      this.heardMs = nowMs;
    } else this.recovery.resent(nowMs, 0, 1);
    this.#retransmitAtMs = nowMs + this.rtt.timeoutMs;
  }

  /** The SYN's answer decided on the segment size, options left aside. */
  setMss(mssBytes: number): void {
    this.mssBytes = mssBytes;
    this.recovery.mssBytes = mssBytes;
    this.recovery.congestion.setMss(mssBytes, !this.isOpen);
  }

  /** SND.WND := SEG.WND if the segment is newer than the last that said so (RFC 9293 §3.10.7.4, step 5). */
  updateWindow(sequence: number, acknowledgment: number, windowField: number, shift: number): boolean {
    const newer =
      sequenceBefore(this.#windowSequence, sequence) ||
      (this.#windowSequence === sequence && !sequenceAfter(this.#windowAcknowledgment, acknowledgment));
    if (!newer) return false;
    return this.setWindow(sequence, acknowledgment, windowField, shift);
  }

  /** Unconditionally: the first window. True when it changed. */
  setWindow(sequence: number, acknowledgment: number, windowField: number, shift: number): boolean {
    this.#windowSequence = sequence;
    this.#windowAcknowledgment = acknowledgment;
    const windowBytes = windowField << shift;
    const changed = windowBytes !== this.windowBytes;
    this.windowBytes = windowBytes;
    if (windowBytes > this.windowMaxBytes) this.windowMaxBytes = windowBytes;
    if (windowBytes > 0 && this.persistAtMs !== NEVER) {
      this.persistAtMs = NEVER;
      this.#persistBackoffs = 0;
    }
    return changed;
  }

  /** Our SYN, and nothing else, is acknowledged. */
  opened(nowMs: number, segment: Segment): void {
    const { recovery } = this;
    const wasRepeated = recovery.rtt.backoffs > 0;
    this.isOpen = true;
    this.#acknowledged(nowMs, segment, false);
    if (!wasRepeated) return;
    recovery.rtt.afterSynLoss();
    recovery.congestion.afterSynLoss();
  }

  /**
   * UNA ≤ ack ≤ MAX: releases what it covers and restarts the clock. `isRepeat`: it says the same again while data is
   * outstanding (RFC 5681 §2).
   */
  acknowledged(nowMs: number, segment: Segment, isRepeat: boolean): void {
    this.#acknowledged(nowMs, segment, isRepeat);
    if (this.rtt.smoothedMs >= LONG_RTT_MS) this.buffer.grow(2 * this.recovery.congestion.windowBytes);
  }

  #acknowledged(nowMs: number, segment: Segment, isRepeat: boolean): void {
    const { acknowledgment } = segment;
    const una = this.una;
    const isNew = sequenceAfter(acknowledgment, una);
    if (!isNew && this.next === una && !this.recovery.hasProbe) return;
    if (isNew) {
      const syn = una === this.initialSequence ? 1 : 0;
      const dataBytes = Math.min(sequenceDifference(acknowledgment, una) - syn, this.buffer.sizeBytes); // the rest: FIN
      if (dataBytes > 0) this.buffer.release(dataBytes);
      this.#unansweredSinceMs = nowMs;
      this.#vainTimeouts = 0;
      this.#retransmitAtMs = NEVER; // set again in settle, with the new RTO
      this.#probeAtMs = NEVER;
      this.una = acknowledgment;
      if (sequenceBefore(this.next, acknowledgment)) this.next = acknowledgment;
    }
    this.recovery.acknowledged(nowMs, segment, una, this.next, isRepeat, this.#isLimited);
    this.#isLimited = false;
  }

  write(nowMs: number, bytes: Uint8Array): number {
    const { recovery } = this;
    if (this.buffer.sizeBytes === 0 && nowMs - this.#lastSentMs > this.rtt.timeoutMs)
      recovery.congestion.afterIdle(nowMs);
    return this.buffer.append(bytes);
  }

  /** Sends all that the windows let go: what was lost first. */
  transmit(nowMs: number): void {
    if (!this.isOpen) return;
    if (!this.#resendLost(nowMs)) return;
    const { scoreboard } = this.recovery;
    while (scoreboard.segments < TCP_SEGMENTS_OUTSTANDING_MAX) {
      if (this.#finSent && this.next === this.#finEnd) return;
      const offset = sequenceDifference(this.next, this.una);
      const availableBytes = this.buffer.sizeBytes - offset;
      const roomBytes = this.recovery.roomBytes;
      const bytes = Math.max(0, Math.min(availableBytes, this.windowBytes - offset, roomBytes, this.mssBytes));
      const isLast = bytes === availableBytes;
      if (!isLast && roomBytes < Math.min(this.mssBytes, this.windowBytes - offset)) this.#isLimited = true;
      const fin = this.finQueued && isLast && this.windowBytes - offset > bytes;
      if (bytes === 0 && !fin) return;
      // The sender's silly window (§3.8.6.2.1): a part goes only as a whole segment or half the largest window.
      if (!isLast && bytes < this.mssBytes && bytes < this.windowMaxBytes / 2) return;
      this.#sendNew(nowMs, offset, bytes, fin);
    }
  }

  #sendNew(nowMs: number, offset: number, bytes: number, fin: boolean): void {
    const end = sequenceAdd(this.next, bytes + (fin ? 1 : 0));
    if (this.una === this.next) this.#unansweredSinceMs = nowMs;
    this.#sendAt(nowMs, this.next, offset, bytes, fin);
    this.next = end;
    if (sequenceAfter(end, this.max)) this.max = end;
    this.recovery.sent(nowMs, end, bytes);
    this.#probeAtMs = NEVER;
  }

  #sendAt(nowMs: number, sequence: number, offset: number, bytes: number, fin: boolean): void {
    const push = bytes > 0 && offset + bytes === this.buffer.sizeBytes;
    this.#lastSentMs = nowMs;
    if (fin && !this.#finSent) {
      this.#finSent = true;
      this.#finEnd = sequenceAdd(sequence, bytes + 1);
      this.#sink.finSent();
    }
    this.#sink.sendData(nowMs, sequence, TCP_ACK | (push ? TCP_PSH : 0) | (fin ? TCP_FIN : 0), offset, bytes);
  }

  /** False: the windows let no more go. */
  #resendLost(nowMs: number): boolean {
    const { scoreboard } = this.recovery;
    for (let index = scoreboard.nextLost(); index >= 0; index = scoreboard.nextLost()) {
      const bytes = this.#fitting(index);
      if (bytes === 0) return false;
      if (Math.min(bytes, this.mssBytes) > this.recovery.roomBytes) {
        this.#isLimited = true;
        return false;
      }
      this.#resend(nowMs, index, bytes);
    }
    return true;
  }

  /**
   * How much of this segment the other end's window lets through, in sequence numbers: all of it or nothing, but of the
   * first one a part, for it must arrive.
   */
  #fitting(index: number): number {
    const { scoreboard } = this.recovery;
    const start = scoreboard.startOf(index);
    const length = sequenceDifference(scoreboard.endOf(index), start);
    const allowedBytes = this.windowBytes - sequenceDifference(start, this.una);
    if (length <= allowedBytes) return length;
    return index === 0 ? Math.max(allowedBytes, 0) : 0;
  }

  #resend(nowMs: number, index: number, sequenceBytes: number): void {
    const { scoreboard } = this.recovery;
    const start = scoreboard.startOf(index);
    const fin = this.#finSent && sequenceAdd(start, sequenceBytes) === this.#finEnd;
    this.#sink.resent();
    this.#sendAt(nowMs, start, sequenceDifference(start, this.una), sequenceBytes - (fin ? 1 : 0), fin);
    this.recovery.resent(nowMs, index, sequenceBytes);
  }

  // --- Timers ------------------------------------------------------------------------------------

  /** The next of retransmission, loss by time, tail loss probe and persistence. */
  get deadlineMs(): number {
    return Math.min(this.#retransmitAtMs, this.recovery.rack.judgeAtMs, this.#probeAtMs, this.persistAtMs);
  }

  /** Before the SYN's acknowledgment the retransmission timer is the connection's to answer. */
  isRetransmissionDue(nowMs: number): boolean {
    return nowMs >= this.#retransmitAtMs;
  }

  /** What of an open connection is due. False: give it up. */
  runTimers(nowMs: number): boolean {
    if (nowMs >= this.#probeAtMs) this.#probeTail(nowMs); // which sets the other timer anew
    if (nowMs >= this.#retransmitAtMs) return this.#retransmissionTimeout(nowMs);
    if (nowMs >= this.persistAtMs && !this.#persistTimeout(nowMs)) return false;
    if (nowMs >= this.recovery.rack.judgeAtMs) this.recovery.judge(nowMs, this.una, this.next);
    return true;
  }

  #retransmissionTimeout(nowMs: number): boolean {
    if (nowMs - this.#unansweredSinceMs >= TCP_RETRANSMIT_MAX_MS) return false;
    this.recovery.timedOut(nowMs, this.una, this.next);
    this.#leaveBlackHole();
    this.#resendLost(nowMs);
    this.#probeAtMs = NEVER;
    this.#retransmitAtMs = nowMs + this.rtt.timeoutMs;
    return true;
  }

  /**
   * A router that drops what is too long, its ICMP filtered away, looks like this: small segments come through, and a
   * long one never does (RFC 4821 §7.7). So does a path that was cut for a while: it costs some of their length.
   */
  #leaveBlackHole(): void {
    const shorterBytes = this.shorterMssBytes.find((bytes) => bytes < this.mssBytes);
    const { scoreboard } = this.recovery;
    if (shorterBytes === undefined || sequenceDifference(scoreboard.endOf(0), this.una) <= shorterBytes) return;
    if (++this.#vainTimeouts < BLACK_HOLE_TIMEOUTS) return;
    this.#vainTimeouts = 0;
    this.setMss(shorterBytes);
    this.recovery.restart(this.next);
    this.#sink.shortened();
  }

  /** RFC 8985 §7.3: new data if there is some, else the last segment again; one beyond the congestion window. */
  #probeTail(nowMs: number): void {
    const { recovery } = this;
    this.#probeAtMs = NEVER;
    const offset = sequenceDifference(this.next, this.una);
    const usableBytes = Math.min(this.buffer.sizeBytes, this.windowBytes) - offset;
    const isNew = usableBytes > 0 && recovery.scoreboard.segments < TCP_SEGMENTS_OUTSTANDING_MAX;
    if (isNew) this.#sendNew(nowMs, offset, Math.min(usableBytes, this.mssBytes), false);
    else {
      const index = recovery.scoreboard.segments - 1;
      const bytes = this.#fitting(index);
      if (bytes > 0) this.#resend(nowMs, index, bytes);
    }
    recovery.probed(this.next, !isNew);
    this.#retransmitAtMs = nowMs + this.rtt.timeoutMs;
  }

  /**
   * The window is closed, or too small for sense: say something, so that a lost update can't stop us for ever. False:
   * give up.
   */
  #persistTimeout(nowMs: number): boolean {
    if (nowMs - Math.max(this.heardMs, this.#persistSinceMs) >= TCP_RETRANSMIT_MAX_MS) return false;
    this.#persistBackoffs++;
    this.persistAtMs = NEVER; // set again in settle
    if (this.windowBytes === 0) this.recovery.restart(this.next); // what was sent into it goes first once it opens
    const offset = this.windowBytes === 0 ? 0 : sequenceDifference(this.next, this.una);
    const availableBytes = this.buffer.sizeBytes - offset;
    const usableBytes = Math.max(1, this.windowBytes - offset); // one byte beyond a closed window: the probe
    const bytes = Math.min(availableBytes, usableBytes, this.mssBytes);
    const fin = this.finQueued && bytes === availableBytes;
    if (bytes < 0 || (bytes === 0 && !fin)) return true;
    if (this.windowBytes > offset) {
      this.#sendNew(nowMs, offset, bytes, fin);
      return true;
    }
    const from = sequenceAdd(this.una, offset);
    const end = sequenceAdd(from, bytes + (fin ? 1 : 0));
    this.#sendAt(nowMs, from, offset, bytes, fin);
    if (sequenceAfter(end, this.max)) this.max = end;
    return true;
  }

  /** Decides which timer runs; called at the end of every event. */
  settle(nowMs: number): void {
    if (this.next !== this.una && (this.windowBytes > 0 || !this.isOpen)) {
      this.persistAtMs = NEVER;
      if (this.#retransmitAtMs === NEVER) this.#retransmitAtMs = nowMs + this.rtt.timeoutMs;
      if (this.isOpen) this.#armProbe(nowMs);
      return;
    }
    this.#retransmitAtMs = NEVER;
    this.#probeAtMs = NEVER;
    const waiting = this.max !== this.una || this.buffer.sizeBytes > 0 || (this.finQueued && !this.#finSent);
    if (!waiting || !this.isOpen) this.persistAtMs = NEVER;
    else if (this.persistAtMs === NEVER) {
      if (this.#persistBackoffs === 0) this.#persistSinceMs = nowMs;
      this.persistAtMs = nowMs + Math.min(this.rtt.timeoutMs * 2 ** this.#persistBackoffs, RTO_MAX_MS);
    }
  }

  #armProbe(nowMs: number): void {
    const afterMs = this.recovery.probeAfterMs;
    if (afterMs === NEVER) this.#probeAtMs = NEVER;
    else if (this.#probeAtMs === NEVER) this.#probeAtMs = Math.min(nowMs + afterMs, this.#retransmitAtMs); // §7.2
  }

  /** The path carries less than thought: cut smaller and send again at once (RFC 1191 §6.5; no sign of congestion). */
  shrinkMss(nowMs: number, mssBytes: number): void {
    this.setMss(mssBytes);
    if (this.next === this.una || !this.isOpen) return;
    this.recovery.restart(this.next);
    this.transmit(nowMs);
  }

  /** A long silence: nothing larger than needed is kept. */
  releaseIdle(): void {
    this.recovery.scoreboard.releaseIdle();
  }
}
