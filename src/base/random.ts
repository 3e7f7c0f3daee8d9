// The source of chance that pure code is given. The operating system's is in io/; this one is for tests and the
// simulator.
import { readU32Le } from "./bytes.ts";

export interface Random {
  /** Fills the whole array. */
  fill(bytes: Uint8Array): void;
}

export function randomBytes(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  return bytes;
}

export function randomU32(random: Random): number {
  return readU32Le(randomBytes(random, 4), 0);
}

/** A whole number in [0, limit); the bias of 2^32 mod limit is below 2^-12 for every limit used here (≤ 2^20). */
export function randomBelow(random: Random, limit: number): number {
  return Math.floor((randomU32(random) / 2 ** 32) * limit);
}

/** Reproducible from its seed: sfc32 (Doty-Humphrey, PractRand). Not for secrets. */
export class SeededRandom implements Random {
  #a: number;
  #b = 0x9e3779b9;
  #c = 0x243f6a88;
  #counter = 1;

  constructor(seed: number) {
    this.#a = seed | 0;
    for (let i = 0; i < 15; i++) this.u32();
  }

  u32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11) | 0) + t) | 0;
    return t >>> 0;
  }

  /** In [0, 1). */
  fraction(): number {
    return this.u32() / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.u32();
  }
}
