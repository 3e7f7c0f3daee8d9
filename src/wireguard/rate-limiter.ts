// What a flood of handshakes meets before any Diffie–Hellman when the device is under load [WG §5.4.7]: token buckets
// for each source, which is one IPv4 address, or one IPv6 /64, since a host has all addresses of that.
import { type Address, isV4 } from "../base/address.ts";
import { TokenBucket } from "../base/token-bucket.ts";

/** Of a sender that has shown a cookie, or that is known. */
export const HANDSHAKES_PER_SOURCE_PER_SECOND = 20;
export const HANDSHAKES_PER_SOURCE_BURST = 5;
/** Of a stranger without a cookie: once in REKEY_TIMEOUT, as often as a peer that means well asks. */
export const STRANGER_ASKS_EVERY_MS = 5_000;
/** To one source, whatever the others get. */
export const COOKIES_PER_SOURCE_PER_SECOND = 1;
export const COOKIES_PER_SOURCE_BURST = 2;
/** To all. */
export const COOKIES_BURST = 200;

/** As a Map's key. */
export type SourceKey = number | string;

export function sourceKey(source: Address): SourceKey {
  return isV4(source) ? source.w3 : `${source.w0}:${source.w1}`;
}

/**
 * The table is bounded; when it is full the source whose last message was let through longest ago is forgotten, whose
 * bucket is the fullest: forgetting it gives the least away.
 */
export class RateLimiter {
  readonly #sourcesMax: number;
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #buckets = new Map<SourceKey, TokenBucket>(); // in the order of what was let through last
  evicted = 0;

  constructor(sourcesMax: number, perSecond: number, burst: number) {
    this.#sourcesMax = sourcesMax;
    this.#perSecond = perSecond;
    this.#burst = burst;
  }

  get limit(): number {
    return this.#sourcesMax;
  }

  get size(): number {
    return this.#buckets.size;
  }

  has(key: SourceKey): boolean {
    return this.#buckets.has(key);
  }

  allows(nowMs: number, key: SourceKey): boolean {
    const bucket = this.#buckets.get(key) ?? this.#make(nowMs);
    if (!bucket.take(nowMs)) return false;
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    return true;
  }

  /** In the table from now on, as if its last message had been let through just now. */
  remember(nowMs: number, key: SourceKey): void {
    const bucket = this.#buckets.get(key) ?? this.#make(nowMs);
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
  }

  /** For a source that is not in the table: makes room for it. */
  #make(nowMs: number): TokenBucket {
    if (this.#buckets.size >= this.#sourcesMax) {
      for (const oldest of this.#buckets.keys()) {
        this.#buckets.delete(oldest);
        this.evicted++;
        break;
      }
    }
    return new TokenBucket(nowMs, this.#perSecond, this.#burst);
  }
}
