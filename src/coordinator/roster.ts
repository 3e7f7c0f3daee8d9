// The active sessions, as memory and as the compiled policy know them: both change here together. A new policy is a new
// compiler, filled with everybody.
import { type Address, parseAddress, parsePrefix } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { type Affected, type CompiledPeer, PolicyCompiler } from "../policy/compile.ts";
import { type Explained, explainForAdmin } from "../policy/explain.ts";
import type { Policy } from "../policy/policy.ts";
import type { World as PolicyWorld, WorldIdentity, WorldNetwork, WorldSession } from "../policy/world.ts";
import { serviceAddress } from "./addresses.ts";
import type { IdentityRow, NetworkRow, SessionRow } from "./store/rows.ts";
import type { World } from "./world.ts";

/** Stands in for a session that an identity doesn't have yet; never in the world. */
const GUEST = "s_0000000000000000";

function addressOf(text: string): Address {
  const address = parseAddress(text);
  assert(address !== undefined, "addresses in the store are addresses");
  return address;
}

export function policyNetwork(network: NetworkRow): WorldNetwork {
  const [ula, pool4] = [parsePrefix(network.ula), parsePrefix(network.pool4)];
  assert(ula !== undefined && pool4 !== undefined, "prefixes in the store are prefixes");
  return { ula, pool4 };
}

export function policyIdentity({ name, kind, sponsor, tags }: IdentityRow): WorldIdentity {
  return { name, kind, sponsor, tags };
}

function policySession(row: SessionRow, serviceAddresses: ReadonlyMap<string, Address>): WorldSession {
  return {
    id: row.id,
    identity: row.identity,
    kind: "wirebadge",
    addresses: row.addresses.map(addressOf),
    token: row.token,
    offeredRoutes: row.offeredRoutes,
    offeredServices: row.offeredServes,
    mayRoute: row.mayRoute,
    serviceAddresses,
  };
}

export class Roster {
  readonly #world: World;
  readonly #serviceAddresses = new Map<string, ReadonlyMap<string, Address>>();
  #compiler: PolicyCompiler;

  constructor(world: World, policy: Policy) {
    this.#world = world;
    this.#compiler = this.#filled(policy);
  }

  get policy(): Policy {
    return this.#compiler.policy;
  }

  setPolicy(policy: Policy): void {
    this.#compiler = this.#filled(policy);
  }

  /** An identity that is new or has changed, before any session of it: as `put`. */
  know(name: string): Affected {
    const row = this.#world.identities.get(name);
    return row === undefined ? "related" : this.#compiler.setIdentity(policyIdentity(row));
  }

  /** New, or with other offers. "all": lists such as `tag:` or `node:*` now name more: every peer's map may differ. */
  put(session: SessionRow): Affected {
    this.#world.sessions.set(session.id, session);
    return this.#place(this.#compiler, session);
  }

  drop(id: string): void {
    this.#world.sessions.delete(id);
    this.#world.endpoints.delete(id);
    this.#serviceAddresses.delete(id);
    this.#compiler.removeSession(id);
  }

  /** What the policy makes of one session now. */
  compile(id: string, nowMs: number): CompiledPeer | undefined {
    return this.#compiler.compilePeer(id, nowMs);
  }

  /** Sessions that know of this one, as the policy stands. */
  peersOf(id: string, nowMs: number): string[] {
    return this.compile(id, nowMs)?.peers.map(({ session }) => session) ?? [];
  }

  /** All of it, as policy/explain.ts asks. */
  policyWorld(): PolicyWorld {
    const identities = new Map<string, WorldIdentity>();
    for (const row of this.#world.identities.values())
      if (row.removedMs === undefined) identities.set(row.name, policyIdentity(row));
    const sessions = new Map<string, WorldSession>();
    for (const row of this.#world.sessions.values())
      sessions.set(row.id, policySession(row, this.#serviceAddresses.get(row.id) ?? new Map()));
    return { network: policyNetwork(this.#world.network), identities, sessions };
  }

  /** What an admin is told of one session, or of an identity's next one. */
  explain(from: SessionRow | IdentityRow, dest: string, nowMs: number): Explained {
    const peers = [...this.#world.sessions.values()].map(({ id, identity, addresses }) => ({
      session: id,
      identity,
      addresses: addresses.map(addressOf),
    }));
    if ("id" in from) return explainForAdmin(this.#compiler, from, peers, dest, nowMs);
    const guest = { id: GUEST, identity: from.name };
    const session = { ...guest, kind: "wirebadge", addresses: [], serviceAddresses: new Map() } as const;
    const offers = { offeredRoutes: [], offeredServices: [], mayRoute: [] };
    this.#compiler.setSession(policyIdentity(from), { ...session, ...offers });
    try {
      return explainForAdmin(this.#compiler, guest, peers, dest, nowMs);
    } finally {
      this.#compiler.removeSession(GUEST);
    }
  }

  #filled(policy: Policy): PolicyCompiler {
    const compiler = new PolicyCompiler(policy, policyNetwork(this.#world.network));
    for (const row of this.#world.identities.values()) {
      if (row.removedMs === undefined) compiler.setIdentity(policyIdentity(row)); // with a session or without one
    }
    for (const session of this.#world.sessions.values()) this.#place(compiler, session);
    return compiler;
  }

  /** Twice where it serves something: which services it may serve decides which addresses it gets. */
  #place(compiler: PolicyCompiler, session: SessionRow): Affected {
    const identity = this.#world.identities.get(session.identity);
    assert(identity !== undefined, "a session has an identity");
    const affected = compiler.setSession(policyIdentity(identity), policySession(session, new Map()));
    const addresses = new Map<string, Address>();
    for (const service of compiler.acceptedServices(session.id))
      addresses.set(service, addressOf(serviceAddress(this.#world.network, service, session.id)));
    this.#serviceAddresses.set(session.id, addresses);
    if (addresses.size > 0) compiler.setSession(policyIdentity(identity), policySession(session, addresses));
    return affected;
  }
}
