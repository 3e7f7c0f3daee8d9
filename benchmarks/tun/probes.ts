// One start of one contender, measured: fresh daemons on a fresh bed, what they cost idle, then each load in turn.
import { setTimeout as delay } from "node:timers/promises";
import type { Outcome } from "../../test/namespaces.ts";
import { requireTool } from "../../test/needs.ts";
import { Program, until } from "../../test/scripts/program.ts";
import { Bed, OVERLAY, SIDES } from "./bed.ts";
import type { Contender, Ends, StartOptions } from "./contenders.ts";
import type { FigureKey } from "./figures.ts";
import { connectionRates, datagrams } from "./load.ts";
import { cpuSecondsOf, residentMb } from "./process-tree.ts";
import { highestRate } from "./rate-search.ts";
import { percentile } from "./statistics.ts";
import { firstReplyMs, type IperfRun, parseIperf, parsePing } from "./tool-output.ts";

/** How long each load lasts, in seconds. */
export interface Durations {
  readonly tcp: number;
  readonly ping: number;
  readonly connections: number;
  readonly datagrams: number;
}

export const FULL: Durations = { tcp: 4, ping: 3, connections: 2, datagrams: 1 };
export const QUICK: Durations = { tcp: 2, ping: 1.5, connections: 1, datagrams: 0.5 };

export type Measured = Partial<Record<FigureKey, number>>;

const IPERF_PORT = "5201";
const COLD_PING_MS = 10;
const COLD_PINGS = 1_500;
const IDLE_MS = 500;
const SLOW_START_MS = 700;
const DATAGRAM_BYTES = 64;
const UDP_SEARCH = { from: 30_000, lostBelow: 0.01, within: 1.07 };

class Trial {
  readonly #bed: Bed;
  readonly #ends: Ends;
  readonly #durations: Durations;
  readonly measured: Measured = {};

  constructor(bed: Bed, ends: Ends, durations: Durations) {
    this.#bed = bed;
    this.#ends = ends;
    this.#durations = durations;
  }

  get #pids(): number[] {
    return SIDES.map((side) => this.#ends.pids[side]);
  }

  #ping(everyMs: number, count: number): Promise<Outcome> {
    const words = ["-n", "-i", String(everyMs / 1000), "-c", String(count), "-W", "1", OVERLAY.b];
    // Lost answers make its exit code 1.
    return this.#bed.namespaces.a.run(requireTool("ping"), words, { check: false });
  }

  async #roundTrips(everyMs: number): Promise<number[]> {
    const { stdout } = await this.#ping(everyMs, Math.ceil((this.#durations.ping * 1000) / everyMs));
    return parsePing(stdout);
  }

  #keep(key: FigureKey, value: number | undefined): void {
    if (value !== undefined) this.measured[key] = value;
  }

  async cold(): Promise<void> {
    const words = ["-n", "-i", String(COLD_PING_MS / 1000), "-c", String(COLD_PINGS), OVERLAY.b];
    const ping = new Program("ping", requireTool("ping"), words, { namespace: this.#bed.namespaces.a });
    const first = (): number | undefined => firstReplyMs(ping.output, COLD_PING_MS);
    this.#keep("cold", await until("first reply", () => (ping.alive ? first() : (first() ?? Number.NaN))));
    await ping.end();
    if (Number.isNaN(this.measured.cold)) throw new Error(`nothing came back through the tunnel: ${ping.tail}`);
    await delay(IDLE_MS);
    this.#keep("memoryIdle", Math.max(...residentMb(this.#pids)));
  }

  async roundTrips(): Promise<void> {
    const [rare, frequent] = [await this.#roundTrips(20), await this.#roundTrips(2)];
    this.#keep("rtt20", percentile(rare, 0.5));
    this.#keep("rtt20Tail", percentile(rare, 0.99));
    this.#keep("rtt2", percentile(frequent, 0.5));
    this.#keep("rtt2Tail", percentile(frequent, 0.99));
  }

  async connections(): Promise<void> {
    const [one, many] = await connectionRates(this.#bed, [1, 16], this.#durations.connections);
    this.#keep("connect1", one);
    this.#keep("connect16", many);
  }

  async smallDatagrams(): Promise<void> {
    const probe = (rate: number) => datagrams(this.#bed, rate, DATAGRAM_BYTES, this.#durations.datagrams);
    this.#keep("udp64", await highestRate(probe, UDP_SEARCH));
  }

  async #iperf(...words: readonly string[]): Promise<IperfRun> {
    const args = ["-c", OVERLAY.b, "-p", IPERF_PORT, "-t", String(this.#durations.tcp), "-J", ...words];
    const { stdout } = await this.#bed.namespaces.a.run(requireTool("iperf3"), args, { check: false });
    return parseIperf(stdout);
  }

  async oneStream(as: "tcp1" | "tcpMasked", words: readonly string[] = []): Promise<void> {
    const before = cpuSecondsOf(this.#pids);
    const { bitsPerSecond, bytes } = await this.#iperf(...words);
    this.#keep(as, bitsPerSecond / 1e9);
    if (as === "tcp1") this.#keep("cpuPerGb", (cpuSecondsOf(this.#pids) - before) / (bytes / 1e9));
  }

  async otherStreams(): Promise<void> {
    this.#keep("tcpReverse", (await this.#iperf("-R")).bitsPerSecond / 1e9);
    this.#keep("tcp4", (await this.#iperf("-P", "4")).bitsPerSecond / 1e9);
  }

  async loadedRoundTrips(): Promise<void> {
    const seconds = this.#durations.ping + (2 * SLOW_START_MS) / 1000;
    const args = ["-c", OVERLAY.b, "-p", IPERF_PORT, "-t", String(Math.ceil(seconds)), "-J"];
    const stream = this.#bed.namespaces.a.run(requireTool("iperf3"), args, { check: false });
    await delay(SLOW_START_MS);
    this.#keep("rttLoaded", percentile(await this.#roundTrips(20), 0.99));
    parseIperf((await stream).stdout); // throws if there was no stream beside it
  }

  async iperfServer(): Promise<void> {
    const namespace = this.#bed.namespaces.b;
    const server = new Program("iperf3", requireTool("iperf3"), ["-s", "-p", IPERF_PORT, "--forceflush"], {
      namespace,
    });
    await until("iperf3's server", () => {
      if (!server.alive) throw new Error(`iperf3's server ended: ${server.tail}`);
      return server.output.includes("listening");
    });
  }

  memoryAfter(): void {
    this.#keep("memoryAfter", Math.max(...residentMb(this.#pids)));
  }
}

/** @throws Error with the name of what failed; what was measured before is in `partly` */
export async function measureStart(contender: Contender, durations: Durations, partly: Measured): Promise<void> {
  await using bed = new Bed();
  const trial = new Trial(bed, await contender.start(bed), durations);
  try {
    await trial.cold();
    await trial.roundTrips();
    await trial.connections();
    await trial.smallDatagrams();
    await trial.iperfServer();
    await trial.oneStream("tcp1");
    await trial.otherStreams();
    await trial.loadedRoundTrips();
    trial.memoryAfter();
  } finally {
    Object.assign(partly, trial.measured);
  }
}

/** One TCP stream through a fresh pair that OpenSSL's AVX-512 is kept from, after the same loads as elsewhere; Gb/s. */
export async function measureMasked(contender: Contender, durations: Durations, options: StartOptions) {
  await using bed = new Bed();
  const trial = new Trial(bed, await contender.start(bed, options), durations);
  await trial.cold();
  await trial.roundTrips();
  await trial.connections();
  await trial.smallDatagrams();
  await trial.iperfServer();
  await trial.oneStream("tcpMasked");
  return trial.measured.tcpMasked;
}

/** One TCP stream from a to b through a pair that is up. */
export async function measureStream(bed: Bed, ends: Ends, seconds: number, words: readonly string[]) {
  const trial = new Trial(bed, ends, { ...FULL, tcp: seconds });
  await trial.cold();
  await trial.iperfServer();
  await trial.oneStream("tcp1", words);
  return { gigabits: trial.measured.tcp1 ?? 0, cpuPerGb: trial.measured.cpuPerGb ?? 0 };
}
