// Which destinations end here: own addresses, and on a gateway those of its routes and services.
import { type Address, type Prefix, prefixContains } from "../base/address.ts";

export class Addresses {
  /** By last word: a session has few addresses, a gateway's services may be many. */
  #locals = new Map<number, readonly Address[]>();
  #transit: readonly Prefix[] = [];

  setLocal(addresses: readonly Address[]): void {
    this.#locals = new Map();
    for (const address of addresses) {
      this.#locals.set(address.w3, [...(this.#locals.get(address.w3) ?? []), address]);
    }
  }

  setTransit(prefixes: readonly Prefix[]): void {
    this.#transit = prefixes;
  }

  isLocal(w0: number, w1: number, w2: number, w3: number): boolean {
    const candidates = this.#locals.get(w3);
    if (candidates === undefined) return false;
    for (const address of candidates) if (address.w2 === w2 && address.w1 === w1 && address.w0 === w0) return true;
    return false;
  }

  isTransit(address: Address): boolean {
    for (const prefix of this.#transit) if (prefixContains(prefix, address)) return true;
    return false;
  }
}
