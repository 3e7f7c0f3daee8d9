// The gateway's narrow view of the engine (the composition implements it) and the line it writes of each flow.
import type { Address, Endpoint } from "../base/address.ts";
import type { NetmapView } from "../control/netmap.ts";
import type { FilterProtocol, Verdict, VerdictReason } from "../filter/contract.ts";

/** Whose flow it is: the session that owns the inner source address. */
export interface Caller {
  readonly session: string;
  readonly identity: string;
  readonly sponsor: string | undefined;
}

/** A denial that only the gateway could see: behind a name, or of an address that it must not dial. */
export interface GatewayDenial {
  readonly caller: Caller;
  readonly source: Endpoint;
  /** What was asked for, as the policy would name it: a name or an address. */
  readonly destination: string;
  readonly address: Address | undefined;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  /** Of the filter, or "DIAL_REFUSED" by the dial rules. */
  readonly reason: VerdictReason;
  readonly ruleId: string | undefined;
}

/**
 * Judgements here are of an opening flow, as the filter makes them, but touch neither its flow table nor its counters.
 */
export interface GatewayView {
  netmap(): NetmapView | undefined;
  /** This peer's overlay addresses: for `--expose` and name-dial. */
  ownAddresses(): readonly Address[];
  callerOf(source: Address): Caller | undefined;
  /** `destination` may be an address behind this gateway: NEVER is what counts there. */
  judgeInbound(session: string, destination: Address, protocol: FilterProtocol, port: number): Verdict;
  judgeInboundHost(session: string, name: string, protocol: FilterProtocol, port: number): Verdict;
  /** Records the denial (for the destination's own `denials`, and for its caller by the peer link); gives its id. */
  recordDenial(denial: GatewayDenial): string;
}

/** Written when a flow ends. */
export interface GatewayFlow {
  readonly caller: Caller;
  readonly protocol: "tcp" | "udp";
  /** The caller's overlay endpoint. */
  readonly source: Endpoint;
  /** What the caller opened it to: an overlay or routed endpoint; for a `host:` route the gateway's own. */
  readonly destination: Endpoint;
  /** "service:NAME", "host:NAME" or undefined for a CIDR route. */
  readonly target: string | undefined;
  /** Undefined for a unix socket. */
  readonly dialled: Endpoint | undefined;
  readonly ruleId: string | undefined;
  readonly policyVersion: number;
  readonly revision: number;
  readonly startedMs: number;
  readonly endedMs: number;
  /** From the caller, to the caller. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly end: string;
}

/** Who stands behind a socket that the gateway dialled, by the socket's source as the service sees it. */
export interface DialledFlow {
  readonly caller: Caller;
  readonly destination: Endpoint;
  readonly target: string | undefined;
}
