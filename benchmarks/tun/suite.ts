// `npm run bench -- tun`: the TUN data plane end to end beside wireguard-go, boringtun and Nebula, each started several
// times in turn. The full form writes its samples, chart and tables (benchmarks/results/, README, test/CLAIMS.md).
// Options:
//   --quick               2 shorter starts of each; writes nothing
//   --starts=N            instead of 5
//   --only=a,b            these contenders
//   --out=FILE            the samples as JSON, also of a quick or partial run
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { fileURLToPath } from "node:url";
import { writeSection } from "../../test/claims-section.ts";
import { needsIn, requireTool } from "../../test/needs.ts";
import type { BenchResult } from "../result.ts";
import { chart } from "./chart.ts";
import { BASE, CONTENDERS, type Contender, OURS, WITHOUT_AVX512 } from "./contenders.ts";
import { FIGURES, type FigureKey } from "./figures.ts";
import { idleCpuPercent } from "./idle.ts";
import { canLoad } from "./load.ts";
import { withMarked } from "./marked-section.ts";
import { FULL, type Measured, measureMasked, measureStart, QUICK } from "./probes.ts";
import { cpuUse } from "./process-tree.ts";
import { claimsReport, markdownReport, textReport } from "./report.ts";
import { judgements, type Machine, type RunRecord } from "./run-record.ts";
import { EQUAL_BELOW } from "./statistics.ts";

const STARTS = { full: 5, quick: 2 };
const IDLE_SECONDS = { full: 125, quick: 25 };
/** More than this used by others, in one start, and the run is suspect. */
const OTHER_CORES_MAX = 0.1;
const CHART = "benchmarks/results/tun.svg";
const RECORD = "benchmarks/results/tun.json";
const SECTION = "npm run bench -- tun";
const SEAL_RATE = fileURLToPath(new URL("seal-rate.ts", import.meta.url));

const ofTree = (path: string): URL => new URL(`../../${path}`, import.meta.url);
const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** Says in one line who is left out. */
function isThere({ name, needs, unfit }: Contender): boolean {
  if (!needsIn(process.env, (line) => process.stderr.write(line), SECTION, needs)) return false;
  const reason = unfit?.();
  if (reason !== undefined) say(`NEEDS ${SECTION}: another ${name} (${reason})`);
  return reason === undefined;
}

function sealRate(env: NodeJS.ProcessEnv): number {
  const printed = execFileSync(process.execPath, [SEAL_RATE], { encoding: "utf8", env: { ...process.env, ...env } });
  return (JSON.parse(printed) as { gbPerSecond: number }).gbPerSecond;
}

function machine(): Machine {
  const { node, openssl } = process.versions;
  const iperf3 = execFileSync(requireTool("iperf3"), ["--version"], { encoding: "utf8" }).split(" (")[0]!;
  const cpu = cpus()[0]?.model ?? "unknown CPU";
  return { cpu, cores: cpus().length, kernel: release(), node, openssl, iperf3 };
}

class Run {
  readonly #quick: boolean;
  readonly #contenders: readonly Contender[];
  readonly #facts: Omit<RunRecord, "samples" | "otherCores" | "stolenCores" | "notes">;
  readonly #samples: Partial<Record<FigureKey, Record<string, (number | null)[]>>> = {};
  readonly notes: string[] = [];
  #otherCores = 0;
  #stolenCores = 0;

  constructor(quick: boolean, contenders: readonly Contender[]) {
    this.#quick = quick;
    this.#contenders = contenders;
    // Asked first: whatever fails of it fails before the long work.
    this.#facts = {
      date: new Date().toISOString(),
      commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim(),
      quick,
      machine: machine(),
      sealRate: { full: sealRate({}), masked: sealRate({ OPENSSL_ia32cap: WITHOUT_AVX512 }) },
      ours: OURS,
      base: BASE,
      contenders: contenders.map(({ name, aead, version }) => ({ name, aead, version: version() })),
    };
  }

  #keep(key: FigureKey, name: string, value: number | undefined): void {
    this.#samples[key] ??= {};
    this.#samples[key][name] ??= [];
    this.#samples[key][name].push(value ?? null);
  }

  /** Runs one start; what fails is a note, and its figures are missing from this round. */
  async #start(what: string, work: () => Promise<void>): Promise<void> {
    const [before, fromMs] = [cpuUse(), performance.now()];
    try {
      await work();
    } catch (error) {
      this.notes.push(`${what} failed: ${error instanceof Error ? error.message : String(error)}`);
    }
    const [after, seconds] = [cpuUse(), (performance.now() - fromMs) / 1_000];
    const others = (after.othersSeconds - before.othersSeconds) / seconds;
    this.#otherCores = Math.max(this.#otherCores, others);
    this.#stolenCores = Math.max(this.#stolenCores, (after.stolenSeconds - before.stolenSeconds) / seconds);
    say(`${what}: ${seconds.toFixed(0)} s, ${others.toFixed(2)} cores used by others`);
  }

  async round(which: string): Promise<void> {
    const durations = this.#quick ? QUICK : FULL;
    for (const contender of this.#contenders) {
      const measured: Measured = {};
      await this.#start(`${which} of ${contender.name}`, () => measureStart(contender, durations, measured));
      for (const { key, peersAs } of FIGURES)
        if (peersAs === undefined && key !== "idleCpu") this.#keep(key, contender.name, measured[key]);
      if (contender.name !== OURS) continue;
      let masked: number | undefined;
      await this.#start(`${which} of ${contender.name} without AVX-512`, async () => {
        masked = await measureMasked(contender, durations, { env: { OPENSSL_ia32cap: WITHOUT_AVX512 } });
      });
      this.#keep("tcpMasked", contender.name, masked);
    }
  }

  async idle(): Promise<void> {
    const seconds = this.#quick ? IDLE_SECONDS.quick : IDLE_SECONDS.full;
    for (const { name, startEnd } of this.#contenders) {
      if (startEnd === undefined) continue;
      let percent: number | undefined;
      await this.#start(`${name}, idle with 100 peers`, async () => {
        percent = await idleCpuPercent(startEnd, seconds);
      });
      this.#keep("idleCpu", name, percent);
    }
  }

  record(): RunRecord {
    return {
      ...this.#facts,
      samples: this.#samples,
      otherCores: this.#otherCores,
      stolenCores: this.#stolenCores,
      notes: [
        ...this.notes,
        ...(this.#otherCores > OTHER_CORES_MAX
          ? ["The machine was busy with other things: do not trust this run."]
          : []),
      ],
    };
  }
}

/** Every figure of ours, and each ratio to wireguard-go. */
function results(run: RunRecord): BenchResult[] {
  return judgements(run).flatMap(({ figure, medians, toBase, word }) => {
    const ours = medians[run.ours];
    if (ours === undefined) return [];
    const own: BenchResult = { name: `TUN: ${figure.title}`, value: ours, unit: figure.unit };
    if (toBase === undefined) return [own];
    const unit = `× (${word === "equal" ? `equal: below ${EQUAL_BELOW} ×` : word})`;
    return [own, { name: `TUN: ${figure.title}, to ${run.base}`, value: toBase, unit }];
  });
}

function write(run: RunRecord): void {
  mkdirSync(ofTree("benchmarks/results/"), { recursive: true });
  writeFileSync(ofTree(RECORD), `${JSON.stringify(run, undefined, 1)}\n`);
  writeFileSync(ofTree(CHART), chart(run));
  const readme = ofTree("README.md");
  writeFileSync(readme, withMarked(readFileSync(readme, "utf8"), SECTION, markdownReport(run, CHART)));
  writeSection("TUN figures", claimsReport(run));
}

export interface SuiteOptions {
  /** "--quick" → "", "--starts=3" → "3" */
  readonly flags: ReadonlyMap<string, string>;
  /** Nothing but JSON may go to stdout. */
  readonly json: boolean;
}

export async function run({ flags, json }: SuiteOptions): Promise<BenchResult[]> {
  const tools = ["netns", "tun", "iperf3", "ping", "perl"] as const;
  if (!needsIn(process.env, (line) => process.stderr.write(line), SECTION, tools)) return [];
  if (!canLoad()) {
    say(`NEEDS ${SECTION}: Perl's Time::HiRes missing (install: apt-get install perl)`);
    return [];
  }
  const only = flags.get("only")?.split(",");
  const unknown = (only ?? []).filter((name) => !CONTENDERS.some((contender) => contender.name === name));
  if (unknown.length > 0) throw new Error(`no contender is called ${unknown.join(", ")}`);
  const quick = flags.has("quick");
  const contenders = CONTENDERS.filter((one) => (only?.includes(one.name) ?? true) && isThere(one));
  // Ended by "exit": the namespaces go, with all that runs in them.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
  const measured = new Run(quick, contenders);
  for (const { name } of CONTENDERS)
    if (!contenders.some((contender) => contender.name === name)) measured.notes.push(`${name} was left out.`);
  const starts = Number(flags.get("starts") ?? (quick ? STARTS.quick : STARTS.full));
  for (let start = 1; start <= starts; start++) await measured.round(`start ${start} of ${starts}`);
  await measured.idle();
  const record = measured.record();
  if (!json) process.stdout.write(`${textReport(record)}\n`);
  const out = flags.get("out");
  if (out !== undefined) writeFileSync(out, `${JSON.stringify(record, undefined, 1)}\n`);
  const whole = !quick && only === undefined && starts >= STARTS.full;
  if (whole && contenders.some(({ name }) => name === BASE)) write(record);
  return results(record);
}
