// How many flows that others opened there may be, in all and from one address: what a SYN flood meets (RFC 4987 §3),
// and what keeps one remote end from taking the places of all.
import { type Address, formatAddress } from "../../base/address.ts";
import type { FlowKey } from "../flow-table.ts";

export class RemoteShares {
  readonly #max: number;
  readonly #perRemoteMax: number;
  readonly #entries = new Set<FlowKey>();
  readonly #byRemote = new Map<string, number>();

  constructor(max: number, perRemoteMax: number) {
    this.#max = max;
    this.#perRemoteMax = perRemoteMax;
  }

  get size(): number {
    return this.#entries.size;
  }

  hasRoom(remote: Address): boolean {
    if (this.#entries.size >= this.#max) return false;
    return (this.#byRemote.get(formatAddress(remote)) ?? 0) < this.#perRemoteMax;
  }

  add(key: FlowKey): void {
    this.#entries.add(key);
    const remote = formatAddress(key.remote.address);
    this.#byRemote.set(remote, (this.#byRemote.get(remote) ?? 0) + 1);
  }

  /** Does nothing for what is not in it. */
  delete(key: FlowKey): void {
    if (!this.#entries.delete(key)) return;
    const remote = formatAddress(key.remote.address);
    const left = this.#byRemote.get(remote)! - 1;
    if (left === 0) this.#byRemote.delete(remote);
    else this.#byRemote.set(remote, left);
  }
}
