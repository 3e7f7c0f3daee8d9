// Every denial that concerns this peer, from wherever it was decided: our own filter (as source or destination), our
// gateway, or the far end, which told us on the peer link. The latest DENIALS_MAX are kept for `denials`; listeners
// hear each as it comes.
import type { Address } from "../base/address.ts";
import { DENIALS_MAX } from "../base/limits.ts";
import type { DenialRecord, VerdictReason } from "../filter/contract.ts";

export interface PeerDenial {
  readonly id: string;
  readonly atMs: number;
  readonly hop: "source" | "destination";
  /** The other end's. */
  readonly session: string;
  readonly source: Address | undefined;
  readonly destination: Address;
  /** When a name was denied. */
  readonly name: string | undefined;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly reason: VerdictReason;
  readonly ruleId: string | undefined;
  readonly policyVersion: number;
  readonly revision: number | undefined;
  /** True: the far end decided and told us. */
  readonly told: boolean;
}

export function fromRecord(record: DenialRecord): PeerDenial {
  return { ...record, name: record.name, told: false };
}

export class DenialFeed {
  readonly #kept: PeerDenial[] = [];
  readonly #listeners = new Set<(denial: PeerDenial) => void>();

  add(denial: PeerDenial): void {
    if (this.#kept.some((known) => known.id === denial.id)) return;
    this.#kept.push(denial);
    if (this.#kept.length > DENIALS_MAX) this.#kept.shift();
    for (const listener of [...this.#listeners]) listener(denial);
  }

  /** Oldest first. */
  list(): readonly PeerDenial[] {
    return this.#kept;
  }

  /** Returns a function that takes the listener away. */
  listen(listener: (denial: PeerDenial) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
