import fc from "fast-check";
import { expect, test } from "vitest";
import { toHex } from "../../src/base/bytes.ts";
import { compareTai64n, encodeTai64n, nextTai64n, nextTimestampReserve } from "../../src/wireguard/tai64n.ts";

test("a stamp is 2^62 + 10 s + Unix time, its nanoseconds cut to 2^24", () => {
  expect(toHex(encodeTai64n(0))).toBe("400000000000000a00000000");
  expect(toHex(encodeTai64n(1_700_000_000_000))).toBe("400000006553f10a00000000");
  expect(toHex(encodeTai64n(1_700_000_000_999))).toBe("400000006553f10a3b000000");
  expect(toHex(encodeTai64n(1_700_000_000_016.9))).toBe("400000006553f10a01000000");
});

test("each stamp is later than the one before, also when the clock stands still or was set back by a year", () => {
  const clock = fc.array(fc.integer({ min: -31_536_000_000, max: 20 }), { maxLength: 30 });
  fc.assert(
    fc.property(clock, (steps) => {
      let nowMs = 1_700_000_000_000;
      let last = encodeTai64n(nowMs);
      for (const step of [0, ...steps]) {
        nowMs = Math.max(0, nowMs + step);
        const next = nextTai64n(nowMs, last);
        expect(compareTai64n(next, last)).toBeGreaterThan(0);
        expect(compareTai64n(next, encodeTai64n(nowMs))).toBeGreaterThanOrEqual(0);
        last = next;
      }
    }),
    { numRuns: 100 },
  );
});

test("a clock that has gone on is followed at once", () => {
  expect(nextTai64n(5_000, encodeTai64n(1_000))).toEqual(encodeTai64n(5_000));
});

test("the nanoseconds carry into the seconds", () => {
  let last = encodeTai64n(999);
  for (let i = 0; i < 3; i++) last = nextTai64n(0, last);
  expect(toHex(last)).toMatch(/^400000000000000b0/);
});

test("the reserve is ahead of what was sent, is written rarely, and follows a clock set forward", () => {
  const startMs = 1_700_000_000_000;
  const sent = encodeTai64n(startMs);
  const first = nextTimestampReserve(undefined, startMs, sent)!;
  expect(first).toEqual(encodeTai64n(startMs + 600_000));
  expect(nextTimestampReserve(first, startMs + 299_000, encodeTai64n(startMs + 299_000))).toBeUndefined();
  const later = encodeTai64n(startMs + 301_000);
  expect(nextTimestampReserve(first, startMs + 301_000, later)).toEqual(encodeTai64n(startMs + 901_000));
  // A stamp sent a day ahead, and the clock back again: what is kept goes ahead of the stamp.
  const dayAhead = encodeTai64n(startMs + 86_400_000);
  const ahead = encodeTai64n(startMs + 86_400_000 + 600_000);
  expect(nextTimestampReserve(first, startMs, dayAhead)).toEqual(ahead);
  expect(nextTimestampReserve(ahead, startMs, nextTai64n(startMs, dayAhead))).toBeUndefined();
});
