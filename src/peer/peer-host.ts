// What the running peer answers on its local API: about itself, whom it knows, what it may reach and what was denied.
import {
  type Address,
  formatAddress,
  formatEndpoint,
  formatPrefix,
  parseAddress,
  parseEndpoint,
} from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import { PING_TIMEOUT_MS } from "../base/limits.ts";
import type { NetmapView, PeerEntry } from "../control/netmap.ts";
import type { Netstack } from "../netstack/contract.ts";
import { formatTraffic } from "../policy/destination.ts";
import type { DenialFeed, PeerDenial } from "./denial-feed.ts";
import type { Gateway } from "./gateway.ts";
import type {
  Can,
  Denial,
  Denials,
  EntryPoint,
  LocalApiHost,
  LocalPeer,
  LocalService,
  Ping,
  Status,
  Whois,
} from "./local-api-schema.ts";
import { canReach } from "./own-can.ts";
import type { PacketPath, PathDevice, PathReport } from "./packet-path.ts";
import type { PeerViews } from "./peer-views.ts";

/** What does not come from the engine or the netmap. */
export interface PeerFacts {
  readonly version: string;
  readonly startedMs: number;
  readonly publicKey: string;
  readonly listenPort: number;
  readonly crypto: { readonly name: string; readonly reason: string };
  readonly ownerCheck: Status["ownerCheck"];
  readonly entryPoints: () => readonly EntryPoint[];
  readonly coordinator: () => { url: string; connected: boolean; lastError: string | undefined };
  /** By the coordinator's clock. */
  readonly leaseEndMs: () => number | undefined;
  readonly coordinatorOffsetMs: () => number;
  readonly stateProblem: () => string | undefined;
  readonly shellCounters: () => Record<string, number>;
}

export interface PeerHostOptions {
  readonly path: PacketPath;
  readonly stack: Netstack;
  readonly views: PeerViews;
  readonly gateway: Gateway;
  readonly denials: DenialFeed;
  readonly facts: PeerFacts;
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 0: "any", 1: "icmp", 6: "tcp", 17: "udp", 58: "icmp" };

/** For people: how a denial came about and what would allow it, and nothing that its reader may not know. */
export function describeDenial(denial: PeerDenial, views: PeerViews): Denial {
  const identity = views.identityOf(denial.session);
  const hint = views.hintFor(denial.name, denial.destination);
  const { source } = denial;
  const hasSource = source !== undefined && !isUnspecified(source);
  return {
    id: denial.id,
    atMs: denial.atMs,
    hop: denial.hop,
    ...(denial.session === "" ? {} : { session: denial.session }),
    ...(identity === undefined ? {} : { identity }),
    ...(hasSource ? { source: formatAddress(source) } : {}),
    destination: denial.name ?? formatAddress(denial.destination),
    protocol: PROTOCOL_NAMES[denial.protocol] ?? String(denial.protocol),
    port: denial.destinationPort,
    reason: denial.reason,
    ...(denial.ruleId === undefined ? {} : { ruleId: denial.ruleId }),
    policyVersion: denial.policyVersion,
    ...(denial.revision === undefined ? {} : { revision: denial.revision }),
    ...(hint === undefined ? {} : { hint }),
  };
}

/** Of its own offers, those that the policy accepted: what else was offered is among the refused ones. */
function servedIn(netmap: NetmapView): string[] {
  return [
    ...netmap.serves.map(({ name }) => `service:${name}`),
    ...netmap.routes.map(({ destination }) => destination),
  ];
}

function isUnspecified({ w0, w1, w2, w3 }: Address): boolean {
  return w0 === 0 && w1 === 0 && w3 === 0 && (w2 === 0 || w2 === 0xffff);
}

export class PeerHost implements LocalApiHost {
  readonly #options: PeerHostOptions;

  constructor(options: PeerHostOptions) {
    this.#options = options;
  }

  async status(): Promise<Status> {
    const { path, views, facts } = this.#options;
    const report = await path.report();
    const netmap = views.netmap();
    const nowMs = path.turns.nowMs();
    const leaseEndMs = facts.leaseEndMs();
    const coordinator = facts.coordinator();
    const stateProblem = facts.stateProblem();
    return {
      version: facts.version,
      mode: "coordinator",
      pid: process.pid,
      startedMs: facts.startedMs,
      nowMs,
      tags: netmap?.self.tags ?? [],
      publicKey: facts.publicKey,
      addresses: netmap?.self.addresses ?? [],
      listenPort: facts.listenPort,
      coordinator: {
        url: coordinator.url,
        connected: coordinator.connected,
        ...(coordinator.lastError === undefined ? {} : { lastError: coordinator.lastError }),
      },
      ...(stateProblem === undefined ? {} : { stateProblem }),
      ...(netmap === undefined ? {} : this.#netmapStatus(netmap)),
      ...(leaseEndMs === undefined
        ? {}
        : { lease: { endMs: leaseEndMs, remainingMs: Math.max(0, leaseEndMs - nowMs - facts.coordinatorOffsetMs()) } }),
      crypto: facts.crypto,
      udp: report.udp,
      ownerCheck: facts.ownerCheck,
      peers: peersIn(netmap, report),
      services: (netmap?.services ?? []).map(describeService),
      serving: netmap === undefined ? [] : servedIn(netmap),
      refusedOffers: (netmap?.refusedOffers ?? []).map(({ offer, reason }) => ({ offer, reason })),
      entryPoints: [...facts.entryPoints()],
      ...(path.device === undefined ? {} : { device: describeDevice(path.device) }),
      counters: { ...report.counters, ...facts.shellCounters() },
    };
  }

  whois(of: string): Whois {
    const { views, gateway } = this.#options;
    const address = parseAddress(of.replace(/^\[|\]$/g, ""));
    if (address !== undefined) {
      const peer = views.peerAt(address);
      if (peer !== undefined) return describeWhois(of, peer);
      const self = views.netmap()?.self;
      if (self?.addresses.includes(formatAddress(address)) === true) return describeWhois(of, { ...self });
    }
    const endpoint = parseEndpoint(of);
    const dialled = endpoint === undefined ? undefined : gateway.whoisDialled(endpoint.address, endpoint.port);
    if (dialled !== undefined) {
      const peer = views.netmap()?.peers.find((entry) => entry.session === dialled.caller.session);
      if (peer !== undefined) {
        return { ...describeWhois(of, peer), via: "dialled", destination: formatEndpoint(dialled.destination) };
      }
    }
    if (address === undefined && endpoint === undefined) {
      throw new WirebadgeError("USAGE", `${JSON.stringify(of)} is no address`, { hint: "give ADDRESS or IP:PORT" });
    }
    throw new WirebadgeError("NOT_FOUND", `nobody known here is at ${of}`, {
      hint: "give an overlay address, or the source IP:PORT of a live connection that this gateway dialled",
    });
  }

  can(destination: string): Can {
    return canReach(destination, this.#options.views);
  }

  denials(): Denials {
    const { denials, views } = this.#options;
    return { denials: denials.list().map((denial) => describeDenial(denial, views)) };
  }

  async ping(name: string, signal: AbortSignal): Promise<Ping> {
    const { views, path } = this.#options;
    const bare =
      name.startsWith("node:") || name.startsWith("agent:") || name.startsWith("user:") ? name : `node:${name}`;
    const literal = parseAddress(name);
    const peer =
      literal === undefined ? views.netmap()?.peers.find((entry) => entry.identity === bare) : views.peerAt(literal);
    const text = literal === undefined ? peer?.addresses[0] : formatAddress(literal);
    const address = text === undefined ? undefined : parseAddress(text);
    const judged = address === undefined ? undefined : views.judgeOutbound(address, "icmp", 0);
    if (address === undefined || judged === undefined || !judged.allowed) {
      const id = judged?.denialId ?? views.denyName(name, "icmp", 0);
      throw new WirebadgeError("NO_GRANT", `${name} may not be pinged (${id})`, {
        hint: 'a grant such as { from: YOU, to: "node:NAME icmp" } would allow it',
      });
    }
    const rttMs = await this.#echo(name, address, signal);
    const row = (await path.report()).peers.find(({ session }) => session === peer?.session);
    const endpoint = row?.endpoint === undefined ? {} : { endpoint: formatEndpoint(row.endpoint) };
    const identity = peer === undefined ? {} : { identity: peer.identity };
    return { name, address: formatAddress(address), rttMs, path: "direct", ...identity, ...endpoint };
  }

  /** Resolves to the round trip's ms. */
  #echo(name: string, address: Address, signal: AbortSignal): Promise<number> {
    const { stack, views, path } = this.#options;
    const { turns } = path;
    const local = views.localAddressFor(address);
    return new Promise((resolve, reject) => {
      if (local === undefined) {
        reject(new WirebadgeError("UNREACHABLE", `no own address of the family of ${name}`));
        return;
      }
      const giveUp = turns.turn((nowMs) =>
        stack.ping(nowMs, local, address, (rttMs) => {
          clearTimeout(timer);
          resolve(rttMs);
        }),
      );
      const timer = setTimeout(() => {
        turns.turn(() => giveUp());
        reject(new WirebadgeError("TIMEOUT", `${name} did not answer within ${PING_TIMEOUT_MS / 1000} s`));
      }, PING_TIMEOUT_MS);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        turns.turn(() => giveUp());
        reject(new WirebadgeError("TIMEOUT", "given up by the caller"));
      });
    });
  }

  #netmapStatus(netmap: NetmapView): Partial<Status> {
    const { self, network } = netmap;
    return {
      identity: self.identity,
      session: self.session,
      network: { id: network.id, name: network.name },
      policyVersion: netmap.policyVersion,
      epoch: netmap.epoch,
      revision: netmap.revision,
      ...(self.sponsor === undefined ? {} : { sponsor: self.sponsor }),
    };
  }
}

function peersIn(netmap: NetmapView | undefined, report: PathReport): LocalPeer[] {
  const rows = new Map(report.peers.map((row) => [row.session, row]));
  return (netmap?.peers ?? []).map((entry) => {
    const row = rows.get(entry.session);
    return {
      session: entry.session,
      identity: entry.identity,
      publicKey: entry.publicKey,
      addresses: entry.addresses,
      prefixes: entry.prefixes,
      path: row?.endpoint === undefined ? "none" : "direct",
      rxBytes: row?.receivedBytes ?? 0,
      txBytes: row?.sentBytes ?? 0,
      ...(row?.endpoint === undefined ? {} : { endpoint: formatEndpoint(row.endpoint) }),
      ...(row?.lastHandshakeMs === undefined ? {} : { lastHandshakeMs: row.lastHandshakeMs }),
    };
  });
}

function describeDevice({ name, mtuBytes, routes }: PathDevice): NonNullable<Status["device"]> {
  return { name, mtuBytes, routes: routes.map(formatPrefix) };
}

function describeService(service: NetmapView["services"][number]): LocalService {
  return {
    name: service.name,
    protocol: service.protocol,
    ports: formatTraffic(service).replace(`${service.protocol}:`, ""),
    addresses: service.gateways.map((gateway) => gateway.address),
    allowed: service.denied === undefined,
    ...(service.denied === undefined ? {} : { hint: service.denied.hint }),
  };
}

function describeWhois(of: string, peer: Omit<PeerEntry, "prefixes" | "endpoints">): Whois {
  return {
    of,
    session: peer.session,
    identity: peer.identity,
    tags: peer.tags,
    addresses: peer.addresses,
    publicKey: peer.publicKey,
    via: "address",
    ...(peer.sponsor === undefined ? {} : { sponsor: peer.sponsor }),
  };
}
