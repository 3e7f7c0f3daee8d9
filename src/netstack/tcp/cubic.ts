// CUBIC, RFC 9438: after a loss the window comes back to where that happened along a cubic curve of time, rests there,
// then probes further; never slower than NewReno would (§4.3). Windows in segments within, in bytes at the border.
import { SECOND_MS } from "../../base/units.ts";
import type { CongestionAlgorithm } from "./congestion.ts";

const C = 0.4; // segments per s^3 (§5.1)
const BETA = 0.7; // what a loss leaves (§4.6)
/** As fast as NewReno, which halves, by a smaller decrease (§4.3). */
const ALPHA = (3 * (1 - BETA)) / (1 + BETA);
const GROWTH_MAX = 1.5; // in a round trip (§4.2)

export class Cubic implements CongestionAlgorithm {
  /** W_max: the window at the last loss, or less than it where another flow seems to want its share (§4.7). */
  #most = 0;
  /** cwnd_prior */
  #prior = 0;
  /** When this stage of congestion avoidance began; −1: with the next acknowledgment. */
  #beganMs = -1;
  /** K, in ms: when the window will be W_max again. */
  #backAfterMs = 0;
  /** W_est: what NewReno's would be by now. */
  #reno = 0;

  growth(nowMs: number, windowBytes: number, ackedBytes: number, rttMs: number, mssBytes: number): number {
    const window = windowBytes / mssBytes;
    const acked = ackedBytes / mssBytes;
    if (this.#beganMs < 0) this.#begin(nowMs, window);
    this.#reno += ((this.#reno >= this.#prior ? 1 : ALPHA) * acked) / window;
    const sinceMs = nowMs - this.#beganMs;
    if (this.#curve(sinceMs) < this.#reno) return Math.max(this.#reno - window, 0) * mssBytes;
    const target = Math.min(Math.max(this.#curve(sinceMs + Math.max(rttMs, 0)), window), GROWTH_MAX * window);
    return ((target - window) / window) * acked * mssBytes;
  }

  #begin(nowMs: number, window: number): void {
    this.#beganMs = nowMs;
    this.#reno = window;
    if (this.#most <= window) this.#most = window; // slow start passed it (§4.8, §4.10)
    this.#backAfterMs = Math.cbrt((this.#most - window) / C) * SECOND_MS;
  }

  /** W_cubic (§4.2). */
  #curve(sinceMs: number): number {
    const t = (sinceMs - this.#backAfterMs) / SECOND_MS;
    return C * t * t * t + this.#most;
  }

  idled(forMs: number): void {
    if (this.#beganMs >= 0) this.#beganMs += forMs;
  }

  reduced(windowBytes: number, mssBytes: number): number {
    const window = windowBytes / mssBytes;
    this.#most = window < this.#most ? (window * (1 + BETA)) / 2 : window;
    this.#prior = window;
    this.#beganMs = -1;
    return windowBytes * BETA;
  }

  /** §4.9: all of it as it was. */
  keep(): () => void {
    const kept = [this.#most, this.#prior, this.#beganMs, this.#backAfterMs, this.#reno] as const;
    return () => {
      [this.#most, this.#prior, this.#beganMs, this.#backAfterMs, this.#reno] = kept;
    };
  }
}
