// What a flood of handshakes meets before any Diffie–Hellman: the measure of "under load" [WG §5.4.7], and a token
// bucket for each source that has proven its address by a cookie: one IPv4 address, or one IPv6 /64, since a host has
// all addresses of that.
import { type Address, isV4 } from "../base/address.ts";
import { SECOND_MS } from "../base/units.ts";

export const HANDSHAKES_PER_SOURCE_PER_SECOND = 20;
export const HANDSHAKES_PER_SOURCE_BURST = 5;

/**
 * Counts handshake messages with a right mac1; "under load" from the moment a second's limit is passed until a second
 * after.
 */
export class LoadMeter {
  readonly #perSecondMax: number;
  #windowStartMs = Number.NEGATIVE_INFINITY;
  #count = 0;
  #loadedUntilMs = Number.NEGATIVE_INFINITY;

  constructor(perSecondMax: number) {
    this.#perSecondMax = perSecondMax;
  }

  /** Counts one message and says whether the device is under load. */
  note(nowMs: number): boolean {
    if (nowMs - this.#windowStartMs >= SECOND_MS) {
      this.#windowStartMs = nowMs;
      this.#count = 0;
    }
    this.#count++;
    if (this.#count > this.#perSecondMax) this.#loadedUntilMs = nowMs + SECOND_MS;
    return nowMs < this.#loadedUntilMs;
  }
}

interface Bucket {
  tokens: number;
  filledMs: number;
}

/**
 * The table is bounded; when it is full the source that was silent longest is forgotten, and so begins with a full
 * bucket again.
 */
export class RateLimiter {
  readonly #sourcesMax: number;
  readonly #buckets = new Map<number | string, Bucket>(); // in order of last use
  evicted = 0;

  constructor(sourcesMax: number) {
    this.#sourcesMax = sourcesMax;
  }

  get size(): number {
    return this.#buckets.size;
  }

  allows(nowMs: number, source: Address): boolean {
    const key = isV4(source) ? source.w3 : `${source.w0}:${source.w1}`;
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = { tokens: HANDSHAKES_PER_SOURCE_BURST, filledMs: nowMs };
      if (this.#buckets.size >= this.#sourcesMax) this.#evictOldest();
    } else {
      this.#buckets.delete(key);
      const earned = ((nowMs - bucket.filledMs) * HANDSHAKES_PER_SOURCE_PER_SECOND) / SECOND_MS;
      bucket.tokens = Math.min(HANDSHAKES_PER_SOURCE_BURST, bucket.tokens + earned);
      bucket.filledMs = nowMs;
    }
    this.#buckets.set(key, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }

  #evictOldest(): void {
    for (const key of this.#buckets.keys()) {
      this.#buckets.delete(key);
      this.evicted++;
      return;
    }
  }
}
