import { expect, test } from "vitest";
import { FLOWS_MAX, LEASE_HELD_PACKETS_MAX, STAGED_PACKETS_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { EventQueue } from "../../src/sim/event-queue.ts";
import { checkHoldings } from "../../src/sim/invariants.ts";
import { report, runSeeds } from "../../src/sim/report.ts";
import { formatSteps, parseSteps } from "../../src/sim/shrink.ts";
import type { Station } from "../../src/sim/station.ts";

test("events come in order of their time, those of one instant in the order they were put in", () => {
  const random = new SeededRandom(1);
  const queue = new EventQueue<[number, number]>();
  const expected: [number, number][] = [];
  for (let i = 0; i < 500; i++) {
    const atMs = random.below(50);
    queue.push(atMs, [atMs, i]);
    expected.push([atMs, i]);
  }
  expected.sort(([a, i], [b, j]) => a - b || i - j);
  const taken: [number, number][] = [];
  for (let event = queue.takeDue(50); event !== undefined; event = queue.takeDue(50)) taken.push(event);
  expect(taken).toEqual(expected);
  expect(queue.nextMs).toBe(Number.POSITIVE_INFINITY);
});

test("nothing is taken before its time", () => {
  const queue = new EventQueue<string>();
  queue.push(10, "later");
  expect(queue.takeDue(9)).toBeUndefined();
  expect(queue.takeDue(10)).toBe("later");
});

test("lists of steps are read as they are written", () => {
  expect(formatSteps([3, 17, 18, 19, 20, 22])).toBe("3,17-20,22");
  expect(parseSteps("3,17-20,22")).toEqual([3, 17, 18, 19, 20, 22]);
  expect(formatSteps([])).toBe("none");
  expect(parseSteps("none")).toEqual([]);
  expect(() => parseSteps("3-")).toThrow(RangeError);
});

test("one entry over a bound is a violation, the bound itself is none", () => {
  const full = {
    peers: 2,
    receiverIndexes: 8,
    flows: FLOWS_MAX,
    localReplies: 0,
    stagedOfOnePeer: STAGED_PACKETS_MAX,
    heldOfOnePeer: LEASE_HELD_PACKETS_MAX,
  };
  const station = { number: 0 } as Station;
  expect(checkHoldings(station, full)).toBeUndefined();
  for (const name of ["receiverIndexes", "flows", "stagedOfOnePeer", "heldOfOnePeer"] as const) {
    const over = checkHoldings(station, { ...full, [name]: full[name] + 1 });
    expect(over?.invariant).toBe("within-limits");
    expect(over?.detail).toContain(name);
  }
});

test("a failing seed is cut down to a few steps, and the command that is printed fails in the same way", () => {
  const sabotage = ({ engine: { filter } }: Station): void => {
    filter.judgeOutbound = () => ({ allowed: true, reason: "ALLOWED_BY_RULE", ruleId: "planted" });
  };
  const shrunk = runSeeds({ seed: 1, count: 10, shrink: true, sabotage });
  const { failed } = shrunk;
  expect(failed?.kept.length).toBeLessThan(5);
  const command = report(shrunk).find((line) => line.startsWith("again: npm run sim"));
  const steps = /--steps (\S+)/.exec(command ?? "")?.[1];
  const seed = failed!.outcome.seed;
  expect(command).toContain(`--seed ${seed}`);
  const again = runSeeds({ seed, count: 1, sabotage, ...(steps === undefined ? {} : { steps }) });
  expect(again.failed?.outcome.hash).toBe(failed?.outcome.hash);
});
