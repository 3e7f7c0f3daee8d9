// The heap against a plain list.
import fc from "fast-check";
import { expect, test } from "vitest";
import { DeadlineHeap, type Scheduled } from "../../src/base/deadline-heap.ts";

const newItem = (): Scheduled => ({ scheduledMs: Number.POSITIVE_INFINITY, heapIndex: -1 });

test("items come out in the order of their deadlines, however they were moved and removed", () => {
  const step = fc.record({ item: fc.nat(9), atMs: fc.oneof(fc.nat(100), fc.constant(Number.POSITIVE_INFINITY)) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(100), (steps, nowMs) => {
      const heap = new DeadlineHeap<Scheduled>();
      const items = Array.from({ length: 10 }, newItem);
      const oracle = new Map<Scheduled, number>();
      for (const { item, atMs } of steps) {
        heap.schedule(items[item]!, atMs);
        if (atMs === Number.POSITIVE_INFINITY) oracle.delete(items[item]!);
        else oracle.set(items[item]!, atMs);
        expect(heap.nextMs()).toBe(Math.min(...oracle.values()));
        expect(heap.size).toBe(oracle.size);
      }
      const due = [...oracle.values()].filter((atMs) => atMs <= nowMs).sort((a, b) => a - b);
      const taken: number[] = [];
      for (let item = heap.takeDue(nowMs); item !== undefined; item = heap.takeDue(nowMs)) {
        taken.push(oracle.get(item)!);
        expect(item).toEqual(newItem());
      }
      expect(taken).toEqual(due);
      expect(heap.size).toBe(oracle.size - due.length);
    }),
    { numRuns: 100 },
  );
});
