// Numbers that never go back, not even after kill -9, without a write for each: a block is reserved on disk, then
// handed out in memory.
import { assert } from "../base/assert.ts";
import type { CounterName, Store } from "./store/store.ts";

const BLOCK = 1_000_000;

export class ReservedCounter {
  readonly #store: Store;
  readonly #name: CounterName;
  /** The first that this process may give out. */
  readonly first: number;
  #next: number;
  #end: number;
  #refilling = false;
  #failures = 0;

  private constructor(store: Store, name: CounterName, end: number) {
    this.#store = store;
    this.#name = name;
    this.first = end - BLOCK + 1;
    this.#next = this.first;
    this.#end = end;
  }

  static async open(store: Store, name: CounterName): Promise<ReservedCounter> {
    return new ReservedCounter(store, name, await store.transaction((tx) => tx.addToCounter(name, BLOCK)));
  }

  /** Higher than every number given before, also by an earlier process. */
  next(): number {
    assert(this.#next <= this.#end, `numbers of ${this.#name} are used up faster than the store reserves them`);
    if (this.#end - this.#next < BLOCK / 2 && !this.#refilling) void this.#refill();
    return this.#next++;
  }

  /** The highest given out, by this process or one before. */
  get last(): number {
    return this.#next - 1;
  }

  /** Reservations that the store refused so far. */
  get failures(): number {
    return this.#failures;
  }

  async #refill(): Promise<void> {
    this.#refilling = true;
    try {
      this.#end = await this.#store.transaction((tx) => tx.addToCounter(this.#name, BLOCK));
    } catch {
      this.#failures++; // half a block is left: the next number tries again
    } finally {
      this.#refilling = false;
    }
  }
}
