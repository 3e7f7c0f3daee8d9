// The operating system's source of chance, drawn in blocks: packets ask for a few bytes each, and a call costs more
// than the bytes.
import { randomFillSync } from "node:crypto";
import type { Random } from "../base/random.ts";

const POOL_BYTES = 4_096;
const POOLED_MAX_BYTES = 32;

/** Every byte is given out once and then overwritten in the pool. */
class OsRandom implements Random {
  readonly #pool = new Uint8Array(POOL_BYTES);
  #at = POOL_BYTES;

  fill(bytes: Uint8Array): void {
    if (bytes.length > POOLED_MAX_BYTES) {
      randomFillSync(bytes);
      return;
    }
    if (this.#at + bytes.length > POOL_BYTES) {
      randomFillSync(this.#pool);
      this.#at = 0;
    }
    const end = this.#at + bytes.length;
    bytes.set(this.#pool.subarray(this.#at, end));
    this.#pool.fill(0, this.#at, end);
    this.#at = end;
  }
}

export const osRandom: Random = new OsRandom();
