// The receive window: which segments are acceptable and how much more may be sent. RFC 9293 §3.8.6, RFC 7323 §2. What
// was once promised stays accepted; the field itself rounds down, so a scaled window may look up to 2^shift − 1 bytes
// smaller than promised.
import { sequenceAdd, sequenceDifference } from "./sequence.ts";

/** The smallest shift under which the buffer's size can be said in 16 bits. */
export function windowShiftFor(bufferBytes: number): number {
  let shift = 0;
  while (shift < 14 && 65_535 * 2 ** shift < bufferBytes) shift++;
  return shift;
}

export class ReceiveWindow {
  #bufferBytes: number;
  /** RCV.NXT */
  next = 0;
  /** RCV.NXT + RCV.WND: the right edge that was promised. */
  #edge = 0;
  /** 0 until both ends have agreed to scale. */
  shift = 0;

  constructor(bufferBytes: number) {
    this.#bufferBytes = bufferBytes;
  }

  /** The remote end's SYN has been seen; nothing is promised yet. */
  start(next: number): void {
    this.next = next;
    this.#edge = next;
  }

  get bufferBytes(): number {
    return this.#bufferBytes;
  }

  /** The next advertisement offers more. */
  grow(bufferBytes: number): void {
    this.#bufferBytes = Math.max(this.#bufferBytes, bufferBytes);
  }

  /** RCV.WND */
  get bytes(): number {
    return sequenceDifference(this.#edge, this.next);
  }

  /**
   * RFC 9293 §3.10.7.4, table 6, but a segment at RCV.NXT counts also for a closed window: its acknowledgment must be
   * read (§3.8.6). For the same reason one without data counts at the right edge, where the remote end stands that has
   * sent all it may; if what came first was lost, it stays there until that has come again.
   */
  isAcceptable(sequence: number, sequenceBytes: number): boolean {
    const from = sequenceDifference(sequence, this.next);
    if (from === 0) return true;
    if (sequenceBytes === 0) return from > 0 && from <= this.bytes;
    return from < this.bytes && from + sequenceBytes > 0;
  }

  /** The field of the next segment, by the bytes now held; what it says is promised. SYNs are never scaled. */
  advertise(heldBytes: number, isSyn: boolean): number {
    const room = Math.max(this.#bufferBytes - heldBytes, 0);
    const wanted = Math.max(room, this.bytes);
    const shift = isSyn ? 0 : this.shift;
    const field = Math.min(wanted >>> shift, 65_535);
    const edge = sequenceAdd(this.next, field << shift);
    if (sequenceDifference(edge, this.#edge) > 0) this.#edge = edge;
    return field;
  }

  /**
   * Whether reading has opened the window enough to say so at once, without waiting for a segment to go: half the
   * buffer, or two segments once the remote end is about to stop. Less would be the receiver's silly window (RFC 9293
   * §3.8.6.2.2).
   */
  shouldUpdate(heldBytes: number, mssBytes: number): boolean {
    const growth = Math.min(this.#bufferBytes - heldBytes, 65_535 << this.shift) - this.bytes;
    if (growth >= this.#bufferBytes / 2) return true;
    return this.bytes < 2 * mssBytes && growth >= Math.min(2 * mssBytes, this.#bufferBytes / 2);
  }
}
