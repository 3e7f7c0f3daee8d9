// The ring of bits against a set of big integers.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { REPLAY_WINDOW_COUNTERS, ReplayWindow } from "../../src/wireguard/replay-window.ts";

class Oracle {
  readonly #seen = new Set<bigint>();
  #greatest = 0n;

  accept(counter: bigint): boolean {
    if (this.#seen.has(counter)) return false;
    if (counter < this.#greatest && this.#greatest - counter >= BigInt(REPLAY_WINDOW_COUNTERS)) return false;
    this.#seen.add(counter);
    if (counter > this.#greatest) this.#greatest = counter;
    return true;
  }
}

function accept(window: ReplayWindow, counter: bigint): boolean {
  const [low, high] = [Number(counter & 0xffffffffn), Number(counter >> 32n)];
  if (!window.isFresh(low, high)) return false;
  window.mark(low, high);
  return true;
}

test("the window spans at least 8,000 counters", () => {
  expect(REPLAY_WINDOW_COUNTERS).toBeGreaterThanOrEqual(8_000);
});

describe("each counter is taken once, as the oracle takes it,", () => {
  const start = fc.constantFrom(0n, 100n, 2n ** 32n - 5n, 2n ** 53n - 4_000n, 2n ** 59n, 2n ** 64n - 20_000n);
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.integer({ min: -40, max: 70 }) },
    { weight: 2, arbitrary: fc.integer({ min: -8_200, max: 8_200 }) },
    { weight: 1, arbitrary: fc.constantFrom(-8_159, -8_160, -8_161, 8_191, 8_192, 8_193, 16_384) },
  );
  test("under any order of arrival, also around 2^32, 2^53 and 2^64", () => {
    fc.assert(
      fc.property(start, fc.array(step, { maxLength: 120 }), (from, steps) => {
        const window = new ReplayWindow();
        const oracle = new Oracle();
        let counter = from;
        for (const delta of [0, 0, ...steps, ...steps.map((value) => -value)]) {
          counter += BigInt(delta);
          if (counter < 0n || counter >= 2n ** 64n) counter = from;
          expect(accept(window, counter), String(counter)).toBe(oracle.accept(counter));
        }
      }),
      { numRuns: 200 },
    );
  });

  test("over a leap of 2^63", () => {
    const window = new ReplayWindow();
    for (const counter of [0n, 1n, 2n ** 63n, 2n ** 63n + 1n]) expect(accept(window, counter)).toBe(true);
    for (const counter of [0n, 1n, 2n, 2n ** 32n, 2n ** 63n, 2n ** 63n - 8_160n]) {
      expect(accept(window, counter), String(counter)).toBe(false);
    }
    expect(accept(window, 2n ** 63n - 8_158n)).toBe(true);
  });
});

test("asking changes nothing: an unauthenticated counter must not move the window", () => {
  const window = new ReplayWindow();
  expect(window.isFresh(0xffffffff, 0xffffffff)).toBe(true);
  expect(window.isFresh(0, 0)).toBe(true);
  window.mark(0, 0);
  expect(window.isFresh(0, 0)).toBe(false);
  expect(window.isFresh(1, 0)).toBe(true);
});
