// Which addresses a gateway refuses to dial, whatever the policy grants: those that reach the gateway itself, the
// overlay, or the machinery around it. Every form that smuggles an IPv4 address through IPv6 is unwrapped and judged
// as what it reaches.
import {
  type Address,
  embeddedV4s,
  equalAddress,
  isV4,
  makeV4,
  type Prefix,
  parsePrefix,
  prefixContains,
  V4_BITS_OFFSET,
} from "../base/address.ts";
import { assert } from "../base/assert.ts";

export type DialRefusal =
  | "LOOPBACK"
  | "OWN_ADDRESS"
  | "UNSPECIFIED"
  | "OVERLAY"
  | "LINK_LOCAL"
  | "SITE_LOCAL"
  | "MULTICAST"
  | "BROADCAST"
  | "METADATA"
  | "NAT64_LOCAL";

/** Read anew for each dial: interfaces come and go. */
export interface DialSurroundings {
  /** Every address of this machine's own interfaces. */
  readonly ownAddresses: readonly Address[];
  /** The overlay's prefixes: its ULA /48 and its IPv4 pool. */
  readonly overlay: readonly Prefix[];
  /** Directed broadcast addresses of the own interfaces. */
  readonly broadcasts: readonly Address[];
}

/**
 * "none" for routes and names; "service" when a service of the policy names that very address and port; "host" when
 * this host's own
 * command line does (`--serve NAME=HOST:PORT`, `--expose`).
 */
export type DialExemption = "none" | "service" | "host";

/** The first that contains an address gives its reason: the narrow ones stand first. */
const REFUSED: readonly (readonly [prefix: string, refusal: DialRefusal])[] = [
  ["169.254.169.254/32", "METADATA"], // AWS, GCP, Azure, Oracle, DigitalOcean …
  ["168.63.129.16/32", "METADATA"], // Azure's wire server
  ["100.100.100.200/32", "METADATA"], // Alibaba Cloud
  ["192.0.0.192/32", "METADATA"], // Oracle Cloud, older
  ["fd00:ec2::254/128", "METADATA"], // AWS over IPv6
  ["fd20:ce::254/128", "METADATA"], // GCP over IPv6
  ["0.0.0.0/8", "UNSPECIFIED"], // RFC 1122 §3.2.1.3; Linux takes 0.0.0.0 for loopback
  ["169.254.0.0/16", "LINK_LOCAL"],
  ["224.0.0.0/4", "MULTICAST"],
  ["255.255.255.255/32", "BROADCAST"],
  ["64:ff9b:1::/48", "NAT64_LOCAL"], // RFC 8215: nothing tells where in it the IPv4 address stands
  ["fe80::/10", "LINK_LOCAL"],
  ["fec0::/10", "SITE_LOCAL"], // RFC 3879
  ["ff00::/8", "MULTICAST"],
];

const TABLE = REFUSED.map(([text, refusal]) => {
  const prefix = parsePrefix(text);
  assert(prefix !== undefined, "a prefix of the dial rules");
  return { prefix, refusal };
});

/** Reaching this machine itself: only its owner's own word opens that, never the policy alone. */
const OWNER_ONLY: ReadonlySet<DialRefusal> = new Set(["LOOPBACK", "OWN_ADDRESS", "UNSPECIFIED"]);

/** What stands for this machine itself is found first: it is refused more strictly than the rest. */
function refusalOf(address: Address, around: DialSurroundings): DialRefusal | undefined {
  if (!isV4(address) && address.w0 === 0 && address.w1 === 0 && address.w2 === 0 && address.w3 <= 1) {
    return address.w3 === 0 ? "UNSPECIFIED" : "LOOPBACK"; // before "::a.b.c.d" would read them as 0.0.0.0 and 0.0.0.1
  }
  if (isV4(address) && address.w3 >>> 24 === 127) return "LOOPBACK";
  for (const own of around.ownAddresses) if (equalAddress(own, address)) return "OWN_ADDRESS";
  for (const row of TABLE) if (prefixContains(row.prefix, address)) return row.refusal;
  for (const prefix of around.overlay) if (prefixContains(prefix, address)) return "OVERLAY";
  for (const broadcast of around.broadcasts) if (equalAddress(broadcast, address)) return "BROADCAST";
  for (const inner of embeddedV4s(address)) {
    const refusal = refusalOf(inner, around);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

/** Undefined: may be dialled. `refuseDial(parseAddress("::ffff:127.0.0.1")!, around, "none")` is "LOOPBACK". */
export function refuseDial(
  address: Address,
  around: DialSurroundings,
  exemption: DialExemption,
): DialRefusal | undefined {
  if (exemption === "host") return undefined;
  const refusal = refusalOf(address, around);
  if (refusal === undefined || exemption === "none") return refusal;
  return OWNER_ONLY.has(refusal) ? refusal : undefined;
}

/** `::/0`-safe directed broadcast of an interface's IPv4 prefix; none for /31 and /32 (RFC 3021). */
export function broadcastOf(prefix: Prefix): Address | undefined {
  const hostBits = 128 - prefix.bits;
  if (!isV4(prefix.address) || prefix.bits < V4_BITS_OFFSET || hostBits < 2) return undefined;
  const mask = hostBits === 32 ? 0xffffffff : 2 ** hostBits - 1;
  return makeV4((prefix.address.w3 | mask) >>> 0);
}
