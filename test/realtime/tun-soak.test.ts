// A minute (ten in `npm run proof`) of mixed load through `wirebadge wg --tun` at both ends: transfers both ways,
// connections, echoes, small UDP, settings that change. Memory of both threads, descriptors and threads stay flat, and
// at the end each end has counted what the other has.
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { fetchedHash } from "../interop/fetched.ts";
import { hashOfBlob } from "../interop/http-target.ts";
import { DATA_THREAD_GAUGE } from "../interop/planted.ts";
import { A, B, configOf, deviceOf, joined, serve, TunEnd } from "../interop/tun-end.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { LONG, record, scale } from "../proof/form.ts";
import { until } from "../scripts/program.ts";

const SECONDS = scale(60, 600);
const SETTLING_S = 15; // code that is compiled, buffers that are touched for the first time
const SAMPLE_EVERY_MS = 2_500;
const RATE = LONG ? "40M" : "8M";
const BLOB_BYTES = scale(8_000_000, 40_000_000);
/** Seen: 0.2 MB of noise. What keeps 100 bytes of each datagram would make 20 MB of it in the minute. */
const DATA_HEAP_GROWTH_MAX_BYTES = 1_500_000;
/** The main thread collects its garbage when it likes. */
const RESIDENT_GROWTH_MAX_MB = 24;

interface Sample {
  readonly residentMb: number;
  readonly files: number;
  readonly threads: number;
}

const filesOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length;

function sample(pid: number): Sample {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const of = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]);
  return { residentMb: of("VmRSS") / 1_024, files: filesOf(pid), threads: of("Threads") };
}

class Watched {
  readonly end: TunEnd;
  readonly samples: Sample[] = [];

  constructor(end: TunEnd) {
    this.end = end;
  }

  take(): void {
    this.samples.push(sample(this.end.program.pid));
  }

  /** Of the data thread, all so far. */
  get heaps(): number[] {
    const rows = this.end.program.records.filter((row) => row["event"] === "data-gauge");
    return rows.map((row) => Number(row["heapBytes"]));
  }
}

/** Until `stop`, each part again and again; what fails is told. */
class MixedLoad {
  #running = true;
  readonly #parts: Promise<void>[] = [];
  readonly failures: string[] = [];
  readonly counts = { blobs: 0, connections: 0, echoes: 0, settings: 0 };

  start(a: Namespace, b: Namespace): void {
    const hash = hashOfBlob(BLOB_BYTES);
    const blob = (namespace: Namespace, host: string) => async (): Promise<void> => {
      const got = await fetchedHash(namespace, host, 8_000, BLOB_BYTES, { rate: RATE, maxSeconds: 60 });
      if (got !== hash) throw new Error(`a blob of ${host} came as ${got}`);
      this.counts.blobs++;
    };
    this.#again(0, blob(a, B.inside[4]));
    this.#again(0, blob(b, A.inside[6]));
    this.#again(300, async () => {
      const urls = Array.from({ length: 10 }, () => `http://${B.inside[4]}:8000/`);
      await a.run(requireTool("curl"), ["-sS", "--fail", "--no-keepalive", "--max-time", "20", ...urls]);
      this.counts.connections += 10;
    });
    this.#again(200, async () => {
      const size = String(20 + ((this.counts.echoes * 37) % 4_000)); // some of them in fragments
      await b.run(requireTool("ping"), ["-q", "-c", "20", "-i", "0.01", "-s", size, "-W", "5", A.inside[4]]);
      this.counts.echoes += 20;
    });
    this.#again(1_000, async () => {
      const key = Buffer.alloc(32, 100 + (this.counts.settings % 50)).toString("base64");
      const peer = ["set", deviceOf(A), "peer", key];
      await a.run(requireTool("wg"), [...peer, "allowed-ips", "10.77.0.0/24", "endpoint", "10.1.0.77:9"]);
      await a.run(requireTool("wg"), ["show", deviceOf(A), "dump"]);
      await a.run(requireTool("wg"), [...peer, "remove"]);
      this.counts.settings++;
    });
  }

  #again(pauseMs: number, work: () => Promise<void>): void {
    const run = async (): Promise<void> => {
      while (this.#running) {
        await work().catch((error: unknown) => this.failures.push(String(error)));
        await delay(pauseMs);
      }
    };
    this.#parts.push(run());
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#parts);
  }
}

/** Received, sent. */
async function transfer(namespace: Namespace, device: string): Promise<[number, number]> {
  const { stdout } = await namespace.run(requireTool("wg"), ["show", device, "transfer"]);
  const [, received, sent] = stdout.trim().split("\t");
  return [Number(received), Number(sent)];
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

describe.runIf(needs("root", "tun", "netns", "ping", "curl", "wg"))("wg --tun at both ends", () => {
  test(`${SECONDS} s of mixed load: memory, descriptors and threads flat, counters that agree`, {
    timeout: (SECONDS + 200) * 1_000,
  }, async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await Promise.all([serve(a), serve(b)]);
    await using one = await TunEnd.start(A, a, configOf(A, B), deviceOf(A), DATA_THREAD_GAUGE);
    await using other = await TunEnd.start(B, b, configOf(B, A), deviceOf(B), DATA_THREAD_GAUGE);
    const watched = [new Watched(one), new Watched(other)];
    const load = new MixedLoad();
    load.start(a, b);
    await delay(SETTLING_S * 1_000);
    const from = watched.map(({ heaps }) => heaps.length);
    for (const endMs = performance.now() + (SECONDS - SETTLING_S) * 1_000; performance.now() < endMs; ) {
      for (const process of watched) process.take();
      await delay(SAMPLE_EVERY_MS);
    }
    await load.stop();
    expect(load.failures).toEqual([]);
    expect(load.counts.blobs).toBeGreaterThan(SECONDS / 6);
    expect(load.counts.connections).toBeGreaterThan(SECONDS);
    expect(load.counts.settings).toBeGreaterThan(SECONDS / 4);

    await until("equal counters", async () => {
      const [ours, theirs] = [await transfer(a, deviceOf(A)), await transfer(b, deviceOf(B))];
      const agree = (sent: number, received: number) => received <= sent && received > 0.99 * sent;
      return agree(ours[1], theirs[0]) && agree(theirs[1], ours[0]);
    });
    for (const [i, { end, samples, heaps }] of watched.entries()) {
      expect(end.program.output).not.toContain("data-thread-restart");
      const shown = heaps.map((bytes) => (bytes / 1e6).toFixed(2)).join(" ");
      const measured = heaps.slice(from[i]);
      const quarter = Math.ceil(measured.length / 4);
      const grown = mean(measured.slice(-quarter)) - mean(measured.slice(0, quarter));
      expect(measured.length).toBeGreaterThan((SECONDS - SETTLING_S) / 5);
      expect(grown, `data thread, MB: ${shown}`).toBeLessThan(DATA_HEAP_GROWTH_MAX_BYTES);
      const resident = samples.map(({ residentMb }) => residentMb);
      const half = Math.ceil(samples.length / 2);
      const grownMb = mean(resident.slice(half)) - mean(resident.slice(0, half));
      expect(grownMb, resident.map((mb) => mb.toFixed(0)).join(" ")).toBeLessThan(RESIDENT_GROWTH_MAX_MB);
      // While the load goes on some connections of wg(8)'s are open; what is not closed now was left open.
      await until("as many descriptors as before", () => filesOf(end.program.pid) <= samples[0]!.files || undefined);
      expect(samples.at(-1)!.threads).toBeLessThanOrEqual(samples[0]!.threads);
      const peakMb = Math.max(...resident);
      const figure = `data thread ${(grown / 1e6).toFixed(2)} MB more, RSS ≤ ${peakMb.toFixed(0)} MB`;
      record({ what: `soak of wg --tun, end ${end.spec.name}: s of mixed load`, count: SECONDS, figure });
    }
  });
});
