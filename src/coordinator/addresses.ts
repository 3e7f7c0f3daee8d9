// Overlay addresses. IPv6: a random interface id in the network's ULA, never given out again. IPv4: from the network's
// pool, to agents while it is not running low; an address rests a day before another identity gets it. A service's
// address at a gateway follows from both names.
import { createHash } from "node:crypto";
import {
  type Address,
  addressFromBytes,
  formatAddress,
  formatPrefix,
  makePrefix,
  makeV4,
  type Prefix,
  parsePrefix,
  V4_BITS_OFFSET,
} from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import { POOL4_KEPT_FROM_AGENTS } from "../base/limits.ts";
import { type Random, randomBelow, randomBytes, randomU32 } from "../base/random.ts";
import { DAY_MS } from "../base/units.ts";
import { addressInSubnet, SUBNET_SERVICES, SUBNET_SESSIONS, usableOfPool4 } from "../control/overlay-subnets.ts";
import type { IdentityKind, NetworkRow } from "./store/rows.ts";
import type { StoreTransaction } from "./store/store.ts";

export const ADDRESS_REST_MS = DAY_MS;
const POOL_BITS = 16;

/** RFC 4193 §3.1: fd and 40 random bits. */
export function randomUla(random: Random): string {
  const bytes = randomBytes(random, 16);
  bytes[0] = 0xfd;
  return formatPrefix(makePrefix(addressFromBytes(bytes, 0, 16), 48));
}

/** A random 10.x.0.0/16. */
export function randomPool4(random: Random): string {
  return formatPrefix(makePrefix(makeV4(0x0a000000 + randomBelow(random, 256) * 0x10000), V4_BITS_OFFSET + POOL_BITS));
}

function prefixOf(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === undefined) throw new WirebadgeError("STORE_FAILED", `the stored prefix ${text} is damaged`);
  return prefix;
}

function inSubnet(network: NetworkRow, subnet: number, w2: number, w3: number): Address {
  return addressInSubnet(prefixOf(network.ula), subnet, w2, w3);
}

/**
 * An overlay address of each family, not given to anybody else; agents get IPv6 alone once the IPv4 pool runs low.
 * CONFLICT when it is empty.
 */
export async function allocateAddresses(
  tx: Pick<StoreTransaction, "addressEverGiven" | "takenAddresses4">,
  network: NetworkRow,
  random: Random,
  identity: string,
  kind: IdentityKind,
  nowMs: number,
): Promise<string[]> {
  let address6: string;
  do {
    address6 = formatAddress(inSubnet(network, SUBNET_SESSIONS, randomU32(random), randomU32(random)));
  } while (await tx.addressEverGiven(address6));
  const pool = prefixOf(network.pool4);
  const taken = await tx.takenAddresses4(identity, nowMs - ADDRESS_REST_MS);
  // An agent that is granted an IPv4 range needs a source of that family; but agents come and go by the thousand, and
  // the last part of the pool is kept for those who can't do without.
  if (kind === "agent" && taken.size >= poolSize(pool) * (1 - POOL4_KEPT_FROM_AGENTS)) return [address6];
  return [address6, nextAddress4(pool, taken, random)];
}

function poolSize(pool: Prefix): number {
  return 2 ** (128 - pool.bits);
}

/** A free one, searched from a random place: who joined when is not to be read from addresses. */
function nextAddress4(pool: Prefix, taken: ReadonlySet<string>, random: Random): string {
  const { first, count } = usableOfPool4(pool);
  const start = randomBelow(random, count);
  for (let step = 0; step < count; step++) {
    const text = formatAddress(makeV4(first + ((start + step) % count)));
    if (!taken.has(text)) return text;
  }
  throw new WirebadgeError("CONFLICT", `the IPv4 pool ${formatPrefix(pool)} is used up`, {
    hint: "revoke sessions that are gone; their addresses are free again a day later",
  });
}

/** Where a gateway's session is reached for one service: the same for ever, so it needs no row. */
export function serviceAddress(network: NetworkRow, service: string, session: string): string {
  const digest = createHash("sha256")
    .update(`wirebadge service address 1\0${network.id}\0${session}\0${service}`)
    .digest();
  return formatAddress(inSubnet(network, SUBNET_SERVICES, digest.readUInt32BE(0), digest.readUInt32BE(4)));
}
