// What a run is given besides its scenario, and what it gives back.
import type { Violation } from "./invariants.ts";
import type { Station } from "./station.ts";

export interface SimulationOptions {
  /** Called with every engine that starts, before anything happens to it: tests break something here. */
  readonly sabotage?: (station: Station) => void;
  /** Lines of trace kept for a failure. */
  readonly tailLines?: number;
}

export interface Outcome {
  readonly seed: number;
  /** Undefined: everything held. */
  readonly violation: Violation | undefined;
  /** Over every event: equal for equal runs. */
  readonly hash: string;
  /** The last events, oldest first. */
  readonly tail: readonly string[];
  readonly virtualMs: number;
  readonly turns: number;
  readonly sent: number;
  readonly delivered: number;
  /** How long the slowest allowed pair took to talk after the faults, in virtual ms. */
  readonly slowestPairMs: number;
  readonly pairs: number;
  /** Byte streams that arrived whole. */
  readonly streams: number;
  /** Of all engines that ever ran, added up. */
  readonly counters: Readonly<Record<string, number>>;
}
