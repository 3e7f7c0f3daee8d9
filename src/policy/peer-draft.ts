// The rules of one peer, gathered pair by pair: what says the same of several sessions becomes one rule that lists
// them.
import { type Address, formatPrefix, hostPrefix, type Prefix } from "../base/address.ts";
import type { AddressRule, HostRule } from "../filter/contract.ts";
import { formatTraffic, type Traffic } from "./destination.ts";
import type { PairRules } from "./pair-rules.ts";
import type { Member } from "./world-index.ts";

/** `key` is unique among one peer's rules and stays the same for as long as the rule says the same. */
export interface CompiledAddressRule extends AddressRule {
  readonly key: string;
}

export interface CompiledHostRule extends HostRule {
  readonly key: string;
}

/** Another session that this peer must know of. */
export interface CompiledPeerView {
  readonly session: string;
  /** What it may speak for, and what is sent to it: its addresses, its services and routes that concern this peer. */
  readonly prefixes: readonly Prefix[];
}

export interface CompiledHostRoute {
  readonly pattern: string;
  /** Session ids. */
  readonly gateways: readonly string[];
}

export interface PeerRules {
  readonly peers: readonly CompiledPeerView[];
  readonly inbound: readonly CompiledAddressRule[];
  readonly outbound: readonly CompiledAddressRule[];
  readonly inboundHosts: readonly CompiledHostRule[];
  readonly outboundHosts: readonly CompiledHostRule[];
  readonly hostRoutes: readonly CompiledHostRoute[];
}

type AddressDraft = Omit<CompiledAddressRule, "sessions">;
type HostDraft = Omit<CompiledHostRule, "sessions">;

interface DraftRule<R> {
  readonly rule: R;
  readonly sessions: Set<string>;
}

/** What one peer is told, gathered pair by pair. */
export class PeerDraft {
  readonly services = new Map<string, Map<string, { readonly session: string; readonly address: Address }>>();
  readonly #peers = new Map<string, Map<string, Prefix>>();
  readonly #hostRoutes = new Map<string, Set<string>>();
  readonly #in = new Map<string, DraftRule<AddressDraft>>();
  readonly #out = new Map<string, DraftRule<AddressDraft>>();
  readonly #inHosts = new Map<string, DraftRule<HostDraft>>();
  readonly #outHosts = new Map<string, DraftRule<HostDraft>>();

  /** Flows that this peer may open to the member. */
  outbound(member: Member, rules: PairRules): void {
    if (rules.allows.length === 0) return;
    const { id } = member.session;
    const prefixes = this.#know(member);
    for (const { service, route, to } of rules.allows) {
      // The whole route, so that the longest one wins here as it does for everybody else.
      if (route !== undefined) prefixes.set(formatPrefix(route), route);
      if (service === undefined) continue;
      prefixes.set(formatPrefix(to), to);
      entry(this.services, service, () => new Map()).set(id, { session: id, address: to.address });
    }
    for (const { route } of rules.hostAllows) entry(this.#hostRoutes, route, () => new Set()).add(id);
    this.#add(member, rules, this.#out, this.#outHosts);
  }

  /** Flows that the member may open to this peer. */
  inbound(member: Member, rules: PairRules): void {
    if (rules.allows.length === 0) return;
    this.#know(member);
    this.#add(member, rules, this.#in, this.#inHosts);
  }

  rules(): PeerRules {
    return {
      peers: [...this.#peers]
        .map(([session, known]) => ({ session, prefixes: [...known].sort(([a], [b]) => (a < b ? -1 : 1)).map(last) }))
        .sort((a, b) => (a.session < b.session ? -1 : 1)),
      inbound: finished(this.#in),
      outbound: finished(this.#out),
      inboundHosts: finished(this.#inHosts),
      outboundHosts: finished(this.#outHosts),
      hostRoutes: [...this.#hostRoutes]
        .map(([pattern, gateways]) => ({ pattern, gateways: [...gateways].sort() }))
        .sort((a, b) => (a.pattern < b.pattern ? -1 : 1)),
    };
  }

  #know(member: Member): Map<string, Prefix> {
    const known = this.#peers.get(member.session.id);
    if (known !== undefined) return known;
    const own = new Map(
      member.session.addresses.map((address) => [formatPrefix(hostPrefix(address)), hostPrefix(address)]),
    );
    this.#peers.set(member.session.id, own);
    return own;
  }

  #add(
    { session }: Member,
    pair: PairRules,
    addresses: Map<string, DraftRule<AddressDraft>>,
    hosts: Map<string, DraftRule<HostDraft>>,
  ): void {
    for (const { id, to, traffic, untilMs } of pair.allows) {
      const key = keyOf(id, formatPrefix(to), traffic);
      join(addresses, session.id, { key, id, action: "allow", to, ...traffic, ...until(untilMs) });
    }
    for (const { id, to, traffic } of pair.denies) {
      const key = keyOf(id, formatPrefix(to), traffic);
      join(addresses, session.id, { key, id, action: "deny", to, ...traffic });
    }
    for (const { id, pattern, traffic, untilMs } of pair.hostAllows) {
      const key = keyOf(id, pattern, traffic);
      join(hosts, session.id, { key, id, action: "allow", pattern, ...traffic, ...until(untilMs) });
    }
    for (const { id, pattern, traffic } of pair.hostDenies) {
      const key = keyOf(id, pattern, traffic);
      join(hosts, session.id, { key, id, action: "deny", pattern, ...traffic });
    }
  }
}

function keyOf(id: string, to: string, traffic: Traffic): string {
  return `${id} ${to} ${formatTraffic(traffic)}`;
}

function until(untilMs: number | undefined): { untilMs?: number } {
  return untilMs === undefined ? {} : { untilMs };
}

function join<R extends { readonly key: string }>(into: Map<string, DraftRule<R>>, session: string, rule: R): void {
  const known = into.get(rule.key);
  if (known === undefined) into.set(rule.key, { rule, sessions: new Set([session]) });
  else known.sessions.add(session);
}

function finished<R extends { readonly key: string }>(from: Map<string, DraftRule<R>>): (R & { sessions: string[] })[] {
  return [...from.values()]
    .map(({ rule, sessions }) => ({ ...rule, sessions: [...sessions].sort() }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

function entry<V>(map: Map<string, V>, key: string, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

function last<V>([, value]: readonly [string, V]): V {
  return value;
}
