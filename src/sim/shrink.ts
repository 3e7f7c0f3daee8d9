// Fewer steps that break the same invariant: takes out runs of steps, halves first, for as long as it still fails
// (Zeller, Hildebrandt 2002, without the complements).

import type { Outcome, SimulationOptions } from "./outcome.ts";
import type { Scenario } from "./scenario.ts";
import { simulate } from "./simulation.ts";

const RUNS_MAX = 400;

export function chooseSteps(scenario: Scenario, kept: readonly number[]): Scenario {
  return { ...scenario, steps: kept.flatMap((index) => scenario.steps[index] ?? []) };
}

/** "3,17-20" → [3, 17, 18, 19, 20]; "none" → []. @throws RangeError when it is something else. */
export function parseSteps(text: string): number[] {
  if (text === "none") return [];
  const steps = new Set<number>();
  for (const part of text.split(",")) {
    const match = /^(\d{1,6})(?:-(\d{1,6}))?$/.exec(part);
    if (match === null) throw new RangeError(`"${part}" is no step: write 3,17-20`);
    const first = Number(match[1]);
    const last = Number(match[2] ?? first);
    for (let step = first; step <= Math.min(last, first + 100_000); step++) steps.add(step);
  }
  return [...steps].sort((a, b) => a - b);
}

export function formatSteps(steps: readonly number[]): string {
  if (steps.length === 0) return "none";
  const parts: string[] = [];
  for (let i = 0; i < steps.length; i++) {
    let end = i;
    while (steps[end + 1] === steps[end]! + 1) end++;
    parts.push(end === i ? `${steps[i]}` : `${steps[i]}-${steps[end]}`);
    i = end;
  }
  return parts.join(",");
}

/** `outcome` is that of the kept steps; so is the one that comes back. */
export function shrink(
  scenario: Scenario,
  kept: readonly number[],
  outcome: Outcome,
  options: SimulationOptions,
): { readonly kept: readonly number[]; readonly outcome: Outcome } {
  let best = { kept, outcome };
  let runs = 0;
  for (let size = Math.ceil(kept.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < best.kept.length && runs < RUNS_MAX; ) {
      const fewer = [...best.kept.slice(0, at), ...best.kept.slice(at + size)];
      const again = simulate(chooseSteps(scenario, fewer), options);
      runs++;
      if (again.violation?.invariant === outcome.violation?.invariant) best = { kept: fewer, outcome: again };
      else at += size;
    }
  }
  return best;
}
