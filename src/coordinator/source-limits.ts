// Fairness between strangers: handshakes per source (an IPv4 address or an IPv6 /64) by token bucket, over a bounded
// table. When the table is full the source that was idle longest is forgotten: its bucket was the fullest.
import { formatPrefix, isV4, makePrefix, parseAddress } from "../base/address.ts";
import {
  CONTROL_HANDSHAKES_BURST_MAX,
  CONTROL_HANDSHAKES_PER_SECOND_MAX,
  CONTROL_SOURCES_MAX,
} from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";

/** `192.0.2.1/32` or `2001:db8:1:2::/64`; "unknown" for what is no address. */
export function sourceOf(remoteAddress: string | undefined): string {
  const address = remoteAddress === undefined ? undefined : parseAddress(remoteAddress.replace(/%.*$/, ""));
  if (address === undefined) return "unknown";
  return formatPrefix(makePrefix(address, isV4(address) ? 128 : 64));
}

/** A token bucket. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #atMs: number;

  constructor(perSecond: number, burst: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#atMs = nowMs;
  }

  allows(nowMs: number): boolean {
    const earned = (Math.max(0, nowMs - this.#atMs) / SECOND_MS) * this.#perSecond;
    this.#tokens = Math.min(this.#burst, this.#tokens + earned);
    this.#atMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

export class SourceLimits {
  readonly #limits = new Map<string, RateLimit>(); // in order of last use
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #sourcesMax: number;

  constructor(
    perSecond: number = CONTROL_HANDSHAKES_PER_SECOND_MAX,
    burst: number = CONTROL_HANDSHAKES_BURST_MAX,
    sourcesMax: number = CONTROL_SOURCES_MAX,
  ) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#sourcesMax = sourcesMax;
  }

  get size(): number {
    return this.#limits.size;
  }

  /** False when that source has had its share for now. */
  allows(source: string, nowMs: number): boolean {
    const limit = this.#limits.get(source) ?? new RateLimit(this.#perSecond, this.#burst, nowMs);
    this.#limits.delete(source);
    if (this.#limits.size >= this.#sourcesMax) this.#limits.delete(this.#limits.keys().next().value!);
    this.#limits.set(source, limit);
    return limit.allows(nowMs);
  }
}
