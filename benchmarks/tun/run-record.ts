// A whole run as it is kept: machine, versions and every sample, from which table and chart are made; and what the
// samples of a figure say.
import { FIGURES, type Figure, type FigureKey } from "./figures.ts";
import { type Better, median, pairedRatio, type Samples, type Word, word } from "./statistics.ts";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  readonly openssl: string;
  readonly iperf3: string;
}

export interface MeasuredContender {
  readonly name: string;
  readonly version: string;
  readonly aead: string;
}

export interface RunRecord {
  /** ISO 8601 */
  readonly date: string;
  readonly commit: string;
  readonly quick: boolean;
  readonly machine: Machine;
  /** Of OpenSSL inside Node, one core, 1,420-byte packets: with all that the CPU has, and with AVX-512 masked; GB/s. */
  readonly sealRate: { readonly full: number; readonly masked: number };
  readonly ours: string;
  readonly base: string;
  readonly contenders: readonly MeasuredContender[];
  /** figure → contender → one sample for each start, null where it failed. */
  readonly samples: Readonly<Partial<Record<FigureKey, Readonly<Record<string, Samples>>>>>;
  /** Cores that other processes used during a start, and that the hypervisor took away: the worst start of each. */
  readonly otherCores: number;
  readonly stolenCores: number;
  /** One line each: who was left out, what failed. */
  readonly notes: readonly string[];
}

export interface Judgement {
  readonly figure: Figure;
  /** contender → median */
  readonly medians: Readonly<Record<string, number>>;
  /** Ours to wireguard-go's, and to the best peer's; medians over paired starts. */
  readonly toBase: number | undefined;
  readonly toBest: number | undefined;
  readonly best: string | undefined;
  readonly word: Word | undefined;
  /** Undefined where nothing is to be held or ours wasn't measured. */
  readonly target: "aim" | "must" | "missed" | undefined;
}

const reaches = (value: number, bound: number, better: Better): boolean =>
  better === "more" ? value >= bound : value <= bound;

/** The samples of a figure by contender, with the peers' of the figure that stands in for it. */
export function samplesOf(run: RunRecord, figure: Figure): Readonly<Record<string, Samples>> {
  const own = run.samples[figure.key] ?? {};
  return figure.peersAs === undefined ? own : { ...run.samples[figure.peersAs], [run.ours]: own[run.ours] ?? [] };
}

export function judge(run: RunRecord, figure: Figure): Judgement {
  const samples = samplesOf(run, figure);
  const medians: Record<string, number> = {};
  for (const { name } of run.contenders) {
    const middle = median(samples[name] ?? []);
    if (middle !== undefined) medians[name] = middle;
  }
  const ours = samples[run.ours] ?? [];
  const peers = Object.keys(medians).filter((name) => name !== run.ours);
  const direction = figure.better === "more" ? -1 : 1;
  const best = peers.sort((one, other) => direction * (medians[one]! - medians[other]!))[0];
  const toBase = pairedRatio(ours, samples[run.base] ?? []);
  const toBest = best === undefined ? undefined : pairedRatio(ours, samples[best] ?? []);
  const { target } = figure;
  const held = target && { "wireguard-go": toBase, best: toBest, value: medians[run.ours] }[target.against];
  return {
    figure,
    medians,
    toBase,
    toBest,
    best,
    word: toBase === undefined ? undefined : word(toBase, figure.better),
    target:
      target === undefined || held === undefined
        ? undefined
        : reaches(held, target.aim, figure.better)
          ? "aim"
          : reaches(held, target.must, figure.better)
            ? "must"
            : "missed",
  };
}

/** Of the figures that anybody has a sample of, in the order of the table. */
export function judgements(run: RunRecord): Judgement[] {
  const measured = FIGURES.filter(({ key }) => Object.values(run.samples[key] ?? {}).some((list) => list.length > 0));
  return measured.map((figure) => judge(run, figure));
}
