// The receiving half of a connection: which bytes are taken, in what order they become readable, and when they are
// acknowledged. RFC 9293 §3.10.7.4 (steps seven and eight), §3.8.6.3 (delayed acknowledgments), RFC 5681 §4.2.
import { TCP_OUT_OF_ORDER_SEGMENTS_MAX } from "../../base/limits.ts";
import { KIB } from "../../base/units.ts";
import type { TcpOptions } from "../../wire/tcp.ts";
import type { TcpCounter } from "./host.ts";
import { ReceiveBuffer } from "./receive-buffer.ts";
import type { Segment } from "./segment.ts";
import { sequenceAdd, sequenceDifference } from "./sequence.ts";
import { ReceiveWindow, windowShiftFor } from "./window.ts";

export const DELAYED_ACK_MS = 40; // RFC 9293 §3.8.6.3: below 500
const SEGMENT_GUESS_BYTES = 88;
/** Each connection may hold this much even when all together hold too much: slow readers elsewhere stop nobody. */
const SHARE_MIN_BYTES = 16 * KIB;

/** What all receive buffers of a stack hold together. */
export class ReceiveMemory {
  readonly maxBytes: number;
  usedBytes = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }
}

export class Receiver {
  readonly #memory: ReceiveMemory;
  readonly #count: (what: TcpCounter) => void;
  readonly #ownMssBytes: number;
  readonly #ownShift: number;
  readonly #window: ReceiveWindow;
  readonly #buffer = new ReceiveBuffer(TCP_OUT_OF_ORDER_SEGMENTS_MAX);
  #heldBytes = 0;
  /** The shift that our SYN names; −1: none, since the remote end's SYN named none. */
  offeredShift: number;
  /** Where the remote end's stream ends, once known. */
  #finSequence: number | undefined;
  /** Its FIN has been taken, and so every byte before it. */
  isFinished = false;
  /** Something new for the user since `takeNews`. */
  #hasNews = false;
  /** An acknowledgment is owed at once. */
  ackNow = false;
  /** Reading has opened the window enough to say so. */
  updateWindow = false;
  ackAtMs = Number.POSITIVE_INFINITY;
  #unacknowledgedBytes = 0;
  #largestDataBytes = SEGMENT_GUESS_BYTES;

  constructor(memory: ReceiveMemory, count: (what: TcpCounter) => void, bufferBytes: number, ownMssBytes: number) {
    this.#memory = memory;
    this.#count = count;
    this.#ownMssBytes = ownMssBytes;
    this.#ownShift = windowShiftFor(bufferBytes);
    this.offeredShift = this.#ownShift;
    this.#window = new ReceiveWindow(bufferBytes);
  }

  /** RCV.NXT */
  get next(): number {
    return this.#window.next;
  }

  get readableBytes(): number {
    return this.#buffer.readableBytes;
  }

  /** The remote end's SYN. */
  start(sequence: number, options: TcpOptions): void {
    this.#window.start(sequenceAdd(sequence, 1));
    this.#window.advertise(0, true); // what our SYN said or will say
    this.offeredShift = options.windowScale >= 0 ? this.#ownShift : -1;
    if (options.windowScale >= 0) this.#window.shift = this.#ownShift;
  }

  isAcceptable(segment: Segment): boolean {
    return this.#window.isAcceptable(segment.sequence, segment.sequenceBytes);
  }

  /** The window field of the next segment, which also carries every acknowledgment owed. */
  advertise(isSyn: boolean): number {
    this.ackNow = false;
    this.updateWindow = false;
    this.ackAtMs = Number.POSITIVE_INFINITY;
    this.#unacknowledgedBytes = 0;
    return this.#window.advertise(this.#buffer.readableBytes, isSyn);
  }

  /** Step seven: the segment's text. */
  handleData(nowMs: number, segment: Segment): void {
    if (this.isFinished) return;
    const window = this.#window;
    let { sequence, dataAt, dataBytes } = segment;
    const skip = sequenceDifference(window.next, sequence);
    if (skip > 0) {
      if (skip >= dataBytes) {
        this.ackNow = true; // all of it again
        return;
      }
      sequence = window.next;
      dataAt += skip;
      dataBytes -= skip;
    }
    let room = window.bytes - sequenceDifference(sequence, window.next);
    if (this.#finSequence !== undefined) room = Math.min(room, sequenceDifference(this.#finSequence, sequence));
    if (dataBytes > room) {
      this.ackNow = true; // a probe of a closed window, or the remote end is wrong: tell it where we are
      dataBytes = Math.max(room, 0);
    }
    if (dataBytes === 0) return;
    const isFull = this.#memory.usedBytes + dataBytes > this.#memory.maxBytes;
    if (isFull && this.#heldBytes + dataBytes > SHARE_MIN_BYTES) {
      this.#count("TCP_RECEIVE_MEMORY_FULL");
      return; // as if lost
    }
    if (dataBytes > this.#largestDataBytes) this.#largestDataBytes = Math.min(dataBytes, this.#ownMssBytes);
    const { buffer } = segment;
    const hadGap = this.#buffer.earlyPieces > 0;
    if (sequence === window.next) {
      window.next = this.#buffer.appendNext(window.next, buffer, dataAt, dataBytes);
      this.#hasNews = true;
      this.#acknowledgeLater(nowMs, dataBytes);
    } else if (!this.#buffer.insertEarly(sequence, buffer, dataAt, dataBytes)) {
      this.#count("TCP_OUT_OF_ORDER_FULL");
    }
    // A duplicate acknowledgment tells the sender of a gap, the next that it is filled.
    if (hadGap || this.#buffer.earlyPieces > 0) this.ackNow = true;
    this.#account();
  }

  #acknowledgeLater(nowMs: number, newBytes: number): void {
    this.#unacknowledgedBytes += newBytes;
    if (this.#unacknowledgedBytes >= 2 * this.#largestDataBytes)
      this.ackNow = true; // every second segment
    else if (this.ackAtMs === Number.POSITIVE_INFINITY) this.ackAtMs = nowMs + DELAYED_ACK_MS;
  }

  /** Step eight: the segment carried a FIN. */
  noteFin(segment: Segment): void {
    if (this.isFinished) return;
    const at = sequenceAdd(segment.sequence, segment.dataBytes);
    const ahead = sequenceDifference(at, this.#window.next);
    if (ahead < 0 || ahead > this.#window.bytes) return;
    this.#finSequence ??= at;
    if (ahead > 0) this.ackNow = true;
  }

  /** True once, when all before the FIN has come. */
  takeFin(): boolean {
    if (this.isFinished || this.#finSequence !== this.#window.next) return false;
    this.#window.next = sequenceAdd(this.#window.next, 1);
    this.isFinished = true;
    this.ackNow = true;
    this.#hasNews = true;
    return true;
  }

  takeNews(): boolean {
    const had = this.#hasNews;
    this.#hasNews = false;
    return had;
  }

  read(maxBytes: number): Uint8Array | undefined {
    const bytes = this.#buffer.read(maxBytes);
    if (bytes === undefined) return undefined;
    this.#account();
    if (!this.isFinished && this.#window.shouldUpdate(this.#buffer.readableBytes, this.#ownMssBytes)) {
      this.updateWindow = true;
    }
    return bytes;
  }

  /** A long silence: nothing larger than needed is kept. */
  releaseIdle(): void {
    this.#buffer.releaseIdle();
  }

  clear(): void {
    this.#buffer.clear();
    this.#account();
  }

  #account(): void {
    const heldBytes = this.#buffer.readableBytes + this.#buffer.earlyBytes;
    this.#memory.usedBytes += heldBytes - this.#heldBytes;
    this.#heldBytes = heldBytes;
  }
}
