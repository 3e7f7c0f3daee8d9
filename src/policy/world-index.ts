// The world as compilation asks it: sessions by what a selector names, by overlay address, by what they serve and
// route. One session can be set or taken away; nothing else is looked at again.
import { type Address, formatAddress } from "../base/address.ts";
import { type AcceptedOffers, acceptOffers } from "./offers.ts";
import type { Policy } from "./policy.ts";
import { formatSelector, type Selector } from "./selector.ts";
import type { WorldIdentity, WorldNetwork, WorldSession } from "./world.ts";

/** A session with what policy and identity make of it. */
export interface Member {
  readonly session: WorldSession;
  readonly identity: WorldIdentity;
  readonly offers: AcceptedOffers;
  /** Canonical selectors that name it, groups included. */
  readonly keys: readonly string[];
  /** Those of its keys that a grant or never opens from, joined: members alike in it are alike as openers. */
  readonly profile: string;
}

export class WorldIndex {
  readonly network: WorldNetwork;
  readonly #policy: Policy;
  readonly #groupsOf = new Map<string, string[]>(); // member selector → groups
  readonly #openers = new Set<string>();
  readonly #members = new Map<string, Member>();
  readonly #byKey = new Map<string, Set<Member>>();
  readonly #byAddress = new Map<string, Member>();
  readonly #byService = new Map<string, Set<Member>>();
  readonly #routing = new Set<Member>();
  readonly #nodes = new Map<string, WorldIdentity>();

  constructor(policy: Policy, network: WorldNetwork) {
    this.#policy = policy;
    this.network = network;
    for (const [group, members] of policy.groups) {
      for (const selector of members) {
        const key = formatSelector(selector);
        this.#groupsOf.set(key, [...(this.#groupsOf.get(key) ?? []), group]);
      }
    }
    for (const { from } of [...policy.grants, ...policy.nevers]) {
      for (const selector of from) this.#openers.add(formatSelector(selector));
    }
  }

  /** True when it is a node that is new or has other tags: what `via` lists name may have changed for everybody. */
  setIdentity(identity: WorldIdentity): boolean {
    if (identity.kind !== "node") return false;
    const before = this.#nodes.get(identity.name);
    this.#nodes.set(identity.name, identity);
    return before === undefined || [...before.tags].sort().join() !== [...identity.tags].sort().join();
  }

  /** Every node that was ever spoken of, there now or not: gateways stay the same thing while one of them is away. */
  nodes(): Iterable<WorldIdentity> {
    return this.#nodes.values();
  }

  /** New, or changed in any way; its identity as it is now. */
  set(identity: WorldIdentity, session: WorldSession): void {
    this.remove(session.id);
    const offers = acceptOffers(this.#policy, this.network, identity, session);
    const keys = this.#keysOf(identity, session);
    const profile = keys.filter((key) => this.#openers.has(key)).join(" ");
    const member: Member = { session, identity, offers, keys, profile };
    this.#members.set(session.id, member);
    for (const key of keys) add(this.#byKey, key, member);
    for (const address of session.addresses) this.#byAddress.set(formatAddress(address), member);
    for (const service of offers.services) {
      add(this.#byService, service, member);
      const address = session.serviceAddresses.get(service);
      if (address !== undefined) this.#byAddress.set(formatAddress(address), member);
    }
    if (offers.routes.length > 0) this.#routing.add(member);
  }

  remove(sessionId: string): void {
    const member = this.#members.get(sessionId);
    if (member === undefined) return;
    this.#members.delete(sessionId);
    for (const key of member.keys) this.#byKey.get(key)?.delete(member);
    for (const service of member.offers.services) this.#byService.get(service)?.delete(member);
    for (const address of [...member.session.addresses, ...member.session.serviceAddresses.values()]) {
      const text = formatAddress(address);
      if (this.#byAddress.get(text) === member) this.#byAddress.delete(text);
    }
    this.#routing.delete(member);
  }

  get(sessionId: string): Member | undefined {
    return this.#members.get(sessionId);
  }

  all(): Iterable<Member> {
    return this.#members.values();
  }

  named(selector: Selector): Iterable<Member> {
    return this.#byKey.get(formatSelector(selector)) ?? [];
  }

  serving(service: string): Iterable<Member> {
    return this.#byService.get(service) ?? [];
  }

  /** Those with an accepted route of any kind. */
  routing(): Iterable<Member> {
    return this.#routing;
  }

  /** Whose overlay or service address it is. */
  at(address: Address): Member | undefined {
    return this.#byAddress.get(formatAddress(address));
  }

  #keysOf(identity: WorldIdentity, session: WorldSession): string[] {
    const keys = [
      identity.name,
      `kind:${identity.kind}`,
      ...identity.tags.map((tag) => `tag:${tag}`),
      ...(identity.sponsor === undefined ? [] : [`sponsor:${identity.sponsor}`]),
      `session:${session.id}`,
      ...(session.token === undefined ? [] : [`token:${session.token}`]),
    ];
    const groups = new Set(keys.flatMap((key) => this.#groupsOf.get(key) ?? []));
    return [...new Set([...keys, ...[...groups].map((group) => `group:${group}`)])].sort();
  }
}

function add(map: Map<string, Set<Member>>, key: string, member: Member): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([member]));
  else set.add(member);
}
