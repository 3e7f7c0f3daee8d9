// From a flow's key to its row: chains in a hash table that grows by one bucket with each flow (linear hashing, Litwin
// 1980), so that no packet waits for a table to be built anew. Hash: two multilinear sums of products (Lemire, Kaser
// 2014, "Strongly universal string hashing is fast", Multilinear-HM) under random keys, so that nobody can choose ports
// that share a chain.
import { type Random, randomU32 } from "../base/random.ts";
import { KEY_WORDS } from "./flow-key.ts";
import { CHAIN, type FlowPages, HASH, wordsAt } from "./flow-pages.ts";

const NONE = -1;
const BUCKETS_FIRST = 256;
const BUCKETS_MAX = 2 ** 20; // what the hash has bits for
const SUM_KEYS = 2 * KEY_WORDS + 1; // one for each half word, and one to begin with

export class FlowIndex {
  readonly #pages: FlowPages;
  readonly #keys: Int32Array;
  #heads = new Int32Array(BUCKETS_FIRST); // row + 1; 0: nothing
  #buckets = BUCKETS_FIRST;
  #lowMask = BUCKETS_FIRST - 1; // of the buckets there were before this doubling began
  #size = 0;
  #lastRow = 0;

  constructor(pages: FlowPages, random: Random) {
    this.#pages = pages;
    this.#keys = Int32Array.from({ length: 2 * SUM_KEYS }, () => randomU32(random));
  }

  /** 20 bits. */
  #hash(words: Int32Array): number {
    const keys = this.#keys;
    let a = keys[2 * KEY_WORDS]!;
    let b = keys[SUM_KEYS + 2 * KEY_WORDS]!;
    for (let i = 0; i < KEY_WORDS; i++) {
      const high = words[i]! >>> 16;
      const low = words[i]! & 0xffff;
      const at = 2 * i;
      a = (a + Math.imul((keys[at]! + high) | 0, (keys[at + 1]! + low) | 0)) | 0;
      b = (b + Math.imul((keys[SUM_KEYS + at]! + high) | 0, (keys[SUM_KEYS + at + 1]! + low) | 0)) | 0;
    }
    return ((b >>> 29) << 17) | (a >>> 15); // of each sum the upper 17 bits are as good as random
  }

  #bucketOf(hash: number): number {
    const bucket = hash & (2 * this.#lowMask + 1);
    return bucket < this.#buckets ? bucket : hash & this.#lowMask;
  }

  /** The row, or −1. */
  find(words: Int32Array): number {
    const last = this.#lastRow; // packets come in runs of one flow
    if (this.#pages.isTaken(last) && this.#isAt(last, words)) return last;
    for (let row = this.#heads[this.#bucketOf(this.#hash(words))]! - 1; row !== NONE; ) {
      if (this.#isAt(row, words)) {
        this.#lastRow = row;
        return row;
      }
      row = this.#pages.of(row).words[wordsAt(row) + CHAIN]! - 1;
    }
    return NONE;
  }

  #isAt(row: number, words: Int32Array): boolean {
    const { words: keys } = this.#pages.of(row);
    const at = wordsAt(row);
    return (
      keys[at + 9] === words[9] &&
      keys[at] === words[0] &&
      keys[at + 4] === words[4] &&
      keys[at + 8] === words[8] &&
      keys[at + 3] === words[3] &&
      keys[at + 7] === words[7] &&
      keys[at + 2] === words[2] &&
      keys[at + 6] === words[6] &&
      keys[at + 1] === words[1] &&
      keys[at + 5] === words[5]
    );
  }

  /** A row whose key is not in the index; writes the key into it. */
  add(row: number, key: Int32Array): void {
    const { words } = this.#pages.of(row);
    const at = wordsAt(row);
    words.set(key, at);
    const hash = this.#hash(key);
    words[at + HASH] = hash;
    const bucket = this.#bucketOf(hash);
    words[at + CHAIN] = this.#heads[bucket]!;
    this.#heads[bucket] = row + 1;
    this.#size++;
    if (this.#size > this.#buckets && this.#buckets < BUCKETS_MAX) this.#split();
  }

  remove(row: number): void {
    const { words } = this.#pages.of(row);
    const at = wordsAt(row);
    const bucket = this.#bucketOf(words[at + HASH]!);
    let before = this.#heads[bucket]! - 1;
    if (before === row) this.#heads[bucket] = words[at + CHAIN]!;
    else {
      for (;;) {
        const beforeWords = this.#pages.of(before).words;
        const beforeAt = wordsAt(before);
        const next = beforeWords[beforeAt + CHAIN]! - 1;
        if (next === row) {
          beforeWords[beforeAt + CHAIN] = words[at + CHAIN]!;
          break;
        }
        before = next;
      }
    }
    this.#size--;
  }

  /** One bucket more: what of the chain that it parts from has the next bit of its hash set goes there. */
  #split(): void {
    const added = this.#buckets;
    if (added === this.#heads.length) {
      const heads = new Int32Array(2 * added); // 4 MiB at the most, once in half a million flows
      heads.set(this.#heads);
      this.#heads = heads;
    }
    const mask = 2 * this.#lowMask + 1;
    let row = this.#heads[added & this.#lowMask]! - 1;
    let [stays, goes] = [0, 0];
    while (row !== NONE) {
      const { words } = this.#pages.of(row);
      const at = wordsAt(row);
      const next = words[at + CHAIN]! - 1;
      if ((words[at + HASH]! & mask) === added) {
        words[at + CHAIN] = goes;
        goes = row + 1;
      } else {
        words[at + CHAIN] = stays;
        stays = row + 1;
      }
      row = next;
    }
    this.#heads[added & this.#lowMask] = stays;
    this.#heads[added] = goes;
    this.#buckets++;
    if (this.#buckets > mask) this.#lowMask = mask;
  }

  /** Chains as they are, for tests: how many rows each bucket holds. */
  chainLengths(): number[] {
    return Array.from(this.#heads.subarray(0, this.#buckets), (head) => {
      let length = 0;
      for (let row = head - 1; row !== NONE; row = this.#pages.of(row).words[wordsAt(row) + CHAIN]! - 1) length++;
      return length;
    });
  }
}
