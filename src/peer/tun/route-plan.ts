// Which routes a WireGuard interface gets for its AllowedIPs: what wg-quick(8) does on Linux, as values. Nothing here
// touches the host.
import {
  type Address,
  formatPrefix,
  isV4Prefix,
  type Prefix,
  prefixContains,
  V4_BITS_OFFSET,
} from "../../base/address.ts";

export type Family = 4 | 6;

export interface PlannedRoute {
  readonly prefix: Prefix;
  /** Undefined: main. */
  readonly table: number | undefined;
}

export interface RoutePlan {
  readonly routes: readonly PlannedRoute[];
  /** Families whose default route goes by policy routing: all but packets with the mark. */
  readonly defaults: readonly Family[];
}

export const familyOf = (prefix: Prefix): Family => (isV4Prefix(prefix) ? 4 : 6);

/** As counted in its own family: an IPv4 /24 is 24. */
export const lengthOf = (prefix: Prefix): number => (isV4Prefix(prefix) ? prefix.bits - V4_BITS_OFFSET : prefix.bits);

const isDefault = (prefix: Prefix): boolean => lengthOf(prefix) === 0;

/** Equal prefixes and tables have equal keys. */
export const routeKey = ({ prefix, table }: PlannedRoute): string => `${formatPrefix(prefix)} ${table ?? "main"}`;

/** Most specific first, of one length backwards by text (`sort -nr -k 2 -t /`), each once. */
export function sortPrefixes(prefixes: readonly Prefix[]): Prefix[] {
  const byText = new Map(prefixes.map((prefix) => [formatPrefix(prefix), prefix]));
  const rows = [...byText].sort(([a, one], [b, other]) => lengthOf(other) - lengthOf(one) || (a < b ? 1 : -1));
  return rows.map(([, prefix]) => prefix);
}

/** Does one of them contain all of it? */
export function isCovered(prefix: Prefix, by: readonly Prefix[]): boolean {
  return by.some(
    (other) =>
      isV4Prefix(other) === isV4Prefix(prefix) && other.bits <= prefix.bits && prefixContains(other, prefix.address),
  );
}

/**
 * `table` is the file's Table. `present` are the device's routes in the main table that are not this plan's own: the
 * kernel makes one for each address with a network (10.0.0.2/24). "auto" leaves out what they cover.
 */
export function planRoutes(
  prefixes: readonly Prefix[],
  table: "auto" | "off" | number,
  present: readonly Prefix[],
): RoutePlan {
  if (table === "off") return { routes: [], defaults: [] };
  const sorted = sortPrefixes(prefixes);
  if (table !== "auto") return { routes: sorted.map((prefix) => ({ prefix, table })), defaults: [] };
  const routes = sorted.filter((prefix) => !isDefault(prefix) && !isCovered(prefix, present));
  return {
    routes: routes.map((prefix) => ({ prefix, table: undefined })),
    defaults: sorted.filter(isDefault).map(familyOf),
  };
}

/** An interface's own address with the length of its network: unlike a prefix it keeps its host bits. */
export interface InterfaceAddress {
  readonly address: Address;
  /** Over the 128-bit form, as in Prefix. */
  readonly bits: number;
}

export const formatInterfaceAddress = ({ address, bits }: InterfaceAddress): string => formatPrefix({ address, bits });

/**
 * The kernel's choice for a new rule: just before the second one, which stands behind `local`
 * (fib_default_rule_pref in net/core/fib_rules.c).
 */
export function nextRulePriority(priorities: readonly number[]): number {
  const second = [...priorities].sort((a, b) => a - b)[1] ?? 0;
  return Math.max(second - 1, 0);
}

/** What wg-quick loads for one family, in a table of our own name. */
export function spoofGuard(
  family: Family,
  table: string,
  device: string,
  addresses: readonly string[],
  mark: number,
): string {
  const nft = family === 4 ? "ip" : "ip6";
  const chain = (name: string, hook: string, priority: number): string =>
    `add chain ${nft} ${table} ${name} { type filter hook ${hook} priority ${priority}; }`;
  const rule = (name: string, text: string): string => `add rule ${nft} ${table} ${name} ${text}`;
  return [
    `add table ${nft} ${table}`,
    chain("preraw", "prerouting", -300),
    chain("premangle", "prerouting", -150),
    chain("postmangle", "postrouting", -150),
    // What comes by another interface for an address of the tunnel is forged (CVE-2019-14899).
    ...addresses.map((address) =>
      rule("preraw", `iif != "${device}" ${nft} daddr ${address} fib saddr type != local drop`),
    ),
    // Replies to the outer socket carry its mark too, so that the reverse path filter finds their way.
    rule("postmangle", `meta l4proto udp meta mark ${mark} ct mark set meta mark`),
    rule("premangle", "meta l4proto udp meta mark set ct mark"),
    "",
  ].join("\n");
}
