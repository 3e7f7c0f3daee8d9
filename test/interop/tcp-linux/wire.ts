// A wire with faults between two ends, in real time: delay, reordering and duplication follow from a seed; loss is the
// kernel's to make (nftables). A tap sees each packet and may replace or swallow it.
import { SeededRandom } from "../../../src/base/random.ts";

export interface Faults {
  /** One way. */
  readonly delayMs?: number;
  /** Chance of being late by up to `lateMs`. */
  readonly reorder?: number;
  readonly lateMs?: number;
  readonly duplicate?: number;
}

export type End = "stack" | "kernel";

interface Flying {
  readonly atMs: number;
  readonly to: End;
  readonly bytes: Uint8Array;
}

export class Wire {
  faults: Faults;
  /** What to carry instead; undefined: the packet as it is. */
  tap: ((to: End, bytes: Uint8Array) => readonly Uint8Array[] | undefined) | undefined;
  readonly #random: SeededRandom;
  readonly #deliver: (to: End, bytes: Uint8Array) => void;
  #flying: Flying[] = [];

  constructor(seed: number, faults: Faults, deliver: (to: End, bytes: Uint8Array) => void) {
    this.#random = new SeededRandom(seed);
    this.faults = faults;
    this.#deliver = deliver;
  }

  /** `bytes` are the wire's from here on. */
  carry(nowMs: number, to: End, bytes: Uint8Array): void {
    for (const packet of this.tap?.(to, bytes) ?? [bytes]) this.#fly(nowMs, to, packet);
  }

  #fly(nowMs: number, to: End, bytes: Uint8Array): void {
    const { delayMs = 0, reorder = 0, lateMs = 0, duplicate = 0 } = this.faults;
    for (let copies = this.#random.chance(duplicate) ? 2 : 1; copies > 0; copies--) {
      const late = this.#random.chance(reorder) ? this.#random.fraction() * lateMs : 0;
      if (delayMs + late === 0 && this.#flying.length === 0) this.#deliver(to, bytes);
      else this.#insert({ atMs: nowMs + delayMs + late, to, bytes });
    }
  }

  #insert(flying: Flying): void {
    let index = this.#flying.length;
    while (index > 0 && this.#flying[index - 1]!.atMs > flying.atMs) index--;
    this.#flying.splice(index, 0, flying);
  }

  /** Delivers what is due. */
  run(nowMs: number): void {
    let due = 0;
    while (due < this.#flying.length && this.#flying[due]!.atMs <= nowMs) due++;
    for (const { to, bytes } of this.#flying.splice(0, due)) this.#deliver(to, bytes);
  }

  get inFlight(): number {
    return this.#flying.length;
  }
}
