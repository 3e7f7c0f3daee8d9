// Bytes written but not yet acknowledged: a queue of equal chunks, taken from a pool and given back as acknowledgments
// come. Writing copies once; a segment copies out of at most two chunks; nothing is moved when the front is
// acknowledged.
import { assert } from "../../base/assert.ts";
import { KIB } from "../../base/units.ts";

export const CHUNK_BYTES = 16 * KIB;

/** Chunks of one stack that nobody uses now, and the count of those in use. */
export class ChunkPool {
  readonly #free: Uint8Array[] = [];
  readonly #freeMax: number;
  readonly #inUseMax: number;
  #inUse = 0;

  constructor(freeMax: number, inUseMax: number) {
    this.#freeMax = freeMax;
    this.#inUseMax = inUseMax;
  }

  get inUse(): number {
    return this.#inUse;
  }

  /** So much is in use that no connection should ask for more than its share. */
  get isShort(): boolean {
    return this.#inUse * 2 > this.#inUseMax;
  }

  /** Undefined when all connections together hold as much as they may; but each gets its first: none starves. */
  take(isFirst: boolean): Uint8Array | undefined {
    if (this.#inUse >= this.#inUseMax && !isFirst) return undefined;
    this.#inUse++;
    return this.#free.pop() ?? new Uint8Array(CHUNK_BYTES);
  }

  give(chunk: Uint8Array): void {
    this.#inUse--;
    if (this.#free.length < this.#freeMax) this.#free.push(chunk);
  }
}

export class SendBuffer {
  readonly #pool: ChunkPool;
  #capacityBytes: number;
  readonly #capacityMaxBytes: number;
  #chunks: Uint8Array[] = [];
  /** Where the first byte lies in the first chunk. */
  #start = 0;
  #bytes = 0;

  constructor(pool: ChunkPool, capacityBytes: number, capacityMaxBytes = capacityBytes) {
    this.#pool = pool;
    this.#capacityBytes = capacityBytes;
    this.#capacityMaxBytes = capacityMaxBytes;
  }

  get sizeBytes(): number {
    return this.#bytes;
  }

  get roomBytes(): number {
    return this.#capacityBytes - this.#bytes;
  }

  /** The path takes so much at once: room for it, while the stack's memory is not short. */
  grow(capacityBytes: number): void {
    if (capacityBytes <= this.#capacityBytes || this.#pool.isShort) return;
    this.#capacityBytes = Math.min(Math.floor(capacityBytes), this.#capacityMaxBytes);
  }

  /** Copies what fits; returns how many bytes were taken. */
  append(bytes: Uint8Array): number {
    const wanted = Math.min(bytes.length, this.roomBytes);
    let taken = 0;
    while (taken < wanted) {
      const end = this.#start + this.#bytes;
      const index = Math.floor(end / CHUNK_BYTES);
      if (index === this.#chunks.length) {
        const chunk = this.#pool.take(index === 0);
        if (chunk === undefined) break;
        this.#chunks.push(chunk);
      }
      const at = end - index * CHUNK_BYTES;
      const part = Math.min(wanted - taken, CHUNK_BYTES - at);
      const whole = part === bytes.length;
      this.#chunks[index]!.set(whole ? bytes : bytes.subarray(taken, taken + part), at);
      this.#bytes += part;
      taken += part;
    }
    return taken;
  }

  /** Copies `length` bytes that begin `offset` bytes behind the front. */
  copy(offset: number, length: number, out: Uint8Array, outAt: number): void {
    assert(offset + length <= this.#bytes, "send buffer range");
    let at = this.#start + offset;
    let index = Math.floor(at / CHUNK_BYTES);
    at -= index * CHUNK_BYTES;
    let left = length;
    while (left > 0) {
      const part = Math.min(left, CHUNK_BYTES - at);
      out.set(this.#chunks[index]!.subarray(at, at + part), outAt);
      outAt += part;
      left -= part;
      index++;
      at = 0;
    }
  }

  /** Forgets the first `length` bytes. */
  release(length: number): void {
    assert(length <= this.#bytes, "send buffer release");
    this.#start += length;
    this.#bytes -= length;
    let whole = 0;
    while (this.#start >= CHUNK_BYTES) {
      this.#start -= CHUNK_BYTES;
      this.#pool.give(this.#chunks[whole++]!);
    }
    if (whole > 0) this.#chunks.splice(0, whole);
    if (this.#bytes === 0 && this.#chunks.length > 0) this.#clear();
  }

  clear(): void {
    this.#bytes = 0;
    this.#clear();
  }

  #clear(): void {
    for (const chunk of this.#chunks) this.#pool.give(chunk);
    this.#chunks = [];
    this.#start = 0;
  }
}
