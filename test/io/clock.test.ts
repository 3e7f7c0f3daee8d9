// The process's clock while the machine's wall clock is set about.
import { expect, test } from "vitest";
import { SystemClock } from "../../src/io/clock.ts";

const DAY_MS = 86_400_000;

/** A machine with a monotonic clock and a wall clock that somebody sets. */
function machine() {
  const times = { monotonicMs: 5_000, wallMs: 1_700_000_000_000 };
  const clock = new SystemClock(
    () => times.wallMs,
    () => times.monotonicMs,
  );
  const startMs = clock.nowMs();
  return {
    /** Since the start, by the process's clock. */
    sinceMs: () => clock.nowMs() - startMs,
    startMs,
    pass(ms: number) {
      times.monotonicMs += ms;
      times.wallMs += ms;
    },
    suspend(ms: number) {
      times.wallMs += ms;
    },
    set(byMs: number) {
      times.wallMs += byMs;
    },
  };
}

test("it begins at wall time and goes with the monotonic clock", () => {
  const { startMs, pass, sinceMs } = machine();
  expect(startMs).toBe(1_700_000_000_000);
  pass(1_500);
  expect(sinceMs()).toBe(1_500);
});

test("a clock set forward and a suspended machine move it on", () => {
  const { pass, set, suspend, sinceMs } = machine();
  set(DAY_MS);
  expect(sinceMs()).toBe(DAY_MS);
  suspend(60_000);
  pass(10);
  expect(sinceMs()).toBe(DAY_MS + 60_010);
});

test("a clock set back does not move it back, nor slow it down", () => {
  const { pass, set, sinceMs } = machine();
  set(-DAY_MS);
  expect(sinceMs()).toBe(0);
  pass(2_000);
  expect(sinceMs()).toBe(2_000);
});

test("set forward by mistake and back again: it does not stand still for as long as the step was", () => {
  const { pass, set, sinceMs } = machine();
  set(DAY_MS);
  expect(sinceMs()).toBe(DAY_MS);
  set(-DAY_MS);
  expect(sinceMs()).toBe(DAY_MS);
  pass(7_000);
  expect(sinceMs()).toBe(DAY_MS + 7_000);
});

test("a suspended machine whose clock was set back before: the time of the suspension counts in full", () => {
  const { set, suspend, sinceMs } = machine();
  set(-DAY_MS);
  expect(sinceMs()).toBe(0);
  suspend(3_600_000);
  expect(sinceMs()).toBe(3_600_000);
});

test("the noise between the two clocks adds nothing up; a slow drift is followed within 100 ms", () => {
  const { pass, set, sinceMs } = machine();
  for (let i = 0; i < 10_000; i++) {
    set(i % 2 === 0 ? 1 : -1);
    pass(1);
    sinceMs();
  }
  expect(sinceMs()).toBe(10_000);
  for (let i = 0; i < 1_000; i++) {
    set(0.5);
    pass(1_000);
    sinceMs();
  }
  expect(sinceMs()).toBeGreaterThan(1_010_000 + 400);
  expect(sinceMs()).toBeLessThanOrEqual(1_010_000 + 500);
});
