// Turns a checked netmap into what the engine is told to be.
import { type Prefix, parseAddress, parseEndpoint, parsePrefix } from "../base/address.ts";
import { fromBase64 } from "../base/bytes.ts";
import type { AddressRuleEntry, HostRuleEntry, NetmapView, PeerEntry } from "../control/netmap.ts";
import type { DesiredPeer, DesiredState } from "../engine/desired-state.ts";
import type { AddressRule, HostRule } from "../filter/contract.ts";

function defined<T>(value: T | undefined): value is T {
  return value !== undefined;
}

function hostRule(entry: HostRuleEntry): HostRule {
  const { untilMs, ...rule } = entry;
  return { ...rule, ...(untilMs === undefined ? {} : { untilMs }) };
}

function addressRule(entry: AddressRuleEntry): AddressRule | undefined {
  const to = parsePrefix(entry.to);
  if (to === undefined) return undefined;
  const { untilMs, ...rule } = entry;
  return { ...rule, to, ...(untilMs === undefined ? {} : { untilMs }) };
}

function desiredPeer(entry: PeerEntry): DesiredPeer | undefined {
  const publicKey = fromBase64(entry.publicKey);
  if (publicKey === undefined) return undefined;
  const presharedKey = entry.presharedKey === undefined ? undefined : fromBase64(entry.presharedKey);
  const linkAddress = entry.addresses.map(parseAddress).find(defined);
  return {
    session: entry.session,
    publicKey,
    kind: entry.kind,
    prefixes: entry.prefixes.map(parsePrefix).filter(defined),
    endpoints: entry.endpoints.map(parseEndpoint).filter(defined),
    ...(presharedKey === undefined ? {} : { presharedKey }),
    ...(linkAddress === undefined ? {} : { linkAddress }),
    ...(entry.leaseEndMs === undefined ? {} : { leaseEndMs: entry.leaseEndMs }),
  };
}

/** `transit`: what this peer itself offers and was accepted for, besides its own addresses. */
export function desiredStateOf(view: NetmapView, transit: readonly Prefix[]): DesiredState {
  return {
    epoch: view.epoch,
    revision: view.revision,
    mode: "badge",
    addresses: view.self.addresses.map(parseAddress).filter(defined),
    transit,
    filter: {
      revision: view.revision,
      policyVersion: view.policyVersion,
      inbound: view.inbound.map(addressRule).filter(defined),
      outbound: view.outbound.map(addressRule).filter(defined),
      inboundHosts: view.inboundHosts.map(hostRule),
      outboundHosts: view.outboundHosts.map(hostRule),
      revoked: view.revoked.map((entry) => entry.session),
    },
    peers: view.peers.map(desiredPeer).filter(defined),
  };
}
