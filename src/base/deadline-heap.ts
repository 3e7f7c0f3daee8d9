// A binary heap of things with a deadline, so that ten thousand idle peers cost nothing until one of them is due. An
// item knows its place, so that a deadline can move earlier without a search.

export interface Scheduled {
  /** Infinity when it is not in the heap. Written by the heap only. */
  scheduledMs: number;
  /** −1 when it is not in the heap. Written by the heap only. */
  heapIndex: number;
}

export class DeadlineHeap<T extends Scheduled> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** Infinity when empty. */
  nextMs(): number {
    return this.#items.length === 0 ? Number.POSITIVE_INFINITY : this.#items[0]!.scheduledMs;
  }

  /** Inserts the item or moves it; Infinity takes it out. */
  schedule(item: T, atMs: number): void {
    if (atMs === Number.POSITIVE_INFINITY) {
      this.remove(item);
      return;
    }
    if (item.heapIndex < 0) {
      item.heapIndex = this.#items.length;
      this.#items.push(item);
    }
    item.scheduledMs = atMs;
    this.#up(item.heapIndex);
    this.#down(item.heapIndex);
  }

  remove(item: T): void {
    const at = item.heapIndex;
    if (at < 0) return;
    const last = this.#items.pop()!;
    item.heapIndex = -1;
    item.scheduledMs = Number.POSITIVE_INFINITY;
    if (last === item) return;
    this.#items[at] = last;
    last.heapIndex = at;
    this.#up(at);
    this.#down(last.heapIndex);
  }

  /** Takes out the first item whose time has come; undefined when none has. */
  takeDue(nowMs: number): T | undefined {
    const first = this.#items[0];
    if (first === undefined || first.scheduledMs > nowMs) return undefined;
    this.remove(first);
    return first;
  }

  #up(at: number): void {
    const item = this.#items[at]!;
    while (at > 0) {
      const parentAt = (at - 1) >> 1;
      const parent = this.#items[parentAt]!;
      if (parent.scheduledMs <= item.scheduledMs) break;
      this.#place(parent, at);
      at = parentAt;
    }
    this.#place(item, at);
  }

  #down(at: number): void {
    const item = this.#items[at]!;
    const size = this.#items.length;
    for (;;) {
      let childAt = 2 * at + 1;
      if (childAt >= size) break;
      if (childAt + 1 < size && this.#items[childAt + 1]!.scheduledMs < this.#items[childAt]!.scheduledMs) childAt++;
      const child = this.#items[childAt]!;
      if (child.scheduledMs >= item.scheduledMs) break;
      this.#place(child, at);
      at = childAt;
    }
    this.#place(item, at);
  }

  #place(item: T, at: number): void {
    this.#items[at] = item;
    item.heapIndex = at;
  }
}
