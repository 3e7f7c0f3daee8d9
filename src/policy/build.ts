// From a document of the right shape to a Policy: reads every text in it and checks what only the whole can tell (names
// that nobody declared, services that overlap, ids used twice).
import type { JSONPath } from "jsonc-parser";
import { formatPrefix } from "../base/address.ts";
import { toBase32 } from "../base/base32.ts";
import { utf8 } from "../base/bytes.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS, parseDurationMs, SECOND_MS } from "../base/units.ts";
import {
  type Destination,
  type DestinationUse,
  formatRouteTarget,
  parseDestination,
  parseRouteTarget,
  parseServicePlace,
  type Traffic,
  trafficsMeet,
} from "./destination.ts";
import type { PolicyFault, PolicyIssueCode } from "./issue.ts";
import { didYouMean, nearest } from "./nearest.ts";
import type {
  Policy,
  PolicyDestination,
  PolicyGrant,
  PolicyNever,
  PolicyRoute,
  PolicyService,
  PolicyTest,
} from "./policy.ts";
import type { PolicyDocument } from "./schema.ts";
import {
  formatSelector,
  IDENTITY_KINDS,
  type IdentityKind,
  isLabel,
  type Parsed,
  parseSelector,
  type Selector,
  shown,
} from "./selector.ts";

const LEASE_DEFAULT_MS: Readonly<Record<IdentityKind, number>> = {
  user: 12 * HOUR_MS,
  node: 12 * HOUR_MS,
  agent: 5 * MINUTE_MS,
};
const LEASE_MIN_MS = 10 * SECOND_MS; // renewed at half of it
const LEASE_MAX_MS = 30 * DAY_MS;
const FAULTS_COMPARED_MAX = 10;
const RULE_ID = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;
const TIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,3})?)?(?:Z|[+-]\d\d:\d\d)$/;

export interface BuiltPolicy {
  readonly policy: Policy;
  readonly faults: readonly PolicyFault[];
}

export function buildPolicy(document: PolicyDocument, version: number): BuiltPolicy {
  const builder = new Builder(document);
  return { policy: builder.build(version), faults: builder.faults };
}

class Builder {
  readonly faults: PolicyFault[] = [];
  readonly #document: PolicyDocument;
  readonly #ids = new Set<string>();
  readonly #copies = new Map<string, number>();

  constructor(document: PolicyDocument) {
    this.#document = document;
  }

  build(version: number): Policy {
    const { grants = [], never = [], tests = [] } = this.#document;
    for (const [list, rules] of [["grants", grants] as const, ["never", never] as const]) {
      for (const [index, { id }] of rules.entries()) if (id !== undefined) this.#checkId(id, [list, index, "id"]);
    }
    const services = this.#services();
    return {
      version,
      document: this.#document,
      groups: this.#groups(),
      services,
      routes: this.#routes(),
      grants: grants.map((grant, index) => this.#grant(grant, index)),
      nevers: never.map((rule, index) => this.#never(rule, index)),
      leaseMs: this.#leases(),
      tests: tests.flatMap((test, index) => this.#test(test, index)),
    };
  }

  #fault(code: PolicyIssueCode, path: JSONPath, message: string, hint: string, atKey = false): void {
    this.faults.push({ code, path, message, hint, ...(atKey ? { atKey } : {}) });
  }

  #read<T>(parsed: Parsed<T>, path: JSONPath, atKey = false): T | undefined {
    if (parsed.ok) return parsed.value;
    this.#fault(parsed.refusal.code, path, parsed.refusal.message, parsed.refusal.hint, atKey);
    return undefined;
  }

  /** For the first few mistakes only: each look compares with every name. */
  #didYouMean(name: string, known: Readonly<Record<string, unknown>>): string {
    return this.faults.length < FAULTS_COMPARED_MAX ? didYouMean(nearest(name, Object.keys(known))) : "";
  }

  #label(name: string, what: string, path: JSONPath, atKey: boolean): void {
    if (isLabel(name)) return;
    const hint = "letters a-z, digits and inner hyphens, at most 63 characters";
    this.#fault("BAD_NAME", path, `"${shown(name)}" is not the name of a ${what}`, hint, atKey);
  }

  #checkId(id: string, path: JSONPath): void {
    if (!RULE_ID.test(id)) {
      const hint = "letters a-z, digits and inner . _ -, at most 64: coder-reads-staging";
      this.#fault("BAD_NAME", path, `"${shown(id)}" is not an id`, hint);
    } else if (this.#ids.has(id)) {
      this.#fault("DUPLICATE_ID", path, `the id "${id}" is taken`, "each grant and never has its own: records name it");
    }
    this.#ids.add(id);
  }

  /**
   * For a rule without an id: from its content, not its place, so that an edit elsewhere in the document renames no
   * rule in records. FNV-1a, 64 bits: a label, not a secret; the second of two that are alike gets "-2".
   */
  #deriveId(kind: "grant" | "never", content: unknown): string {
    let hash = 0xcbf29ce484222325n;
    for (const byte of utf8(JSON.stringify(content))) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    const bytes = Uint8Array.from({ length: 8 }, (_, i) => Number((hash >> BigInt(56 - 8 * i)) & 0xffn));
    const base = `${kind}-${toBase32(bytes).slice(0, 8)}`;
    let id = base;
    let copy = this.#copies.get(base) ?? 2; // not from 2 again: a document may hold thousands that are alike
    for (; this.#ids.has(id); copy++) id = `${base}-${copy}`;
    this.#copies.set(base, copy);
    this.#ids.add(id);
    return id;
  }

  #selector(text: string, path: JSONPath): Selector | undefined {
    const selector = this.#read(parseSelector(text), path);
    if (selector?.type === "group" && !Object.hasOwn(this.#document.groups ?? {}, selector.name)) {
      this.#unknownGroup(selector.name, path);
      return undefined;
    }
    return selector;
  }

  #unknownGroup(name: string, path: JSONPath): void {
    const hint = `${this.#didYouMean(name, this.#document.groups ?? {})}declare it under "groups"`;
    this.#fault("UNKNOWN_GROUP", path, `no group "${name}"`, hint);
  }

  #selectors(texts: string | readonly string[], path: JSONPath): readonly Selector[] {
    return this.#each(texts, path, (text, at) => this.#selector(text, at));
  }

  #each<T>(
    texts: string | readonly string[],
    path: JSONPath,
    read: (text: string, at: JSONPath) => T | undefined,
  ): readonly T[] {
    const read1 = (text: string, at: JSONPath): T[] => {
      const value = read(text, at);
      return value === undefined ? [] : [value];
    };
    if (typeof texts === "string") return read1(texts, path);
    return texts.flatMap((text, index) => read1(text, [...path, index]));
  }

  #groups(): Map<string, readonly Selector[]> {
    const groups = new Map<string, readonly Selector[]>();
    for (const [name, members] of Object.entries(this.#document.groups ?? {})) {
      this.#label(name, "group", ["groups", name], true);
      const selectors = this.#each(members, ["groups", name], (text, at) => {
        const selector = this.#read(parseSelector(text), at);
        if (selector?.type === "group") {
          this.#fault("GROUP_IN_GROUP", at, `"${shown(text)}" is a group itself`, "list its members here");
        } else if (selector?.type === "session" || selector?.type === "token") {
          this.#fault("BAD_SELECTOR", at, `"${shown(text)}" is not an identity`, "name it in a grant's `from` instead");
        } else return selector;
        return undefined;
      });
      groups.set(name, selectors);
    }
    return groups;
  }

  /** Only nodes carry for others: a policy turns no agent and nobody's laptop into a gateway. */
  #via(texts: readonly string[], path: JSONPath): readonly Selector[] {
    return this.#each(texts, path, (text, at) => {
      const selector = this.#read(parseSelector(text), at);
      if (selector === undefined || selector.type === "tag") return selector;
      if (selector.type === "kind" && selector.kind === "node") return selector;
      if (selector.type === "identity" && selector.name.startsWith("node:")) return selector;
      this.#fault(
        "VIA_NOT_NODE",
        at,
        `"${shown(text)}" is not a node`,
        "gateways are nodes: node:gw-1, node:* or tag:T",
      );
      return undefined;
    });
  }

  #services(): Map<string, PolicyService> {
    const services = new Map<string, PolicyService>();
    for (const [name, service] of Object.entries(this.#document.services ?? {})) {
      const path = ["services", name];
      this.#label(name, "service", path, true);
      const place = this.#read(parseServicePlace(service.at), [...path, "at"]);
      const via = this.#via(service.via, [...path, "via"]);
      const tags = service.tags ?? [];
      for (const [index, tag] of tags.entries()) this.#label(tag, "tag", [...path, "tags", index], false);
      if (place !== undefined)
        services.set(name, { name, place, via, tags, discoverable: service.discoverable ?? false });
    }
    this.#findOverlaps(services);
    return services;
  }

  /** Two names for one (gateway, address, port): which of them was reached could not be said. */
  #findOverlaps(services: ReadonlyMap<string, PolicyService>): void {
    const places = new ServicePlaces();
    for (const service of services.values()) {
      const clash = places.add(service);
      if (clash === undefined) continue;
      this.#fault(
        "SERVICE_OVERLAP",
        ["services", service.name, "at"],
        `"${service.name}" is where "${clash.name}" is, behind the same gateway`,
        "give each its own ports, or keep one of the two",
      );
    }
  }

  #routes(): PolicyRoute[] {
    const seen = new Map<string, string>();
    return Object.entries(this.#document.routes ?? {}).flatMap(([text, route]) => {
      const path = ["routes", text];
      const target = this.#read(parseRouteTarget(text), path, true);
      const via = this.#via(route.via, [...path, "via"]);
      if (target === undefined) return [];
      const canonical = formatRouteTarget(target);
      const twin = seen.get(canonical);
      if (twin !== undefined) {
        this.#fault("DUPLICATE_ROUTE", path, `the same route as "${shown(twin)}"`, "join their `via`", true);
      }
      seen.set(canonical, text);
      return [{ target, via }];
    });
  }

  #grant(grant: NonNullable<PolicyDocument["grants"]>[number], index: number): PolicyGrant {
    const path = ["grants", index];
    const { from, to, until } = grant;
    return {
      id: grant.id ?? this.#deriveId("grant", [from, to, until]),
      from: this.#selectors(from, [...path, "from"]),
      to: this.#destinations(to, [...path, "to"], "grant"),
      untilMs: until === undefined ? undefined : this.#time(until, [...path, "until"]),
    };
  }

  #never(rule: NonNullable<PolicyDocument["never"]>[number], index: number): PolicyNever {
    const path = ["never", index];
    return {
      id: rule.id ?? this.#deriveId("never", [rule.from, rule.to]),
      from: this.#selectors(rule.from, [...path, "from"]),
      to: this.#destinations(rule.to, [...path, "to"], "never"),
    };
  }

  #destinations(texts: string | readonly string[], path: JSONPath, use: DestinationUse): readonly PolicyDestination[] {
    return this.#each(texts, path, (text, at) => this.#destination(text, at, use));
  }

  #destination(text: string, path: JSONPath, use: DestinationUse): PolicyDestination | undefined {
    const destination = this.#read(parseDestination(text, use), path);
    return destination === undefined ? undefined : this.#resolve(destination, path, use);
  }

  #resolve({ target, traffic }: Destination, path: JSONPath, use: DestinationUse): PolicyDestination | undefined {
    const services = this.#document.services ?? {};
    if (target.type === "name") {
      if (Object.hasOwn(services, target.name)) {
        if (traffic === undefined) return { target: { type: "service", name: target.name }, traffic };
        const hint = `leave them out: "service:${target.name}"; for the node write node:${target.name}`;
        this.#fault("BAD_DESTINATION", path, "a service has its own protocol and ports", hint);
        return undefined;
      }
      if (traffic === undefined && use === "grant") {
        const near = this.#didYouMean(target.name, services);
        const hint = `${near}for a node write "node:${target.name} tcp:22"`;
        this.#fault("UNKNOWN_SERVICE", path, `no service "${target.name}"`, hint);
        return undefined;
      }
      return { target: { type: "selector", selector: { type: "identity", name: `node:${target.name}` } }, traffic };
    }
    if (target.type === "service" && target.name !== "*" && !Object.hasOwn(services, target.name)) {
      const hint = `${this.#didYouMean(target.name, services)}declare it under "services"`;
      this.#fault("UNKNOWN_SERVICE", path, `no service "${target.name}"`, hint);
      return undefined;
    }
    if (target.type === "selector" && target.selector.type === "group") {
      const { name } = target.selector;
      if (!Object.hasOwn(this.#document.groups ?? {}, name)) {
        this.#unknownGroup(name, path);
        return undefined;
      }
    }
    return { target, traffic };
  }

  #time(text: string, path: JSONPath): number | undefined {
    const match = TIME.exec(text);
    const atMs = match === null ? Number.NaN : Date.parse(text);
    const [year, month, day] = [Number(match?.[1]), Number(match?.[2]), Number(match?.[3])];
    if (!Number.isNaN(atMs) && new Date(Date.UTC(year, month - 1, day)).getUTCDate() === day) return atMs;
    this.#fault("BAD_TIME", path, `"${shown(text)}" is not a time`, 'with its zone: "2027-01-01T00:00:00Z"');
    return undefined;
  }

  #leases(): Record<IdentityKind, number> {
    const leaseMs = { ...LEASE_DEFAULT_MS };
    for (const kind of IDENTITY_KINDS) {
      const text = this.#document.leases?.[kind];
      if (text === undefined) continue;
      const lengthMs = parseDurationMs(text);
      if (lengthMs !== undefined && lengthMs >= LEASE_MIN_MS && lengthMs <= LEASE_MAX_MS) leaseMs[kind] = lengthMs;
      else {
        const hint = "a whole number with s, m, h or d, from 10s to 30d: 5m";
        this.#fault("BAD_DURATION", ["leases", kind], `"${shown(text)}" is not the length of a lease`, hint);
      }
    }
    return leaseMs;
  }

  #test(test: NonNullable<PolicyDocument["tests"]>[number], index: number): PolicyTest[] {
    const path = ["tests", index];
    const from = this.#selector(test.from, [...path, "from"]);
    const to = this.#destination(test.to, [...path, "to"], "grant");
    if (from === undefined || to === undefined) return [];
    const wrong = notOneThing(to);
    if (wrong !== undefined) {
      this.#fault("TEST_NOT_ONE_THING", [...path, "to"], `a test asks about one thing, this is ${wrong}`, TEST_HINT);
      return [];
    }
    if (from.type === "session" || from.type === "token") {
      const message = `a test is about identities, not about a ${from.type}`;
      this.#fault("TEST_NOT_ONE_THING", [...path, "from"], message, "such as agent:coder or kind:agent");
      return [];
    }
    return [{ index, fromText: test.from, toText: test.to, from, to, expect: test.expect }];
  }
}

const TEST_HINT = "one service, address, host name or identity: service:db, 10.30.0.5 tcp:5432, node:gw-1 tcp:22";

function notOneThing({ target }: PolicyDestination): string | undefined {
  switch (target.type) {
    case "service":
      return target.name === "*" ? "every service" : undefined;
    case "prefix":
      return target.prefix.bits === 128 ? undefined : `all of ${formatPrefix(target.prefix)}`;
    case "host":
      return target.pattern.includes("*") ? "many names" : undefined;
    case "selector":
      return target.selector.type === "identity" ? undefined : "many identities";
  }
}

/** As far as the document alone can tell: a tag may name any node. */
const ANY_GATEWAY = "*";
const EVERY_NODE = "kind:node";

/** At one host behind one gateway. Most services have one port, and those are found without a walk. */
interface ServicesThere {
  readonly byPort: Map<string, PolicyService>;
  readonly wide: PolicyService[];
  readonly all: PolicyService[];
}

/** Services by host and gateway: compared are only those that may clash, however many a document holds. */
class ServicePlaces {
  readonly #there = new Map<string, ServicesThere>();

  /** One that was added before and shares a gateway and a port of the same host. */
  add(service: PolicyService): PolicyService | undefined {
    const gateways = [...new Set(service.via.map(formatSelector))];
    if (gateways.length === 0) return undefined;
    const isEveryNode = gateways.includes(EVERY_NODE);
    const { traffic } = service.place;
    const port = onePortOf(traffic);
    const meets = (other: PolicyService): boolean => trafficsMeet(other.place.traffic, traffic);
    let clash: PolicyService | undefined;
    for (const gateway of isEveryNode ? [ANY_GATEWAY] : [EVERY_NODE, ...gateways]) {
      const { byPort, wide, all } = this.#at(service, gateway);
      clash ??= port === undefined ? all.find(meets) : (byPort.get(port) ?? wide.find(meets));
    }
    for (const gateway of [ANY_GATEWAY, ...(isEveryNode ? [EVERY_NODE] : gateways)]) {
      const { byPort, wide, all } = this.#at(service, gateway);
      all.push(service);
      if (port === undefined) wide.push(service);
      else if (!byPort.has(port)) byPort.set(port, service);
    }
    return clash;
  }

  #at({ place }: PolicyService, gateway: string): ServicesThere {
    const key = `${place.host} ${gateway}`;
    const there = this.#there.get(key) ?? { byPort: new Map(), wide: [], all: [] };
    this.#there.set(key, there);
    return there;
  }
}

/** "tcp 5432"; undefined when it is more than one port. */
function onePortOf({ protocol, ports }: Traffic): string | undefined {
  const [first] = ports;
  return first !== undefined && ports.length === 1 && first[0] === first[1] ? `${protocol} ${first[0]}` : undefined;
}
