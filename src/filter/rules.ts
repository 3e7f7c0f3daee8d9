// The rules as the packet path asks them: by direction and session, then by prefix length, then by port; what a first
// packet costs does not grow with the number of rules. Built from FilterState when a revision arrives, one session at a
// time when first asked.
import { type Address, embeddedV4s, type Prefix, V4_BITS_OFFSET } from "../base/address.ts";
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
}

function compileRule(rule: { readonly id: string; readonly untilMs?: number }): CompiledRule {
  return {
    id: rule.id,
    untilMs: rule.untilMs ?? Number.POSITIVE_INFINITY,
    first: { allowed: true, reason: "ALLOWED_BY_RULE", ruleId: rule.id },
    byFlow: { allowed: true, reason: "ALLOWED_BY_FLOW", ruleId: rule.id },
    never: { allowed: false, reason: "NEVER", ruleId: rule.id },
  };
}

interface PortedRule {
  readonly compiled: CompiledRule;
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
}

/**
 * Ports cut into stretches, each with the one rule that lasts longest there: all rules hold now, so it stands for the
 * others.
 */
class PortTable {
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
  readonly #tcp: PortTable | undefined;
  readonly #udp: PortTable | undefined;
  readonly #icmp: CompiledRule | undefined;
  readonly #other: CompiledRule | undefined;

  constructor(rules: readonly PortedRule[]) {
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
    const ported = (some: readonly PortedRule[]): PortTable | undefined =>
      some.length === 0 ? undefined : new PortTable(some);
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

interface Entry {
  readonly prefix: Prefix;
  readonly rules: PortedRule[];
  table: ProtocolTable | undefined;
}

/** All prefixes of one length, in a hash table probed linearly; at most half full. */
class PrefixLevel {
  readonly bits: number;
  readonly #m0: number;
  readonly #m1: number;
  readonly #m2: number;
  readonly #m3: number;
  readonly #slots: (Entry | undefined)[];
  readonly #mask: number;

  constructor(bits: number, entries: readonly Entry[]) {
    this.bits = bits;
    this.#m0 = maskWord(bits);
    this.#m1 = maskWord(bits - 32);
    this.#m2 = maskWord(bits - 64);
    this.#m3 = maskWord(bits - 96);
    let size = 2;
    while (size < 2 * entries.length) size *= 2;
    this.#mask = size - 1;
    this.#slots = new Array<Entry | undefined>(size).fill(undefined);
    for (const entry of entries) {
      const { w0, w1, w2, w3 } = entry.prefix.address;
      let at = this.#hash(w0, w1, w2, w3);
      while (this.#slots[at] !== undefined) at = (at + 1) & this.#mask;
      this.#slots[at] = entry;
    }
  }

  // Prefixes come from a signed netmap, not from packets: no seed is needed here.
  #hash(w0: number, w1: number, w2: number, w3: number): number {
    let hash =
      Math.imul(w0, 0x9e3779b1) ^ Math.imul(w1, 0x85ebca6b) ^ Math.imul(w2, 0xc2b2ae35) ^ Math.imul(w3, 0x27d4eb2f);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return (hash ^ (hash >>> 13)) & this.#mask;
  }

  find(w0: number, w1: number, w2: number, w3: number): Entry | undefined {
    const p0 = (w0 & this.#m0) >>> 0;
    const p1 = (w1 & this.#m1) >>> 0;
    const p2 = (w2 & this.#m2) >>> 0;
    const p3 = (w3 & this.#m3) >>> 0;
    for (let at = this.#hash(p0, p1, p2, p3); ; at = (at + 1) & this.#mask) {
      const entry = this.#slots[at];
      if (entry === undefined) return undefined;
      const { address } = entry.prefix;
      if (address.w3 === p3 && address.w2 === p2 && address.w1 === p1 && address.w0 === p0) return entry;
    }
  }
}

class AddressIndex {
  readonly #levels: PrefixLevel[] = []; // longest first

  constructor(rules: readonly { readonly to: Prefix; readonly ported: PortedRule }[]) {
    const byBits = new Map<number, Map<string, Entry>>();
    for (const { to, ported } of rules) {
      let level = byBits.get(to.bits);
      if (level === undefined) {
        level = new Map();
        byBits.set(to.bits, level);
      }
      const { w0, w1, w2, w3 } = to.address;
      const key = `${w0},${w1},${w2},${w3}`;
      const entry = level.get(key);
      if (entry === undefined) level.set(key, { prefix: to, rules: [ported], table: undefined });
      else entry.rules.push(ported);
    }
    for (const bits of [...byBits.keys()].sort((a, b) => b - a)) {
      this.#levels.push(new PrefixLevel(bits, [...byBits.get(bits)!.values()]));
    }
  }

  find({ w0, w1, w2, w3, protocol, port, clockMs }: Opening): CompiledRule | undefined {
    const v4 = w0 === 0 && w1 === 0 && w2 === 0xffff;
    for (const level of this.#levels) {
      if (v4 && level.bits < V4_BITS_OFFSET) return undefined; // `::/0` says nothing about IPv4
      const entry = level.find(w0, w1, w2, w3);
      if (entry === undefined) continue;
      entry.table ??= new ProtocolTable(entry.rules);
      const rule = entry.table.find(protocol, port);
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
  readonly #entries = new Map<string, { readonly rules: PortedRule[]; table: ProtocolTable | undefined }>();

  constructor(rules: readonly { readonly pattern: string; readonly ported: PortedRule }[]) {
    for (const { pattern, ported } of rules) {
      const entry = this.#entries.get(pattern);
      if (entry === undefined) this.#entries.set(pattern, { rules: [ported], table: undefined });
      else entry.rules.push(ported);
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
    const ported = (rule: AddressRule | HostRule): PortedRule => ({
      compiled: compileRule(rule),
      protocol: rule.protocol,
      ports: rule.ports,
    });
    const of = (action: "allow" | "deny"): AddressIndex =>
      new AddressIndex(addresses.filter((r) => r.action === action).map((r) => ({ to: r.to, ported: ported(r) })));
    const ofHosts = (action: "allow" | "deny"): HostIndex =>
      new HostIndex(hosts.filter((r) => r.action === action).map((r) => ({ pattern: r.pattern, ported: ported(r) })));
    this.#allow = of("allow");
    this.#deny = of("deny");
    this.#allowHosts = ofHosts("allow");
    this.#denyHosts = ofHosts("deny");
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

/** One direction of a FilterState, by session. */
export class RuleSet {
  readonly #addresses = new Map<string, AddressRule[]>();
  readonly #hosts = new Map<string, HostRule[]>();
  readonly #bySession = new Map<string, SessionRules>();

  constructor(addresses: readonly AddressRule[], hosts: readonly HostRule[]) {
    spread(addresses, this.#addresses);
    spread(hosts, this.#hosts);
  }

  of(session: string): SessionRules {
    const known = this.#bySession.get(session);
    if (known !== undefined) return known;
    const addresses = this.#addresses.get(session);
    const hosts = this.#hosts.get(session);
    if (addresses === undefined && hosts === undefined) return NO_RULES; // nothing kept for a session nobody named
    const rules = new SessionRules(addresses ?? [], hosts ?? []);
    this.#bySession.set(session, rules);
    return rules;
  }
}

function spread<R extends { readonly sessions: readonly string[] }>(rules: readonly R[], into: Map<string, R[]>): void {
  for (const rule of rules) {
    for (const session of rule.sessions) {
      const list = into.get(session);
      if (list === undefined) into.set(session, [rule]);
      else if (list.at(-1) !== rule) list.push(rule);
    }
  }
}
