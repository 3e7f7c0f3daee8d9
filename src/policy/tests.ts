// A document's own tests, run by the oracle in a world made for them: every identity that the document names is there,
// whether it has enrolled yet or not, and every gateway offers what the policy lets it. A document whose tests fail is
// refused. An identity that does not exist yet has no tags and no sponsor.
import { type Address, makeAddress, makePrefix, prefixContains } from "../base/address.ts";
import { hostMatches } from "../filter/rules.ts";
import { ANY_TRAFFIC, formatRouteTarget, type Traffic } from "./destination.ts";
import { evaluate, type OracleVerdict } from "./evaluate.ts";
import { viaNames } from "./offers.ts";
import type { Policy, PolicyDestination, PolicyGrant, PolicyNever, PolicyTest } from "./policy.ts";
import { formatSelector, type IdentityKind, type Selector } from "./selector.ts";
import { portEdges, trafficPoints } from "./traffic-points.ts";
import { NAME_DIAL_PORT, type WorldIdentity, type WorldNetwork, type WorldSession } from "./world.ts";
import { type Member, WorldIndex } from "./world-index.ts";

export interface PolicyTestResult {
  readonly index: number;
  readonly from: string;
  readonly to: string;
  readonly expect: "allow" | "deny";
  readonly got: "allow" | "deny";
  readonly passed: boolean;
  /** The verdict's reason and the rules behind it. */
  readonly reason: string;
}

const NETWORK: WorldNetwork = {
  ula: makePrefix(makeAddress(0xfd5e7e57, 0, 0, 0), 48), // nobody's
  pool4: makePrefix(makeAddress(0, 0, 0xffff, 0xc6336400), 120), // 198.51.100.0/24: documentation (RFC 5737)
};
const ANY_GATEWAY = "node:any-gateway"; // carries what no route of the policy covers, as a token may let it
const SOMEBODY: Readonly<Record<IdentityKind, string>> = {
  user: "user:somebody@example.invalid",
  node: "node:somebody",
  agent: "agent:somebody",
};

/**
 * All of them, in order. `known` gives tags and sponsors of identities that exist; `nowMs` is the coordinator's clock.
 */
export function runPolicyTests(
  policy: Policy,
  known: ReadonlyMap<string, WorldIdentity>,
  nowMs: number,
): readonly PolicyTestResult[] {
  if (policy.tests.length === 0) return [];
  const world = new TestWorld(policy, known);
  return policy.tests.map((one) => world.run(one, nowMs));
}

class TestWorld {
  readonly #policy: Policy;
  readonly #identities: Map<string, WorldIdentity>;
  readonly #index: WorldIndex;
  readonly #gateways = new Map<string, WorldSession>();
  readonly #byProfile = new Map<string, Policy>();
  readonly #rulesFrom = new Map<string, (PolicyGrant | PolicyNever)[]>(); // by selector
  #addresses = 0;

  constructor(policy: Policy, known: ReadonlyMap<string, WorldIdentity>) {
    this.#policy = policy;
    this.#identities = new Map(known);
    this.#index = new WorldIndex(policy, NETWORK);
    const named = new Set([...known.keys(), ...Object.values(SOMEBODY)]);
    const add = (selectors: readonly Selector[]): void => {
      for (const selector of selectors) if (selector.type === "identity") named.add(selector.name);
    };
    for (const { via } of [...policy.services.values(), ...policy.routes]) add(via);
    for (const members of policy.groups.values()) add(members);
    for (const rule of [...policy.grants, ...policy.nevers]) {
      add(rule.from);
      for (const key of new Set(rule.from.map(formatSelector))) {
        const rules = this.#rulesFrom.get(key);
        if (rules === undefined) this.#rulesFrom.set(key, [rule]);
        else rules.push(rule);
      }
    }
    for (const { from } of policy.tests) add([from]);
    for (const name of named) this.#ensure(name);
  }

  run({ index, fromText, toText, from, to, expect }: PolicyTest, nowMs: number): PolicyTestResult {
    const verdicts: OracleVerdict[] = [];
    for (const opener of this.#openers(from)) {
      const policy = this.#policyOf(opener);
      const edges = edgesOf(policy);
      for (const { session, to: reached, traffic } of this.#reached(to)) {
        const sessions = new Map([...this.#gateways, [session.id, session], [opener.session.id, opener.session]]);
        const world = { network: NETWORK, identities: this.#identities, sessions };
        for (const point of trafficPoints(traffic, edges)) {
          const asked = { from: opener.session.id, at: session.id, to: reached, ...point };
          verdicts.push(evaluate(policy, world, asked, nowMs));
        }
      }
    }
    // "allow": whoever is meant may, by every gateway and port; "deny": nobody may by any.
    const allowed = verdicts.filter((verdict) => verdict.allowed);
    const isAllowed = expect === "allow" ? allowed.length === verdicts.length : allowed.length > 0;
    const got = isAllowed && verdicts.length > 0 ? "allow" : "deny";
    const telling = got === "allow" ? allowed[0] : verdicts.find((verdict) => !verdict.allowed);
    const rules = telling === undefined || telling.ruleIds.length === 0 ? "" : ` (${telling.ruleIds.join(", ")})`;
    const reason = telling === undefined ? "it names nobody or nothing that exists" : `${telling.reason}${rules}`;
    const passed = got === expect && verdicts.length > 0;
    return { index, from: fromText, to: toText, expect, got, passed, reason };
  }

  #ensure(name: string): Member {
    const id = `test:${name}`;
    const present = this.#index.get(id);
    if (present !== undefined) return present;
    const kind = name.slice(0, name.indexOf(":")) as IdentityKind;
    const identity = this.#identities.get(name) ?? { name, kind, tags: [] };
    this.#identities.set(name, identity);
    const services = [...this.#policy.services.values()].filter(({ via }) => viaNames(via, identity));
    const routes = this.#policy.routes.filter(({ via }) => viaNames(via, identity));
    const everything = name === ANY_GATEWAY ? ["0.0.0.0/0", "::/0", "host:*"] : [];
    const session: WorldSession = {
      id,
      identity: name,
      kind: "wirebadge",
      addresses: [this.#nextAddress()],
      offeredRoutes: [...everything, ...routes.map(({ target }) => formatRouteTarget(target))],
      offeredServices: services.map((service) => service.name),
      mayRoute: everything,
      serviceAddresses: new Map(services.map((service) => [service.name, this.#nextAddress()])),
    };
    this.#index.set(identity, session);
    if (session.offeredRoutes.length + services.length > 0) this.#gateways.set(id, session);
    return this.#index.get(id)!;
  }

  #nextAddress(): Address {
    return makeAddress(NETWORK.ula.address.w0, 0, 0, ++this.#addresses);
  }

  /** One of each sort: those that the same grants and nevers speak of get the same answers. */
  #openers(from: Selector): Iterable<Member> {
    if (from.type === "identity") return [this.#ensure(from.name)];
    const sorts = new Map<string, Member>();
    for (const member of this.#index.named(from)) if (!sorts.has(member.profile)) sorts.set(member.profile, member);
    return sorts.values();
  }

  /** The policy with the grants and nevers of one opener: the oracle looks at each of them for every question. */
  #policyOf({ profile, keys }: Member): Policy {
    const present = this.#byProfile.get(profile);
    if (present !== undefined) return present;
    const own = new Set(keys.flatMap((key) => this.#rulesFrom.get(key) ?? []));
    const { grants, nevers } = this.#policy;
    const policy = {
      ...this.#policy,
      grants: grants.filter((grant) => own.has(grant)),
      nevers: nevers.filter((never) => own.has(never)),
    };
    this.#byProfile.set(profile, policy);
    return policy;
  }

  #reached(to: PolicyDestination): { session: WorldSession; to: Address | string; traffic: Traffic }[] {
    const { target } = to;
    const traffic = to.traffic ?? ANY_TRAFFIC;
    const gateways = [...this.#gateways.values()];
    switch (target.type) {
      case "service": {
        const service = this.#policy.services.get(target.name)!;
        return gateways.flatMap((session) => {
          const address = session.serviceAddresses.get(target.name);
          return address === undefined ? [] : [{ session, to: address, traffic: service.place.traffic }];
        });
      }
      case "selector": {
        if (target.selector.type !== "identity") return [];
        const { session } = this.#ensure(target.selector.name);
        return session.addresses.map((address) => ({ session, to: address, traffic }));
      }
      case "prefix": {
        const { address } = target.prefix;
        const leads = this.#leading((route) => route.type === "prefix" && prefixContains(route.prefix, address));
        return leads.map((session) => ({ session, to: address, traffic }));
      }
      case "host": {
        const { pattern } = target;
        const leads = this.#leading((route) => route.type === "host" && hostMatches(route.pattern, pattern));
        return leads.map((session) => ({ session, to: pattern, traffic }));
      }
    }
  }

  /** Every gateway that the policy leads there by; when there is none, one that may carry anything. */
  #leading(covers: (route: Policy["routes"][number]["target"]) => boolean): readonly WorldSession[] {
    const routes = this.#policy.routes.filter(({ target }) => covers(target));
    const gateways = [...this.#gateways.values()].filter(({ identity }) =>
      routes.some(({ via }) => viaNames(via, this.#identities.get(identity)!)),
    );
    return gateways.length > 0 ? gateways : [this.#ensure(ANY_GATEWAY).session];
  }
}

/** Where verdicts may change. */
function edgesOf(policy: Policy): ReadonlySet<number> {
  const nameDial = [[NAME_DIAL_PORT, NAME_DIAL_PORT]] as const;
  const services = [...policy.services.values()].map(({ place }) => place.traffic.ports);
  const rules = [...policy.grants, ...policy.nevers].flatMap(({ to }) => to.map(({ traffic }) => traffic?.ports ?? []));
  return portEdges([nameDial, ...services, ...rules]);
}
