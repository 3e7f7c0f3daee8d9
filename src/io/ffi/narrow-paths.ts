// Endpoints that a run of datagrams was too wide for (EMSGSIZE): for a while they get them one by one, and then the run
// is tried again, since a path's MTU may grow. By object, which stays the same as long as the peer stays where it is.
import type { Endpoint } from "../../base/address.ts";
import { ADDRESSES_REMEMBERED_MAX } from "../../base/limits.ts";

export class NarrowPaths {
  readonly #runsLeft = new Map<Endpoint, number>();
  readonly #runs: number;

  /** `runs`: how many go without before the next attempt. */
  constructor(runs: number) {
    this.#runs = runs;
  }

  add(to: Endpoint): void {
    if (this.#runsLeft.size >= ADDRESSES_REMEMBERED_MAX) this.#runsLeft.clear();
    this.#runsLeft.set(to, this.#runs);
  }

  /** Asked once for each run. */
  has(to: Endpoint): boolean {
    if (this.#runsLeft.size === 0) return false;
    const left = this.#runsLeft.get(to);
    if (left === undefined) return false;
    if (left <= 1) this.#runsLeft.delete(to);
    else this.#runsLeft.set(to, left - 1);
    return true;
  }
}
