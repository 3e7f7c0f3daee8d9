// The sending half of a connection: what is outstanding, what may go, and when to try again. RFC 9293 §3.8.1
// (retransmission), §3.8.6 (zero windows and silly windows), RFC 5681 and 6582 (loss), RFC 6298 (timer). Nagle's delay
// is off: this carries other programs' traffic, and they have made that choice already. UNA ≤ NEXT ≤ MAX; after a
// timeout NEXT goes back, MAX stays.
import { TCP_RETRANSMIT_MAX_MS } from "../../base/limits.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH } from "../../wire/packet.ts";
import { Congestion } from "./congestion.ts";
import { RTO_MAX_MS, RttEstimator } from "./rtt.ts";
import { type ChunkPool, SendBuffer } from "./send-buffer.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDifference } from "./sequence.ts";

/** The connection: it adds acknowledgment and window. */
export interface SegmentSink {
  sendData(nowMs: number, sequence: number, flags: number, offset: number, dataBytes: number): void;
  /** Our FIN went out for the first time. */
  finSent(): void;
}

export class Sender {
  readonly #sink: SegmentSink;
  readonly buffer: SendBuffer;
  readonly rtt = new RttEstimator();
  readonly congestion: Congestion;
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
  /** Our SYN has been acknowledged. */
  isOpen = false;
  finQueued = false;
  #finSent = false;
  /** The sequence number behind our FIN, once it was sent. */
  #finEnd = 0;

  retransmitAtMs = Number.POSITIVE_INFINITY;
  persistAtMs = Number.POSITIVE_INFINITY;
  #persistBackoffs = 0;
  #persistSinceMs = 0;
  /** Since when the oldest outstanding byte waits. */
  #unansweredSinceMs = 0;
  /** When the remote end last said anything valid. */
  heardMs = 0;
  #timedSequence = 0;
  #timedAtMs = -1;
  #lastSentMs = 0;

  constructor(sink: SegmentSink, pool: ChunkPool, bufferBytes: number, initialSequence: number, mssBytes: number) {
    this.#sink = sink;
    this.buffer = new SendBuffer(pool, bufferBytes);
    this.initialSequence = initialSequence;
    this.una = initialSequence;
    this.next = initialSequence;
    this.max = initialSequence;
    this.mssBytes = mssBytes;
    this.congestion = new Congestion(mssBytes, initialSequence, bufferBytes);
  }

  get outstandingBytes(): number {
    return sequenceDifference(this.max, this.una);
  }

  /** True once the remote end has everything, FIN included. */
  get finAcknowledged(): boolean {
    return this.#finSent && this.una === this.#finEnd;
  }

  /** Our SYN went out (again). */
  synSent(nowMs: number): void {
    this.next = sequenceAdd(this.initialSequence, 1);
    if (this.max === this.initialSequence) {
      this.max = this.next;
      this.#unansweredSinceMs = nowMs;
      this.heardMs = nowMs;
      this.#timedSequence = this.next;
      this.#timedAtMs = nowMs;
    } else {
      this.#timedAtMs = -1; // Karn
    }
    this.retransmitAtMs = nowMs + this.rtt.timeoutMs;
  }

  /** The SYN's answer decided on the segment size. */
  setMss(mssBytes: number): void {
    this.mssBytes = mssBytes;
    this.congestion.setMss(mssBytes, !this.isOpen);
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
    if (windowBytes > 0 && this.persistAtMs !== Number.POSITIVE_INFINITY) {
      this.persistAtMs = Number.POSITIVE_INFINITY;
      this.#persistBackoffs = 0;
    }
    return changed;
  }

  /** UNA < ack ≤ MAX. Releases what it covers and restarts the clock. */
  acknowledged(nowMs: number, acknowledgment: number): void {
    const flightBytes = this.outstandingBytes;
    let ackedBytes = sequenceDifference(acknowledgment, this.una);
    const wasOpen = this.isOpen;
    if (!wasOpen) {
      this.isOpen = true;
      if (this.rtt.backoffs > 0) {
        this.rtt.afterSynLoss();
        this.congestion.afterSynLoss();
      }
      ackedBytes--; // the SYN
    }
    this.una = acknowledgment;
    if (sequenceBefore(this.next, acknowledgment)) this.next = acknowledgment;
    const dataBytes = Math.min(ackedBytes, this.buffer.sizeBytes); // the rest is the FIN
    if (dataBytes > 0) this.buffer.release(dataBytes);
    this.rtt.progress();
    if (this.#timedAtMs >= 0 && !sequenceBefore(acknowledgment, this.#timedSequence)) {
      this.rtt.sample(nowMs - this.#timedAtMs);
      this.#timedAtMs = -1;
    }
    this.#unansweredSinceMs = nowMs;
    this.retransmitAtMs = Number.POSITIVE_INFINITY; // set again in settle, with the new RTO
    if (wasOpen && this.congestion.acknowledged(acknowledgment, ackedBytes, flightBytes)) this.#resendFirst(nowMs);
  }

  /** An acknowledgment that says the same again while data is outstanding (RFC 5681 §2). */
  duplicateAcknowledgment(nowMs: number): void {
    if (this.congestion.duplicate(this.una, this.max)) this.#resendFirst(nowMs);
  }

  write(nowMs: number, bytes: Uint8Array): number {
    if (this.buffer.sizeBytes === 0 && nowMs - this.#lastSentMs > this.rtt.timeoutMs) this.congestion.afterIdle();
    return this.buffer.append(bytes);
  }

  /** Sends all that the windows let go. */
  transmit(nowMs: number): void {
    if (!this.isOpen) return;
    for (;;) {
      if (this.#finSent && this.next === this.#finEnd) return;
      const offset = sequenceDifference(this.next, this.una);
      const availableBytes = this.buffer.sizeBytes - offset;
      const congestionBytes = this.congestion.windowBytes + this.congestion.allowanceBytes;
      const usableBytes = Math.floor(Math.min(this.windowBytes, congestionBytes)) - offset;
      const bytes = Math.max(0, Math.min(availableBytes, usableBytes, this.mssBytes));
      const isLast = bytes === availableBytes;
      const fin = this.finQueued && isLast && this.windowBytes - offset > bytes;
      if (bytes === 0 && !fin) return;
      // The sender's silly window (§3.8.6.2.1): a part goes only as a whole segment or half the largest window.
      if (!isLast && bytes < this.mssBytes && bytes < this.windowMaxBytes / 2) return;
      this.#sendAt(nowMs, this.next, offset, bytes, fin);
      this.next = sequenceAdd(this.next, bytes + (fin ? 1 : 0));
      this.#advanceMax(nowMs);
    }
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

  #advanceMax(nowMs: number): void {
    if (!sequenceAfter(this.next, this.max)) return;
    if (this.una === this.max) this.#unansweredSinceMs = nowMs;
    this.max = this.next;
    if (this.#timedAtMs < 0) {
      this.#timedAtMs = nowMs;
      this.#timedSequence = this.next;
    }
  }

  /** The oldest segment, again; returns its length in sequence numbers. */
  #resendFirst(nowMs: number): number {
    this.#timedAtMs = -1; // Karn
    const allowedBytes = Math.max(this.windowBytes, 1);
    const sentBytes = this.outstandingBytes;
    const bytes = Math.min(this.mssBytes, this.buffer.sizeBytes, allowedBytes, sentBytes);
    const fin = this.#finSent && bytes === this.buffer.sizeBytes;
    if (bytes > 0 || fin) this.#sendAt(nowMs, this.una, 0, bytes, fin);
    return bytes + (fin ? 1 : 0);
  }

  /** False: give the connection up. */
  retransmissionTimeout(nowMs: number): boolean {
    if (nowMs - this.#unansweredSinceMs >= TCP_RETRANSMIT_MAX_MS) return false;
    this.congestion.timedOut(this.max, this.outstandingBytes, this.rtt.backoffs === 0);
    this.rtt.backOff();
    this.next = sequenceAdd(this.una, this.#resendFirst(nowMs));
    this.retransmitAtMs = nowMs + this.rtt.timeoutMs;
    return true;
  }

  /**
   * The window is closed, or too small for sense: say something, so that a lost update can't stop us for ever. False:
   * give up.
   */
  persistTimeout(nowMs: number): boolean {
    if (nowMs - Math.max(this.heardMs, this.#persistSinceMs) >= TCP_RETRANSMIT_MAX_MS) return false;
    this.#persistBackoffs++;
    this.persistAtMs = Number.POSITIVE_INFINITY; // set again in settle
    if (this.windowBytes === 0) this.next = this.una;
    const offset = sequenceDifference(this.next, this.una);
    const availableBytes = this.buffer.sizeBytes - offset;
    const usableBytes = Math.max(1, this.windowBytes - offset); // one byte beyond a closed window: the probe
    const bytes = Math.min(availableBytes, usableBytes, this.mssBytes);
    const fin = this.finQueued && bytes === availableBytes;
    if (bytes < 0 || (bytes === 0 && !fin)) return true;
    const end = sequenceAdd(this.next, bytes + (fin ? 1 : 0));
    this.#sendAt(nowMs, this.next, offset, bytes, fin);
    if (this.windowBytes > offset) this.next = end;
    if (sequenceAfter(end, this.max)) this.max = end;
    this.#timedAtMs = -1;
    return true;
  }

  /** Decides which timer runs; called at the end of every event. */
  settle(nowMs: number): void {
    const outstanding = this.max !== this.una;
    if (outstanding && (this.windowBytes > 0 || !this.isOpen)) {
      this.persistAtMs = Number.POSITIVE_INFINITY;
      if (this.retransmitAtMs === Number.POSITIVE_INFINITY) this.retransmitAtMs = nowMs + this.rtt.timeoutMs;
      return;
    }
    this.retransmitAtMs = Number.POSITIVE_INFINITY;
    const waiting = outstanding || this.buffer.sizeBytes > 0 || (this.finQueued && !this.#finSent);
    if (!waiting || !this.isOpen) this.persistAtMs = Number.POSITIVE_INFINITY;
    else if (this.persistAtMs === Number.POSITIVE_INFINITY) {
      if (this.#persistBackoffs === 0) this.#persistSinceMs = nowMs;
      this.persistAtMs = nowMs + Math.min(this.rtt.timeoutMs * 2 ** this.#persistBackoffs, RTO_MAX_MS);
    }
  }

  /** The path carries less than thought: cut smaller and send again at once (RFC 1191 §6.5; no sign of congestion). */
  shrinkMss(nowMs: number, mssBytes: number): void {
    this.setMss(mssBytes);
    if (this.max === this.una || !this.isOpen) return;
    this.next = this.una;
    this.#timedAtMs = -1;
    this.transmit(nowMs);
  }
}
