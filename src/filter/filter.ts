// The filter on both packet paths (step 6 inbound, step 3 outbound): session and lease, then the known flow, then the
// rules; every exit is a named reason with a counter. It is told whole states (apply) and asked about one packet at a
// time; a verdict is a constant.
// A flow is judged as the end that opened it: its answers pass for as long as the opening still would. A revision, a
// lease's end or an `until` makes it be judged again: busy flows at their next packet, idle ones in `expire`; one that
// nothing concerns is never cut.
import type { Address } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { DOUBLE_ZERO } from "../base/double-zero.ts";
import { FLOWS_ENDED_PER_TURN_MAX, FLOWS_REJUDGED_PER_TURN_MAX } from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { decodeQuotedPacket, PacketInfo } from "../wire/packet.ts";
import type {
  DenialRecord,
  FilterProtocol,
  FilterSink,
  FilterState,
  FlowEnd,
  FlowRecord,
  Verdict,
  VerdictReason,
} from "./contract.ts";
import { type AskedFlow, DenialAllowance, DenialLog } from "./denials.ts";
import { FirstFragments } from "./first-fragments.ts";
import { type Direction, FlowKey, INBOUND, isEchoReply, isTcpOpening, OUTBOUND, portsOf } from "./flow-key.ts";
import { FlowTable } from "./flow-table.ts";
import {
  CLASS_TCP,
  type CompiledRule,
  classOfName,
  classOfProtocol,
  NO_GRANT,
  Opening,
  RuleSet,
  type SessionRules,
} from "./rules.ts";
import { type Session, type SessionSlot, SessionTable } from "./session-table.ts";
import { type VerdictCounts, zeroCounts } from "./verdict-counts.ts";

const ALLOW_ALL: Verdict = { allowed: true, reason: "ALLOW_ALL", ruleId: undefined };
const denied = (reason: VerdictReason): Verdict => ({ allowed: false, reason, ruleId: undefined });
const LEASE_ENDED = denied("LEASE_ENDED");
const NO_LEASE = denied("NO_LEASE");
const SESSION_REVOKED = denied("SESSION_REVOKED");
const FRAGMENT_WITHOUT_FIRST = denied("FRAGMENT_WITHOUT_FIRST");
const ICMP_WITHOUT_FLOW = denied("ICMP_WITHOUT_FLOW");
const AGAINST_FLOW = denied("AGAINST_FLOW");

const LEASE_SCAN_MS = 100; // every packet asks for its leases; those that ended are looked for no oftener than this
const UNSPECIFIED: Address = { w0: 0, w1: 0, w2: 0, w3: 0 };
const NO_ROW = -1;
const NO_PLACE = -1;

function directionOf(name: "inbound" | "outbound"): Direction {
  return name === "inbound" ? INBOUND : OUTBOUND;
}

function count(counts: VerdictCounts, { reason }: Verdict): void {
  if (reason === "ALLOWED_BY_FLOW")
    counts.ALLOWED_BY_FLOW++; // nearly every packet: not looked up by its name
  else counts[reason]++;
}

export class Filter {
  readonly counters = { inbound: zeroCounts(), outbound: zeroCounts() };

  readonly #sink: FilterSink | undefined;
  readonly #flows: FlowTable;
  readonly #denials: DenialLog;
  readonly #strangers = new DenialAllowance(); // for callers that have no slot here
  readonly #sessions = new SessionTable();
  readonly #key = new FlowKey();
  readonly #quoted = new PacketInfo();
  readonly #opening = new Opening();
  #openedBy: CompiledRule | undefined;

  #allowAll = false;
  #revision = 0;
  #policyVersion = 0;
  #generation = 0; // one more for each state applied; flows judged under an earlier one are judged again
  #inbound = new RuleSet([], []);
  #outbound = new RuleSet([], []);
  #revoked: ReadonlySet<string> = new Set();
  #untils: readonly number[] = []; // ascending, by the coordinator's clock
  #untilsPassed = 0;

  #offsetMs = DOUBLE_ZERO;
  // The packet's time by the coordinator's clock. A field, not an argument: handed from call to call it would be a
  // number on the heap for each packet.
  #clockMs = DOUBLE_ZERO;
  #ownLeaseEndMs: number | undefined;
  #leaseDeadlineMs = Number.POSITIVE_INFINITY; // by the coordinator's clock: none that was looked at ends before it
  #leaseScannedMs = Number.NEGATIVE_INFINITY;
  #sweepRow = 0;
  #sweepEnd = 0;
  #sweptMs = Number.NEGATIVE_INFINITY;

  constructor(options: { readonly random: Random; readonly sink?: FilterSink; readonly flows?: FlowTable }) {
    this.#sink = options.sink;
    this.#flows = options.flows ?? new FlowTable(options.random);
    this.#denials = new DenialLog(options.random);
  }

  // ── what it is told ────────────────────────────────────────────────────────────────────────────────────────────

  /** `wg` mode: everything passes, no flow is kept. */
  allowAll(): void {
    this.#allowAll = true;
  }

  /** Replaces the rules. Flows live on; each is judged again by the new ones. */
  apply(nowMs: number, state: FilterState): void {
    this.#allowAll = false;
    this.#generation++;
    this.#revision = state.revision;
    this.#policyVersion = state.policyVersion;
    this.#inbound = new RuleSet(state.inbound, state.inboundHosts);
    this.#outbound = new RuleSet(state.outbound, state.outboundHosts);
    this.#revoked = new Set(state.revoked);
    const untils = new Set<number>();
    for (const rule of state.inbound) if (rule.untilMs !== undefined) untils.add(rule.untilMs);
    for (const rule of state.outbound) if (rule.untilMs !== undefined) untils.add(rule.untilMs);
    this.#untils = [...untils].sort((a, b) => a - b);
    this.#untilsPassed = 0;
    this.#passUntils(nowMs + this.#offsetMs);
    for (const session of this.#sessions.values()) {
      session.inbound = undefined;
      session.outbound = undefined;
      session.revoked = this.#revoked.has(session.id);
      if (session.revoked) this.#endAll(session.slot, "revoked");
    }
    this.#startSweep();
  }

  /** The coordinator's clock minus this process's: leases and `until` are by the coordinator's. */
  setCoordinatorOffset(offsetMs: number): void {
    this.#offsetMs = offsetMs;
  }

  /** By the coordinator's clock; undefined: it has shown none. */
  setRemoteLease(slot: SessionSlot, endMs: number | undefined): void {
    this.#sessions.at(slot).leaseEndMs = endMs;
    if (endMs !== undefined) this.#leaseDeadlineMs = Math.min(this.#leaseDeadlineMs, endMs);
  }

  /** This peer's own: without one nothing passes in either direction. */
  setOwnLease(endMs: number | undefined): void {
    this.#ownLeaseEndMs = endMs;
    this.#leaseDeadlineMs = Math.min(this.#leaseDeadlineMs, endMs ?? Number.NEGATIVE_INFINITY);
  }

  /** The same number for the same session, until it is forgotten. */
  slot(sessionId: string): SessionSlot {
    return (this.#sessions.find(sessionId) ?? this.#sessions.add(sessionId, this.#revoked.has(sessionId))).slot;
  }

  /** Its flows end and its slot is free for another: nobody may go on using the number. */
  forgetSession(sessionId: string): void {
    const session = this.#sessions.find(sessionId);
    if (session === undefined) return;
    this.#endAll(session.slot, "forgotten");
    this.#sessions.forget(session);
  }

  // ── what it is asked ───────────────────────────────────────────────────────────────────────────────────────────

  /**
   * A packet that came out of `remote`'s tunnel. `buffer` and `offset` say where it starts: an ICMP error is judged by
   * the packet that it quotes.
   */
  judgeInbound(nowMs: number, remote: SessionSlot, info: PacketInfo, buffer: Uint8Array, offset: number): Verdict {
    const verdict = this.#judge(nowMs, INBOUND, remote, info, buffer, offset);
    count(this.counters.inbound, verdict);
    return verdict;
  }

  /** A packet that is to go into `remote`'s tunnel. */
  judgeOutbound(nowMs: number, remote: SessionSlot, info: PacketInfo, buffer: Uint8Array, offset: number): Verdict {
    const verdict = this.#judge(nowMs, OUTBOUND, remote, info, buffer, offset);
    count(this.counters.outbound, verdict);
    return verdict;
  }

  /** An opening without a packet, as the packet path would judge it; touches no flow, counter or record. */
  judgeAddress(
    nowMs: number,
    direction: "inbound" | "outbound",
    remote: SessionSlot,
    address: Address,
    protocol: FilterProtocol,
    port: number,
  ): Verdict {
    if (this.#allowAll) return ALLOW_ALL;
    const session = this.#sessions.at(remote);
    this.#clockMs = nowMs + this.#offsetMs;
    const opening = this.#opening.set(address, classOfName(protocol), port, this.#clockMs);
    return this.#gate(session, directionOf(direction)) ?? this.#rules(session, direction).judge(opening);
  }

  /** A name that a gateway is to resolve. Touches no flow, counter or record. */
  judgeHost(
    nowMs: number,
    direction: "inbound" | "outbound",
    remote: SessionSlot,
    name: string,
    protocol: FilterProtocol,
    port: number,
  ): Verdict {
    if (this.#allowAll) return ALLOW_ALL;
    const session = this.#sessions.at(remote);
    this.#clockMs = nowMs + this.#offsetMs;
    const rules = this.#rules(session, direction);
    return (
      this.#gate(session, directionOf(direction)) ?? rules.judgeHost(name, classOfName(protocol), port, this.#clockMs)
    );
  }

  /**
   * An address that an allowed name (`name` is the verdict of judgeHost) or a service's `at` resolved to: `never`
   * closes it, and the name's own grant opens it; no grant of the address itself is asked for.
   */
  judgeResolved(
    nowMs: number,
    remote: SessionSlot,
    name: Verdict,
    address: Address,
    protocol: FilterProtocol,
    port: number,
  ): Verdict {
    if (this.#allowAll) return ALLOW_ALL;
    const session = this.#sessions.at(remote);
    this.#clockMs = nowMs + this.#offsetMs;
    const opening = this.#opening.set(address, classOfName(protocol), port, this.#clockMs);
    return this.#gate(session, INBOUND) ?? this.#rules(session, "inbound").deny(opening)?.never ?? name;
  }

  /**
   * For a denial that a shell decided (a name, a dial). A repeat within DENIAL_REPEAT_MS gives the first record again;
   * one above the session's rate gives a record that is told to nobody and not kept.
   */
  recordDenial(nowMs: number, flow: AskedFlow, verdict: Pick<Verdict, "reason" | "ruleId">): DenialRecord {
    const session = this.#sessions.find(flow.session);
    const source = flow.source ?? UNSPECIFIED;
    const destination = flow.destination ?? UNSPECIFIED;
    const fingerprint = this.#denials.fingerprintOfAsked(session?.slot ?? -1, flow);
    const earlier = this.#denials.earlier(nowMs, fingerprint);
    if (earlier !== undefined) return earlier;
    const record = this.#denials.make({
      atMs: nowMs,
      hop: flow.hop,
      session: flow.session,
      source,
      destination,
      protocol: flow.protocol,
      sourcePort: flow.sourcePort ?? 0,
      destinationPort: flow.destinationPort,
      ...(flow.name === undefined ? {} : { name: flow.name }),
      reason: verdict.reason,
      ruleId: verdict.ruleId,
      policyVersion: this.#policyVersion,
      revision: this.#revision,
    });
    if ((session?.allowance ?? this.#strangers).take(nowMs)) this.#keep(fingerprint, record);
    else this.#denials.unrecorded++;
    return record;
  }

  /** The latest DENIALS_MAX, oldest first. */
  denials(): DenialRecord[] {
    return this.#denials.list();
  }

  /** Denied packets of which no record was made: repeats, and those above a session's rate. */
  get denialsUnrecorded(): number {
    return this.#denials.unrecorded;
  }

  /** Live flows of that session, either end's. */
  hasFlows(slot: SessionSlot): boolean {
    return this.#flows.sessionSize(slot) > 0;
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  get revision(): number {
    return this.#revision;
  }

  get policyVersion(): number {
    return this.#policyVersion;
  }

  /** Live flows as they stand, at most `limit`. */
  flows(limit: number): FlowRecord[] {
    const records: FlowRecord[] = [];
    for (let row = 0; row < this.#flows.rowsUsed && records.length < limit; row++) {
      if (this.#flows.isLive(row)) records.push(this.#record(row, undefined));
    }
    return records;
  }

  // ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Ends what is idle, out of lease or past its `until`; judges some of the flows that a revision left behind. */
  expire(nowMs: number): void {
    const clockMs = nowMs + this.#offsetMs;
    this.#clockMs = clockMs;
    if (clockMs >= this.#leaseDeadlineMs && nowMs - this.#leaseScannedMs >= LEASE_SCAN_MS) {
      this.#endLeases(nowMs, clockMs);
    }
    if (this.#passUntils(clockMs)) this.#startSweep();
    this.#sweep(nowMs);
    this.#flows.expire(nowMs, FLOWS_ENDED_PER_TURN_MAX, (row) => this.#endIdle(row));
  }

  /** When `expire` wants to be called; infinite without flows. */
  nextDeadlineMs(): number {
    if (this.#flows.size === 0) return Number.POSITIVE_INFINITY;
    let deadline = this.#flows.nextDeadlineMs();
    if (this.#sweepRow < this.#sweepEnd) deadline = Math.min(deadline, this.#sweptMs + 1);
    const until = this.#untils[this.#untilsPassed];
    if (until !== undefined) deadline = Math.min(deadline, until - this.#offsetMs);
    return Math.min(deadline, Math.max(this.#leaseDeadlineMs - this.#offsetMs, this.#leaseScannedMs + LEASE_SCAN_MS));
  }

  // ── judging ────────────────────────────────────────────────────────────────────────────────────────────────────

  #judge(
    nowMs: number,
    direction: Direction,
    slot: SessionSlot,
    info: PacketInfo,
    buffer: Uint8Array,
    offset: number,
  ): Verdict {
    if (this.#allowAll) return ALLOW_ALL;
    const session = this.#sessions.at(slot);
    this.#clockMs = nowMs + this.#offsetMs;
    const isFirstFragment = info.isFragment && !info.isLaterFragment;
    if (isFirstFragment) session.fragments?.forget(nowMs, direction, info);
    const gate = this.#gate(session, direction);
    if (gate !== undefined) return this.#deny(nowMs, direction, session, info, gate);
    if (info.innerOffset > 0) return this.#judgeIcmpError(nowMs, direction, session, info, buffer, offset);
    let ports = 0;
    if (info.isLaterFragment) {
      const place = session.fragments?.find(nowMs, direction, info) ?? NO_PLACE;
      if (place === NO_PLACE) return FRAGMENT_WITHOUT_FIRST;
      ports = session.fragments!.portsAt(place);
    } else ports = portsOf(direction, info);
    this.#key.set(direction, slot, info, ports);
    const verdict = this.#judgeKey(nowMs, direction, session, info);
    if (verdict.allowed && isFirstFragment) {
      session.fragments ??= new FirstFragments();
      session.fragments.remember(nowMs, direction, info, ports);
    }
    return verdict;
  }

  /**
   * Undefined when session and leases are in order. Outbound, a remote lease may be yet unknown: it is shown inside the
   * tunnel that this packet makes; the engine bounds how long (outbound.ts), and no answer passes without it.
   */
  #gate(session: Session, direction: Direction): Verdict | undefined {
    const clockMs = this.#clockMs;
    if (session.revoked) return SESSION_REVOKED;
    if (this.#ownLeaseEndMs === undefined) return NO_LEASE;
    if (clockMs >= this.#ownLeaseEndMs) return LEASE_ENDED;
    if (session.leaseEndMs === undefined) return direction === INBOUND ? NO_LEASE : undefined;
    return clockMs >= session.leaseEndMs ? LEASE_ENDED : undefined;
  }

  /** #key is set. */
  #judgeKey(nowMs: number, direction: Direction, session: Session, info: PacketInfo): Verdict {
    const flows = this.#flows;
    const row = flows.find(this.#key);
    if (row !== NO_ROW) {
      const fresh = flows.freshRule(row, nowMs, this.#generation);
      if (fresh !== undefined && this.#clockMs < fresh.untilMs && !isTcpOpening(info)) {
        flows.touch(row, direction, info.protocol, info.tcpFlags, info.totalBytes, nowMs); // nearly every packet
        return fresh.byFlow;
      }
      if (flows.isIdle(row, nowMs)) this.#endIdle(row);
      else if (isTcpOpening(info) && flows.opener(row) !== direction) {
        // An answer carries ACK: this end opens a connection of its own, on its own grant.
        const verdict = this.#judgeOpening(direction, session, info);
        if (!verdict.allowed) return this.#deny(nowMs, direction, session, info, verdict);
        if (!flows.isClosed(row)) return verdict;
        this.#end(row, "closed");
      } else {
        const rule = this.#current(row);
        if (rule !== undefined) {
          flows.touch(row, direction, info.protocol, info.tcpFlags, info.totalBytes, nowMs);
          return rule.byFlow;
        }
        this.#end(row, "policy"); // and then judged as if it opened one: the other end may have a grant of its own
      }
    }
    if (isEchoReply(info)) return this.#deny(nowMs, direction, session, info, ICMP_WITHOUT_FLOW);
    const verdict = this.#judgeOpening(direction, session, info);
    if (!verdict.allowed) return this.#deny(nowMs, direction, session, info, verdict);
    this.#open(nowMs, direction, session, info);
    return verdict;
  }

  /** The rule that the flow lives by now; undefined when there is none any more. */
  #current(row: number): CompiledRule | undefined {
    const clockMs = this.#clockMs;
    const flows = this.#flows;
    const rule = flows.rule(row);
    if (flows.generation(row) === this.#generation && clockMs < rule.untilMs) return rule;
    const session = this.#sessions.at(flows.slot(row));
    const inbound = flows.opener(row) === INBOUND; // judged as the end that opened it
    const port = inbound ? flows.localPort(row) : flows.remotePort(row);
    const protocol = classOfProtocol(flows.protocol(row));
    const opening = this.#opening.set(inbound ? flows.local(row) : flows.remote(row), protocol, port, clockMs);
    const again = this.#rules(session, inbound ? "inbound" : "outbound").permitting(opening);
    if (again !== undefined) flows.rejudged(row, again, this.#generation);
    return again;
  }

  /** #key is set: what the rules say of this packet as the first of a flow; if they allow it, by #openedBy. */
  #judgeOpening(direction: Direction, session: Session, info: PacketInfo): Verdict {
    const opening = this.#openingOf(direction, info);
    const rules = this.#rules(session, direction === INBOUND ? "inbound" : "outbound");
    const never = rules.deny(opening);
    if (never !== undefined) return never.never;
    this.#openedBy = rules.allow(opening);
    if (this.#openedBy !== undefined) return this.#openedBy.first;
    if (opening.protocol !== CLASS_TCP || isTcpOpening(info)) return NO_GRANT;
    const back = direction === INBOUND ? OUTBOUND : INBOUND;
    opening.set(info.source, CLASS_TCP, this.#key.destinationPort(back), this.#clockMs);
    const against = this.#rules(session, back === INBOUND ? "inbound" : "outbound").permitting(opening);
    return against === undefined ? NO_GRANT : AGAINST_FLOW;
  }

  #openingOf(direction: Direction, info: PacketInfo): Opening {
    const opening = this.#opening;
    opening.w0 = info.destination0;
    opening.w1 = info.destination1;
    opening.w2 = info.destination2;
    opening.w3 = info.destination3;
    opening.protocol = classOfProtocol(info.protocol);
    opening.port = this.#key.destinationPort(direction);
    opening.clockMs = this.#clockMs;
    return opening;
  }

  /** After #judgeOpening allowed it. */
  #open(nowMs: number, direction: Direction, session: Session, info: PacketInfo): void {
    const rule = this.#openedBy;
    assert(rule !== undefined, "an allowed opening has its rule");
    const victim = this.#flows.victimFor(session.slot);
    if (victim !== NO_ROW) this.#end(victim, "evicted");
    const row = this.#flows.insert(this.#key, direction, rule, this.#generation, nowMs);
    this.#flows.touch(row, direction, info.protocol, info.tcpFlags, info.totalBytes, nowMs);
  }

  /** By the flow of the packet inside it, which went the other way (RFC 5927 §4): it opens and prolongs nothing. */
  #judgeIcmpError(
    nowMs: number,
    direction: Direction,
    session: Session,
    info: PacketInfo,
    buffer: Uint8Array,
    offset: number,
  ): Verdict {
    const inner = this.#quoted;
    const { innerOffset, totalBytes } = info;
    const drop = decodeQuotedPacket(buffer, offset + innerOffset, totalBytes - innerOffset, inner);
    const back = direction === INBOUND ? OUTBOUND : INBOUND;
    const isToSender = // of the quoted packet: it is told to nobody else
      inner.source3 === info.destination3 &&
      inner.source2 === info.destination2 &&
      inner.source1 === info.destination1 &&
      inner.source0 === info.destination0;
    if (drop === undefined && isToSender && !inner.isLaterFragment) {
      this.#key.set(back, session.slot, inner, portsOf(back, inner));
      const row = this.#flows.find(this.#key);
      if (row !== NO_ROW && !this.#flows.isIdle(row, nowMs)) {
        const rule = this.#current(row);
        if (rule !== undefined) return rule.byFlow;
        this.#end(row, "policy");
      }
    }
    return this.#deny(nowMs, direction, session, info, ICMP_WITHOUT_FLOW);
  }

  #rules(session: Session, direction: "inbound" | "outbound"): SessionRules {
    if (direction === "inbound") {
      session.inbound ??= this.#inbound.of(session.id);
      return session.inbound;
    }
    session.outbound ??= this.#outbound.of(session.id);
    return session.outbound;
  }

  // ── denials and ends ───────────────────────────────────────────────────────────────────────────────────────────

  #deny(nowMs: number, direction: Direction, session: Session, info: PacketInfo, verdict: Verdict): Verdict {
    const fingerprint = this.#denials.fingerprintOf(session.slot, direction, info);
    if (this.#denials.earlier(nowMs, fingerprint) !== undefined) return verdict;
    if (!session.allowance.take(nowMs)) {
      this.#denials.unrecorded++;
      return verdict;
    }
    const record = this.#denials.make({
      atMs: nowMs,
      hop: direction === INBOUND ? "destination" : "source",
      session: session.id,
      source: info.source,
      destination: info.destination,
      protocol: info.protocol,
      sourcePort: info.sourcePort,
      destinationPort: info.destinationPort,
      reason: verdict.reason,
      ruleId: verdict.ruleId,
      policyVersion: this.#policyVersion,
      revision: this.#revision,
    });
    this.#keep(fingerprint, record);
    return verdict;
  }

  #keep(fingerprint: number, record: DenialRecord): void {
    this.#denials.keep(fingerprint, record);
    this.#sink?.denied(record);
  }

  /** True when one has passed since. */
  #passUntils(clockMs: number): boolean {
    const before = this.#untilsPassed;
    while (this.#untilsPassed < this.#untils.length && this.#untils[this.#untilsPassed]! <= clockMs) {
      this.#untilsPassed++;
    }
    return this.#untilsPassed > before;
  }

  #startSweep(): void {
    this.#sweepRow = 0;
    this.#sweepEnd = this.#flows.rowsUsed;
  }

  #sweep(nowMs: number): void {
    const end = Math.min(this.#sweepEnd, this.#sweepRow + FLOWS_REJUDGED_PER_TURN_MAX);
    for (; this.#sweepRow < end; this.#sweepRow++) {
      const row = this.#sweepRow;
      if (this.#flows.isLive(row) && this.#current(row) === undefined) this.#end(row, "policy");
    }
    this.#sweptMs = nowMs;
  }

  #endLeases(nowMs: number, clockMs: number): void {
    const ownEndMs = this.#ownLeaseEndMs ?? Number.NEGATIVE_INFINITY;
    let deadline = ownEndMs > clockMs ? ownEndMs : Number.POSITIVE_INFINITY;
    for (const session of this.#sessions.values()) {
      const endMs = session.leaseEndMs ?? Number.POSITIVE_INFINITY; // not shown yet: its answers do not pass anyway
      if (endMs <= clockMs || ownEndMs <= clockMs) this.#endAll(session.slot, "lease");
      else deadline = Math.min(deadline, endMs);
    }
    this.#leaseDeadlineMs = deadline;
    this.#leaseScannedMs = nowMs;
  }

  #endAll(slot: SessionSlot, end: FlowEnd): void {
    for (let row = this.#flows.anyOf(slot); row !== NO_ROW; row = this.#flows.anyOf(slot)) this.#end(row, end);
  }

  #endIdle(row: number): void {
    this.#end(row, this.#flows.isClosed(row) ? "closed" : "idle");
  }

  #end(row: number, end: FlowEnd): void {
    const record = this.#sink === undefined ? undefined : this.#record(row, end);
    this.#flows.remove(row);
    if (record !== undefined) this.#sink!.flowEnded(record);
  }

  #record(row: number, end: FlowEnd | undefined): FlowRecord {
    return this.#flows.record(row, this.#sessions.at(this.#flows.slot(row)).id, this.#revision, end);
  }
}
