// The receiving half of a connection: which bytes are taken, in what order they become readable, and when they are
// acknowledged. RFC 9293 §3.10.7.4 (steps seven and eight), §3.8.6.3 (delayed acknowledgments), RFC 5681 §4.2. What
// came behind a gap, and what came twice, is named to the sender: RFC 2018 §4, RFC 2883 §4.
import { TCP_OUT_OF_ORDER_RANGES_MAX, TCP_OUT_OF_ORDER_SEGMENTS_MAX } from "../../base/limits.ts";
import { KIB } from "../../base/units.ts";
import { SACK_BLOCKS_MAX, type TcpOptions } from "../../wire/tcp.ts";
import { EARLY_PIECE_OVERHEAD_BYTES } from "./early-ranges.ts";
import type { TcpCounter } from "./host.ts";
import { ReceiveBuffer } from "./receive-buffer.ts";
import { RightSizing } from "./right-sizing.ts";
import type { Segment } from "./segment.ts";
import { sequenceAdd, sequenceDifference } from "./sequence.ts";
import { ReceiveWindow, windowShiftFor } from "./window.ts";

/** Of those that come in one burst; by as much a sender in slow start lets its window grow at once, if not by less. */
const STRETCH_SEGMENTS_MAX = 8;
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

export interface ReceiverOptions {
  readonly memory: ReceiveMemory;
  count(what: TcpCounter): void;
  /** Of the buffer: at first, and where a fast and long path needs it. */
  readonly bufferBytes: number;
  readonly bufferMaxBytes: number;
  readonly ownMssBytes: number;
}

export class Receiver {
  readonly #memory: ReceiveMemory;
  readonly #count: (what: TcpCounter) => void;
  readonly #ownMssBytes: number;
  readonly #ownShift: number;
  readonly #window: ReceiveWindow;
  readonly #buffer = new ReceiveBuffer(TCP_OUT_OF_ORDER_SEGMENTS_MAX, TCP_OUT_OF_ORDER_RANGES_MAX);
  readonly #sizing: RightSizing;
  #heldBytes = 0;
  /** Of the stream, in order. */
  #takenBytes = 0;
  /** The shift that our SYN names; −1: none, since the remote end's SYN named none. */
  offeredShift: number;
  /** Where the remote end's stream ends, once known. */
  #finSequence: number | undefined;
  /** Its FIN has been taken, and so every byte before it. */
  isFinished = false;
  #hasNews = false;
  /** An acknowledgment is owed at once. */
  ackNow = false;
  /** One is owed, of segments in order alone: more of them may come before it goes. */
  ackSoon = false;
  /** Reading has opened the window enough to say so. */
  updateWindow = false;
  ackAtMs = Number.POSITIVE_INFINITY;
  #unacknowledgedBytes = 0;
  #largestDataBytes = SEGMENT_GUESS_BYTES;
  /** Both SYNs permitted selective acknowledgments. */
  usesSack = false;
  /** What came twice and was not yet named: from `#duplicateLeft` on. */
  #duplicateLeft = 0;
  #duplicateBytes = 0;

  constructor(options: ReceiverOptions) {
    const { bufferBytes, bufferMaxBytes } = options;
    this.#memory = options.memory;
    this.#count = options.count;
    this.#ownMssBytes = options.ownMssBytes;
    this.#ownShift = windowShiftFor(bufferMaxBytes);
    this.offeredShift = this.#ownShift;
    this.#window = new ReceiveWindow(bufferBytes);
    this.#sizing = new RightSizing(bufferMaxBytes);
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

  /**
   * The window field of the next segment, which also carries every acknowledgment owed; but only one without data
   * (`isMere`) has room for selective ones, so that it stays owed where there is something to name.
   */
  advertise(isSyn: boolean, isMere: boolean): number {
    if (isMere || !this.#hasToName) {
      this.ackNow = false;
      this.ackSoon = false;
    }
    this.updateWindow = false;
    this.ackAtMs = Number.POSITIVE_INFINITY;
    this.#unacknowledgedBytes = 0;
    return this.#window.advertise(this.#buffer.readableBytes, isSyn);
  }

  get #hasToName(): boolean {
    return this.usesSack && (this.#duplicateBytes > 0 || this.#buffer.early.size > 0);
  }

  /** The blocks of the next mere acknowledgment: pairs of edges. Returns how many. What came twice is named once. */
  nameBlocks(edges: Uint32Array, hasTimestamps: boolean): number {
    if (!this.#hasToName) return 0;
    const max = hasTimestamps ? SACK_BLOCKS_MAX - 1 : SACK_BLOCKS_MAX; // RFC 2018 §3
    let blocks = 0;
    if (this.#duplicateBytes > 0) {
      edges[0] = this.#duplicateLeft;
      edges[1] = sequenceAdd(this.#duplicateLeft, this.#duplicateBytes);
      this.#duplicateBytes = 0;
      blocks = 1;
    }
    return this.#buffer.early.name(edges, blocks, max);
  }

  /** These bytes came again (RFC 2883 §4); not if they are from before the stream's beginning. */
  #noteDuplicate(left: number, bytes: number): void {
    if (!this.usesSack || bytes <= 0) return;
    if (sequenceDifference(this.next, left) > this.#takenBytes + (this.isFinished ? 1 : 0)) return;
    this.#duplicateLeft = left;
    this.#duplicateBytes = bytes;
    this.ackNow = true;
  }

  /** A segment that isn't acceptable: if it is from before the window, all of it has come already. */
  noteOld(segment: Segment): void {
    const { sequence, dataBytes } = segment;
    if (sequenceDifference(this.next, sequence) >= dataBytes) this.#noteDuplicate(sequence, dataBytes);
  }

  /** Step seven: the segment's text. `elapsedMs`: how old what it echoes is, −1 when it doesn't say. */
  handleData(nowMs: number, segment: Segment, elapsedMs: number): void {
    if (elapsedMs >= 0) this.#sizing.sample(nowMs, elapsedMs);
    if (this.isFinished) return;
    const window = this.#window;
    let { sequence, dataAt, dataBytes } = segment;
    const skip = sequenceDifference(window.next, sequence);
    if (skip > 0) {
      this.#noteDuplicate(sequence, Math.min(skip, dataBytes));
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
    const isNext = sequence === window.next;
    const costBytes = dataBytes + (isNext ? 0 : EARLY_PIECE_OVERHEAD_BYTES);
    const isFull = this.#memory.usedBytes + costBytes > this.#memory.maxBytes;
    if (isFull && this.#heldBytes + costBytes > SHARE_MIN_BYTES) {
      this.#count("TCP_RECEIVE_MEMORY_FULL");
      return; // as if lost
    }
    if (dataBytes > this.#largestDataBytes) this.#largestDataBytes = Math.min(dataBytes, this.#ownMssBytes);
    const hadGap = this.#buffer.early.size > 0;
    if (isNext) {
      this.#append(segment.buffer, dataAt, dataBytes);
      this.#acknowledgeLater(nowMs, dataBytes);
    } else this.#insertEarly(sequence, segment.buffer, dataAt, dataBytes);
    // A duplicate acknowledgment tells the sender of a gap, the next that it is filled.
    if (hadGap || this.#buffer.early.size > 0) this.ackNow = true;
    this.#account();
  }

  #append(bytes: Uint8Array, at: number, length: number): void {
    const window = this.#window;
    const next = this.#buffer.appendNext(window.next, bytes, at, length);
    this.#takenBytes += sequenceDifference(next, window.next);
    window.next = next;
    this.#hasNews = true;
    this.#noteDuplicate(this.#buffer.duplicateLeft, this.#buffer.duplicateBytes);
  }

  #insertEarly(sequence: number, bytes: Uint8Array, at: number, length: number): void {
    const { early } = this.#buffer;
    if (!early.insert(sequence, bytes, at, length)) this.#count("TCP_OUT_OF_ORDER_FULL");
    this.#noteDuplicate(early.duplicateLeft, early.duplicateBytes);
  }

  #acknowledgeLater(nowMs: number, newBytes: number): void {
    this.#unacknowledgedBytes += newBytes;
    if (this.#unacknowledgedBytes >= STRETCH_SEGMENTS_MAX * this.#largestDataBytes) this.ackNow = true;
    else if (this.#unacknowledgedBytes >= 2 * this.#largestDataBytes)
      this.ackSoon = true; // every second segment
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

  /** Something new for the user since `takeNews`. */
  get hasNews(): boolean {
    return this.#hasNews;
  }

  takeNews(): boolean {
    const had = this.#hasNews;
    this.#hasNews = false;
    return had;
  }

  read(nowMs: number, maxBytes: number): Uint8Array | undefined {
    const bytes = this.#buffer.read(maxBytes);
    if (bytes === undefined) return undefined;
    this.#account();
    const isShort = this.#memory.usedBytes * 2 > this.#memory.maxBytes;
    const bufferBytes = this.#sizing.read(nowMs, bytes.length, this.#window.bufferBytes);
    if (!isShort) this.#window.grow(bufferBytes);
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
    const { heldBytes } = this.#buffer;
    this.#memory.usedBytes += heldBytes - this.#heldBytes;
    this.#heldBytes = heldBytes;
  }
}
