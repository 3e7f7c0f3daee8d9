// What this host itself offers (its command line), met with what the policy accepted of it (the netmap): only what
// stands in both is served. A policy alone turns nobody's machine into a gateway.
import {
  type Address,
  equalAddress,
  formatAddress,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixContains,
  prefixesOverlap,
} from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import type { NetmapView, ServeEntry } from "../control/netmap.ts";
import type { DialExemption } from "./dial-rules.ts";
import { longestMatch, parseHostName } from "./host-name.ts";

/** A local target: an address or name and a port, or the path of a unix socket. */
export type ServeTarget = { readonly host: string; readonly port: number } | { readonly path: string };

export interface GatewayOffers {
  /** `--route CIDR` */
  readonly routes: readonly Prefix[];
  /** `--route host:PATTERN`, without "host:" */
  readonly hostPatterns: readonly string[];
  /** `--serve NAME` (undefined) and `--serve NAME=HOST:PORT` */
  readonly serves: ReadonlyMap<string, ServeTarget | undefined>;
  /** `--serve all` */
  readonly serveAll: boolean;
  /** `--expose L=PORT`: own overlay TCP port → local target. */
  readonly exposes: ReadonlyMap<number, ServeTarget>;
}

export const NO_OFFERS: GatewayOffers = {
  routes: [],
  hostPatterns: [],
  serves: new Map(),
  serveAll: false,
  exposes: new Map(),
};

/** Where a flow goes: who says so decides which dial rules it is exempt from. */
export interface GatewayTarget {
  /** "service:NAME", "expose:PORT", "host:NAME"; undefined for a CIDR route. */
  readonly label: string | undefined;
  readonly to: ServeTarget;
  readonly exemption: DialExemption;
}

const HOST_PATTERN = "host:";

function hasPort(entry: ServeEntry, protocol: "tcp" | "udp", port: number): boolean {
  if (entry.protocol !== "any" && entry.protocol !== protocol) return false;
  return entry.ports.length === 0 || entry.ports.some(([low, high]) => port >= low && port <= high);
}

/** A host name that its writer resolves for himself is his word only when no resolver has a say in it. */
function isOwnersWord(to: ServeTarget): boolean {
  return "path" in to || to.host === "localhost" || parseAddress(to.host) !== undefined;
}

function serviceTarget(offers: GatewayOffers, entry: ServeEntry, port: number): GatewayTarget | undefined {
  if (!offers.serveAll && !offers.serves.has(entry.name)) return undefined;
  const label = `service:${entry.name}`;
  const override = offers.serves.get(entry.name);
  if (override !== undefined) return { label, to: override, exemption: isOwnersWord(override) ? "host" : "none" };
  const literal = parseAddress(entry.host) !== undefined;
  return { label, to: { host: entry.host, port }, exemption: literal ? "service" : "none" };
}

/** Undefined: not ours to serve, or not offered by this host. */
export function findTarget(
  offers: GatewayOffers,
  netmap: NetmapView | undefined,
  address: Address,
  protocol: "tcp" | "udp",
  port: number,
): GatewayTarget | undefined {
  if (netmap === undefined) return undefined;
  for (const entry of netmap.serves) {
    const own = parseAddress(entry.address);
    if (own === undefined || !equalAddress(own, address) || !hasPort(entry, protocol, port)) continue;
    return serviceTarget(offers, entry, port);
  }
  const accepted = netmap.routes.some(({ destination }) => {
    const prefix = parsePrefix(destination);
    return prefix !== undefined && prefixContains(prefix, address);
  });
  if (!accepted || !offers.routes.some((prefix) => prefixContains(prefix, address))) return undefined;
  return { label: undefined, to: { host: formatAddress(address), port }, exemption: "none" };
}

/** For a name that a caller sends: the longest accepted pattern must be offered by this host, too. */
export function findHostTarget(
  offers: GatewayOffers,
  netmap: NetmapView | undefined,
  name: string,
  port: number,
): GatewayTarget | undefined {
  const accepted = (netmap?.routes ?? [])
    .filter((route) => route.destination.startsWith(HOST_PATTERN))
    .map((route) => route.destination.slice(HOST_PATTERN.length));
  if (longestMatch(name, accepted, (pattern) => pattern) === undefined) return undefined;
  if (longestMatch(name, offers.hostPatterns, (pattern) => pattern) === undefined) return undefined;
  return { label: `host:${name}`, to: { host: name, port }, exemption: "none" };
}

/** What the stack ends flows for: addresses of served services and accepted routes. */
export function transitPrefixes(offers: GatewayOffers, netmap: NetmapView): readonly Prefix[] {
  const prefixes: Prefix[] = [];
  for (const entry of netmap.serves) {
    const offered = offers.serveAll || offers.serves.has(entry.name);
    const prefix = offered ? parsePrefix(entry.address) : undefined;
    if (prefix !== undefined) prefixes.push(prefix);
  }
  return [...prefixes, ...routePrefixes(netmap)];
}

/** Accepted routes to prefixes. */
export function routePrefixes(netmap: NetmapView): readonly Prefix[] {
  return netmap.routes.map(({ destination }) => parsePrefix(destination)).filter((prefix) => prefix !== undefined);
}

/** Accepted routes to prefixes, as far as this host offers them: what a kernel may forward. */
export function forwardedRoutes(offers: GatewayOffers, netmap: NetmapView): readonly Prefix[] {
  return routePrefixes(netmap).flatMap((route) => {
    const met = offers.routes.filter((offer) => prefixesOverlap(route, offer));
    return met.map((offer) => (offer.bits > route.bits ? offer : route));
  });
}

function usage(option: string, text: string, hint: string): WirebadgeError {
  return new WirebadgeError("USAGE", `${option} ${JSON.stringify(text)} can't be read`, { hint });
}

/** `10.0.0.5:5432`, `[fd00::1]:80`, `localhost:80`, `5432` (on loopback), `/path` or `unix:/path`. @throws USAGE */
export function parseServeTarget(option: string, text: string): ServeTarget {
  const hint = `${option} takes HOST:PORT, [IPV6]:PORT, PORT (on 127.0.0.1) or the path of a unix socket`;
  if (text.startsWith("unix:/")) return { path: text.slice("unix:".length) };
  if (text.startsWith("/")) return { path: text };
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port < 1 || port > 65_535) throw usage(option, text, hint);
  const host = match[1] ?? match[2] ?? "127.0.0.1";
  const valid = match[1] === undefined ? isHost(host) : host.includes(":") && parseAddress(host) !== undefined;
  if (!valid) throw usage(option, text, hint);
  return { host: parseAddress(host) === undefined ? host.toLowerCase() : host, port };
}

function isHost(text: string): boolean {
  return parseAddress(text) !== undefined || parseHostName(text) !== undefined;
}

/**
 * From the command line's words: `--route`, `--serve`, `--expose`.
 * @throws WirebadgeError USAGE
 */
export function parseOffers(options: {
  readonly routes: readonly string[];
  readonly serves: readonly string[];
  readonly exposes: readonly string[];
}): GatewayOffers {
  const routes: Prefix[] = [];
  const hostPatterns: string[] = [];
  for (const text of options.routes) {
    if (text.startsWith(HOST_PATTERN)) {
      hostPatterns.push(parsePattern(text.slice(HOST_PATTERN.length), text));
      continue;
    }
    const prefix = parsePrefix(text);
    if (prefix === undefined)
      throw usage("--route", text, "it takes a prefix as 10.20.0.0/16, or host:*.example.internal");
    routes.push(prefix);
  }
  const serves = new Map<string, ServeTarget | undefined>();
  let serveAll = false;
  for (const text of options.serves) {
    const [name, target] = splitOnce(text, "=");
    if (!/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) {
      throw usage("--serve", text, "it takes NAME, NAME=HOST:PORT or all");
    }
    if (name === "all" && target === undefined) serveAll = true;
    else serves.set(name, target === undefined ? undefined : parseServeTarget("--serve NAME=", target));
  }
  const exposes = new Map<number, ServeTarget>();
  for (const text of options.exposes) {
    const at = text.lastIndexOf("=");
    const port = /^\d{1,5}$/.test(text.slice(at + 1)) ? Number(text.slice(at + 1)) : 0;
    if (at < 1 || port < 1 || port > 65_535) {
      throw usage(
        "--expose",
        text,
        "it takes LOCAL=PORT, as 127.0.0.1:8080=80: overlay port 80 goes to the local 8080",
      );
    }
    exposes.set(port, parseServeTarget("--expose", text.slice(0, at)));
  }
  return { routes, hostPatterns, serves, serveAll, exposes };
}

function splitOnce(text: string, separator: string): readonly [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function parsePattern(pattern: string, text: string): string {
  const name = parseHostName(pattern.startsWith("*.") ? pattern.slice(2) : pattern);
  if (pattern !== "*" && name === undefined) {
    throw usage("--route", text, "a pattern is a name, *.name or *, as host:*.staging.internal");
  }
  return pattern.toLowerCase();
}
