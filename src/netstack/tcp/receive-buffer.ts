// Bytes received but not yet read. What is in order is copied once, into chunks that grow while they fill, and handed
// out as parts of them; what came too early waits, cut so that nothing overlaps, in a list with two bounds: pieces and
// bytes. RFC 9293 §3.10.7.4.
import { KIB } from "../../base/units.ts";
import { sequenceAdd, sequenceDifference } from "./sequence.ts";

const CHUNK_MIN_BYTES = 2 * KIB;
const CHUNK_MAX_BYTES = 64 * KIB;

interface EarlyPiece {
  sequence: number;
  bytes: Uint8Array;
}

export class ReceiveBuffer {
  readonly #earlyPiecesMax: number;
  /** In order, oldest first; each is a part of a chunk that was filled up to it. */
  #ready: Uint8Array[] = [];
  #readyFrom = 0;
  #readyBytes = 0;
  #chunk: Uint8Array | undefined;
  #chunkUsed = 0;
  #chunkBytes = CHUNK_MIN_BYTES;
  /** Where the newest ready part began in the chunk, −1 when it has been handed out. */
  #partFrom = -1;
  /** Sorted by sequence, none touching another. */
  #early: EarlyPiece[] = [];
  #earlyBytes = 0;

  constructor(earlyPiecesMax: number) {
    this.#earlyPiecesMax = earlyPiecesMax;
  }

  get readableBytes(): number {
    return this.#readyBytes;
  }

  get earlyBytes(): number {
    return this.#earlyBytes;
  }

  get earlyPieces(): number {
    return this.#early.length;
  }

  /** Copies the next bytes of the stream. */
  append(buffer: Uint8Array, at: number, length: number): void {
    while (length > 0) {
      if (this.#chunk === undefined || this.#chunkUsed === this.#chunk.length) this.#newChunk(length);
      const chunk = this.#chunk!;
      const part = Math.min(length, chunk.length - this.#chunkUsed);
      chunk.set(buffer.subarray(at, at + part), this.#chunkUsed);
      if (this.#partFrom < 0) {
        this.#partFrom = this.#chunkUsed;
        this.#ready.push(chunk); // cut to its length when read
      }
      this.#chunkUsed += part;
      this.#readyBytes += part;
      at += part;
      length -= part;
    }
  }

  #newChunk(lengthAhead: number): void {
    this.#sealPart();
    if (this.#chunk !== undefined) this.#chunkBytes = Math.min(this.#chunkBytes * 2, CHUNK_MAX_BYTES);
    this.#chunk = new Uint8Array(Math.max(this.#chunkBytes, Math.min(lengthAhead, CHUNK_MAX_BYTES)));
    this.#chunkUsed = 0;
  }

  /** Ends the newest part where the chunk is filled to now. */
  #sealPart(): void {
    if (this.#partFrom < 0) return;
    const last = this.#ready.length - 1;
    this.#ready[last] = this.#chunk!.subarray(this.#partFrom, this.#chunkUsed);
    this.#partFrom = -1;
  }

  /** Up to `maxBytes`, contiguous, never touched again by this buffer. */
  read(maxBytes: number): Uint8Array | undefined {
    if (this.#readyBytes === 0 || maxBytes <= 0) return undefined;
    if (this.#readyFrom === this.#ready.length - 1) this.#sealPart();
    const part = this.#ready[this.#readyFrom]!;
    let out = part;
    if (part.length > maxBytes) {
      out = part.subarray(0, maxBytes);
      this.#ready[this.#readyFrom] = part.subarray(maxBytes);
    } else {
      this.#readyFrom++;
      if (this.#readyFrom === this.#ready.length) {
        this.#ready.length = 0;
        this.#readyFrom = 0;
      } else if (this.#readyFrom === 64) {
        this.#ready.splice(0, 64);
        this.#readyFrom = 0;
      }
    }
    this.#readyBytes -= out.length;
    if (this.#readyBytes === 0 && this.#chunk !== undefined && this.#chunkUsed * 2 > this.#chunk.length) {
      // An idle connection holds no large chunk; the reader's part keeps it as long as it needs.
      this.#chunk = undefined;
      this.#chunkBytes = Math.min(this.#chunkBytes * 2, CHUNK_MAX_BYTES);
    }
    return out;
  }

  /** A chunk kept for the next bytes is worth it while bytes come, not for hours. */
  releaseIdle(): void {
    if (this.#readyBytes > 0) return;
    this.#chunk = undefined;
    this.#chunkBytes = CHUNK_MIN_BYTES;
  }

  /**
   * Keeps what came too early: the parts of it that no earlier piece holds (the first copy of a byte wins). False when
   * the list is full: the rest is dropped and will be sent again.
   */
  insertEarly(sequence: number, buffer: Uint8Array, at: number, length: number): boolean {
    const pieces = this.#early;
    let index = pieces.length;
    while (index > 0 && sequenceDifference(pieces[index - 1]!.sequence, sequence) > 0) index--;
    if (index > 0) {
      const before = pieces[index - 1]!;
      const overlap = sequenceDifference(sequenceAdd(before.sequence, before.bytes.length), sequence);
      if (overlap > 0) {
        if (overlap >= length) return true;
        sequence = sequenceAdd(sequence, overlap);
        at += overlap;
        length -= overlap;
      }
    }
    while (length > 0) {
      const after = pieces[index];
      const room = after === undefined ? length : Math.min(length, sequenceDifference(after.sequence, sequence));
      if (room > 0) {
        if (pieces.length >= this.#earlyPiecesMax) return false;
        pieces.splice(index, 0, { sequence, bytes: buffer.slice(at, at + room) });
        this.#earlyBytes += room;
        index++;
      }
      if (after === undefined) return true;
      const skip = room + after.bytes.length;
      sequence = sequenceAdd(sequence, skip);
      at += skip;
      length -= skip;
      index++;
    }
    return true;
  }

  /**
   * What comes next in the stream, with the early pieces that it reaches; where both have a byte, the early one came
   * first and stands. Returns the next sequence expected.
   */
  appendNext(next: number, buffer: Uint8Array, at: number, length: number): number {
    while (length > 0) {
      const early = this.#early[0];
      const gap = early === undefined ? length : sequenceDifference(early.sequence, next);
      const part = Math.min(gap, length);
      this.append(buffer, at, part);
      const reached = this.#takeEarly(sequenceAdd(next, part));
      const passed = sequenceDifference(reached, next);
      at += passed;
      length -= passed;
      next = reached;
    }
    return next;
  }

  /** Moves the pieces that are now in order; none overlaps another, and none begins before `next`. */
  #takeEarly(next: number): number {
    let taken = 0;
    for (const piece of this.#early) {
      if (piece.sequence !== next) break;
      this.append(piece.bytes, 0, piece.bytes.length);
      next = sequenceAdd(next, piece.bytes.length);
      this.#earlyBytes -= piece.bytes.length;
      taken++;
    }
    if (taken > 0) this.#early.splice(0, taken);
    return next;
  }

  clear(): void {
    this.#ready = [];
    this.#readyFrom = 0;
    this.#readyBytes = 0;
    this.#chunk = undefined;
    this.#partFrom = -1;
    this.#early = [];
    this.#earlyBytes = 0;
  }
}
