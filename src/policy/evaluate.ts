// The oracle: may this session open that, now? Written from the words of the policy's definition, one naive loop after
// another, sharing nothing with compile.ts and the filter but the reading of texts: property tests hold the two equal.
//
// What is reached is one of: an overlay address of the far end; a service at its overlay address; an address behind the
// far end as gateway; a name that the far end resolves. A grant opens what it names. `never` closes what is reached,
// however it was named: a service is also the pair (gateway, `at`), and gateways that one `via` lists reach the same.
import { type Address, embeddedV4s, equalAddress, isV4, type Prefix, prefixContains } from "../base/address.ts";
import type { FilterProtocol } from "../filter/contract.ts";
import { trafficHas } from "./destination.ts";
import { type AcceptedOffers, acceptOffers, viaNames } from "./offers.ts";
import type { Policy, PolicyDestination, PolicyService } from "./policy.ts";
import { prefixCovers } from "./prefixes.ts";
import type { Selector } from "./selector.ts";
import { NAME_DIAL_PORT, type World, type WorldSession } from "./world.ts";

export interface Asked {
  /** Session ids. */
  readonly from: string;
  /** The other end of the tunnel: it has the address, serves it, or is the gateway to it. */
  readonly at: string;
  /** An address, or a name for `at` to resolve. */
  readonly to: Address | string;
  /** "any" stands for a protocol that is neither tcp, udp nor icmp. */
  readonly protocol: FilterProtocol;
  readonly port: number;
}

export interface OracleVerdict {
  readonly allowed: boolean;
  readonly reason: "ALLOWED_BY_RULE" | "NO_GRANT" | "NEVER";
  /** Every grant that opens it, or every never that closes it. */
  readonly ruleIds: readonly string[];
}

type Reached =
  | { readonly type: "overlay"; readonly address: Address }
  | { readonly type: "service"; readonly address: Address; readonly service: PolicyService }
  | { readonly type: "behind"; readonly address: Address }
  | { readonly type: "name"; readonly name: string };

/** `nowMs` is by the coordinator's clock. */
export function evaluate(policy: Policy, world: World, asked: Asked, nowMs: number): OracleVerdict {
  return new Oracle(policy, world, asked).verdict(nowMs);
}

class Oracle {
  readonly #policy: Policy;
  readonly #world: World;
  readonly #asked: Asked;

  constructor(policy: Policy, world: World, asked: Asked) {
    this.#policy = policy;
    this.#world = world;
    this.#asked = asked;
  }

  verdict(nowMs: number): OracleVerdict {
    const from = this.#world.sessions.get(this.#asked.from);
    const at = this.#world.sessions.get(this.#asked.at);
    if (from === undefined || at === undefined || from.id === at.id) return NO_GRANT;
    const reached = this.#reached(at);
    if (reached === undefined) return NO_GRANT;
    const grants = this.#policy.grants.filter(
      (grant) =>
        (grant.untilMs === undefined || nowMs < grant.untilMs) &&
        grant.from.some((selector) => this.#matches(selector, from)) &&
        grant.to.some((destination) => this.#opens(destination, reached, at)),
    );
    if (grants.length === 0) return NO_GRANT;
    const nevers = this.#policy.nevers.filter(
      (never) =>
        never.from.some((selector) => this.#matches(selector, from)) &&
        never.to.some((destination) => this.#closes(destination, reached, at)),
    );
    if (nevers.length > 0) return { allowed: false, reason: "NEVER", ruleIds: nevers.map((never) => never.id) };
    return { allowed: true, reason: "ALLOWED_BY_RULE", ruleIds: grants.map((grant) => grant.id) };
  }

  #offers(session: WorldSession): AcceptedOffers {
    const identity = this.#world.identities.get(session.identity);
    if (identity === undefined) return { services: [], routes: [], refused: [], missing: [] };
    return acceptOffers(this.#policy, this.#world.network, identity, session);
  }

  #reached(at: WorldSession): Reached | undefined {
    const { to } = this.#asked;
    const offers = this.#offers(at);
    if (typeof to === "string") {
      const carries = offers.routes.some((route) => route.type === "host" && coversName(route.pattern, to));
      return carries ? { type: "name", name: to } : undefined;
    }
    if (at.addresses.some((address) => equalAddress(address, to))) return { type: "overlay", address: to };
    for (const name of offers.services) {
      const address = at.serviceAddresses.get(name);
      const service = this.#policy.services.get(name)!;
      if (address !== undefined && equalAddress(address, to)) return { type: "service", address: to, service };
    }
    const { ula, pool4 } = this.#world.network;
    // nobody's gateway leads into the overlay
    if (prefixContains(ula, to) || prefixContains(pool4, to)) return undefined;
    const carries = offers.routes.some((route) => route.type === "prefix" && prefixContains(route.prefix, to));
    return carries ? { type: "behind", address: to } : undefined;
  }

  #matches(selector: Selector, session: WorldSession): boolean {
    const identity = this.#world.identities.get(session.identity);
    if (identity === undefined) return false;
    switch (selector.type) {
      case "identity":
        return identity.name === selector.name;
      case "kind":
        return identity.kind === selector.kind;
      case "group":
        return (this.#policy.groups.get(selector.name) ?? []).some((member) => this.#matches(member, session));
      case "tag":
        return identity.tags.includes(selector.name);
      case "sponsor":
        return identity.sponsor === selector.name;
      case "session":
        return session.id === selector.id;
      case "token":
        return session.token === selector.id;
    }
  }

  #has(destination: PolicyDestination): boolean {
    return destination.traffic === undefined || trafficHas(destination.traffic, this.#asked.protocol, this.#asked.port);
  }

  #inService(service: PolicyService): boolean {
    return trafficHas(service.place.traffic, this.#asked.protocol, this.#asked.port);
  }

  #namesService({ target }: PolicyDestination, service: PolicyService): boolean {
    if (target.type === "service") return target.name === "*" || target.name === service.name;
    return target.type === "selector" && target.selector.type === "tag" && service.tags.includes(target.selector.name);
  }

  #opens(destination: PolicyDestination, reached: Reached, at: WorldSession): boolean {
    const { target, traffic } = destination;
    if (target.type === "host" && reached.type === "overlay" && this.#isNameDial(reached.address)) {
      return this.#offers(at).routes.some((route) => route.type === "host" && overlap(route.pattern, target.pattern));
    }
    if (!this.#has(destination)) return false;
    switch (reached.type) {
      case "overlay":
        if (target.type === "selector") return traffic !== undefined && this.#matches(target.selector, at);
        return (
          target.type === "prefix" && this.#isOverlay(target.prefix) && prefixContains(target.prefix, reached.address)
        );
      case "service":
        if (!this.#inService(reached.service)) return false;
        if (this.#namesService(destination, reached.service)) return true;
        return (
          target.type === "prefix" && this.#isOverlay(target.prefix) && prefixContains(target.prefix, reached.address)
        );
      case "behind":
        return target.type === "prefix" && prefixContains(target.prefix, reached.address);
      case "name":
        return target.type === "host" && coversName(target.pattern, reached.name);
    }
  }

  /** A wider CIDR names what is behind gateways: `0.0.0.0/0` is not every peer of the network. */
  #isOverlay(prefix: Prefix): boolean {
    return prefixCovers(this.#world.network.ula, prefix) || prefixCovers(this.#world.network.pool4, prefix);
  }

  #isNameDial(address: Address): boolean {
    return !isV4(address) && this.#asked.protocol === "tcp" && this.#asked.port === NAME_DIAL_PORT;
  }

  #closes(destination: PolicyDestination, reached: Reached, at: WorldSession): boolean {
    const { target } = destination;
    if (reached.type === "name" && this.#closesNameDial(destination, at)) return true;
    if (!this.#has(destination)) return false;
    if (target.type === "prefix" && reached.type !== "name" && within(target.prefix, reached.address)) return true;
    switch (reached.type) {
      case "overlay":
        return target.type === "selector" && this.#matches(target.selector, at);
      case "behind": {
        return undressed(reached.address).some((plain) => {
          const isOwn = at.addresses.some((address) => equalAddress(address, plain)); // in NAT64's clothes
          if (isOwn && target.type === "selector" && this.#matches(target.selector, at)) return true;
          return this.#namesTwin(destination, hostKey(plain), at);
        });
      }
      case "name":
        if (target.type === "host" && coversName(target.pattern, reached.name)) return true;
        return this.#namesTwin(destination, reached.name, at);
      case "service": {
        const { place } = reached.service;
        if (this.#namesService(destination, reached.service)) return true;
        if (this.#namesTwin(destination, keyOfService(reached.service), at)) return true;
        if (place.address === undefined) return target.type === "host" && coversName(target.pattern, place.host);
        if (target.type === "prefix") return within(target.prefix, place.address);
        return target.type === "selector" && isLoopback(place.address) && this.#matches(target.selector, at);
      }
    }
  }

  /** Names are told to the gateway at a port of its own address. */
  #closesNameDial({ target, traffic }: PolicyDestination, at: WorldSession): boolean {
    if (traffic !== undefined && !trafficHas(traffic, "tcp", NAME_DIAL_PORT)) return false;
    if (target.type === "selector") return this.#matches(target.selector, at);
    const address = at.addresses.find((own) => !isV4(own));
    return target.type === "prefix" && address !== undefined && within(target.prefix, address);
  }

  /** Is this host behind `at` the same thing as a service that the destination names, at one of its ports? */
  #namesTwin(destination: PolicyDestination, key: string, at: WorldSession): boolean {
    for (const service of this.#policy.services.values()) {
      if (!this.#namesService(destination, service) || keyOfService(service) !== key) continue;
      if (!this.#inService(service)) continue;
      if (this.#offers(at).services.includes(service.name) || this.#sameThing(service).has(at.identity)) return true;
    }
    return false;
  }

  /** Every node that reaches what the service is, by the `via` lists that declare so; there now or not. */
  #sameThing(service: PolicyService): ReadonlySet<string> {
    const key = keyOfService(service);
    const nodesOf = (via: readonly Selector[]): string[] => {
      const named = via.flatMap((selector) => (selector.type === "identity" ? [selector.name] : []));
      const known = [...this.#world.identities.values()].filter((identity) => viaNames(via, identity));
      return [...named, ...known.map((identity) => identity.name)];
    };
    const same = new Set(nodesOf(service.via));
    const declared = [
      ...[...this.#policy.services.values()].filter((other) => keyOfService(other) === key).map((other) => other.via),
      ...this.#policy.routes
        .filter(({ target }) =>
          target.type === "prefix"
            ? service.place.address !== undefined && within(target.prefix, service.place.address)
            : service.place.address === undefined && coversName(target.pattern, service.place.host),
        )
        .map((route) => route.via),
    ].map(nodesOf);
    for (let before = -1; before !== same.size; ) {
      before = same.size;
      for (const names of declared) if (names.some((name) => same.has(name))) for (const name of names) same.add(name);
    }
    return same;
  }
}

const NO_GRANT: OracleVerdict = { allowed: false, reason: "NO_GRANT", ruleIds: [] };

/** The address, and the IPv4 addresses in whose place it may stand (NAT64, 6to4 …). */
function undressed(address: Address): readonly Address[] {
  return [address, ...embeddedV4s(address)];
}

function within(prefix: Prefix, address: Address): boolean {
  return undressed(address).some((plain) => prefixContains(prefix, plain));
}

function hostKey(address: Address): string {
  const [v4, ...others] = embeddedV4s(address);
  const { w0, w1, w2, w3 } = v4 === undefined || others.length > 0 ? address : v4;
  return `${w0} ${w1} ${w2} ${w3}`;
}

function keyOfService({ place }: PolicyService): string {
  return place.address === undefined ? place.host : hostKey(place.address);
}

function isLoopback(address: Address): boolean {
  if (isV4(address)) return address.w3 >>> 24 === 127;
  return address.w0 === 0 && address.w1 === 0 && address.w2 === 0 && address.w3 === 1;
}

function coversName(pattern: string, name: string): boolean {
  const [labels, wanted] = [pattern.split(".").reverse(), name.split(".").reverse()];
  for (const [index, label] of labels.entries()) {
    if (label === "*") return wanted.length > index;
    if (wanted[index] !== label) return false;
  }
  return wanted.length === labels.length;
}

/** Is there a name that both cover? */
function overlap(a: string, b: string): boolean {
  const sample = (pattern: string): string => pattern.replace("*", "x.x.x");
  return coversName(a, sample(b)) || coversName(b, sample(a));
}
