// The rules as the packet path asks them: by direction and session, then by prefix length, then by port; what a first
// packet costs does not grow with the number of rules. Built from FilterState when a revision arrives, one session at a
// time when first asked.
import { type Address, embeddedV4s, V4_BITS_OFFSET } from "../base/address.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/packet.ts";
import type { AddressRule, FilterProtocol, HostRule, PortRange, Verdict } from "./contract.ts";

/** Which of a rule's protocols a packet belongs to. */
export type ProtocolClass = 0 | 1 | 2 | 3;
export const CLASS_TCP = 0;
export const CLASS_UDP = 1;
export const CLASS_ICMP = 2;
export const CLASS_OTHER = 3;

export function classOfProtocol(protocol: number): ProtocolClass {
  if (protocol === PROTOCOL_TCP) return CLASS_TCP;
  if (protocol === PROTOCOL_UDP) return CLASS_UDP;
  return protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6 ? CLASS_ICMP : CLASS_OTHER;
}

export function classOfName(protocol: FilterProtocol): ProtocolClass {
  switch (protocol) {
    case "tcp":
      return CLASS_TCP;
    case "udp":
      return CLASS_UDP;
    case "icmp":
      return CLASS_ICMP;
    case "any":
      return CLASS_OTHER;
  }
}

/** What somebody asks to open; one object is filled anew for every packet that no flow covers. */
export class Opening {
  w0 = 0;
  w1 = 0;
  w2 = 0;
  w3 = 0;
  protocol: ProtocolClass = CLASS_OTHER;
  port = 0;
  /** By the coordinator's clock. */
  clockMs = 0;

  set(address: Address, protocol: ProtocolClass, port: number, clockMs: number): this {
    this.w0 = address.w0;
    this.w1 = address.w1;
    this.w2 = address.w2;
    this.w3 = address.w3;
    this.protocol = protocol;
    this.port = port;
    this.clockMs = clockMs;
    return this;
  }
}

export const NO_GRANT: Verdict = { allowed: false, reason: "NO_GRANT", ruleId: undefined };

/** A rule with the verdicts that it gives, made once so that a packet allocates none. */
export interface CompiledRule {
  readonly id: string;
  /** By the coordinator's clock; infinite without `until`. */
  readonly untilMs: number;
  readonly first: Verdict;
  readonly byFlow: Verdict;
  readonly never: Verdict;
  /** Flows that live by it, and its number among such rules; the flow table's own (flow-pages.ts). */
  flows: number;
  number: number;
}

function compileRule(rule: { readonly id: string; readonly untilMs?: number }): CompiledRule {
  return {
    id: rule.id,
    untilMs: rule.untilMs ?? Number.POSITIVE_INFINITY,
    first: { allowed: true, reason: "ALLOWED_BY_RULE", ruleId: rule.id },
    byFlow: { allowed: true, reason: "ALLOWED_BY_FLOW", ruleId: rule.id },
    never: { allowed: false, reason: "NEVER", ruleId: rule.id },
    flows: 0,
    number: 0,
  };
}

type Rule = AddressRule | HostRule;

interface PortedRule {
  readonly compiled: CompiledRule;
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
}

/** Which rule holds for a port: of several the one that lasts longest, of those the first. */
export interface Ports {
  find(port: number): CompiledRule | undefined;
}

const RANGES_WALKED_MAX = 8; // more are worth a table

export function portsOf(rules: readonly PortedRule[]): Ports {
  let ranges = 0;
  for (const { ports } of rules) ranges += Math.max(1, ports.length);
  return ranges <= RANGES_WALKED_MAX ? new PortWalk(rules) : new PortTable(rules);
}

/** A few rules, looked through one after the other. */
export class PortWalk implements Ports {
  readonly #rules: readonly PortedRule[];

  constructor(rules: readonly PortedRule[]) {
    this.#rules = rules;
  }

  find(port: number): CompiledRule | undefined {
    let best: CompiledRule | undefined;
    for (let i = 0; i < this.#rules.length; i++) {
      const { compiled, ports } = this.#rules[i]!;
      if ((best === undefined || compiled.untilMs > best.untilMs) && holdsPort(ports, port)) best = compiled;
    }
    return best;
  }
}

function holdsPort(ports: readonly PortRange[], port: number): boolean {
  if (ports.length === 0) return true;
  for (let i = 0; i < ports.length; i++) {
    if (ports[i]![0] <= port && port <= ports[i]![1]) return true;
  }
  return false;
}

/**
 * Ports cut into stretches, each with the one rule that lasts longest there: all rules hold now, so it stands for the
 * others.
 */
export class PortTable implements Ports {
  readonly #starts: number[];
  readonly #rules: (CompiledRule | undefined)[];

  constructor(rules: readonly PortedRule[]) {
    const cuts = new Set([0]);
    for (const rule of rules) {
      for (const [low, high] of rule.ports) {
        cuts.add(low);
        if (high < 65_535) cuts.add(high + 1);
      }
    }
    this.#starts = [...cuts].sort((a, b) => a - b);
    this.#rules = new Array<CompiledRule | undefined>(this.#starts.length).fill(undefined);
    // Longest first; a stretch once taken is skipped over, so that painting costs as much as there are stretches.
    const next = this.#starts.map((_, index) => index);
    next.push(next.length);
    const free = (index: number): number => {
      let root = index;
      while (next[root] !== root) root = next[root]!;
      for (let at = index; next[at] !== root && at !== root; ) [next[at], at] = [root, next[at]!];
      return root;
    };
    for (const rule of [...rules].sort((a, b) => b.compiled.untilMs - a.compiled.untilMs)) {
      const ranges: readonly PortRange[] = rule.ports.length === 0 ? [[0, 65_535]] : rule.ports;
      for (const [low, high] of ranges) {
        let index = free(this.#indexOf(low));
        while (index < this.#starts.length && this.#starts[index]! <= high) {
          this.#rules[index] = rule.compiled;
          next[index] = index + 1;
          index = free(index);
        }
      }
    }
  }

  #indexOf(port: number): number {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#starts[middle]! <= port) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  find(port: number): CompiledRule | undefined {
    return this.#rules[this.#indexOf(port)];
  }
}

/** What is said of one prefix or one name. */
class ProtocolTable {
  readonly #tcp: Ports | undefined;
  readonly #udp: Ports | undefined;
  readonly #icmp: CompiledRule | undefined;
  readonly #other: CompiledRule | undefined;

  constructor(all: readonly Rule[]) {
    const rules = all.map((rule) => ({ compiled: compileRule(rule), protocol: rule.protocol, ports: rule.ports }));
    const of = (protocol: FilterProtocol): PortedRule[] =>
      rules.filter((rule) => rule.protocol === protocol || rule.protocol === "any");
    const longest = (some: readonly PortedRule[]): CompiledRule | undefined => {
      let best: CompiledRule | undefined;
      for (const { compiled, ports } of some) {
        if (ports.length > 0) continue; // ports are of TCP and UDP only
        if (best === undefined || compiled.untilMs > best.untilMs) best = compiled;
      }
      return best;
    };
    const ported = (some: readonly PortedRule[]): Ports | undefined => (some.length === 0 ? undefined : portsOf(some));
    this.#tcp = ported(of("tcp"));
    this.#udp = ported(of("udp"));
    this.#icmp = longest(of("icmp"));
    this.#other = longest(of("any"));
  }

  find(protocol: ProtocolClass, port: number): CompiledRule | undefined {
    switch (protocol) {
      case CLASS_TCP:
        return this.#tcp?.find(port);
      case CLASS_UDP:
        return this.#udp?.find(port);
      case CLASS_ICMP:
        return this.#icmp;
      case CLASS_OTHER:
        return this.#other;
    }
  }
}

function maskWord(bits: number): number {
  if (bits >= 32) return 0xffffffff;
  return bits <= 0 ? 0 : (-1 << (32 - bits)) >>> 0;
}

/** All prefixes of one length, in a hash table probed linearly; at most half full. */
class PrefixLevel {
  readonly bits: number;
  readonly #m0: number;
  readonly #m1: number;
  readonly #m2: number;
  readonly #m3: number;
  readonly #mask: number;
  readonly #words: Int32Array;
  /** Of each slot: its rules until one is asked for, then what is made of them. */
  readonly #found: (AddressRule | AddressRule[] | ProtocolTable | undefined)[];

  constructor(bits: number, rules: number) {
    this.bits = bits;
    this.#m0 = maskWord(bits) | 0;
    this.#m1 = maskWord(bits - 32) | 0;
    this.#m2 = maskWord(bits - 64) | 0;
    this.#m3 = maskWord(bits - 96) | 0;
    let slots = 2;
    while (slots < 2 * rules) slots *= 2;
    this.#mask = slots - 1;
    this.#words = new Int32Array(4 * slots);
    this.#found = new Array<undefined>(slots).fill(undefined);
  }

  add(rule: AddressRule): void {
    const { w0, w1, w2, w3 } = rule.to.address;
    const slot = this.#slotOf(w0 | 0, w1 | 0, w2 | 0, w3 | 0);
    const found = this.#found[slot];
    if (found === undefined) {
      this.#found[slot] = rule;
      this.#words[4 * slot] = w0;
      this.#words[4 * slot + 1] = w1;
      this.#words[4 * slot + 2] = w2;
      this.#words[4 * slot + 3] = w3;
    } else if (Array.isArray(found)) found.push(rule);
    else this.#found[slot] = [found as AddressRule, rule];
  }

  // Prefixes come from a signed netmap, not from packets: no seed is needed here.
  #slotOf(w0: number, w1: number, w2: number, w3: number): number {
    let hash =
      Math.imul(w0, 0x9e3779b1) ^ Math.imul(w1, 0x85ebca6b) ^ Math.imul(w2, 0xc2b2ae35) ^ Math.imul(w3, 0x27d4eb2f);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    const words = this.#words;
    for (let slot = (hash ^ (hash >>> 13)) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      if (this.#found[slot] === undefined) return slot;
      const at = 4 * slot;
      if (words[at + 3] === w3 && words[at + 2] === w2 && words[at + 1] === w1 && words[at] === w0) return slot;
    }
  }

  find(w0: number, w1: number, w2: number, w3: number): ProtocolTable | undefined {
    const slot = this.#slotOf(w0 & this.#m0, w1 & this.#m1, w2 & this.#m2, w3 & this.#m3);
    const found = this.#found[slot];
    if (found === undefined || found instanceof ProtocolTable) return found;
    const table = new ProtocolTable(Array.isArray(found) ? found : [found]);
    this.#found[slot] = table;
    return table;
  }
}

class AddressIndex {
  readonly #levels: PrefixLevel[]; // longest first

  constructor(rules: readonly AddressRule[], action: "allow" | "deny") {
    const counts = new Int32Array(129);
    for (const rule of rules) if (rule.action === action) counts[rule.to.bits]!++;
    const byBits = Array.from(counts, (count, bits) => (count === 0 ? undefined : new PrefixLevel(bits, count)));
    for (const rule of rules) if (rule.action === action) byBits[rule.to.bits]!.add(rule);
    this.#levels = byBits.filter((level) => level !== undefined).reverse();
  }

  find({ w0, w1, w2, w3, protocol, port, clockMs }: Opening): CompiledRule | undefined {
    const v4 = w0 === 0 && w1 === 0 && w2 === 0xffff;
    for (let i = 0; i < this.#levels.length; i++) {
      const level = this.#levels[i]!;
      if (v4 && level.bits < V4_BITS_OFFSET) return undefined; // `::/0` says nothing about IPv4
      const rule = level.find(w0 | 0, w1 | 0, w2 | 0, w3 | 0)?.find(protocol, port);
      if (rule !== undefined && clockMs < rule.untilMs) return rule;
    }
    return undefined;
  }
}

/**
 * True when `pattern` (`*`, `*.example.com` or an exact name, lower case) covers `name`; `*.a` is every name below `a`,
 * not `a`.
 */
export function hostMatches(pattern: string, name: string): boolean {
  if (pattern === "*") return true;
  if (pattern.startsWith("*.")) return name.length > pattern.length - 1 && name.endsWith(pattern.slice(1));
  return pattern === name;
}

/** Lower case, without the root's dot. */
export function normalizeHost(name: string): string {
  const lower = name.toLowerCase();
  return lower.endsWith(".") ? lower.slice(0, -1) : lower;
}

class HostIndex {
  readonly #entries = new Map<string, { readonly rules: HostRule[]; table: ProtocolTable | undefined }>();

  constructor(rules: readonly HostRule[], action: "allow" | "deny") {
    for (const rule of rules) {
      if (rule.action !== action) continue;
      const entry = this.#entries.get(rule.pattern);
      if (entry === undefined) this.#entries.set(rule.pattern, { rules: [rule], table: undefined });
      else entry.rules.push(rule);
    }
  }

  find(name: string, protocol: ProtocolClass, port: number, clockMs: number): CompiledRule | undefined {
    let rule = this.#at(name, protocol, port, clockMs);
    for (let dot = name.indexOf("."); rule === undefined && dot >= 0; dot = name.indexOf(".", dot + 1)) {
      rule = this.#at(`*${name.slice(dot)}`, protocol, port, clockMs);
    }
    return rule ?? this.#at("*", protocol, port, clockMs);
  }

  #at(pattern: string, protocol: ProtocolClass, port: number, clockMs: number): CompiledRule | undefined {
    const entry = this.#entries.get(pattern);
    if (entry === undefined) return undefined;
    entry.table ??= new ProtocolTable(entry.rules);
    const rule = entry.table.find(protocol, port);
    return rule !== undefined && clockMs < rule.untilMs ? rule : undefined;
  }
}

/** The rules of one direction that concern one session. `clockMs` is the coordinator's clock. */
export class SessionRules {
  readonly #allow: AddressIndex;
  readonly #deny: AddressIndex;
  readonly #allowHosts: HostIndex;
  readonly #denyHosts: HostIndex;

  constructor(addresses: readonly AddressRule[], hosts: readonly HostRule[]) {
    this.#allow = new AddressIndex(addresses, "allow");
    this.#deny = new AddressIndex(addresses, "deny");
    this.#allowHosts = new HostIndex(hosts, "allow");
    this.#denyHosts = new HostIndex(hosts, "deny");
  }

  /** The grant that opens it, whatever `never` says. */
  allow(opening: Opening): CompiledRule | undefined {
    return this.#allow.find(opening);
  }

  /** The `never` that forbids it. */
  deny(opening: Opening): CompiledRule | undefined {
    const rule = this.#deny.find(opening);
    if (rule !== undefined) return rule;
    const { protocol, port, clockMs } = opening;
    for (const v4 of embeddedV4s(opening)) {
      const hidden = this.#deny.find(new Opening().set(v4, protocol, port, clockMs));
      if (hidden !== undefined) return hidden;
    }
    return undefined;
  }

  /** The grant that opens it, unless a `never` forbids it. */
  permitting(opening: Opening): CompiledRule | undefined {
    return this.deny(opening) === undefined ? this.allow(opening) : undefined;
  }

  judge(opening: Opening): Verdict {
    return this.deny(opening)?.never ?? this.allow(opening)?.first ?? NO_GRANT;
  }

  allowHost(name: string, protocol: ProtocolClass, port: number, clockMs: number): CompiledRule | undefined {
    return this.#allowHosts.find(name, protocol, port, clockMs);
  }

  denyHost(name: string, protocol: ProtocolClass, port: number, clockMs: number): CompiledRule | undefined {
    return this.#denyHosts.find(name, protocol, port, clockMs);
  }

  judgeHost(name: string, protocol: ProtocolClass, port: number, clockMs: number): Verdict {
    const host = normalizeHost(name);
    const never = this.denyHost(host, protocol, port, clockMs);
    return never?.never ?? this.allowHost(host, protocol, port, clockMs)?.first ?? NO_GRANT;
  }
}

const NO_RULES = new SessionRules([], []);

/** Rules that list the same sessions; places in their own list, ascending. */
interface Group {
  readonly number: number;
  readonly addresses: number[];
  readonly hosts: number[];
}

/**
 * One direction of a FilterState, by session. Rules of many sessions list the same ones, so the sessions of each such
 * list are looked at once, and sessions in the same lists share what is made of them.
 */
export class RuleSet {
  readonly #addresses: readonly AddressRule[];
  readonly #hosts: readonly HostRule[];
  readonly #groups = new Map<string, Group>();
  readonly #bySession = new Map<string, Group[]>();
  readonly #made = new Map<string, SessionRules>(); // by the numbers of the groups

  constructor(addresses: readonly AddressRule[], hosts: readonly HostRule[]) {
    this.#addresses = addresses;
    this.#hosts = hosts;
    this.#spread(addresses, "addresses");
    this.#spread(hosts, "hosts");
  }

  of(session: string): SessionRules {
    const groups = this.#bySession.get(session);
    if (groups === undefined) return NO_RULES; // nothing kept for a session nobody named
    const key = groups.map(({ number }) => number).join();
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const addresses = inOrder(groups.map((group) => group.addresses)).map((place) => this.#addresses[place]!);
    const hosts = inOrder(groups.map((group) => group.hosts)).map((place) => this.#hosts[place]!);
    const rules = new SessionRules(addresses, hosts);
    this.#made.set(key, rules);
    return rules;
  }

  #spread(rules: readonly Rule[], kind: "addresses" | "hosts"): void {
    let last: Group | undefined;
    let lastSessions: readonly string[] | undefined;
    for (let place = 0; place < rules.length; place++) {
      const { sessions } = rules[place]!;
      last = last !== undefined && sessions === lastSessions ? last : this.#group(sessions);
      lastSessions = sessions;
      last[kind].push(place);
    }
  }

  #group(sessions: readonly string[]): Group {
    const key = sessions.length === 1 ? sessions[0]! : sessions.join("\n");
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    const group: Group = { number: this.#groups.size, addresses: [], hosts: [] };
    this.#groups.set(key, group);
    for (const session of sessions) {
      const groups = this.#bySession.get(session);
      if (groups === undefined) this.#bySession.set(session, [group]);
      else if (groups.at(-1) !== group) groups.push(group);
    }
    return group;
  }
}

/** In the order of the rules: of two that last equally long the first is named. */
function inOrder(places: readonly (readonly number[])[]): readonly number[] {
  return places.length === 1 ? places[0]! : places.flat().sort((a, b) => a - b);
}
