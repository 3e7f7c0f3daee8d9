// How samples become a figure: medians, ratios of starts that lay beside each other in time, and the word for a ratio.
// A machine drifts by more within a run than contenders differ, so only neighbours are compared.

/** Ratios nearer to 1 than this are called equal: starts of one and the same program differ by as much. */
export const EQUAL_BELOW = 1.15;

export type Samples = readonly (number | null)[];
export type Better = "more" | "less";
export type Word = "better" | "equal" | "worse";

/** Of those that are there; undefined when none is. */
export function median(samples: Samples): number | undefined {
  const sorted = samples.filter((value) => value !== null).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle];
  return sorted.length === 0 ? undefined : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The smallest sample that at least `share` (0 to 1) of all are no greater than; undefined when there is none. */
export function percentile(values: readonly number[], share: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
}

/** The ratio of each start to the other's start of the same round; rounds that one of them lacks are left out. */
export function pairedRatios(samples: Samples, base: Samples): number[] {
  return samples.flatMap((value, round) => {
    const below = base[round];
    return value === null || below === null || below === undefined || below === 0 ? [] : [value / below];
  });
}

/** The median of the paired ratios. */
export function pairedRatio(samples: Samples, base: Samples): number | undefined {
  return median(pairedRatios(samples, base));
}

/** What a ratio says, where more or less of the figure is better. */
export function word(ratio: number, better: Better): Word {
  const gain = better === "more" ? ratio : 1 / ratio;
  if (gain >= EQUAL_BELOW) return "better";
  return gain > 1 / EQUAL_BELOW ? "equal" : "worse";
}
