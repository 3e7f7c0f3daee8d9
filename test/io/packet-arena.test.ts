import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { openPacketArena } from "../../src/io/packet-arena.ts";
import { foldChecksum, sumBytes } from "../../src/wire/checksum.ts";

test("a segment's sum is the same wherever it lies: in the arena, in the stack's part of it, elsewhere", () => {
  const memory = openPacketArena();
  if (memory === undefined) throw new Error("koffi is there for tests");
  const { arena, stack } = memory;
  const random = new SeededRandom(3);
  for (const length of [0, 1, 20, 63, 64, 65, 1_000, 1_419, 1_420]) {
    for (const at of [32, 33, 54]) {
      const elsewhere = new Uint8Array(at + length);
      random.fill(elsewhere);
      const expected = foldChecksum(sumBytes(elsewhere, at, length, 4_711));
      arena.bytes.set(elsewhere, 1_000_000);
      stack.buffer.set(elsewhere);
      const sums = [
        stack.sum(elsewhere, at, length, 4_711),
        stack.sum(arena.bytes, 1_000_000 + at, length, 4_711),
        stack.sum(stack.buffer, at, length, 4_711),
      ];
      expect(sums.map(foldChecksum)).toEqual([expected, expected, expected]);
    }
  }
});
