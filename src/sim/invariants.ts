// What must hold after every turn, whatever the network does: each a name and a check. A check gets what came out of
// an engine and what the simulation knows, and gives back the first thing that is wrong.
import { type Address, prefixContains } from "../base/address.ts";
import { equalBytes } from "../base/bytes.ts";
import {
  FLOWS_MAX,
  HANDSHAKES_WAITING_MAX,
  LEASE_HELD_PACKETS_MAX,
  LOCAL_REPLIES_MAX,
  PEERS_MAX,
  STAGED_PACKETS_MAX,
} from "../base/limits.ts";
import type { Holdings } from "../engine/engine.ts";
import type { DenialRecord, FlowRecord } from "../filter/contract.ts";
import { LANES } from "../wireguard/handshake-work.ts";
import type { SignedLease } from "./coordinator.ts";
import { mayOpen, type Told } from "./law.ts";
import type { Ledger, SentPacket } from "./ledger.ts";
import { type Facts, markOf, readFacts, shownFacts, udpFacts } from "./packets.ts";
import { CLOCK_ERROR_MAX_MS, type Station } from "./station.ts";

export const INVARIANTS = {
  "nothing-forbidden": "no packet is delivered that the naive evaluator forbids under what its receiver was told",
  "nothing-twice": "no packet is delivered more than once",
  "bytes-intact": "what is delivered is, byte for byte, what somebody sent",
  "true-sender": "a delivered packet's session is the one that sent it",
  "source-is-senders": "a delivered packet's inner source is one that its sender may speak for",
  "own-address": "a delivered packet's destination is the receiver's, or one that it serves",
  "lease-of-sender": "nothing is delivered of a session whose lease has ended",
  "lease-of-receiver": "nothing is delivered to a session without a lease of its own",
  "leases-by-true-time": "by the coordinator's own clock, too, both leases have not ended",
  "revoked-is-silent": "nothing is delivered of a session that the receiver knows to be revoked or gone",
  "honest-source": "an honest sender lets nothing out that its own rules forbid",
  "denials-are-true": "no opening is denied that the naive evaluator allows",
  "cuts-are-true": "no flow is cut for the policy that the naive evaluator still allows",
  "nothing-in-clear": "no outer datagram shows an inner packet",
  "within-limits": "no queue or table is over its bound",
  "no-busy-deadline": "a deadline that was handled is in the future, and no engine wakes without end",
  "counters-go-up": "no counter of a running engine ever goes back",
  "never-throws": "nothing that comes from the network makes an engine throw",
  "streams-exact": "a byte stream between two userspace stacks arrives whole and in order, in bounded time",
  "allowed-pairs-talk": "once faults stop, every allowed pair talks within a bounded time",
} as const;

export type InvariantName = keyof typeof INVARIANTS;

export interface Violation {
  readonly invariant: InvariantName;
  readonly detail: string;
}

/** Timeouts of one engine within one second of virtual time. */
export const WAKEUPS_PER_SECOND_MAX = 400;

export interface Delivery {
  readonly worldMs: number;
  readonly station: Station;
  /** As the engine says. */
  readonly session: string;
  readonly packet: Uint8Array;
  /** Leases that each session ever held. */
  readonly leases: ReadonlyMap<string, readonly SignedLease[]>;
}

function broken(invariant: InvariantName, detail: string): Violation {
  return { invariant, detail };
}

/** What a delivered packet is: one that a host sent, or an answer that an engine made. */
export function identify(ledger: Ledger, { packet }: Delivery): SentPacket | Facts | Violation {
  const mark = markOf(packet);
  const sent = mark === undefined ? ledger.findSegment(packet) : ledger.find(mark.id);
  if (sent !== undefined && equalBytes(sent.bytes, packet)) return sent;
  const facts = readFacts(packet);
  if (facts === undefined) return broken("bytes-intact", `unreadable packet of ${packet.length} bytes`);
  // An engine's denial: an ICMP error that quotes the packet, or a reset without data.
  const isEngineAnswer = facts.quoted !== undefined || (facts.protocol === 6 && (facts.tcpFlags & 4) !== 0);
  if (isEngineAnswer) return facts;
  return broken("bytes-intact", `nobody sent this: ${shownFacts(facts)}`);
}

/** All checks of one delivery but the policy's, which the caller asks its judge. */
export function checkDelivery(delivery: Delivery, facts: Facts, sent: SentPacket | undefined): Violation | undefined {
  const { station, session } = delivery;
  const what = `${shownFacts(facts)} at station ${station.number}, from ${session}`;
  if (sent !== undefined) {
    if (sent.deliveredTo !== undefined) return broken("nothing-twice", `packet ${sent.id}: ${what}`);
    if (sent.session !== session) return broken("true-sender", `${what}, but ${sent.session} sent it`);
    if (sent.permittedAtSource === false) return broken("honest-source", `packet ${sent.id}: ${what}`);
  }
  const { told } = station;
  if (told === undefined) return broken("revoked-is-silent", `${what}, before any netmap`);
  const peer = told.state.peers.find((known) => known.session === session);
  if (peer === undefined) return broken("revoked-is-silent", `${what}, which is no peer`);
  if (!peer.prefixes.some((prefix) => prefixContains(prefix, facts.source))) return broken("source-is-senders", what);
  if (!isServed(told, facts.destination)) return broken("own-address", what);
  if (station.plan.isHostile) return undefined; // it keeps no rules
  if (told.state.filter?.revoked.includes(session)) return broken("revoked-is-silent", what);
  return checkLeases(delivery, what);
}

function isServed({ state }: Told, address: Address): boolean {
  const own = state.addresses.some(
    (a) => a.w3 === address.w3 && a.w2 === address.w2 && a.w1 === address.w1 && a.w0 === address.w0,
  );
  return own || state.transit.some((prefix) => prefixContains(prefix, address));
}

function checkLeases({ worldMs, station, session, leases }: Delivery, what: string): Violation | undefined {
  const clockMs = station.coordinatorMs(worldMs);
  if (station.lease === undefined || clockMs >= station.lease.endMs) return broken("lease-of-receiver", what);
  const shown = leases.get(session) ?? [];
  if (!shown.some((lease) => clockMs < lease.endMs)) return broken("lease-of-sender", what);
  const surelyMs = worldMs - CLOCK_ERROR_MAX_MS;
  const areLive = surelyMs < station.lease.endMs && shown.some((lease) => surelyMs < lease.endMs);
  return areLive ? undefined : broken("leases-by-true-time", what);
}

/** Keeps what it saw for the next time. */
export function checkCounters(station: Station): Violation | undefined {
  const before = station.counters;
  const counters = station.engine.counters();
  station.counters = counters;
  for (const [name, count] of Object.entries(before)) {
    const now = counters[name] ?? 0;
    if (now < count) return broken("counters-go-up", `${name} ${count} → ${now} at station ${station.number}`);
  }
  return undefined;
}

/** What must have been allowed is asked at the later of two clocks: the station's own may be a little behind. */
function mustOpen(told: Told, station: Station, worldMs: number, from: string, at: string, facts: Facts): boolean {
  return mayOpen(told.law, from, at, facts, Math.max(told.compiledMs, station.coordinatorMs(worldMs)));
}

const POLICY_REASONS = ["NO_GRANT", "NEVER", "AGAINST_FLOW"];

export function checkDenial(station: Station, worldMs: number, record: DenialRecord): Violation | undefined {
  const { told } = station;
  if (told === undefined || !POLICY_REASONS.includes(record.reason)) return undefined;
  const facts: Facts = {
    ...udpFacts(record.source, record.destination, record.sourcePort, record.destinationPort),
    protocol: record.protocol,
  };
  const [from, at] =
    record.hop === "destination" ? [record.session, station.session] : [station.session, record.session];
  if (!mustOpen(told, station, worldMs, from, at, facts)) return undefined;
  const what = `${record.reason} by ${record.ruleId ?? "no rule"}: ${shownFacts(facts)}`;
  return broken("denials-are-true", `${what} at station ${station.number} (${record.hop})`);
}

export function checkFlowEnd(station: Station, worldMs: number, flow: FlowRecord): Violation | undefined {
  const { told } = station;
  if (told === undefined || flow.end !== "policy") return undefined;
  const facts: Facts = {
    ...udpFacts(flow.source, flow.destination, flow.sourcePort, flow.destinationPort),
    protocol: flow.protocol,
  };
  const [from, at] = flow.opener === "remote" ? [flow.session, station.session] : [station.session, flow.session];
  if (!mustOpen(told, station, worldMs, from, at, facts)) return undefined;
  return broken("cuts-are-true", `${shownFacts(facts)} at station ${station.number}, opened by the ${flow.opener} end`);
}

const BOUNDS: readonly (readonly [keyof Holdings, number])[] = [
  ["peers", PEERS_MAX],
  ["flows", FLOWS_MAX],
  ["handshakesWaiting", LANES.length * HANDSHAKES_WAITING_MAX],
  ["localReplies", LOCAL_REPLIES_MAX],
  ["stagedOfOnePeer", STAGED_PACKETS_MAX],
  ["heldOfOnePeer", LEASE_HELD_PACKETS_MAX],
];
const RECEIVER_INDEXES_OF_ONE_PEER_MAX = 4; // previous, current, next and one handshake

export function checkHoldings(station: Station, holdings: Holdings): Violation | undefined {
  for (const [name, bound] of BOUNDS) {
    if (holdings[name] > bound) return overBound(station, name, holdings[name], bound);
  }
  const indexes = RECEIVER_INDEXES_OF_ONE_PEER_MAX * holdings.peers;
  if (holdings.receiverIndexes <= indexes) return undefined;
  return overBound(station, "receiverIndexes", holdings.receiverIndexes, indexes);
}

function overBound(station: Station, name: string, count: number, bound: number): Violation {
  return broken("within-limits", `${name} ${count} > ${bound} at station ${station.number}`);
}

/** After a timeout was handled. */
export function checkDeadline(station: Station, worldMs: number): Violation | undefined {
  const clockMs = station.clock(worldMs);
  const nextMs = station.engine.nextDeadlineMs();
  if (nextMs <= clockMs) {
    return broken("no-busy-deadline", `station ${station.number}: ${clockMs - nextMs} ms ago, and it was just handled`);
  }
  if (worldMs - station.wakeupsSinceMs >= 1_000) {
    station.wakeupsSinceMs = worldMs;
    station.wakeups = 0;
  }
  station.wakeups++;
  if (station.wakeups <= WAKEUPS_PER_SECOND_MAX) return undefined;
  return broken("no-busy-deadline", `station ${station.number} woke ${station.wakeups} times within a second`);
}
