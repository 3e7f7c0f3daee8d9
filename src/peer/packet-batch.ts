// Packets on their way between the data thread and the userspace stack of the main thread: one buffer for many, each
// behind its length (u16, big-endian), handed over and not copied.
import { assert } from "../base/assert.ts";
import { readU16, writeU16 } from "../base/bytes.ts";
import { PACKET_MAX_BYTES } from "../base/limits.ts";

const BATCH_BYTES = 65_536;
const LENGTH_BYTES = 2;

export interface SealedBatch {
  /** A buffer of its own: to be transferred. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly count: number;
}

export class PacketBatch {
  #bytes: Uint8Array<ArrayBuffer> | undefined;
  #used = 0;
  #count = 0;

  /** False: no room left in this one. At most PACKET_MAX_BYTES. */
  add(buffer: Uint8Array, offset: number, length: number): boolean {
    assert(length > 0 && length <= PACKET_MAX_BYTES, "a packet of a known size");
    if (this.#used + LENGTH_BYTES + length > BATCH_BYTES) return false;
    this.#bytes ??= new Uint8Array(BATCH_BYTES);
    writeU16(this.#bytes, this.#used, length);
    this.#bytes.set(buffer.subarray(offset, offset + length), this.#used + LENGTH_BYTES);
    this.#used += LENGTH_BYTES + length;
    this.#count++;
    return true;
  }

  /** What was added, and begins anew; undefined: nothing. */
  take(): SealedBatch | undefined {
    if (this.#bytes === undefined || this.#count === 0) return undefined;
    const batch = { bytes: this.#bytes.slice(0, this.#used), count: this.#count };
    this.#used = 0;
    this.#count = 0;
    return batch;
  }
}

/** In the order in which they were added. */
export function eachPacket(bytes: Uint8Array, use: (offset: number, length: number) => void): void {
  for (let at = 0; at < bytes.length; ) {
    const length = readU16(bytes, at);
    use(at + LENGTH_BYTES, length);
    at += LENGTH_BYTES + length;
  }
}
