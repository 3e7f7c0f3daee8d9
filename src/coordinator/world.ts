// What the coordinator knows, in memory: the committed rows of the store, and what only a connection tells (endpoints,
// last seen). Changed by its one writer after each commit, under the sequencer; everything else reads.
import type { IdentityRow, NetworkRow, PolicyVersionRow, RevocationRow, SessionRow } from "./store/rows.ts";
import type { Store } from "./store/store.ts";

export class World {
  readonly network: NetworkRow;
  readonly epoch: number;
  readonly identities = new Map<string, IdentityRow>();
  /** Active sessions alone; ended ones are in the store. */
  readonly sessions = new Map<string, SessionRow>();
  readonly endpoints = new Map<string, readonly string[]>();
  /** Sessions whose last lease may still run. */
  readonly revocations = new Map<string, RevocationRow>();
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
      for (const row of await tx.revocations(nowMs)) world.revocations.set(row.session, row);
      return world;
    });
  }

  sponsorOf(session: SessionRow): string | undefined {
    return this.identities.get(session.identity)?.sponsor;
  }

  tagsOf(session: SessionRow): string[] {
    return [...(this.identities.get(session.identity)?.tags ?? [])];
  }

  /** Forgets revocations after which every lease has ended. */
  forgetOldRevocations(nowMs: number): string[] {
    const old = [...this.revocations.values()].filter((row) => row.untilMs <= nowMs).map((row) => row.session);
    for (const session of old) this.revocations.delete(session);
    return old;
  }
}
