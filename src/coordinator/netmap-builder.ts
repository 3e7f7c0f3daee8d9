// One session's netmap as entries: who it is, whom it must know and by which rules, from the compiled policy and the
// world.
import { formatAddress, formatPrefix } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import type {
  AddressRuleEntry,
  HostRuleEntry,
  NetmapEntries,
  PeerEntry,
  SelfEntry,
  ServiceEntry,
  SessionEntry,
} from "../control/netmap.ts";
import { signRevocation } from "../control/revocation.ts";
import type { CompiledPeer, CompiledService } from "../policy/compile.ts";
import type { CompiledAddressRule, CompiledHostRule, CompiledPeerView } from "../policy/peer-draft.ts";
import type { Core } from "./core.ts";
import type { Roster } from "./roster.ts";
import type { SessionRow } from "./store/rows.ts";

export interface BuiltNetmap {
  readonly entries: NetmapEntries;
  /** When a grant that concerns it ends, by the coordinator's clock: build it again then. */
  readonly nextChangeMs: number | undefined;
}

export class NetmapBuilder {
  readonly #core: Core;
  readonly #roster: Roster;
  readonly #signedRevocations = new Map<string, string>();

  constructor(core: Core, roster: Roster) {
    this.#core = core;
    this.#roster = roster;
  }

  /** Empty for a session that is not active. */
  build(id: string): BuiltNetmap {
    const { world, probes } = this.#core;
    const session = world.sessions.get(id);
    const compiled = this.#roster.compile(id, this.#core.nowMs());
    if (session === undefined || compiled === undefined) return { entries: {}, nextChangeMs: undefined };
    const { id: network, name, ula, pool4 } = world.network;
    const entries: NetmapEntries = {
      network: { id: network, name, ula, pool4, mtuBytes: MTU_DEFAULT_BYTES, probes: [...probes] },
      policy: { version: world.policy.version },
      self: { ...this.#entry(session), leaseMs: this.leaseMs(session) } satisfies SelfEntry,
    };
    for (const peer of compiled.peers) {
      const row = world.sessions.get(peer.session);
      if (row !== undefined) entries[`peer/${peer.session}`] = this.#peer(row, peer);
    }
    addRules(entries, compiled);
    addServices(entries, compiled);
    for (const { session: revoked, untilMs } of world.revocationsFor(id))
      entries[`revoked/${revoked}`] = { session: revoked, untilMs, signature: this.#revocation(revoked) };
    return { entries, nextChangeMs: compiled.nextChangeMs };
  }

  leaseMs(session: SessionRow): number {
    const kind = this.#core.world.identities.get(session.identity)?.kind ?? "agent";
    return this.#roster.policy.leaseMs[kind];
  }

  /** Made once for each: netmaps are built often. */
  #revocation(session: string): string {
    const known = this.#signedRevocations.get(session);
    if (known !== undefined) return known;
    const { crypto, keys, world } = this.#core;
    const signature = toBase64(signRevocation(crypto, keys.sign.privateKey, session));
    for (const old of this.#signedRevocations.keys()) if (!world.isRevoked(old)) this.#signedRevocations.delete(old);
    this.#signedRevocations.set(session, signature);
    return signature;
  }

  #entry(session: SessionRow): SessionEntry {
    const { world } = this.#core;
    const sponsor = world.sponsorOf(session);
    return {
      session: session.id,
      identity: session.identity,
      ...(sponsor !== undefined && { sponsor }),
      tags: world.tagsOf(session),
      publicKey: session.publicKey,
      signKey: session.signKey,
      addresses: [...session.addresses],
      kind: "wirebadge",
    };
  }

  #peer(session: SessionRow, view: CompiledPeerView): PeerEntry {
    const endpoints = this.#core.world.endpoints.get(session.id) ?? [];
    return { ...this.#entry(session), prefixes: view.prefixes.map(formatPrefix).sort(), endpoints: [...endpoints] };
  }
}

function addressRule({ key: _, to, ...rule }: CompiledAddressRule): AddressRuleEntry {
  return { ...rule, sessions: [...rule.sessions], to: formatPrefix(to), ports: rule.ports.map(([a, b]) => [a, b]) };
}

function hostRule({ key: _, ...rule }: CompiledHostRule): HostRuleEntry {
  return { ...rule, sessions: [...rule.sessions], ports: rule.ports.map(([a, b]) => [a, b]) };
}

function addRules(entries: NetmapEntries, compiled: CompiledPeer): void {
  for (const rule of compiled.inbound) entries[`in/${rule.key}`] = addressRule(rule);
  for (const rule of compiled.outbound) entries[`out/${rule.key}`] = addressRule(rule);
  for (const rule of compiled.inboundHosts) entries[`in-host/${rule.key}`] = hostRule(rule);
  for (const rule of compiled.outboundHosts) entries[`out-host/${rule.key}`] = hostRule(rule);
}

function service(compiled: CompiledService): ServiceEntry {
  const { name, protocol, ports, gateways, discoverable, denied } = compiled;
  return {
    name,
    protocol,
    ports: ports.map(([a, b]) => [a, b]),
    gateways: gateways.map(({ session, address }) => ({ session, address: formatAddress(address) })),
    discoverable,
    ...(denied !== undefined && { denied: { ...denied } }),
  };
}

function addServices(entries: NetmapEntries, compiled: CompiledPeer): void {
  for (const each of compiled.services) entries[`service/${each.name}`] = service(each);
  for (const { name, address, host, protocol, ports } of compiled.serves)
    entries[`serve/${name}`] = { name, address: formatAddress(address), host, protocol, ports: [...ports] };
  for (const destination of compiled.routes) entries[`route/${destination}`] = { destination };
  for (const { pattern, gateways } of compiled.hostRoutes)
    entries[`host-route/${pattern}`] = { pattern, gateways: [...gateways] };
  for (const { offer, reason } of compiled.refusedOffers) entries[`refused-offer/${offer}`] = { offer, reason };
}
