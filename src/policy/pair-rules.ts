// The rules for flows that one session opens to another: what the grants open there, what `never` closes of it. Both
// ends of a tunnel get theirs from here, so that source and destination agree by construction.
import {
  type Address,
  hostPrefix,
  isV4,
  isV4Prefix,
  mayEmbedV4,
  type Prefix,
  prefixContains,
} from "../base/address.ts";
import { hostMatches } from "../filter/rules.ts";
import { ANY_TRAFFIC, intersectTraffic, type Traffic, trafficCovers } from "./destination.ts";
import { hostPatternCovers } from "./offers.ts";
import type { Policy, PolicyDestination, PolicyGrant, PolicyNever, PolicyService } from "./policy.ts";
import { intersectPrefixes, prefixCovers, withoutPrefix } from "./prefixes.ts";
import { isLoopback, plainAddress, prefixReaches, type SameThing } from "./same-thing.ts";
import { formatSelector } from "./selector.ts";
import { NAME_DIAL_PORT } from "./world.ts";
import type { Member, WorldIndex } from "./world-index.ts";

export interface AddressAllow {
  readonly id: string;
  readonly to: Prefix;
  readonly traffic: Traffic;
  readonly untilMs: number | undefined;
  /** Set when it is the overlay address of a service. */
  readonly service: string | undefined;
  /** Set when it is behind the other end: the route that leads there. */
  readonly route: Prefix | undefined;
}

export interface HostAllow {
  readonly id: string;
  readonly pattern: string;
  readonly traffic: Traffic;
  readonly untilMs: number | undefined;
  /** The pattern of the route that it lies under. */
  readonly route: string;
}

export interface AddressDeny {
  readonly id: string;
  readonly to: Prefix;
  readonly traffic: Traffic;
}

export interface HostDeny {
  readonly id: string;
  readonly pattern: string;
  readonly traffic: Traffic;
}

export interface PairRules {
  readonly allows: readonly AddressAllow[];
  readonly hostAllows: readonly HostAllow[];
  readonly denies: readonly AddressDeny[];
  readonly hostDenies: readonly HostDeny[];
}

const NOTHING: PairRules = { allows: [], hostAllows: [], denies: [], hostDenies: [] };
const NAME_DIAL: Traffic = { protocol: "tcp", ports: [[NAME_DIAL_PORT, NAME_DIAL_PORT]] };

export class PairCompiler {
  readonly #policy: Policy;
  readonly #index: WorldIndex;
  readonly #same: SameThing;
  readonly #servicesByTag = new Map<string, PolicyService[]>();

  constructor(policy: Policy, index: WorldIndex, same: SameThing) {
    this.#policy = policy;
    this.#index = index;
    this.#same = same;
    for (const service of policy.services.values()) {
      for (const tag of new Set(service.tags)) {
        this.#servicesByTag.set(tag, [...(this.#servicesByTag.get(tag) ?? []), service]);
      }
    }
  }

  /** `grants` and `nevers` are the opener's, `at` is the other end. Grants that have ended are left out. */
  rules(grants: readonly PolicyGrant[], nevers: readonly PolicyNever[], at: Member, nowMs: number): PairRules {
    const granted: AddressAllow[] = [];
    const hostAllows: HostAllow[] = [];
    for (const grant of grants) {
      if (grant.untilMs !== undefined && nowMs >= grant.untilMs) continue;
      for (const destination of grant.to) this.#open(grant, destination, at, granted, hostAllows);
    }
    if (granted.length === 0) return NOTHING;
    const closed: AddressDeny[] = [];
    const hostDenies: HostDeny[] = [];
    for (const never of nevers) {
      for (const destination of never.to) this.#close(never, destination, at, closed, hostDenies);
    }
    const allows = granted.filter((allow) => !closed.some((deny) => deniesAll(deny, allow)));
    if (allows.length === 0) return NOTHING;
    const ownV6 = at.session.addresses.find((address) => !isV4(address));
    const namesPass =
      ownV6 !== undefined &&
      !closed.some(({ to, traffic }) => prefixContains(to, ownV6) && trafficCovers(traffic, NAME_DIAL));
    const names = namesPass ? hostAllows : [];
    const resolves = names.length > 0 || allows.some(({ service }) => this.#isByName(service));
    return {
      allows,
      hostAllows: names,
      // What a gateway resolves may come out anywhere: then `never` is told whole, else only where it meets a grant.
      denies: resolves ? closed : closed.flatMap((deny) => narrowed(deny, allows)),
      hostDenies: names.length > 0 ? hostDenies : [],
    };
  }

  /** The services that a destination of `never` or a grant names, by name or by tag. */
  servicesOf({ target }: PolicyDestination): Iterable<PolicyService> {
    if (target.type === "service") {
      if (target.name === "*") return this.#policy.services.values();
      const service = this.#policy.services.get(target.name);
      return service === undefined ? [] : [service];
    }
    if (target.type === "selector" && target.selector.type === "tag") {
      return this.#servicesByTag.get(target.selector.name) ?? [];
    }
    return [];
  }

  isOverlay(prefix: Prefix): boolean {
    const { ula, pool4 } = this.#index.network;
    return prefixCovers(ula, prefix) || prefixCovers(pool4, prefix);
  }

  #isByName(service: string | undefined): boolean {
    return service !== undefined && this.#policy.services.get(service)?.place.address === undefined;
  }

  #open(
    grant: PolicyGrant,
    destination: PolicyDestination,
    at: Member,
    allows: AddressAllow[],
    hostAllows: HostAllow[],
  ): void {
    const { id, untilMs } = grant;
    const { target, traffic } = destination;
    const allow = (to: Prefix, opened: Traffic, service?: string, route?: Prefix): void => {
      allows.push({ id, to, traffic: opened, untilMs, service, route });
    };
    const allowService = (service: PolicyService, address: Address): void => {
      const opened = intersectTraffic(service.place.traffic, traffic ?? ANY_TRAFFIC);
      if (opened !== undefined) allow(hostPrefix(address), opened, service.name);
    };
    for (const service of this.servicesOf(destination)) {
      const address = this.#addressOf(at, service);
      if (address !== undefined) allowService(service, address);
    }
    if (target.type === "selector") {
      if (traffic === undefined || !at.keys.includes(formatSelector(target.selector))) return;
      for (const address of at.session.addresses) allow(hostPrefix(address), traffic);
    } else if (target.type === "prefix") {
      if (traffic === undefined) return;
      const { prefix } = target;
      if (this.isOverlay(prefix)) {
        for (const address of at.session.addresses) {
          if (prefixContains(prefix, address)) allow(hostPrefix(address), traffic);
        }
        for (const [service, address] of this.#served(at)) {
          if (prefixContains(prefix, address)) allowService(service, address);
        }
      }
      for (const route of at.offers.routes) {
        const shared = route.type === "prefix" ? intersectPrefixes(route.prefix, prefix) : undefined;
        if (route.type !== "prefix" || shared === undefined) continue;
        const { ula, pool4 } = this.#index.network; // nobody's gateway leads into the overlay
        for (const part of withoutPrefix(shared, ula).flatMap((rest) => withoutPrefix(rest, pool4))) {
          allow(part, traffic, undefined, route.prefix);
        }
      }
    } else if (target.type === "host") {
      if (traffic === undefined) return;
      const own = at.session.addresses.find((address) => !isV4(address));
      for (const route of at.offers.routes) {
        if (route.type !== "host" || own === undefined) continue;
        const pattern = narrowerPattern(route.pattern, target.pattern);
        if (pattern === undefined) continue;
        hostAllows.push({ id, pattern, traffic, untilMs, route: route.pattern });
        allow(hostPrefix(own), NAME_DIAL);
      }
    }
  }

  #close(
    never: PolicyNever,
    destination: PolicyDestination,
    at: Member,
    denies: AddressDeny[],
    hostDenies: HostDeny[],
  ): void {
    const { id } = never;
    const { target } = destination;
    const traffic = destination.traffic ?? ANY_TRAFFIC;
    const deny = (to: Prefix, ...all: readonly Traffic[]): void => {
      let closed: Traffic | undefined = traffic;
      for (const one of all) closed = closed && intersectTraffic(closed, one);
      if (closed !== undefined) denies.push({ id, to, traffic: closed });
    };
    switch (target.type) {
      case "service":
        break;
      case "selector": {
        const isNamed = at.keys.includes(formatSelector(target.selector));
        if (!isNamed) break;
        for (const address of at.session.addresses) deny(hostPrefix(address));
        for (const [{ place }, address] of this.#served(at)) {
          if (place.address !== undefined && isLoopback(place.address)) deny(hostPrefix(address), place.traffic);
        }
        break;
      }
      case "prefix":
        deny(target.prefix);
        for (const [{ place }, address] of this.#served(at)) {
          const reached = place.address !== undefined && prefixReaches(target.prefix, place.address);
          if (reached) deny(hostPrefix(address), place.traffic);
        }
        break;
      case "host":
        hostDenies.push({ id, pattern: target.pattern, traffic });
        for (const [{ place }, address] of this.#served(at)) {
          const reached = place.address === undefined && hostMatches(target.pattern, place.host);
          if (reached) deny(hostPrefix(address), place.traffic);
        }
        break;
    }
    for (const service of this.servicesOf(destination)) {
      const { place } = service;
      const own = this.#addressOf(at, service);
      if (own !== undefined) deny(hostPrefix(own), place.traffic);
      if (!this.#same.reaches(at, service)) continue;
      for (const twin of this.#same.twins(service)) {
        const address = twin === service ? undefined : this.#addressOf(at, twin);
        if (address !== undefined) deny(hostPrefix(address), place.traffic, twin.place.traffic);
      }
      if (place.address !== undefined) deny(hostPrefix(plainAddress(place.address)), place.traffic);
      else {
        const closed = intersectTraffic(traffic, place.traffic);
        if (closed !== undefined) hostDenies.push({ id, pattern: place.host, traffic: closed });
      }
    }
  }

  #addressOf(at: Member, service: PolicyService): Address | undefined {
    return at.offers.services.includes(service.name) ? at.session.serviceAddresses.get(service.name) : undefined;
  }

  *#served(at: Member): Iterable<readonly [PolicyService, Address]> {
    for (const name of at.offers.services) {
      const service = this.#policy.services.get(name);
      const address = at.session.serviceAddresses.get(name);
      if (service !== undefined && address !== undefined) yield [service, address];
    }
  }
}

/** The names under both patterns. */
function narrowerPattern(a: string, b: string): string | undefined {
  if (hostPatternCovers(a, b)) return b;
  return hostPatternCovers(b, a) ? a : undefined;
}

function deniesAll(deny: AddressDeny, allow: AddressAllow): boolean {
  return prefixCovers(deny.to, allow.to) && trafficCovers(deny.traffic, allow.traffic);
}

/** Where the deny meets an allow: a peer is told of a `never` no more than its own grants touch. */
function narrowed(deny: AddressDeny, allows: readonly AddressAllow[]): AddressDeny[] {
  const parts = new Map<string, AddressDeny>();
  for (const allow of allows) {
    const traffic = intersectTraffic(deny.traffic, allow.traffic);
    if (traffic === undefined) continue;
    const hidesV4 = isV4Prefix(deny.to) && !isV4Prefix(allow.to) && mayEmbedV4(allow.to); // the filter undresses it
    const to = intersectPrefixes(deny.to, allow.to) ?? (hidesV4 ? deny.to : undefined);
    if (to === undefined) continue;
    parts.set(JSON.stringify([to, traffic]), { id: deny.id, to, traffic });
  }
  return [...parts.values()];
}
