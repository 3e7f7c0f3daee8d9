// The two forms of a test that counts: the one of `npm test`, and the long one of `npm run proof`, which sets
// WIREBADGE_LONG=1 and gathers what the tests say here that they did.
import { appendFileSync } from "node:fs";

const report = process.env["WIREBADGE_PROOF_REPORT"];

/** True under `npm run proof`. */
export const LONG = process.env["WIREBADGE_LONG"] === "1";

/** What was done, and how often: one line of the report's table. */
export interface Proof {
  /** "kill -9 of the coordinator while it is written to" */
  readonly what: string;
  readonly count: number;
  /** A figure worth reading beside it: "p99 310 ms". */
  readonly figure?: string;
}

/** `for (let n = 0; n < scale(200, 1_000); n++) …` */
export function scale(short: number, long: number): number {
  return LONG ? long : short;
}

/** One line of the proof's table; does nothing outside of `npm run proof`. */
export function record(proof: Proof): void {
  if (report !== undefined) appendFileSync(report, `${JSON.stringify(proof)}\n`);
}
