// Receiver index -> who it was given to [WG §5.4.2]. Random, so that an index tells an observer nothing about a peer or
// its age. At most four per tunnel (a handshake in flight and three sessions), so the number of peers bounds the table.

import { readU32Le } from "../base/bytes.ts";
import type { Random } from "../base/random.ts";
import type { Session } from "./session.ts";

export interface IndexEntry<T> {
  readonly tunnel: T;
  /** Undefined while the index belongs to a handshake in flight. */
  session: Session | undefined;
}

export class IndexTable<T> {
  readonly #random: Random;
  // Signed 32-bit keys are small integers of the engine: a look-up per packet allocates nothing.
  readonly #entries = new Map<number, IndexEntry<T>>();
  readonly #bytes = new Uint8Array(4);

  constructor(random: Random) {
    this.#random = random;
  }

  get size(): number {
    return this.#entries.size;
  }

  find(index: number): IndexEntry<T> | undefined {
    return this.#entries.get(index);
  }

  /** A fresh index for a handshake of this tunnel. */
  allocate(tunnel: T): number {
    for (;;) {
      this.#random.fill(this.#bytes);
      const index = readU32Le(this.#bytes, 0) | 0;
      if (this.#entries.has(index)) continue;
      this.#entries.set(index, { tunnel, session: undefined });
      return index;
    }
  }

  /** The handshake of this index has become a session. */
  bind(index: number, session: Session): void {
    const entry = this.#entries.get(index);
    if (entry !== undefined) entry.session = session;
  }

  free(index: number): void {
    this.#entries.delete(index);
  }
}
