// The timestamps option of one connection: RFC 7323 §3 to §5. Its clock counts milliseconds from a random start: it
// tells nobody how long this host has been up (§7.1).
import { DAY_MS } from "../../base/units.ts";
import { sequenceAfter, sequenceBefore } from "./sequence.ts";

/** Beyond it TS.Recent says nothing: half of the clock's circle, 24.8 days (§5.5). */
const RECENT_MAX_MS = 24 * DAY_MS;

export class Timestamps {
  readonly #start: number;
  /** Both SYNs had the option. */
  isOn = false;
  /** TS.Recent: what is echoed. */
  recent = 0;
  #recentMs = 0;

  constructor(start: number) {
    this.#start = start;
  }

  /** TSval of what is sent now. */
  value(nowMs: number): number {
    return (this.#start + Math.floor(nowMs)) >>> 0;
  }

  /** The remote end's SYN had it. */
  begin(nowMs: number, value: number): void {
    this.isOn = true;
    this.recent = value;
    this.#recentMs = nowMs;
  }

  /** §5.3 R1: from before what came last, and so an old duplicate. */
  isOld(nowMs: number, value: number): boolean {
    return sequenceBefore(value, this.recent) && nowMs - this.#recentMs < RECENT_MAX_MS;
  }

  /** §4.3 (2): only of a segment that begins no later than what was last acknowledged. */
  take(nowMs: number, value: number, sequence: number, lastAcknowledgment: number): void {
    if (sequenceAfter(sequence, lastAcknowledgment) || this.isOld(nowMs, value)) return;
    this.recent = value;
    this.#recentMs = nowMs;
  }

  /** How long ago what this echoes was sent, in whole ms; −1 where that can't be. */
  elapsedMs(nowMs: number, echo: number): number {
    const ms = (this.value(nowMs) - echo) | 0;
    return ms >= 0 ? ms : -1;
  }
}
