// Bytes received but not yet read. What is in order is copied once, into chunks that grow while they fill, and handed
// out as parts of them; what came too early waits in early-ranges.ts. RFC 9293 §3.10.7.4.
import { KIB } from "../../base/units.ts";
import { EARLY_PIECE_OVERHEAD_BYTES, EarlyRanges } from "./early-ranges.ts";
import { sequenceAdd, sequenceDifference } from "./sequence.ts";

const CHUNK_MIN_BYTES = 2 * KIB;
const CHUNK_MAX_BYTES = 64 * KIB;

export class ReceiveBuffer {
  /** In order, oldest first; each is a part of a chunk that was filled up to it. */
  #ready: Uint8Array[] = [];
  #readyFrom = 0;
  #readyBytes = 0;
  #chunk: Uint8Array | undefined;
  #chunkUsed = 0;
  #chunkBytes = CHUNK_MIN_BYTES;
  /** Where the newest ready part began in the chunk, −1 when it has been handed out. */
  #partFrom = -1;
  readonly early: EarlyRanges;
  /** Of what `appendNext` was given, the first part that had come already: from `duplicateLeft` on. */
  duplicateLeft = 0;
  duplicateBytes = 0;

  constructor(earlyPiecesMax: number, earlyRangesMax: number) {
    this.early = new EarlyRanges(earlyPiecesMax, earlyRangesMax);
  }

  get readableBytes(): number {
    return this.#readyBytes;
  }

  /** What it costs to keep all that. */
  get heldBytes(): number {
    return this.#readyBytes + this.early.bytes + this.early.pieces * EARLY_PIECE_OVERHEAD_BYTES;
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
   * What comes next in the stream, with the early ranges that it reaches; where both have a byte, the early one came
   * first and stands. Returns the next sequence expected.
   */
  appendNext(next: number, buffer: Uint8Array, at: number, length: number): number {
    this.duplicateBytes = 0;
    while (length > 0) {
      const { first } = this.early;
      const gap = first === undefined ? length : sequenceDifference(first.left, next);
      const part = Math.min(gap, length);
      this.append(buffer, at, part);
      at += part;
      length -= part;
      next = sequenceAdd(next, part);
      if (first?.left !== next) continue;
      this.#takeFirst();
      const reachedBytes = sequenceDifference(first.right, next);
      if (length > 0 && this.duplicateBytes === 0) {
        this.duplicateLeft = next;
        this.duplicateBytes = Math.min(length, reachedBytes);
      }
      at += reachedBytes;
      length -= reachedBytes;
      next = first.right;
    }
    return next;
  }

  #takeFirst(): void {
    for (const piece of this.early.shift()!.pieces) this.append(piece, 0, piece.length);
  }

  clear(): void {
    this.#ready = [];
    this.#readyFrom = 0;
    this.#readyBytes = 0;
    this.#chunk = undefined;
    this.#partFrom = -1;
    this.early.clear();
  }
}
