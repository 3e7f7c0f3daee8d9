import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { makeV4 } from "../../src/base/address.ts";
import {
  FLOWS_MAX,
  HANDSHAKES_WAITING_MAX,
  LEASE_HELD_PACKETS_MAX,
  STAGED_PACKETS_MAX,
} from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { DAY_MS } from "../../src/base/units.ts";
import type { EngineSink } from "../../src/engine/engine.ts";
import { EventQueue } from "../../src/sim/event-queue.ts";
import { checkHoldings } from "../../src/sim/invariants.ts";
import { type SimDatagram, SimNetwork } from "../../src/sim/network.ts";
import { report, runSeeds } from "../../src/sim/report.ts";
import { drawScenario } from "../../src/sim/scenario.ts";
import { formatSteps, parseSteps } from "../../src/sim/shrink.ts";
import { makeSimCrypto } from "../../src/sim/sim-crypto.ts";
import { simulate } from "../../src/sim/simulation.ts";
import { Station } from "../../src/sim/station.ts";
import { SEEDS_CHECKED } from "./held-seeds.ts";
import { sabotage } from "./planted.ts";

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
    handshakesWaiting: 3 * HANDSHAKES_WAITING_MAX,
    localReplies: 0,
    stagedOfOnePeer: STAGED_PACKETS_MAX,
    heldOfOnePeer: LEASE_HELD_PACKETS_MAX,
  };
  const station = { number: 0 } as Station;
  expect(checkHoldings(station, full)).toBeUndefined();
  for (const name of ["receiverIndexes", "flows", "handshakesWaiting", "stagedOfOnePeer", "heldOfOnePeer"] as const) {
    const over = checkHoldings(station, { ...full, [name]: full[name] + 1 });
    expect(over?.invariant).toBe("within-limits");
    expect(over?.detail).toContain(name);
  }
});

test("a failing seed is cut down to a few steps, and the command that is printed fails in the same way", () => {
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

test("the same seed gives the same trace, another one another", () => {
  const first = simulate(drawScenario(4));
  const again = simulate(drawScenario(4));
  expect(again.hash).toBe(first.hash);
  expect(again.turns).toBe(first.turns);
  expect(simulate(drawScenario(5)).hash).not.toBe(first.hash);
});

test("every kind of trouble is drawn within the seeds that are checked", () => {
  const drawn = new Set<string>();
  for (let seed = 1; seed <= SEEDS_CHECKED; seed++) for (const { kind } of drawScenario(seed).steps) drawn.add(kind);
  expect([...drawn].sort()).toEqual(
    [
      ...["udp", "tcp", "echo", "fragments", "forge", "unasked", "garbage"],
      ...["faults", "cut", "one-way-loss", "partition", "control-cut", "rebind"],
      ...["crash", "freeze", "clock", "rotate-key", "policy", "churn", "revoke", "remove", "enrol", "epoch"],
    ].sort(),
  );
});

test("loss on one way is none on the way back, and ends", () => {
  const arrived: SimDatagram[] = [];
  const network = new SimNetwork(new SeededRandom(1), (_, datagram) => arrived.push(datagram));
  const from = { address: makeV4(1), port: 1 };
  const send = (nowMs: number, one: number, other: number): boolean => {
    arrived.length = 0;
    network.send(nowMs, { from, to: from, bytes: new Uint8Array(1) }, network.lossOf(nowMs, one, other));
    return arrived.length > 0;
  };
  network.weaken(0, 1, 1, 1_000);
  expect([send(999, 0, 1), send(999, 1, 0), send(1_000, 0, 1)]).toEqual([false, true, true]);
  network.cut(0, 1, 500);
  network.cut(0, 1, 300); // a shorter one does not end the longer
  expect([network.isCut(400, 0, 1), network.isCut(400, 1, 0), network.isCut(500, 0, 1)]).toEqual([true, false, false]);
});

test("a station's clock goes forward with its wall clock, never back; a new process starts at the wall", () => {
  const scenario = drawScenario(1);
  const startMs = 1_700_000_000_000;
  const { privateKey, publicKey } = { privateKey: new Uint8Array(32).fill(7), publicKey: new Uint8Array(32).fill(8) };
  const endpoint = { address: makeV4(1), port: 1 };
  const sink = {} as EngineSink;
  const leases = { verify: () => undefined };
  const plan = { ...scenario.stations[0]!, skewMs: 500, clockErrorMs: 20 };
  const station = new Station(
    0,
    plan,
    makeSimCrypto(),
    1,
    { privateKey, publicKey },
    endpoint,
    startMs,
    () => sink,
    leases,
  );
  expect(station.clock(startMs)).toBe(startMs + 500);
  station.learnTime(startMs);
  expect(station.coordinatorMs(startMs + 10)).toBe(startMs + 30);
  station.setWallClock(startMs + 10, DAY_MS);
  expect(station.coordinatorMs(startMs + 10)).toBe(startMs + 30 + DAY_MS);
  station.learnTime(startMs + 10);
  station.setWallClock(startMs + 10, -2 * DAY_MS);
  expect(station.clock(startMs + 20)).toBe(startMs + 520 + DAY_MS);
  expect(station.coordinatorMs(startMs + 20)).toBe(startMs + 40);
  station.restart(startMs + 20, sink, leases, () => undefined);
  expect(station.clock(startMs + 20)).toBe(startMs + 520 - DAY_MS);
});

test("on several threads the failing seed is found, cut down, and printed with the command that runs it again", {
  timeout: 60_000,
}, () => {
  const sim = (...words: string[]) =>
    spawnSync(process.execPath, ["src/sim/main.ts", ...words, "--with", "test/sim/planted.ts"], { encoding: "utf8" });
  const found = sim("--seed", "1", "--count", "30", "--threads", "2");
  expect(found.stderr).toBe("");
  expect(found.status).toBe(1);
  const [, command] = /^again: npm run sim -- (.*) --with test\/sim\/planted\.ts$/m.exec(found.stdout) ?? [];
  expect(command).toMatch(/^--seed \d+ --steps \S+$/);
  const again = sim(...command!.split(" "));
  expect(again.status).toBe(1);
  const broken = (text: string): string | undefined => /VIOLATION (.*)/.exec(text)?.[1];
  expect(broken(found.stdout)).toMatch(/^(honest-source|allowed-pairs-talk): /);
  expect(broken(again.stdout)).toBe(broken(found.stdout));
});
