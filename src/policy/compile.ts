// From policy and world to what one peer is told: its filter rules in both directions, the peers it must know, what it
// sees, serves and routes, and which of its offers were refused. One peer is compiled alone: its own grants, the grants
// that lead to it, and the sessions that those name; nothing of the rest of the world is looked at.
import type { Address, Prefix } from "../base/address.ts";
import { prefixContains, prefixesOverlap } from "../base/address.ts";
import type { FilterProtocol, PortRange } from "../filter/contract.ts";
import { formatRouteTarget } from "./destination.ts";
import type { RefusedOffer } from "./offers.ts";
import { PairCompiler, type PairRules } from "./pair-rules.ts";
import { PeerDraft, type PeerRules } from "./peer-draft.ts";
import type { Policy, PolicyDestination, PolicyGrant, PolicyNever, PolicyService } from "./policy.ts";
import { hostKeyOf, SameThing } from "./same-thing.ts";
import { formatSelector } from "./selector.ts";
import type { WorldIdentity, WorldNetwork, WorldSession } from "./world.ts";
import { type Member, WorldIndex } from "./world-index.ts";

export interface CompiledService {
  readonly name: string;
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
  readonly gateways: readonly { readonly session: string; readonly address: Address }[];
  readonly discoverable: boolean;
  /** For a discoverable service that this session may not reach. */
  readonly denied?: { readonly reason: "NO_GRANT" | "NEVER"; readonly ruleId?: string; readonly hint: string };
}

export interface CompiledServe {
  readonly name: string;
  readonly address: Address;
  readonly host: string;
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
}

export interface CompiledPeer extends PeerRules {
  readonly services: readonly CompiledService[];
  readonly serves: readonly CompiledServe[];
  /** Accepted routes of its own: CIDRs and `host:PATTERN`. */
  readonly routes: readonly string[];
  readonly refusedOffers: readonly RefusedOffer[];
  readonly missingOffers: readonly string[];
  /** When the next `until` of a grant that concerns it passes, by the coordinator's clock: compile again then. */
  readonly nextChangeMs: number | undefined;
}

/** Whose compiled state a change may have changed. */
export type Affected = "related" | "all";

export class PolicyCompiler {
  readonly policy: Policy;
  readonly #index: WorldIndex;
  readonly #pairs: PairCompiler;
  readonly #grantsFrom = new Map<string, PolicyGrant[]>();
  readonly #neversFrom = new Map<string, PolicyNever[]>();
  readonly #grantsTo = new Map<string, PolicyGrant[]>(); // by selector or service; prefixes and hosts apart
  readonly #grantsToOverlay: PolicyGrant[] = [];
  readonly #grantsBehind: PolicyGrant[] = [];
  readonly #discoverable: readonly PolicyService[];

  /** Fill it with `setSession`. */
  constructor(policy: Policy, network: WorldNetwork) {
    this.policy = policy;
    this.#index = new WorldIndex(policy, network);
    this.#pairs = new PairCompiler(policy, this.#index, new SameThing(policy, this.#index));
    this.#discoverable = [...policy.services.values()].filter((service) => service.discoverable);
    for (const grant of policy.grants) {
      for (const selector of grant.from) push(this.#grantsFrom, formatSelector(selector), grant);
      for (const destination of grant.to) this.#indexDestination(grant, destination);
    }
    for (const never of policy.nevers) {
      for (const selector of never.from) push(this.#neversFrom, formatSelector(selector), never);
    }
  }

  /** An identity without a session of its own: a node that is away still counts in the `via` lists. As setSession. */
  setIdentity(identity: WorldIdentity): Affected {
    return this.#index.setIdentity(identity) ? "all" : "related";
  }

  /**
   * A session that is new or has changed, with its identity as it is now. "related": compile it again, and those that
   * its `peers` named before or name now. "all": a node appeared or changed its tags; compile every peer again.
   */
  setSession(identity: WorldIdentity, session: WorldSession): Affected {
    const affected = this.setIdentity(identity);
    this.#index.set(identity, session);
    return affected;
  }

  /** Those that its `peers` named are to be compiled again. */
  removeSession(sessionId: string): void {
    this.#index.remove(sessionId);
  }

  /** Which services it is to be given overlay addresses for. */
  acceptedServices(sessionId: string): readonly string[] {
    return this.#index.get(sessionId)?.offers.services ?? [];
  }

  /** `nowMs` is by the coordinator's clock. Undefined when there is no such session. */
  compilePeer(sessionId: string, nowMs: number): CompiledPeer | undefined {
    const self = this.#index.get(sessionId);
    if (self === undefined) return undefined;
    const draft = new PeerDraft();
    const grants = this.#grantsOf(self);
    const nevers = this.#neversOf(self);
    for (const member of this.#targetsOf(grants)) {
      if (member !== self) draft.outbound(member, this.#pairs.rules(grants, nevers, member, nowMs));
    }
    const leading = this.#grantsLeadingTo(self);
    const byProfile = new Map<string, PairRules>();
    for (const member of this.#openersOf(leading)) {
      if (member === self) continue;
      let rules = byProfile.get(member.profile);
      if (rules === undefined) {
        rules = this.#pairs.rules(this.#grantsOf(member), this.#neversOf(member), self, nowMs);
        byProfile.set(member.profile, rules);
      }
      draft.inbound(member, rules);
    }
    const untils = [...grants, ...leading].flatMap(({ untilMs }) =>
      untilMs !== undefined && untilMs > nowMs ? [untilMs] : [],
    );
    return {
      ...draft.rules(),
      services: this.#services(self, draft, nevers),
      serves: this.#serves(self),
      routes: self.offers.routes.map(formatRouteTarget).sort(),
      refusedOffers: self.offers.refused,
      missingOffers: self.offers.missing,
      nextChangeMs: untils.length === 0 ? undefined : Math.min(...untils),
    };
  }

  /** For explanations: the grant that names the service for this session, and the never that closes it, by id. */
  rulesFor(
    sessionId: string,
    service: PolicyService,
    nowMs: number,
  ): { grant: string | undefined; never: string | undefined } {
    const self = this.#index.get(sessionId);
    if (self === undefined) return { grant: undefined, never: undefined };
    const names = ({ to }: PolicyGrant): boolean =>
      to.some((destination) => [...this.#pairs.servicesOf(destination)].includes(service));
    const grant = this.#grantsOf(self).find((one) => (one.untilMs ?? nowMs + 1) > nowMs && names(one));
    const never = this.#neversOf(self).find((rule) => rule.to.some((to) => this.#closesService(to, service)));
    return { grant: grant?.id, never: never?.id };
  }

  #indexDestination(grant: PolicyGrant, destination: PolicyDestination): void {
    const { target } = destination;
    switch (target.type) {
      case "selector":
        push(this.#grantsTo, formatSelector(target.selector), grant);
        break;
      case "service":
        push(this.#grantsTo, `service:${target.name}`, grant);
        break;
      case "prefix":
        (this.#pairs.isOverlay(target.prefix) ? this.#grantsToOverlay : this.#grantsBehind).push(grant);
        break;
      case "host":
        this.#grantsBehind.push(grant);
        break;
    }
  }

  #grantsOf(member: Member): PolicyGrant[] {
    return [...new Set(member.keys.flatMap((key) => this.#grantsFrom.get(key) ?? []))];
  }

  #neversOf(member: Member): PolicyNever[] {
    return [...new Set(member.keys.flatMap((key) => this.#neversFrom.get(key) ?? []))];
  }

  /** Sessions that these grants may lead to; some of them may turn out to be closed. */
  #targetsOf(grants: readonly PolicyGrant[]): Set<Member> {
    const targets = new Set<Member>();
    const addAll = (members: Iterable<Member>): void => {
      for (const member of members) targets.add(member);
    };
    for (const grant of grants) {
      for (const destination of grant.to) {
        const { target } = destination;
        for (const service of this.#pairs.servicesOf(destination)) addAll(this.#index.serving(service.name));
        if (target.type === "selector") addAll(this.#index.named(target.selector));
        else if (target.type === "prefix") this.#addByPrefix(target.prefix, targets);
        else if (target.type === "host") addAll(this.#index.routing());
      }
    }
    return targets;
  }

  #addByPrefix(prefix: Prefix, targets: Set<Member>): void {
    for (const member of this.#index.routing()) {
      const isCarried = member.offers.routes.some((r) => r.type === "prefix" && prefixesOverlap(r.prefix, prefix));
      if (isCarried) targets.add(member);
    }
    if (!this.#pairs.isOverlay(prefix)) return;
    if (prefix.bits === 128) {
      const owner = this.#index.at(prefix.address);
      if (owner !== undefined) targets.add(owner);
      return;
    }
    for (const member of this.#index.all()) {
      if (addressesOf(member).some((address) => prefixContains(prefix, address))) targets.add(member);
    }
  }

  /** Grants that may open something at this member. */
  #grantsLeadingTo(self: Member): PolicyGrant[] {
    const grants = new Set<PolicyGrant>();
    const addAll = (list: readonly PolicyGrant[] | undefined): void => {
      for (const grant of list ?? []) grants.add(grant);
    };
    for (const key of self.keys) addAll(this.#grantsTo.get(key));
    for (const name of self.offers.services) {
      addAll(this.#grantsTo.get(`service:${name}`));
      for (const tag of this.policy.services.get(name)?.tags ?? []) addAll(this.#grantsTo.get(`tag:${tag}`));
    }
    if (self.offers.services.length > 0) addAll(this.#grantsTo.get("service:*"));
    addAll(this.#grantsToOverlay);
    if (self.offers.routes.length > 0) addAll(this.#grantsBehind);
    return [...grants];
  }

  #openersOf(grants: readonly PolicyGrant[]): Set<Member> {
    const openers = new Set<Member>();
    for (const grant of grants) {
      for (const selector of grant.from) for (const member of this.#index.named(selector)) openers.add(member);
    }
    return openers;
  }

  #serves(self: Member): CompiledServe[] {
    const serves: CompiledServe[] = [];
    for (const name of self.offers.services) {
      const address = self.session.serviceAddresses.get(name);
      const place = this.policy.services.get(name)?.place;
      if (address !== undefined && place !== undefined)
        serves.push({ name, address, host: place.host, ...place.traffic });
    }
    return serves.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #services(self: Member, draft: PeerDraft, nevers: readonly PolicyNever[]): CompiledService[] {
    const services: CompiledService[] = [];
    for (const [name, gateways] of draft.services) {
      const { place, discoverable } = this.policy.services.get(name)!;
      const sorted = [...gateways.values()].sort((a, b) => (a.session < b.session ? -1 : 1));
      services.push({ name, ...place.traffic, gateways: sorted, discoverable });
    }
    for (const service of this.#discoverable) {
      if (draft.services.has(service.name)) continue;
      const never = nevers.find((rule) => rule.to.some((to) => this.#closesService(to, service)));
      services.push({
        name: service.name,
        ...service.place.traffic,
        gateways: [],
        discoverable: true,
        denied:
          never === undefined
            ? { reason: "NO_GRANT", hint: hintForGrant(self.identity.name, service.name) }
            : { reason: "NEVER", ruleId: never.id, hint: "the policy forbids it; no grant opens it" },
      });
    }
    return services.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** As far as the service itself says, whichever gateway. */
  #closesService(destination: PolicyDestination, service: PolicyService): boolean {
    const { target } = destination;
    if (target.type === "prefix")
      return service.place.address !== undefined && prefixContains(target.prefix, service.place.address);
    for (const named of this.#pairs.servicesOf(destination)) if (hostKeyOf(named) === hostKeyOf(service)) return true;
    return false;
  }
}

/** "The smallest grant" in words that an admin can paste. */
export function hintForGrant(identity: string, service: string): string {
  return `an admin can grant { "from": "${identity}", "to": "service:${service}" }`;
}

function addressesOf({ session }: Member): readonly Address[] {
  return [...session.addresses, ...session.serviceAddresses.values()];
}

function push<V>(map: Map<string, V[]>, key: string, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else if (list.at(-1) !== value) list.push(value);
}
