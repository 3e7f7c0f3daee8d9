// What came too early: ranges of the stream, sorted, none touching another, each in the pieces in which it came. The
// first copy of a byte wins. Two bounds: pieces and ranges. They are what selective acknowledgments name (RFC 2018 §4).
import { SACK_BLOCKS_MAX } from "../../wire/tcp.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore, sequenceDifference } from "./sequence.ts";

/** What the engine adds to the bytes of a piece: a typed array with memory of its own. */
export const EARLY_PIECE_OVERHEAD_BYTES = 256;

export interface EarlyRange {
  left: number;
  /** Behind the last byte. */
  right: number;
  /** In order, without a gap. */
  pieces: Uint8Array[];
}

export class EarlyRanges {
  readonly #piecesMax: number;
  readonly #rangesMax: number;
  #ranges: EarlyRange[] = [];
  /** Touched last, newest first. */
  #recent: EarlyRange[] = [];
  #bytes = 0;
  #pieces = 0;
  /** Of what was inserted last, the first part that was there already: from `duplicateLeft` on. */
  duplicateLeft = 0;
  duplicateBytes = 0;

  constructor(piecesMax: number, rangesMax: number) {
    this.#piecesMax = piecesMax;
    this.#rangesMax = rangesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get pieces(): number {
    return this.#pieces;
  }

  /** The lowest. */
  get first(): EarlyRange | undefined {
    return this.#ranges[0];
  }

  get size(): number {
    return this.#ranges.length;
  }

  /** Copies the parts that no range has. False when a bound is reached: the rest is dropped and will be sent again. */
  insert(sequence: number, buffer: Uint8Array, at: number, length: number): boolean {
    const end = sequenceAdd(sequence, length);
    const index = this.#search(sequence);
    let from = sequence;
    this.duplicateBytes = 0;
    for (;;) {
      const range = this.#ranges[index];
      if (range !== undefined && !sequenceAfter(range.left, from) && !sequenceBefore(range.right, end)) {
        this.#noteDuplicate(from, end);
        this.#touch(range);
        return true;
      }
      if (this.#pieces >= this.#piecesMax) return false;
      if (range !== undefined && !sequenceAfter(range.left, from)) {
        this.#noteDuplicate(from, range.right);
        from = this.#append(index, end, buffer, at + sequenceDifference(range.right, sequence));
      } else {
        const reached = this.#prepend(index, from, end, buffer, at + sequenceDifference(from, sequence));
        if (reached === undefined) return false;
        from = reached;
      }
    }
  }

  /** The index of the first range that ends at `sequence` or behind it. */
  #search(sequence: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sequenceBefore(this.#ranges[middle]!.right, sequence)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #copy(buffer: Uint8Array, at: number, length: number): Uint8Array {
    this.#bytes += length;
    this.#pieces++;
    return buffer.slice(at, at + length);
  }

  #noteDuplicate(left: number, right: number): void {
    if (this.duplicateBytes > 0 || left === right) return;
    this.duplicateLeft = left;
    this.duplicateBytes = sequenceDifference(right, left);
  }

  /** Fills the gap behind a range up to `end` or the next range, which it then joins. Returns how far it went. */
  #append(index: number, end: number, buffer: Uint8Array, at: number): number {
    const range = this.#ranges[index]!;
    const next = this.#ranges[index + 1];
    const until = next !== undefined && sequenceBefore(next.left, end) ? next.left : end;
    range.pieces.push(this.#copy(buffer, at, sequenceDifference(until, range.right)));
    range.right = until;
    if (next?.left === until) {
      range.right = next.right;
      range.pieces = range.pieces.concat(next.pieces);
      this.#ranges.splice(index + 1, 1);
      this.#forget(next);
    }
    return until;
  }

  /** Fills the gap before a range, or makes a new one. Returns how far it went; undefined: one too many. */
  #prepend(index: number, from: number, end: number, buffer: Uint8Array, at: number): number | undefined {
    const range = this.#ranges[index];
    const until = range !== undefined && sequenceBefore(range.left, end) ? range.left : end;
    const isTouching = range?.left === until;
    if (!isTouching && this.#ranges.length >= this.#rangesMax) return undefined;
    const piece = this.#copy(buffer, at, sequenceDifference(until, from));
    if (isTouching) {
      range!.left = from;
      range!.pieces.unshift(piece);
    } else this.#ranges.splice(index, 0, { left: from, right: until, pieces: [piece] });
    return until;
  }

  #touch(range: EarlyRange): void {
    if (this.#recent[0] === range) return;
    this.#forget(range);
    if (this.#recent.length === SACK_BLOCKS_MAX) this.#recent.pop();
    this.#recent.unshift(range);
  }

  #forget(range: EarlyRange): void {
    const at = this.#recent.indexOf(range);
    if (at >= 0) this.#recent.splice(at, 1);
  }

  /** Takes the lowest range out. */
  shift(): EarlyRange | undefined {
    const range = this.#ranges.shift();
    if (range === undefined) return undefined;
    this.#forget(range);
    this.#bytes -= sequenceDifference(range.right, range.left);
    this.#pieces -= range.pieces.length;
    return range;
  }

  /**
   * Writes up to `max` pairs of edges behind the first `from` of them, those touched last first (RFC 2018 §4). Returns
   * how many pairs there are then.
   */
  name(edges: Uint32Array, from: number, max: number): number {
    let blocks = from;
    const write = (range: EarlyRange): void => {
      edges[2 * blocks] = range.left;
      edges[2 * blocks + 1] = range.right;
      blocks++;
    };
    for (const range of this.#recent) if (blocks < max) write(range);
    if (blocks === max || this.#recent.length === this.#ranges.length) return blocks;
    for (const range of this.#ranges) {
      if (blocks === max) break;
      if (!this.#recent.includes(range)) write(range);
    }
    return blocks;
  }

  clear(): void {
    this.#ranges = [];
    this.#recent = [];
    this.#bytes = 0;
    this.#pieces = 0;
  }
}
