// What the coordinator knows, in memory: the committed rows of the store, and what only a connection tells (endpoints,
// last seen). Changed by its one writer after each commit, under the sequencer; everything else reads.
import type { IdentityRow, NetworkRow, PolicyVersionRow, RevocationRow, SessionRow } from "./store/rows.ts";
import type { Store } from "./store/store.ts";

export class World {
  readonly network: NetworkRow;
  /** Changes when the store turns out to be an old copy: see continuity.ts. */
  epoch: number;
  readonly identities = new Map<string, IdentityRow>();
  /** Active sessions alone; ended ones are in the store. */
  readonly sessions = new Map<string, SessionRow>();
  readonly endpoints = new Map<string, readonly string[]>();
  /** Ended sessions whose last lease may still run. */
  readonly #revocations = new Map<string, RevocationRow>();
  /** By the sessions that are to be told. */
  readonly #revocationsFor = new Map<string, Set<RevocationRow>>();
  policy: PolicyVersionRow;

  constructor(network: NetworkRow, epoch: number, policy: PolicyVersionRow) {
    this.network = network;
    this.epoch = epoch;
    this.policy = policy;
  }

  /** Undefined when the store holds no network yet. */
  static async load(store: Store, nowMs: number, emptyPolicy: PolicyVersionRow): Promise<World | undefined> {
    return await store.transaction(async (tx) => {
      const network = await tx.network();
      if (network === undefined) return undefined;
      const world = new World(network, await tx.addToCounter("epoch", 0), (await tx.policy()) ?? emptyPolicy);
      for (const identity of await tx.identities()) world.identities.set(identity.name, identity);
      for (const session of await tx.sessions())
        if (session.state === "active") world.sessions.set(session.id, session);
      for (const row of await tx.revocations(nowMs)) world.addRevocation(row);
      return world;
    });
  }

  sponsorOf(session: SessionRow): string | undefined {
    return this.identities.get(session.identity)?.sponsor;
  }

  tagsOf(session: SessionRow): string[] {
    return [...(this.identities.get(session.identity)?.tags ?? [])];
  }

  addRevocation(row: RevocationRow): void {
    this.#revocations.set(row.session, row);
    for (const session of row.concerned) {
      const rows = this.#revocationsFor.get(session);
      if (rows === undefined) this.#revocationsFor.set(session, new Set([row]));
      else rows.add(row);
    }
  }

  /** False again when every lease of it has ended. */
  isRevoked(session: string): boolean {
    return this.#revocations.has(session);
  }

  /** What that session is to be told. */
  revocationsFor(session: string): Iterable<RevocationRow> {
    return this.#revocationsFor.get(session) ?? [];
  }

  /** Forgets revocations after which every lease has ended; the sessions whose netmaps named them. */
  forgetOldRevocations(nowMs: number): Set<string> {
    const told = new Set<string>();
    for (const row of this.#revocations.values()) {
      if (row.untilMs > nowMs) continue;
      this.#revocations.delete(row.session);
      for (const session of row.concerned) {
        told.add(session);
        const rows = this.#revocationsFor.get(session);
        rows?.delete(row);
        if (rows?.size === 0) this.#revocationsFor.delete(session);
      }
    }
    return told;
  }
}
