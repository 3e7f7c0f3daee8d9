// Destinations that routers called too narrow for our MTU: RFC 1191, RFC 8201. Only ever narrower than our own, within
// bounds, and forgotten after ten minutes. TCP keeps its own per connection; this is for datagrams.
import { type Address, formatAddress, isV4 } from "../base/address.ts";
import { MTU_MIN_BYTES, PATH_MTU_LIFE_MS, PATH_MTUS_MAX } from "../base/limits.ts";

/** Below it nothing is believed: RFC 8201 §4 for IPv6; for IPv4 the size every host takes whole (RFC 1122 §3.3.2). */
export const PATH_MTU_MIN_V4_BYTES = 576;

/** What may be believed of an ICMP "too big" towards this destination. */
export function clampPathMtu(remote: Address, mtuBytes: number): number {
  return Math.max(mtuBytes, isV4(remote) ? PATH_MTU_MIN_V4_BYTES : MTU_MIN_BYTES);
}

export class PathMtus {
  readonly #ownBytes: number;
  readonly #known = new Map<string, { readonly mtuBytes: number; readonly untilMs: number }>();

  constructor(ownBytes: number) {
    this.#ownBytes = ownBytes;
  }

  get size(): number {
    return this.#known.size;
  }

  get(nowMs: number, remote: Address): number {
    if (this.#known.size === 0) return this.#ownBytes;
    const known = this.#known.get(formatAddress(remote));
    return known === undefined || nowMs >= known.untilMs ? this.#ownBytes : known.mtuBytes;
  }

  learn(nowMs: number, remote: Address, mtuBytes: number): void {
    const narrower = clampPathMtu(remote, mtuBytes);
    if (narrower >= this.get(nowMs, remote)) return;
    const key = formatAddress(remote);
    this.#known.delete(key);
    if (this.#known.size >= PATH_MTUS_MAX) {
      for (const oldest of this.#known.keys()) {
        this.#known.delete(oldest);
        break;
      }
    }
    this.#known.set(key, { mtuBytes: narrower, untilMs: nowMs + PATH_MTU_LIFE_MS });
  }
}
