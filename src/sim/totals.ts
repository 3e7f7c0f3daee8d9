// What many runs did, added up: of ten thousand runs nothing else is kept.
import type { Outcome } from "./outcome.ts";

export interface Totals {
  seeds: number;
  virtualMs: number;
  turns: number;
  sent: number;
  delivered: number;
  pairs: number;
  streams: number;
  slowestPairMs: number;
  counters: Record<string, number>;
}

export function noTotals(): Totals {
  return {
    seeds: 0,
    virtualMs: 0,
    turns: 0,
    sent: 0,
    delivered: 0,
    pairs: 0,
    streams: 0,
    slowestPairMs: 0,
    counters: {},
  };
}

/** Adds the second to the first: one run, or the totals of several. */
export function addTotals(totals: Totals, more: Outcome | Totals): void {
  totals.seeds += "seeds" in more ? more.seeds : 1;
  for (const name of ["virtualMs", "turns", "sent", "delivered", "pairs", "streams"] as const)
    totals[name] += more[name];
  totals.slowestPairMs = Math.max(totals.slowestPairMs, more.slowestPairMs);
  for (const [name, count] of Object.entries(more.counters))
    totals.counters[name] = (totals.counters[name] ?? 0) + count;
}

/** One line for a person. */
export function shownTotals(totals: Totals): string {
  return [
    `${totals.seeds} seed${totals.seeds === 1 ? "" : "s"}`,
    `${(totals.virtualMs / 60_000).toFixed(0)} virtual minutes`,
    `${totals.turns} turns`,
    `${totals.sent} packets sent`,
    `${totals.delivered} delivered`,
    `${totals.pairs} pairs tried after the faults (slowest ${(totals.slowestPairMs / 1000).toFixed(1)} s)`,
    `${totals.streams} streams whole`,
  ].join(", ");
}
