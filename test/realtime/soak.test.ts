// Ten minutes (one in `npm test`) of mixed load on real processes: memory after a collection, file descriptors, handles
// and tables stay flat while it goes on, and are back where they began when it has ended.
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { TCP_TIME_WAIT_MAX } from "../../src/base/limits.ts";
import { LONG, record, scale } from "../proof/form.ts";
import type { Gauge } from "../scripts/gauge.ts";
import { TestNetwork } from "../scripts/network.ts";
import { cleanEnvironment, type Program, until } from "../scripts/program.ts";
import { MixedLoad, startEcho } from "./soak-load.ts";

const GAUGE = new URL("../scripts/gauge.ts", import.meta.url).href;
const SECONDS = scale(60, 600);
const SAMPLES = scale(12, 40);
const RATES = {
  connectionsPerSecond: scale(15, 60),
  bulkBytesPerSecond: scale(1_000_000, 6_000_000),
  joinEveryMs: scale(15_000, 10_000),
};
/** So many at the least, however busy the machine is: the load goes on until they are made. */
const CONNECTIONS_MIN = scale(600, 10_000);
/**
 * Of the heap after the load over the heap before it. A gateway whose stack kept its closed connections was seen to
 * grow by 54 MB within the minute; caches that fill and code that is compiled take 3 MB.
 */
const GROWTH_MAX_BYTES = 6_000_000;
/**
 * Of the heap over the second half of the load, beside what it holds of the connections of the last minute: those come
 * faster when other work on the machine ends. Only the long form is long enough to tell it from its noise.
 */
const SLOPE_MAX_BYTES_PER_SECOND = 12_000;
/** Closed connections and their flows are remembered for a minute: only then do as many go as come. */
const REMEMBERED_S = 60;
const SETTLED_AFTER_MS = scale(0, 65_000);
const BACK_WITHIN_MS = 150_000;

interface Sample extends Gauge {
  readonly atS: number;
  /** Connections made in the minute before, as many of them as a stack keeps in TIME-WAIT. */
  readonly remembered: number;
}

/** One process with all that was measured of it. */
class Watched {
  readonly name: string;
  readonly program: Program;
  readonly samples: Sample[] = [];
  #asked = 0;

  constructor(name: string, program: Program) {
    this.name = name;
    this.program = program;
  }

  async sample(atS: number, remembered = 0): Promise<Sample> {
    const number = ++this.#asked;
    process.kill(this.program.pid, "SIGUSR2");
    const gauge = await this.program.event(`gauge ${number}`, (value) =>
      value["event"] === "gauge" && value["number"] === number ? (value as unknown as Gauge) : undefined,
    );
    return { ...gauge, atS, remembered };
  }

  /** Bytes of heap a second over the second half of the samples: least squares by time and remembered connections. */
  get slope(): number {
    return slopeOf(this.samples.slice(Math.floor(this.samples.length / 2)));
  }
}

/** The part of the time in heap = a + slope × time + c × remembered, by least squares. */
function slopeOf(samples: readonly Pick<Sample, "atS" | "remembered" | "heapBytes">[]): number {
  const centred = (of: (sample: (typeof samples)[number]) => number): number[] => {
    const mean = samples.reduce((sum, one) => sum + of(one), 0) / samples.length;
    return samples.map((one) => of(one) - mean);
  };
  const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  const [time, held, heap] = [
    centred((one) => one.atS),
    centred((one) => one.remembered),
    centred((one) => one.heapBytes),
  ];
  const determinant = dot(time, time) * dot(held, held) - dot(time, held) ** 2;
  if (determinant < 1e-6 * dot(time, time)) return dot(time, heap) / dot(time, time); // as many all the time
  return (dot(time, heap) * dot(held, held) - dot(held, heap) * dot(time, held)) / determinant;
}

/** What counts how full something is, of a peer's counters; they leave out what is 0. */
function tablesOf(counters: Readonly<Record<string, number>>): Record<string, number> {
  const names =
    /^(table-(peers|flows|stagedOfOnePeer|heldOfOnePeer)|stack-(TCP_CONNECTIONS|TCP_BACKLOG|TCP_RECEIVE_HELD_BYTES))$/;
  return Object.fromEntries(Object.entries(counters).filter(([name]) => names.test(name)));
}

const megabytes = (bytes: number): string => `${(bytes / 1_000_000).toFixed(2)} MB`;

test("a heap that follows the connections of the last minute does not grow; one that grows beside them does", () => {
  const samples = Array.from({ length: 20 }, (_, i) => {
    const remembered = i < 12 ? 900 : 900 + 200 * (i - 11);
    return { atS: 15 * i, remembered, heapBytes: 4e7 + 9_000 * remembered + 1e5 * (i % 3) };
  });
  expect(Math.abs(slopeOf(samples))).toBeLessThan(SLOPE_MAX_BYTES_PER_SECOND / 4);
  const leaking = samples.map((one) => ({ ...one, heapBytes: one.heapBytes + 20_000 * one.atS }));
  expect(slopeOf(leaking)).toBeGreaterThan(SLOPE_MAX_BYTES_PER_SECOND);
  const steady = samples.map((one) => ({ ...one, remembered: 900, heapBytes: 4e7 + 20_000 * one.atS }));
  expect(slopeOf(steady)).toBeCloseTo(20_000);
});

test(`${SECONDS} s of mixed load: memory, files, handles and tables flat, and back when it ends`, {
  timeout: (SECONDS + 500) * 1_000,
}, async () => {
  const { server, port } = await startEcho();
  const env = { ...cleanEnvironment(), NODE_OPTIONS: `--import=${GAUGE}` };
  await using network = await TestNetwork.start({ env });
  const policyOf = (version: number): unknown => ({
    services: {
      echo: { at: `127.0.0.1 tcp:${port}`, via: ["node:gw"] },
      closed: { at: "127.0.0.1 tcp:9", via: ["node:gw"] },
    },
    grants: [
      { from: "kind:agent", to: "service:echo" },
      { from: "user:nobody@example.com", to: `node:gw tcp:${1_000 + version}` },
    ],
  });
  await network.setPolicy(policyOf(0));
  const gateway = await network.join("node:gw", ["--serve", `echo=127.0.0.1:${port}`, "--serve", "closed=127.0.0.1:9"]);
  const agent = await network.join("agent:coder", ["--socks"]);
  const watched = [
    new Watched("coordinator", network.coordinator),
    new Watched("gateway", gateway.program),
    new Watched("agent", agent.program),
  ];
  const sessions = async (): Promise<number> =>
    ((await network.api("GET", "/v1/sessions")) as { sessions: unknown[] }).sessions.length;

  const tables = await Promise.all([gateway, agent].map(async (peer) => tablesOf((await peer.status()).counters)));
  const sessionsBefore = await sessions();
  const unloaded = await Promise.all(watched.map((one) => one.sample(0)));

  // Once round, so that what is loaded and compiled at first use is there before the heap is measured.
  const warmUp = new MixedLoad(network, agent, port, policyOf);
  await warmUp.start({ ...RATES, joinEveryMs: 60_000 });
  await delay(5_000);
  await warmUp.stop();
  expect(warmUp.failures).toEqual([]);
  const before = await Promise.all(watched.map((one) => one.sample(0)));

  const load = new MixedLoad(network, agent, port, policyOf);
  await load.start(RATES);
  await delay(SETTLED_AFTER_MS);
  const startMs = performance.now();
  const everyMs = (SECONDS * 1_000) / SAMPLES;
  const made: number[] = [];
  for (let i = 1; i <= SAMPLES; i++) {
    await delay(Math.max(0, startMs + i * everyMs - performance.now()));
    made.push(load.counts.short);
    const ofMinute = load.counts.short - (made.at(-1 - Math.round((REMEMBERED_S * 1_000) / everyMs)) ?? 0);
    const remembered = Math.min(ofMinute, TCP_TIME_WAIT_MAX);
    for (const one of watched) one.samples.push(await one.sample((performance.now() - startMs) / 1_000, remembered));
  }
  await until("as many connections", () => load.counts.short >= CONNECTIONS_MIN || undefined, 300_000);
  await load.stop();
  const loadS = (performance.now() - startMs) / 1_000;

  // Flat while it went on.
  const { counts } = load;
  expect(load.failures).toEqual([]);
  expect(counts.bulkBytes).toBeGreaterThan((SECONDS * RATES.bulkBytesPerSecond) / 10);
  expect(counts.denied).toBeGreaterThan(SECONDS / 10);
  expect(counts.policies).toBeGreaterThan(SECONDS / 30);
  expect(counts.joins).toBeGreaterThan(0);
  for (const one of watched) {
    const shown = one.samples.map(({ heapBytes, remembered }) => `${megabytes(heapBytes)} (${remembered})`).join(" ");
    if (LONG) expect(one.slope, `${one.name}, bytes a second: ${shown}`).toBeLessThan(SLOPE_MAX_BYTES_PER_SECOND);
  }

  // Back when it has ended.
  let after = unloaded;
  await until(
    "files and handles as before",
    async () => {
      after = await Promise.all(watched.map((one) => one.sample(loadS)));
      return after.every(({ files, resources }, i) => {
        const was = unloaded[i]!;
        const sockets = (gauge: Gauge): number =>
          (gauge.resources["TCPSocketWrap"] ?? 0) + (gauge.resources["PipeWrap"] ?? 0);
        return files <= was.files && sockets({ ...was, resources }) <= sockets(was);
      });
    },
    BACK_WITHIN_MS,
  ).catch(() => expect(after).toEqual(unloaded)); // to show both
  await until(
    "tables as before",
    async () => {
      const now = await Promise.all([gateway, agent].map(async (peer) => tablesOf((await peer.status()).counters)));
      return now.every((table, i) => Object.entries(table).every(([name, held]) => held <= (tables[i]![name] ?? 0)));
    },
    BACK_WITHIN_MS,
  );
  expect(await sessions()).toBe(sessionsBefore);
  const ended = await Promise.all(watched.map((one) => one.sample(loadS)));
  for (const [i, one] of watched.entries()) {
    const grown = ended[i]!.heapBytes - before[i]!.heapBytes;
    expect(grown, `${one.name}: ${megabytes(before[i]!.heapBytes)} before`).toBeLessThan(GROWTH_MAX_BYTES);
    const peakRss = Math.max(...one.samples.map(({ rssBytes }) => rssBytes));
    const slope = `${(one.slope / 1_000).toFixed(1)} kB/s over the second half`;
    const figure = `${slope}, ${megabytes(grown)} more at the end, RSS ≤ ${megabytes(peakRss)}`;
    record({ what: `soak, ${one.name}: s of mixed load`, count: Math.round(loadS), figure });
  }
  record({
    what: "soak: connections, each closed again",
    count: counts.short,
    figure: `${megabytes(counts.bulkBytes)} in one stream`,
  });
  server.close();
});
