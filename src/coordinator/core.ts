// What the coordinator's parts share. Every change goes through `change`: one transaction with its audit line, then
// memory, then the push to peers, and only then the next change.
import type { Random } from "../base/random.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { Clock } from "../io/clock.ts";
import type { Counters } from "./counters.ts";
import type { CoordinatorKeys } from "./data-dir.ts";
import type { Logger } from "./options.ts";
import { Sequencer } from "./sequencer.ts";
import type { Store, StoreTransaction } from "./store/store.ts";
import type { World } from "./world.ts";

export interface CoreParts {
  readonly store: Store;
  readonly world: World;
  readonly keys: CoordinatorKeys;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: Counters;
  readonly url: string;
  readonly probes: readonly string[];
  readonly software: string;
}

export class Core implements CoreParts {
  readonly store: Store;
  readonly world: World;
  readonly keys: CoordinatorKeys;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: Counters;
  readonly url: string;
  readonly probes: readonly string[];
  readonly software: string;
  readonly #sequencer = new Sequencer();

  constructor(parts: CoreParts) {
    this.store = parts.store;
    this.world = parts.world;
    this.keys = parts.keys;
    this.crypto = parts.crypto;
    this.random = parts.random;
    this.clock = parts.clock;
    this.logger = parts.logger;
    this.counters = parts.counters;
    this.url = parts.url;
    this.probes = parts.probes;
    this.software = parts.software;
  }

  /** Whole milliseconds: what rows hold. */
  nowMs(): number {
    return Math.floor(this.clock.nowMs());
  }

  /**
   * `write` runs in one transaction; what it gives back goes to `apply`, synchronously after the commit. Nothing of
   * `apply` happens when the commit failed.
   */
  change<T, R>(write: (tx: StoreTransaction) => Promise<T>, apply: (written: T) => R): Promise<R> {
    return this.#sequencer.run(async () => apply(await this.store.transaction(write)));
  }

  /** Resolves when every change queued so far is done. */
  idle(): Promise<void> {
    return this.#sequencer.idle();
  }
}
