// Leases: signed, to the holder alone, O(1) for each. Their lengths come from the policy, by kind.
import { type Lease, leaseEndMs, signLease } from "../control/lease.ts";
import type { Core } from "./core.ts";
import type { ReservedCounter } from "./reserved-counter.ts";
import type { SessionRow } from "./store/rows.ts";

export class Leases {
  readonly #core: Core;
  readonly #serials: ReservedCounter;
  readonly #lengthMs: (session: SessionRow) => number;
  readonly #ends = new Map<string, number>();

  constructor(core: Core, serials: ReservedCounter, lengthMs: (session: SessionRow) => number) {
    this.#core = core;
    this.#serials = serials;
    this.#lengthMs = lengthMs;
  }

  lengthMs(session: SessionRow): number {
    return this.#lengthMs(session);
  }

  issue(session: SessionRow): Uint8Array {
    const lease: Lease = {
      session: session.id,
      epoch: this.#core.world.epoch,
      serial: this.#serials.next(),
      issuedMs: this.#core.nowMs(),
      lifetimeMs: this.#lengthMs(session),
    };
    this.#ends.set(session.id, Math.max(leaseEndMs(lease), this.#ends.get(session.id) ?? 0));
    this.#core.counters.add("leases-issued");
    return signLease(this.#core.crypto, this.#core.keys.sign.privateKey, lease);
  }

  /** Of the last lease that this process gave out. */
  endMs(session: string): number | undefined {
    return this.#ends.get(session);
  }

  forget(session: string): void {
    this.#ends.delete(session);
  }
}
