// What is to be reached: `DEST[ PROTO[:PORTS]]`, one grammar for policy, CLI and API:
//   service:staging-db | 10.20.0.0/16 tcp:5432,8000-8099 | host:*.staging.internal tcp:443 | node:gw-1 icmp
// A service has its own protocol and ports; all else must name them (`any` is all of them). A bare name means a
// service, then a node. In `never` the protocol may be left out: nothing of it is to be reached.
import { type Address, formatPrefix, isV4Prefix, type Prefix, parsePrefix } from "../base/address.ts";
import { POLICY_PORT_RANGES_MAX } from "../base/limits.ts";
import type { FilterProtocol, PortRange } from "../filter/contract.ts";
import { normalizeHost } from "../filter/rules.ts";
import { formatSelector, isLabel, type Parsed, parseSelector, type Refusal, type Selector, shown } from "./selector.ts";

/** Ports are sorted, disjoint and not adjacent; an empty list is every port. */
export interface Traffic {
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
}

export const ANY_TRAFFIC: Traffic = { protocol: "any", ports: [] };

export type Target =
  | { readonly type: "service"; readonly name: string } // "*" is every service
  | { readonly type: "prefix"; readonly prefix: Prefix }
  | { readonly type: "host"; readonly pattern: string }
  | { readonly type: "selector"; readonly selector: Selector }
  | { readonly type: "name"; readonly name: string }; // bare: a service if there is one, else a node

export interface Destination {
  readonly target: Target;
  /** Undefined: as the service has it; in `never` all of it. */
  readonly traffic: Traffic | undefined;
}

/**
 * "never": PROTO may be left out of everything. "grant": of services and tags (a tag names the services that have it).
 */
export type DestinationUse = "grant" | "never";

const HOST_LABEL = /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?$/;
const EXAMPLE = "node:gw-1 tcp:22";

function refuse<T>(message: string, hint: string, code: Refusal["code"] = "BAD_DESTINATION"): Parsed<T> {
  return { ok: false, refusal: { code, message, hint } };
}

/** `tcp:22`, `udp:53,5353`, `tcp:8000-8099`, `tcp:any`, `icmp`, `any`. */
export function parseTraffic(text: string): Parsed<Traffic> {
  const colon = text.indexOf(":");
  const protocol = colon < 0 ? text : text.slice(0, colon);
  const ports = colon < 0 ? undefined : text.slice(colon + 1);
  switch (protocol) {
    case "any":
    case "icmp":
      if (ports === undefined) return { ok: true, value: { protocol, ports: [] } };
      if (protocol === "icmp") return refuse("icmp has no ports", 'write "icmp" alone');
      return refuse('"any" has no ports', `write "any" alone for everything, or tcp:${shown(ports)}, or udp:…`);
    case "tcp":
    case "udp": {
      if (ports === undefined)
        return refuse(`${protocol} without ports`, `name them, ${protocol}:443, or ${protocol}:any`);
      if (ports === "any" || ports === "*") return { ok: true, value: { protocol, ports: [] } };
      const ranges = parsePorts(ports);
      return ranges.ok ? { ok: true, value: { protocol, ports: ranges.value } } : ranges;
    }
    default:
      return refuse(
        `"${shown(protocol)}" is not a protocol`,
        `tcp:PORTS, udp:PORTS, icmp or any, behind one space: ${EXAMPLE}`,
      );
  }
}

function parsePorts(text: string): Parsed<readonly PortRange[]> {
  const ranges: PortRange[] = [];
  const parts = text.split(",");
  if (parts.length > POLICY_PORT_RANGES_MAX) {
    return refuse(`more than ${POLICY_PORT_RANGES_MAX} port ranges`, "join neighbours: 8000-8099, or write two grants");
  }
  for (const part of parts) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    const low = Number(match?.[1]);
    const high = Number(match?.[2] ?? match?.[1]);
    if (match === null || low < 1 || high > 65_535) {
      return refuse(`"${shown(part)}" is not a port or a range of ports`, "1 to 65535, such as 5432 or 8000-8099");
    }
    if (low > high) return refuse(`the range ${part} runs backwards`, `write ${high}-${low}`);
    ranges.push([low, high]);
  }
  return { ok: true, value: joinRanges(ranges) };
}

function joinRanges(ranges: readonly PortRange[]): readonly PortRange[] {
  const joined: [number, number][] = [];
  for (const [low, high] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = joined.at(-1);
    if (last !== undefined && low <= last[1] + 1) last[1] = Math.max(last[1], high);
    else joined.push([low, high]);
  }
  return joined;
}

/** Lower case; `*` alone, or as the first label only. */
export function parseHostPattern(text: string): Parsed<string> {
  const pattern = normalizeHost(text);
  if (pattern === "*") return { ok: true, value: pattern };
  const labels = pattern.split(".");
  const named = labels[0] === "*" ? labels.slice(1) : labels;
  if (named.some((label) => label.includes("*"))) {
    return refuse(
      `"${shown(text)}" has a "*" inside`,
      '"*" stands for whole leading labels only: host:*.example.com',
      "BAD_NAME",
    );
  }
  const valid = pattern.length <= 253 && named.every((label) => label.length <= 63 && HOST_LABEL.test(label));
  if (!valid)
    return refuse(`"${shown(text)}" is not a host name`, "a DNS name in ASCII: host:db.example.com", "BAD_NAME");
  if (parsePrefix(pattern) !== undefined || /^[\d.]+$/.test(pattern)) {
    return refuse(`host:${shown(text)} is an address`, `write it without "host:": ${shown(text)} tcp:443`);
  }
  return { ok: true, value: pattern };
}

/** A CIDR or address, IPv6 with or without brackets; undefined when it doesn't look like one. */
function parsePrefixTarget(text: string): Parsed<Prefix> | undefined {
  const match = /^\[([^\]]*)\](\/.*)?$/.exec(text);
  const bare = match === null ? text : `${match[1]}${match[2] ?? ""}`;
  const looksLike = match !== null || /^[\d.]+(\/.*)?$/.test(bare) || /^[0-9a-fA-F]*:[0-9a-fA-F:.]*(\/.*)?$/.test(bare);
  if (!looksLike) return undefined;
  const prefix = parsePrefix(bare);
  if (prefix === undefined)
    return refuse(`"${shown(text)}" is not an address or CIDR`, "such as 10.20.0.0/16 or [fd00::1]");
  const slash = bare.indexOf("/");
  if (slash < 0) return { ok: true, value: prefix };
  const written = parsePrefix(bare.slice(0, slash))!.address;
  const { address } = prefix;
  if (
    written.w0 !== address.w0 ||
    written.w1 !== address.w1 ||
    written.w2 !== address.w2 ||
    written.w3 !== address.w3
  ) {
    return refuse(`${shown(text)} has bits behind its prefix`, `write ${formatPrefix(prefix)}, or the one address`);
  }
  return { ok: true, value: prefix };
}

function parseTarget(text: string): Parsed<Target> {
  if (text.startsWith("service:")) {
    const name = text.slice(8);
    if (name === "*" || isLabel(name)) return { ok: true, value: { type: "service", name } };
    return refuse(
      `"${shown(name)}" is not the name of a service`,
      "letters a-z, digits and hyphens: service:staging-db",
      "BAD_NAME",
    );
  }
  if (text.startsWith("host:")) {
    const pattern = parseHostPattern(text.slice(5));
    return pattern.ok ? { ok: true, value: { type: "host", pattern: pattern.value } } : pattern;
  }
  const prefix = parsePrefixTarget(text);
  if (prefix !== undefined) return prefix.ok ? { ok: true, value: { type: "prefix", prefix: prefix.value } } : prefix;
  if (isLabel(text)) return { ok: true, value: { type: "name", name: text } };
  if (text === "*")
    return refuse('"*" names everything at once', "name a kind: service:*, node:*, host:*, or 0.0.0.0/0 any");
  if (text.includes(":")) {
    const selector = parseSelector(text);
    return selector.ok ? { ok: true, value: { type: "selector", selector: selector.value } } : selector;
  }
  if (text.includes("."))
    return refuse(`"${shown(text)}" has no kind`, `for a DNS name write host:${shown(text)} tcp:443`);
  return refuse(`"${shown(text)}" names nothing`, `such as service:staging-db, 10.20.0.0/16 tcp:5432 or ${EXAMPLE}`);
}

/** @example parseDestination("10.20.0.0/16 tcp:5432,8000-8099", "grant") */
export function parseDestination(text: string, use: DestinationUse): Parsed<Destination> {
  const parts = text.split(" ");
  if (text === "" || parts.length > 2 || parts.includes("")) {
    return refuse(`"${shown(text)}" is not DEST or DEST PROTO:PORTS`, `one space between the two: ${EXAMPLE}`);
  }
  const target = parseTarget(parts[0]!);
  if (!target.ok) return target;
  if (parts[1] === undefined) {
    const { value } = target;
    const isTag = value.type === "selector" && value.selector.type === "tag";
    if (use === "never" || value.type === "service" || value.type === "name" || isTag) {
      return { ok: true, value: { target: value, traffic: undefined } };
    }
    return refuse(
      `"${shown(text)}" names no protocol`,
      `add one: "${shown(text)} tcp:443", or "${shown(text)} any" for all`,
    );
  }
  const traffic = parseTraffic(parts[1]);
  if (!traffic.ok) return traffic;
  if (target.value.type === "service") {
    return refuse("a service has its own protocol and ports", `leave them out: "${shown(parts[0]!)}"`);
  }
  return { ok: true, value: { target: target.value, traffic: traffic.value } };
}

/** A service's `at`: one address or DNS name, `tcp` or `udp`, and its ports. */
export interface ServicePlace {
  readonly host: string;
  /** Undefined for a DNS name, which the gateway resolves. */
  readonly address: Address | undefined;
  readonly traffic: Traffic;
}

export function parseServicePlace(text: string): Parsed<ServicePlace> {
  const [where, what, ...rest] = text.split(" ");
  const example = 'such as "10.20.0.5 tcp:5432" or "db.internal tcp:5432"';
  if (where === undefined || where === "" || what === undefined || rest.length > 0) {
    return refuse(`"${shown(text)}" is not ADDRESS PROTO:PORTS`, example);
  }
  const traffic = parseTraffic(what);
  if (!traffic.ok) return traffic;
  const { protocol, ports } = traffic.value;
  if (protocol === "any" || protocol === "icmp") return refuse("a service speaks tcp or udp", example);
  if (ports.length === 0) return refuse("a service must name its ports", `not any: ${protocol}:5432`);
  const prefix = parsePrefixTarget(where);
  if (prefix === undefined) {
    const host = parseHostPattern(where.startsWith("host:") ? where.slice(5) : where);
    if (!host.ok) return host;
    if (host.value.includes("*")) return refuse("a service is at one name", example);
    return { ok: true, value: { host: host.value, address: undefined, traffic: traffic.value } };
  }
  if (!prefix.ok) return prefix;
  if (prefix.value.bits !== 128)
    return refuse("a service is at one address", `for a whole CIDR use routes; ${example}`);
  const host = formatPrefix(prefix.value).replace(/\/\d+$/, "");
  return { ok: true, value: { host, address: prefix.value.address, traffic: traffic.value } };
}

/** What a gateway may carry: a CIDR or `host:PATTERN`, as a policy's `routes` and `--route` name it. */
export type RouteTarget =
  | { readonly type: "prefix"; readonly prefix: Prefix }
  | { readonly type: "host"; readonly pattern: string };

export function parseRouteTarget(text: string): Parsed<RouteTarget> {
  if (text.startsWith("host:")) {
    const pattern = parseHostPattern(text.slice(5));
    return pattern.ok ? { ok: true, value: { type: "host", pattern: pattern.value } } : pattern;
  }
  const prefix = parsePrefixTarget(text);
  if (prefix === undefined)
    return refuse(`"${shown(text)}" is not a route`, "a CIDR or host:PATTERN, such as 10.20.0.0/16");
  return prefix.ok ? { ok: true, value: { type: "prefix", prefix: prefix.value } } : prefix;
}

export function formatRouteTarget(target: RouteTarget): string {
  return target.type === "prefix" ? formatPrefix(target.prefix) : `host:${target.pattern}`;
}

export function formatTraffic({ protocol, ports }: Traffic): string {
  if (protocol === "any" || protocol === "icmp") return protocol;
  if (ports.length === 0) return `${protocol}:any`;
  return `${protocol}:${ports.map(([low, high]) => (low === high ? `${low}` : `${low}-${high}`)).join(",")}`;
}

export function formatTarget(target: Target): string {
  switch (target.type) {
    case "service":
      return `service:${target.name}`;
    case "prefix": {
      const { prefix } = target;
      const text = formatPrefix(prefix);
      if (prefix.bits !== 128) return text;
      const address = text.replace(/\/\d+$/, "");
      return isV4Prefix(prefix) ? address : `[${address}]`;
    }
    case "host":
      return `host:${target.pattern}`;
    case "selector":
      return formatSelector(target.selector);
    case "name":
      return target.name;
  }
}

/** The canonical text: parsing it gives the same destination. */
export function formatDestination({ target, traffic }: Destination): string {
  return traffic === undefined ? formatTarget(target) : `${formatTarget(target)} ${formatTraffic(traffic)}`;
}

/** The part that both allow; undefined when there is none. */
export function intersectTraffic(a: Traffic, b: Traffic): Traffic | undefined {
  const protocol = a.protocol === "any" ? b.protocol : a.protocol;
  if (b.protocol !== "any" && b.protocol !== protocol) return undefined;
  if (a.ports.length === 0) return { protocol, ports: b.ports };
  if (b.ports.length === 0) return { protocol, ports: a.ports };
  const ports: PortRange[] = [];
  for (const [aLow, aHigh] of a.ports) {
    for (const [bLow, bHigh] of b.ports) {
      const low = Math.max(aLow, bLow);
      const high = Math.min(aHigh, bHigh);
      if (low <= high) ports.push([low, high]);
    }
  }
  return ports.length === 0 ? undefined : { protocol, ports: joinRanges(ports) };
}

/** True when there is a part that both allow. */
export function trafficsMeet(a: Traffic, b: Traffic): boolean {
  if (a.protocol !== b.protocol && a.protocol !== "any" && b.protocol !== "any") return false;
  if (a.ports.length === 0 || b.ports.length === 0) return true;
  for (const [low, high] of a.ports) for (const [from, to] of b.ports) if (low <= to && from <= high) return true;
  return false;
}

/** True when everything in `inner` is in `outer`. */
export function trafficCovers(outer: Traffic, inner: Traffic): boolean {
  if (outer.protocol !== "any" && outer.protocol !== inner.protocol) return false;
  if (outer.ports.length === 0) return true;
  return (
    inner.ports.length > 0 &&
    inner.ports.every(([low, high]) => outer.ports.some(([from, to]) => from <= low && high <= to))
  );
}

/** True for one protocol and port; `protocol` "any" stands for one that is neither tcp, udp nor icmp. */
export function trafficHas(traffic: Traffic, protocol: FilterProtocol, port: number): boolean {
  if (traffic.protocol !== "any" && traffic.protocol !== protocol) return false;
  if (traffic.ports.length === 0) return true;
  if (protocol !== "tcp" && protocol !== "udp") return false;
  return traffic.ports.some(([low, high]) => low <= port && port <= high);
}
