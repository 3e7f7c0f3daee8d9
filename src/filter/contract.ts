// What the filter is told and what it answers. Compiled by policy/compile.ts for one peer, carried in the netmap,
// applied as a whole. "Remote" is the other end of a tunnel, named by its session id; "local" is this peer.
import type { Address, Prefix } from "../base/address.ts";

export type FilterProtocol = "tcp" | "udp" | "icmp" | "any";

/** Inclusive; an empty list in a rule means every port. */
export type PortRange = readonly [low: number, high: number];

export interface AddressRule {
  /** Grant or never id, as the policy names it. */
  readonly id: string;
  /** "deny" comes from `never` and beats every "allow". */
  readonly action: "allow" | "deny";
  /** Inbound: who may open. Outbound: towards whom. Session ids. */
  readonly sessions: readonly string[];
  readonly to: Prefix;
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
  /** Milliseconds of Unix time by the coordinator's clock; the rule ends there. */
  readonly untilMs?: number;
}

/** For names that a gateway resolves: `*.staging.internal`, an exact name, or `*`. */
export interface HostRule {
  readonly id: string;
  readonly action: "allow" | "deny";
  readonly sessions: readonly string[];
  readonly pattern: string;
  readonly protocol: FilterProtocol;
  readonly ports: readonly PortRange[];
  readonly untilMs?: number;
}

export interface FilterState {
  /** Changes whenever the content does; live flows are judged again at their next packet. */
  readonly revision: number;
  readonly policyVersion: number;
  readonly inbound: readonly AddressRule[];
  readonly outbound: readonly AddressRule[];
  readonly inboundHosts: readonly HostRule[];
  readonly outboundHosts: readonly HostRule[];
  /** Sessions that no packet may come from or go to, whatever the rules say. */
  readonly revoked: readonly string[];
}

/** Stable, in records, counters, tests and explain alike. */
export type VerdictReason =
  | "ALLOWED_BY_RULE"
  | "ALLOWED_BY_FLOW"
  | "ALLOW_ALL" // `wg` mode: everything in the file
  | "NO_GRANT"
  | "NEVER"
  | "LEASE_ENDED"
  | "NO_LEASE"
  | "SESSION_REVOKED"
  | "NOT_OUR_ADDRESS"
  | "FLOW_TABLE_FULL"
  | "FRAGMENT_WITHOUT_FIRST"
  | "ICMP_WITHOUT_FLOW"
  | "DIAL_REFUSED" // a gateway's dial rules: loopback, link-local, metadata …
  | "AGAINST_FLOW"; // a segment without SYN against a grant's direction

export interface Verdict {
  readonly allowed: boolean;
  readonly reason: VerdictReason;
  /** Rule that allowed or denied; undefined for NO_GRANT and the like. */
  readonly ruleId: string | undefined;
}

/** One denied opening of a flow, as the destination or the source recorded it. */
export interface DenialRecord {
  /** `d_` and 10 random characters of Crockford base32. */
  readonly id: string;
  readonly atMs: number;
  readonly hop: "source" | "destination";
  readonly session: string;
  readonly source: Address;
  readonly destination: Address;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** When a name was denied; then `destination` is the unspecified address. */
  readonly name?: string;
  readonly reason: VerdictReason;
  readonly ruleId: string | undefined;
  readonly policyVersion: number;
  readonly revision: number;
}

/** Why a flow ended. */
export type FlowEnd =
  | "idle"
  | "closed" // TCP, both ways or by reset
  | "policy" // a revision, or the rule's `until`
  | "lease"
  | "revoked"
  | "forgotten" // the session is gone
  | "evicted"; // by a newer flow of a session that holds too many

/** One flow as it ends (or, while live, as it stands): the destination writes a line of it. */
export interface FlowRecord {
  readonly session: string;
  readonly opener: "remote" | "local";
  readonly source: Address;
  readonly destination: Address;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly ruleId: string | undefined;
  readonly revision: number;
  readonly startedMs: number;
  readonly lastMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Undefined while it lives. */
  readonly end: FlowEnd | undefined;
}

/** Called inside the judging of a packet: it may queue things, but must not call the filter. */
export interface FilterSink {
  /** Once for each recorded denial, not for each denied packet. */
  denied(record: DenialRecord): void;
  /** Cut whatever serves the flow (a dialled socket, a connection of the netstack): no packet of it passes any more. */
  flowEnded(record: FlowRecord): void;
}
