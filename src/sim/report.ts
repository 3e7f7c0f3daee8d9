// Runs seeds one after the other up to the first that breaks something, and says what there is to say of it.
import { INVARIANTS } from "./invariants.ts";
import type { Outcome, SimulationOptions } from "./outcome.ts";
import { drawScenario, type Scenario, shownStep } from "./scenario.ts";
import { chooseSteps, formatSteps, parseSteps, shrink } from "./shrink.ts";
import { simulate } from "./simulation.ts";

export interface SeedsOptions extends SimulationOptions {
  readonly seed: number;
  readonly count: number;
  /** Numbers of the steps to keep: "3,17-20"; all when undefined. */
  readonly steps?: string;
  readonly shrink?: boolean;
}

export interface Run {
  readonly outcomes: readonly Outcome[];
  /** The one that broke something, with what was left of its steps. */
  readonly failed:
    | { readonly outcome: Outcome; readonly scenario: Scenario; readonly kept: readonly number[] }
    | undefined;
}

/** @throws RangeError when `steps` is no list of numbers. */
export function runSeeds(options: SeedsOptions): Run {
  const outcomes: Outcome[] = [];
  for (let seed = options.seed; seed < options.seed + options.count; seed++) {
    const whole = drawScenario(seed);
    const kept = options.steps === undefined ? whole.steps.map((_, index) => index) : parseSteps(options.steps);
    const outcome = simulate(chooseSteps(whole, kept), options);
    outcomes.push(outcome);
    if (outcome.violation === undefined) continue;
    if (!options.shrink) return { outcomes, failed: { outcome, scenario: whole, kept } };
    const fewer = shrink(whole, kept, outcome, options);
    return { outcomes, failed: { ...fewer, scenario: whole } };
  }
  return { outcomes, failed: undefined };
}

/** Lines for a person at a terminal. */
export function report(run: Run, withEvents = false): string[] {
  const total = (of: (outcome: Outcome) => number): number => run.outcomes.reduce((sum, one) => sum + of(one), 0);
  const slowestMs = Math.max(0, ...run.outcomes.map((outcome) => outcome.slowestPairMs));
  const lines: string[] = [];
  const last = run.outcomes.at(-1);
  if (withEvents && run.failed === undefined && last !== undefined) lines.push(...last.tail);
  if (run.failed !== undefined) lines.push(...reportFailure(run.failed));
  const said = [
    `${run.outcomes.length} seed${run.outcomes.length === 1 ? "" : "s"}`,
    `${(total((one) => one.virtualMs) / 60_000).toFixed(0)} virtual minutes`,
    `${total((one) => one.turns)} turns`,
    `${total((one) => one.sent)} packets sent`,
    `${total((one) => one.delivered)} delivered`,
    `${total((one) => one.pairs)} pairs tried after the faults (slowest ${(slowestMs / 1000).toFixed(1)} s)`,
    `${total((one) => one.streams)} streams whole`,
  ];
  lines.push(said.join(", "));
  if (last !== undefined && run.outcomes.length === 1) lines.push(`trace ${last.hash}`);
  return lines;
}

function reportFailure({ outcome, scenario, kept }: NonNullable<Run["failed"]>): string[] {
  const { violation, seed } = outcome;
  const isWhole = kept.length === scenario.steps.length;
  return [
    `seed ${seed}, ${scenario.stations.length} stations, ${kept.length} of ${scenario.steps.length} steps`,
    ...(isWhole ? [] : kept.map((index) => `  step ${index}: ${shownStep(scenario.steps[index]!, scenario.startMs)}`)),
    "the last events:",
    ...outcome.tail.map((line) => `  ${line}`),
    `${violation!.invariant}: ${violation!.detail}`,
    `  (${INVARIANTS[violation!.invariant]})`,
    `again: npm run sim -- --seed ${seed}${isWhole ? "" : ` --steps ${formatSteps(kept)}`}`,
  ];
}
