// Who wants to be called when: an indexed binary heap, so that 10,000 connections cost O(log n) when a deadline moves
// and O(1) when the next one is asked for. Each item carries its own place.

export interface Timed {
  /** Infinity when nothing is due. Changed through `Deadlines.set` only. */
  deadlineMs: number;
  /** Owned by the heap; −1 outside it. */
  heapIndex: number;
  /** Called once its deadline has passed; it sets the next one, or none. */
  handleDeadline(nowMs: number): void;
}

export class Deadlines {
  readonly #heap: Timed[] = [];

  get size(): number {
    return this.#heap.length;
  }

  nextMs(): number {
    return this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0]!.deadlineMs;
  }

  /** Infinity takes it out. */
  set(item: Timed, deadlineMs: number): void {
    if (item.deadlineMs === deadlineMs) return;
    const earlier = deadlineMs < item.deadlineMs;
    item.deadlineMs = deadlineMs;
    if (deadlineMs === Number.POSITIVE_INFINITY) {
      this.#remove(item);
      return;
    }
    if (item.heapIndex < 0) {
      item.heapIndex = this.#heap.length;
      this.#heap.push(item);
      this.#siftUp(item);
    } else if (earlier) {
      this.#siftUp(item);
    } else {
      this.#siftDown(item);
    }
  }

  /** Calls each item that is due, each at most once, so that one that asks for "now" again can't hold the turn. */
  run(nowMs: number): void {
    if (this.nextMs() > nowMs) return;
    const due: Timed[] = [];
    while (this.nextMs() <= nowMs) {
      const item = this.#heap[0]!;
      due.push(item);
      this.set(item, Number.POSITIVE_INFINITY);
    }
    for (const item of due) item.handleDeadline(nowMs);
  }

  #remove(item: Timed): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#heap.pop()!;
    if (last === item) return;
    this.#heap[index] = last;
    last.heapIndex = index;
    this.#siftUp(last);
    this.#siftDown(last);
  }

  #siftUp(item: Timed): void {
    const heap = this.#heap;
    let index = item.heapIndex;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = heap[parentIndex]!;
      if (parent.deadlineMs <= item.deadlineMs) break;
      heap[index] = parent;
      parent.heapIndex = index;
      index = parentIndex;
    }
    heap[index] = item;
    item.heapIndex = index;
  }

  #siftDown(item: Timed): void {
    const heap = this.#heap;
    let index = item.heapIndex;
    for (;;) {
      let childIndex = 2 * index + 1;
      if (childIndex >= heap.length) break;
      if (childIndex + 1 < heap.length && heap[childIndex + 1]!.deadlineMs < heap[childIndex]!.deadlineMs) childIndex++;
      const child = heap[childIndex]!;
      if (child.deadlineMs >= item.deadlineMs) break;
      heap[index] = child;
      child.heapIndex = index;
      index = childIndex;
    }
    heap[index] = item;
    item.heapIndex = index;
  }
}
