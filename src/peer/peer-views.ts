// The narrow views that the entry points and the gateway have of the engine and the netmap.
import { type Address, formatAddress, isV4, parseAddress } from "../base/address.ts";
import type { NetmapView, PeerEntry } from "../control/netmap.ts";
import type { Engine } from "../engine/engine.ts";
import type { DenialRecord, FilterProtocol, Verdict } from "../filter/contract.ts";
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/packet.ts";
import { type DenialFeed, fromRecord } from "./denial-feed.ts";
import type { Caller, GatewayDenial, GatewayView } from "./gateway-view.ts";
import type { DenialNotice, OutboundJudgement, OverlayView } from "./overlay.ts";
import type { Turns } from "./turns.ts";

const NO_GRANT: Verdict = { allowed: false, reason: "NO_GRANT", ruleId: undefined };

export function protocolNumber(protocol: FilterProtocol): number {
  switch (protocol) {
    case "tcp":
      return PROTOCOL_TCP;
    case "udp":
      return PROTOCOL_UDP;
    case "icmp":
      return PROTOCOL_ICMP;
    case "any":
      return 0;
  }
}

export interface PeerViewsOptions {
  readonly engine: Engine;
  readonly turns: Turns;
  readonly denials: DenialFeed;
  readonly ownAddresses: () => readonly Address[];
  /** This peer's own session id; the empty text in `wg` mode. */
  readonly ownSession: () => string;
  /** Tells that peer of a denial which a shell decided. */
  readonly tellDenial: (session: string, record: DenialRecord) => void;
}

export class PeerViews implements OverlayView, GatewayView {
  readonly #options: PeerViewsOptions;
  #netmap: NetmapView | undefined;
  #byAddress = new Map<string, PeerEntry>();

  constructor(options: PeerViewsOptions) {
    this.#options = options;
  }

  setNetmap(netmap: NetmapView): void {
    this.#netmap = netmap;
    this.#byAddress = new Map();
    for (const peer of netmap.peers) {
      for (const text of peer.addresses) {
        const address = parseAddress(text);
        if (address !== undefined) this.#byAddress.set(formatAddress(address), peer);
      }
    }
  }

  netmap(): NetmapView | undefined {
    return this.#netmap;
  }

  ownAddresses(): readonly Address[] {
    return this.#options.ownAddresses();
  }

  /** The peer that holds the address itself, not one that routes it. */
  peerAt(address: Address): PeerEntry | undefined {
    return this.#byAddress.get(formatAddress(address));
  }

  identityOf(session: string): string | undefined {
    const { self } = this.#netmap ?? {};
    if (self?.session === session) return self.identity;
    return this.#netmap?.peers.find((peer) => peer.session === session)?.identity;
  }

  /** What would allow it, for a service that this session may know of. */
  hintFor(name: string | undefined, destination: Address): string | undefined {
    const text = formatAddress(destination);
    const service = this.#netmap?.services.find(
      (entry) => entry.name === name || entry.gateways.some(({ address }) => address === text),
    );
    return service?.denied?.hint;
  }

  callerOf(source: Address): Caller | undefined {
    if (this.#netmap === undefined) {
      // `wg` mode: who may speak for the address, by public key.
      const session = this.#options.engine.sessionFor(source);
      return session === undefined ? undefined : { session, identity: session, sponsor: undefined };
    }
    const peer = this.peerAt(source);
    return peer === undefined ? undefined : { session: peer.session, identity: peer.identity, sponsor: peer.sponsor };
  }

  judgeInbound(session: string, destination: Address, protocol: FilterProtocol, port: number): Verdict {
    const slot = this.#options.engine.slotOf(session);
    if (slot === undefined) return NO_GRANT;
    const nowMs = this.#options.turns.nowMs();
    return this.#options.engine.filter.judgeAddress(nowMs, "inbound", slot, destination, protocol, port);
  }

  judgeInboundHost(session: string, name: string, protocol: FilterProtocol, port: number): Verdict {
    const slot = this.#options.engine.slotOf(session);
    if (slot === undefined) return NO_GRANT;
    return this.#options.engine.filter.judgeHost(this.#options.turns.nowMs(), "inbound", slot, name, protocol, port);
  }

  recordDenial(denial: GatewayDenial): string {
    const { engine, turns, denials, tellDenial } = this.#options;
    return turns.turn((nowMs) => {
      const isName = parseAddress(denial.destination) === undefined;
      const record = engine.filter.recordDenial(
        nowMs,
        {
          hop: "destination",
          session: denial.caller.session,
          source: denial.source.address,
          sourcePort: denial.source.port,
          destinationPort: denial.port,
          protocol: protocolNumber(denial.protocol),
          ...(denial.address === undefined ? {} : { destination: denial.address }),
          ...(isName ? { name: denial.destination } : {}),
        },
        denial,
      );
      denials.add(fromRecord(record));
      tellDenial(denial.caller.session, record);
      return record.id;
    });
  }

  judgeOutbound(address: Address, protocol: FilterProtocol, port: number): OutboundJudgement {
    const verdict = this.peekOutbound(address, protocol, port);
    const session = this.#options.engine.sessionFor(address);
    return this.#explained(verdict, { session, destination: address, protocol, port });
  }

  judgeOutboundHost(session: string, name: string, protocol: FilterProtocol, port: number): OutboundJudgement {
    return this.#explained(this.peekHost(session, name, protocol, port), { session, name, protocol, port });
  }

  /** As judgeOutbound, without a record. */
  peekOutbound(address: Address, protocol: FilterProtocol, port: number): Verdict {
    const { engine, turns } = this.#options;
    const nowMs = turns.nowMs();
    const session = engine.sessionFor(address);
    const slot = session === undefined ? undefined : engine.slotToward(nowMs, session);
    if (slot === undefined) return NO_GRANT;
    return engine.filter.judgeAddress(nowMs, "outbound", slot, address, protocol, port);
  }

  peekHost(session: string, name: string, protocol: FilterProtocol, port: number): Verdict {
    const { engine, turns } = this.#options;
    const nowMs = turns.nowMs();
    const slot = engine.slotToward(nowMs, session);
    if (slot === undefined) return NO_GRANT;
    return engine.filter.judgeHost(nowMs, "outbound", slot, name, protocol, port);
  }

  denyName(name: string, protocol: FilterProtocol, port: number): string {
    return this.#record(NO_GRANT, { name, protocol, port });
  }

  onDenial(listener: (denial: DenialNotice) => void): () => void {
    return this.#options.denials.listen(listener);
  }

  localAddressFor(remote: Address): Address | undefined {
    return this.#options.ownAddresses().find((own) => isV4(own) === isV4(remote));
  }

  #explained(verdict: Verdict, asked: Asked): OutboundJudgement {
    return { ...verdict, denialId: verdict.allowed ? undefined : this.#record(verdict, asked) };
  }

  #record(verdict: Verdict, asked: Asked): string {
    const { engine, turns, denials, ownSession } = this.#options;
    const { name, destination } = asked;
    const record = engine.filter.recordDenial(
      turns.nowMs(),
      {
        hop: "source",
        session: asked.session ?? ownSession(),
        destinationPort: asked.port,
        protocol: protocolNumber(asked.protocol),
        ...(name === undefined ? {} : { name }),
        ...(destination === undefined ? {} : { destination }),
      },
      verdict,
    );
    denials.add(fromRecord(record));
    return record.id;
  }
}

interface Asked {
  readonly session?: string | undefined;
  readonly destination?: Address;
  readonly name?: string;
  readonly protocol: FilterProtocol;
  readonly port: number;
}
