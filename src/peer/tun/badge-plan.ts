// What a peer under a coordinator wants of the host around its TUN device: its overlay addresses, and routes to all
// that its netmap leads to. Values alone.
import {
  type Address,
  formatPrefix,
  hostPrefix,
  isV4Prefix,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixesOverlap,
} from "../../base/address.ts";
import type { NetmapView } from "../../control/netmap.ts";
import { type InterfaceAddress, isCovered, lengthOf, sortPrefixes } from "./route-plan.ts";

// A default route in parts (0.0.0.0/1 and 128.0.0.0/1, 2000::/3) is one all the same.
const ROUTE_BITS_MIN = 4;

export interface LeftOut {
  readonly prefix: Prefix;
  /**
   * "too-wide": the host's default route is not a coordinator's to take. "served-here": this host is a gateway into it
   * and dials there over its own network. "coordinator": the coordinator is in it, and would be out of reach for who
   * needs it to reach the gateway. "no-ipv6": the host can't have it.
   */
  readonly why: "too-wide" | "served-here" | "coordinator" | "no-ipv6";
}

export interface BadgePlan {
  readonly addresses: readonly InterfaceAddress[];
  /** Of the network itself: whatever in it this peer may not know of is then refused at once, and leaks nowhere. */
  readonly overlay: readonly Prefix[];
  /** Routes of gateways, none of them inside the overlay. */
  readonly beyond: readonly Prefix[];
  readonly leftOut: readonly LeftOut[];
}

function parsed(texts: readonly string[]): Prefix[] {
  return texts.map(parsePrefix).filter((prefix) => prefix !== undefined);
}

/**
 * Of the network's prefixes and the peers', those of a family that this peer has an address of. `coordinator`: where
 * the control channel leads.
 */
export function planBadge(view: NetmapView, coordinator: Address | undefined): BadgePlan {
  const own = view.self.addresses
    .map(parseAddress)
    .filter((address) => address !== undefined)
    .map(hostPrefix);
  const isUsable = (prefix: Prefix): boolean => own.some((address) => isV4Prefix(address) === isV4Prefix(prefix));
  const overlay = parsed([view.network.ula, view.network.pool4]).filter(isUsable);
  const served = parsed(view.routes.map(({ destination }) => destination));
  const unique = new Map<string, Prefix>();
  for (const prefix of view.peers.flatMap(({ prefixes }) => parsed(prefixes))) {
    if (isUsable(prefix) && !isCovered(prefix, overlay)) unique.set(formatPrefix(prefix), prefix);
  }
  const beyond: Prefix[] = [];
  const leftOut: LeftOut[] = [];
  for (const prefix of sortPrefixes([...unique.values()]).reverse()) {
    if (lengthOf(prefix) < ROUTE_BITS_MIN) leftOut.push({ prefix, why: "too-wide" });
    else if (coordinator !== undefined && prefixesOverlap(hostPrefix(coordinator), prefix))
      leftOut.push({ prefix, why: "coordinator" });
    else if (served.some((other) => prefixesOverlap(other, prefix))) leftOut.push({ prefix, why: "served-here" });
    else if (!isCovered(prefix, beyond)) beyond.push(prefix);
  }
  return { addresses: own, overlay, beyond, leftOut };
}
