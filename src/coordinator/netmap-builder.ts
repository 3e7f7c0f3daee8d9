// Builds one session's netmap from the world: who it is, what it may reach and who may reach it, by the compiled
// policy.
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import type { NetmapEntries, SelfEntry } from "../control/netmap.ts";
import type { Core } from "./core.ts";
import type { Policies } from "./policies.ts";
import type { SessionRow } from "./store/rows.ts";

export class NetmapBuilder {
  readonly #core: Core;
  readonly #policies: Policies;

  constructor(core: Core, policies: Policies) {
    this.#core = core;
    this.#policies = policies;
  }

  /** Empty for a session that is not active. */
  build(id: string): NetmapEntries {
    const { world, probes } = this.#core;
    const session = world.sessions.get(id);
    if (session === undefined) return {};
    const { id: network, name, ula, pool4 } = world.network;
    return {
      network: { id: network, name, ula, pool4, mtuBytes: MTU_DEFAULT_BYTES, probes: [...probes] },
      policy: { version: world.policy.version },
      self: this.#self(session),
    };
  }

  concerned(_session: SessionRow): Iterable<string> {
    return [];
  }

  offers(_session: SessionRow): { refused: { offer: string; reason: string }[]; missing: string[] } {
    return { refused: [], missing: [] };
  }

  auditOffers(_session: SessionRow): Promise<void> {
    return Promise.resolve();
  }

  #self(session: SessionRow): SelfEntry {
    const sponsor = this.#core.world.sponsorOf(session);
    return {
      session: session.id,
      identity: session.identity,
      ...(sponsor !== undefined && { sponsor }),
      tags: this.#core.world.tagsOf(session),
      publicKey: session.publicKey,
      signKey: session.signKey,
      addresses: [...session.addresses],
      kind: "wirebadge",
      leaseMs: this.#policies.leaseMs(session),
    };
  }
}
