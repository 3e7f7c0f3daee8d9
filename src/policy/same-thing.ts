// Two gateways in one `via` declare that both reach the same thing. So a `never` on a service closes its `at` behind
// every gateway that any chain of such declarations joins to it, whoever serves or routes it there.
import { type Address, embeddedV4s, isV4, type Prefix, prefixContains } from "../base/address.ts";
import { hostMatches } from "../filter/rules.ts";
import { viaNames } from "./offers.ts";
import type { Policy, PolicyService } from "./policy.ts";
import type { Selector } from "./selector.ts";
import type { Member, WorldIndex } from "./world-index.ts";

/** An IPv4 address in IPv6 clothes (NAT64, 6to4 …) is that address, where it stands for one alone. */
export function plainAddress(address: Address): Address {
  const [v4, ...others] = embeddedV4s(address);
  return v4 === undefined || others.length > 0 ? address : v4;
}

/** `prefix` as `never` understands it. */
export function prefixReaches(prefix: Prefix, address: Address): boolean {
  return prefixContains(prefix, address) || embeddedV4s(address).some((v4) => prefixContains(prefix, v4));
}

export function isLoopback(address: Address): boolean {
  if (isV4(address)) return address.w3 >>> 24 === 127;
  return address.w0 === 0 && address.w1 === 0 && address.w2 === 0 && address.w3 === 1;
}

/** One text for each host that a service may be at. */
export function hostKeyOf({ place }: PolicyService): string {
  if (place.address === undefined) return place.host;
  const { w0, w1, w2, w3 } = plainAddress(place.address);
  return `${w0} ${w1} ${w2} ${w3}`;
}

export class SameThing {
  readonly #policy: Policy;
  readonly #index: WorldIndex;
  readonly #byHost = new Map<string, PolicyService[]>();

  constructor(policy: Policy, index: WorldIndex) {
    this.#policy = policy;
    this.#index = index;
    for (const service of policy.services.values()) {
      const key = hostKeyOf(service);
      this.#byHost.set(key, [...(this.#byHost.get(key) ?? []), service]);
    }
  }

  /** Services at the same host, itself included. */
  twins(service: PolicyService): readonly PolicyService[] {
    return this.#byHost.get(hostKeyOf(service)) ?? [];
  }

  /** Does `gateway` reach what the service is? Looked at along the `via` lists, not over the world. */
  reaches(gateway: Member, service: PolicyService): boolean {
    if (viaNames(service.via, gateway.identity) || gateway.offers.services.includes(service.name)) return true;
    if (gateway.identity.kind !== "node") return false;
    // Lists that stand for the thing: the service's own, then those that share a node with one that does.
    const known: (readonly Selector[])[] = [service.via];
    let open = this.#declared(service).filter((via) => via !== service.via);
    for (let grown = true; grown; ) {
      grown = false;
      const rest: (readonly Selector[])[] = [];
      for (const via of open) {
        if (!known.some((other) => this.#share(via, other))) {
          rest.push(via);
          continue;
        }
        if (viaNames(via, gateway.identity)) return true;
        known.push(via);
        grown = true;
      }
      open = rest;
    }
    return false;
  }

  #declared(service: PolicyService): (readonly Selector[])[] {
    const { address, host } = service.place;
    const plain = address === undefined ? undefined : plainAddress(address);
    const routes = this.#policy.routes.filter(({ target }) => {
      if (target.type === "host") return plain === undefined && hostMatches(target.pattern, host);
      return plain !== undefined && (prefixContains(target.prefix, plain) || prefixContains(target.prefix, address!));
    });
    return [...this.twins(service).map((twin) => twin.via), ...routes.map((route) => route.via)];
  }

  /** Is there a node that both lists name? */
  #share(a: readonly Selector[], b: readonly Selector[]): boolean {
    const isNamed = (one: Selector): boolean =>
      one.type === "identity" && b.some((other) => other.type === "identity" && other.name === one.name);
    if (a.some(isNamed)) return true; // whether it has enrolled yet or not
    for (const node of this.#index.nodes()) if (viaNames(a, node) && viaNames(b, node)) return true;
    return false;
  }
}
