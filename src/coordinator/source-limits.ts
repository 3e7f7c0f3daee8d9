// Fairness between strangers: handshakes per source (an IPv4 address or an IPv6 /64) by token bucket, over a bounded
// table. When the table is full the source that was idle longest is forgotten: its bucket was the fullest.
import { formatPrefix, isV4, makePrefix, parseAddress } from "../base/address.ts";
import {
  CONTROL_HANDSHAKES_BURST_MAX,
  CONTROL_HANDSHAKES_PER_SECOND_MAX,
  CONTROL_SOURCES_MAX,
} from "../base/limits.ts";
import { TokenBucket } from "../base/token-bucket.ts";

/** `192.0.2.1/32` or `2001:db8:1:2::/64`; "unknown" for what is no address. */
export function sourceOf(remoteAddress: string | undefined): string {
  const address = remoteAddress === undefined ? undefined : parseAddress(remoteAddress.replace(/%.*$/, ""));
  if (address === undefined) return "unknown";
  return formatPrefix(makePrefix(address, isV4(address) ? 128 : 64));
}

export class SourceLimits {
  readonly #limits = new Map<string, TokenBucket>(); // in order of last use
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
    const limit = this.#limits.get(source) ?? new TokenBucket(nowMs, this.#perSecond, this.#burst);
    this.#limits.delete(source);
    if (this.#limits.size >= this.#sourcesMax) this.#limits.delete(this.#limits.keys().next().value!);
    this.#limits.set(source, limit);
    return limit.take(nowMs);
  }
}
