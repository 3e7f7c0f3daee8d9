// Runs seeds one after the other up to the first that breaks something, and says what there is to say of it.
import { INVARIANTS } from "./invariants.ts";
import type { Outcome, SimulationOptions } from "./outcome.ts";
import { drawScenario, type Scenario, shownStep } from "./scenario.ts";
import { chooseSteps, formatSteps, parseSteps, shrink } from "./shrink.ts";
import { simulate } from "./simulation.ts";
import { addTotals, noTotals, shownTotals, type Totals } from "./totals.ts";

export interface SeedsOptions extends SimulationOptions {
  readonly seed: number;
  readonly count: number;
  /** Numbers of the steps to keep: "3,17-20"; all when undefined. */
  readonly steps?: string;
  readonly shrink?: boolean;
}

export interface Run {
  readonly totals: Totals;
  readonly last: Outcome | undefined;
  /** The one that broke something, with what was left of its steps. */
  readonly failed:
    | { readonly outcome: Outcome; readonly scenario: Scenario; readonly kept: readonly number[] }
    | undefined;
}

/** @throws RangeError when `steps` is no list of numbers. */
export function runSeeds(options: SeedsOptions): Run {
  const totals = noTotals();
  let last: Outcome | undefined;
  for (let seed = options.seed; seed < options.seed + options.count; seed++) {
    const whole = drawScenario(seed);
    const kept = options.steps === undefined ? whole.steps.map((_, index) => index) : parseSteps(options.steps);
    last = simulate(chooseSteps(whole, kept), options);
    addTotals(totals, last);
    if (last.violation === undefined) continue;
    const fewer = options.shrink ? shrink(whole, kept, last, options) : { kept, outcome: last };
    return { totals, last, failed: { ...fewer, scenario: whole } };
  }
  return { totals, last, failed: undefined };
}

/** Lines for a person at a terminal. `words` end the command that runs a failure again. */
export function report(run: Run, withEvents = false, words = ""): string[] {
  const { totals, last, failed } = run;
  const lines: string[] = [];
  if (withEvents && failed === undefined && last !== undefined) lines.push(...last.tail);
  if (failed !== undefined) lines.push(...reportFailure(failed, words));
  lines.push(shownTotals(totals));
  if (last !== undefined && totals.seeds === 1) lines.push(`trace ${last.hash}`);
  return lines;
}

function reportFailure({ outcome, scenario, kept }: NonNullable<Run["failed"]>, words: string): string[] {
  const { violation, seed } = outcome;
  const isWhole = kept.length === scenario.steps.length;
  return [
    `seed ${seed}, ${scenario.stations.length} stations, ${kept.length} of ${scenario.steps.length} steps`,
    ...(isWhole ? [] : kept.map((index) => `  step ${index}: ${shownStep(scenario.steps[index]!, scenario.startMs)}`)),
    "the last events:",
    ...outcome.tail.map((line) => `  ${line}`),
    `${violation!.invariant}: ${violation!.detail}`,
    `  (${INVARIANTS[violation!.invariant]})`,
    `again: npm run sim -- --seed ${seed}${isWhole ? "" : ` --steps ${formatSteps(kept)}`}${words}`,
  ];
}
