// Every flow that passes, in records of numbers that a packet finds without allocating: an index by key, a list for
// each session and a timing wheel, all threaded through the same rows. It knows no rules; filter.ts judges, this
// remembers.
import type { Address } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import {
  FLOW_IDLE_ICMP_MS,
  FLOW_IDLE_TCP_CLOSING_MS,
  FLOW_IDLE_TCP_MS,
  FLOW_IDLE_TCP_OPENING_MS,
  FLOW_IDLE_UDP_MS,
  FLOWS_MAX,
  FLOWS_PER_SESSION_MAX,
} from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../wire/packet.ts";
import type { FlowEnd, FlowRecord } from "./contract.ts";
import { FlowIndex } from "./flow-index.ts";
import {
  type Direction,
  type FlowKey,
  INBOUND,
  LOCAL,
  OUTBOUND,
  PORTS,
  REMOTE,
  SESSION_AND_PROTOCOL,
} from "./flow-key.ts";
import {
  BYTES_IN,
  BYTES_OUT,
  FlowPages,
  GENERATION,
  LAST_MS,
  linksAt,
  numbersAt,
  SESSION_NEXT,
  SESSION_PREVIOUS,
  STARTED_MS,
  STATE,
  WHEEL_NEXT,
  WHEEL_PLACE,
  WHEEL_PREVIOUS,
  wordsAt,
} from "./flow-pages.ts";
import type { CompiledRule } from "./rules.ts";

const NONE = -1;
const WHEEL_TICKS = 8_192; // of one second: longer than the longest idle time
const WHEEL_TICK_MS = SECOND_MS;
const EVICTION_SAMPLE = 4;

// Bits of a flow's state
const ANSWERED = 1; // a packet came from the end that did not open
const FIN_OF_OPENER = 2;
const FIN_OF_OTHER = 4;
const RESET = 8;
const OPENED_BY_LOCAL = 16;

/** A row is a number; it stays the same for as long as the flow lives. */
export class FlowTable {
  readonly #rowsMax: number;
  readonly #perSessionMax: number;
  readonly #pages = new FlowPages();
  readonly #index: FlowIndex;
  #size = 0;

  readonly #sessionHead: number[] = [];
  readonly #sessionTail: number[] = [];
  readonly #sessionSize: number[] = [];
  #sessionsWithFlows = 0;
  #fairCursor = 0;

  readonly #wheel = new Int32Array(WHEEL_TICKS).fill(NONE);
  #tick = Number.NEGATIVE_INFINITY; // every tick up to here has been dealt with
  #soonestTick = Number.POSITIVE_INFINITY; // no row is due before it

  /** The limits are arguments for tests alone. */
  constructor(random: Random, rowsMax = FLOWS_MAX, perSessionMax = FLOWS_PER_SESSION_MAX) {
    this.#rowsMax = rowsMax;
    this.#perSessionMax = perSessionMax;
    this.#index = new FlowIndex(this.#pages, random);
  }

  get size(): number {
    return this.#size;
  }

  /** Rows are below this; some of them are free. */
  get rowsUsed(): number {
    return this.#pages.rows;
  }

  /** Pages of memory held. */
  get pages(): number {
    return this.#pages.count;
  }

  sessionSize(slot: number): number {
    return this.#sessionSize[slot] ?? 0;
  }

  /** The row, or −1. */
  find(key: FlowKey): number {
    return this.#index.find(key.words);
  }

  isLive(row: number): boolean {
    return this.#pages.isTaken(row);
  }

  /**
   * The flow that must go before a new one of this session fits, or −1. A session that is at its own limit gives one of
   * its own; when the table is full, whoever holds more than an equal share does. A session within its share never
   * loses a flow to another.
   */
  victimFor(slot: number): number {
    const own = this.#sessionSize[slot] ?? 0;
    if (own >= this.#perSessionMax) return this.#stalestOf(slot);
    if (this.#size < this.#rowsMax) return NONE;
    const share = this.#rowsMax / (this.#sessionsWithFlows + (own === 0 ? 1 : 0));
    if (own > 0 && own + 1 > share) return this.#stalestOf(slot);
    const slots = this.#sessionSize.length;
    let other = this.#fairCursor;
    for (let step = 0; (this.#sessionSize[other] ?? 0) <= share; other = (other + 1) % slots) {
      assert(step++ < slots, "someone holds more than the mean"); // this session holds less, and the table is full
    }
    this.#fairCursor = other;
    return this.#stalestOf(other);
  }

  /**
   * Of the first few in the session's list a closed one, else the one unused for longest; those looked at go to the end
   * of it.
   */
  #stalestOf(slot: number): number {
    let stalest = this.#sessionHead[slot]!;
    for (let i = 0; i < EVICTION_SAMPLE; i++) {
      const row = this.#sessionHead[slot]!;
      const isStaler = this.isClosed(row) === this.isClosed(stalest) && this.#lastMs(row) < this.#lastMs(stalest);
      if (isStaler || (this.isClosed(row) && !this.isClosed(stalest))) stalest = row;
      this.#unlinkFromSession(row, slot);
      this.#linkToSession(row, slot);
    }
    return stalest;
  }

  /** There must be room: see `victimFor`. */
  insert(key: FlowKey, opener: Direction, rule: CompiledRule, generation: number, nowMs: number): number {
    assert(this.#size < this.#rowsMax, "room in the flow table");
    const row = this.#pages.take(rule);
    this.#index.add(row, key.words);
    const slot = key.words[SESSION_AND_PROTOCOL]! >>> 8;
    this.#linkToSession(row, slot);
    const count = (this.#sessionSize[slot] ?? 0) + 1;
    this.#sessionSize[slot] = count;
    if (count === 1) this.#sessionsWithFlows++;
    const { words, numbers } = this.#pages.of(row);
    const at = wordsAt(row);
    const numbersFrom = numbersAt(row);
    words[at + STATE] = opener === INBOUND ? 0 : OPENED_BY_LOCAL;
    words[at + GENERATION] = generation;
    numbers[numbersFrom + STARTED_MS] = nowMs;
    numbers[numbersFrom + LAST_MS] = nowMs;
    numbers[numbersFrom + BYTES_IN] = 0;
    numbers[numbersFrom + BYTES_OUT] = 0;
    this.#size++;
    this.#schedule(row, nowMs);
    return row;
  }

  remove(row: number): void {
    assert(this.isLive(row), "a live flow");
    const slot = this.slot(row);
    this.#index.remove(row);
    this.#unlinkFromSession(row, slot);
    const count = this.#sessionSize[slot]! - 1;
    this.#sessionSize[slot] = count;
    if (count === 0) this.#sessionsWithFlows--;
    this.#unlinkFromWheel(row);
    this.#pages.give(row);
    this.#size--;
  }

  /** A packet of the flow passes. */
  touch(row: number, direction: Direction, protocol: number, tcpFlags: number, bytes: number, nowMs: number): void {
    const { words, numbers } = this.#pages.of(row);
    const stateAt = wordsAt(row) + STATE;
    const numbersFrom = numbersAt(row);
    numbers[numbersFrom + LAST_MS] = nowMs;
    if (direction === INBOUND) numbers[numbersFrom + BYTES_IN]! += bytes;
    else numbers[numbersFrom + BYTES_OUT]! += bytes;
    const before = words[stateAt]!;
    const byOpener = openerOf(before) === direction;
    let state = before;
    if (!byOpener) state |= ANSWERED;
    if (protocol === PROTOCOL_TCP) {
      // the same ports, a new connection
      if ((tcpFlags & (TCP_SYN | TCP_ACK)) === TCP_SYN && isClosed(state)) state &= OPENED_BY_LOCAL;
      if ((tcpFlags & TCP_FIN) !== 0) state |= byOpener ? FIN_OF_OPENER : FIN_OF_OTHER;
      if ((tcpFlags & TCP_RST) !== 0) state |= RESET;
    }
    if (state === before) return;
    words[stateAt] = state;
    if (isClosed(state) && !isClosed(before)) {
      this.#unlinkFromWheel(row); // due sooner than it was
      this.#schedule(row, nowMs);
    }
  }

  /** Both ways, or by a reset. */
  isClosed(row: number): boolean {
    return isClosed(this.#word(row, STATE));
  }

  slot(row: number): number {
    return this.#word(row, SESSION_AND_PROTOCOL) >>> 8;
  }

  protocol(row: number): number {
    return this.#word(row, SESSION_AND_PROTOCOL) & 0xff;
  }

  remote(row: number): Address {
    return this.#address(row, REMOTE);
  }

  local(row: number): Address {
    return this.#address(row, LOCAL);
  }

  #address(row: number, from: number): Address {
    const { words } = this.#pages.of(row);
    const at = wordsAt(row) + from;
    return { w0: words[at]! >>> 0, w1: words[at + 1]! >>> 0, w2: words[at + 2]! >>> 0, w3: words[at + 3]! >>> 0 };
  }

  remotePort(row: number): number {
    return this.#word(row, PORTS) >>> 16;
  }

  localPort(row: number): number {
    return this.#word(row, PORTS) & 0xffff;
  }

  opener(row: number): Direction {
    return openerOf(this.#word(row, STATE));
  }

  rule(row: number): CompiledRule {
    return this.#pages.rule(row);
  }

  generation(row: number): number {
    return this.#word(row, GENERATION);
  }

  /** The rule that it was last judged by, if that was under this generation and it is not idle. */
  freshRule(row: number, nowMs: number, generation: number): CompiledRule | undefined {
    const { words, numbers } = this.#pages.of(row);
    const at = wordsAt(row);
    if (words[at + GENERATION] !== generation) return undefined;
    const idleForMs = nowMs - numbers[numbersAt(row) + LAST_MS]!;
    // Every flow may be idle for so long: what kind of flow it is need not be known.
    if (idleForMs >= FLOW_IDLE_ICMP_MS && this.isIdle(row, nowMs)) return undefined;
    return this.#pages.rule(row);
  }

  /** After it was judged again. */
  rejudged(row: number, rule: CompiledRule, generation: number): void {
    this.#pages.changeRule(row, rule);
    this.#setWord(row, GENERATION, generation);
  }

  record(row: number, session: string, revision: number, end: FlowEnd | undefined): FlowRecord {
    const inbound = this.opener(row) === INBOUND;
    const { numbers } = this.#pages.of(row);
    const at = numbersAt(row);
    return {
      session,
      opener: inbound ? "remote" : "local",
      source: inbound ? this.remote(row) : this.local(row),
      destination: inbound ? this.local(row) : this.remote(row),
      protocol: this.protocol(row),
      sourcePort: inbound ? this.remotePort(row) : this.localPort(row),
      destinationPort: inbound ? this.localPort(row) : this.remotePort(row),
      ruleId: this.rule(row).id,
      revision,
      startedMs: numbers[at + STARTED_MS]!,
      lastMs: numbers[at + LAST_MS]!,
      bytesIn: numbers[at + BYTES_IN]!,
      bytesOut: numbers[at + BYTES_OUT]!,
      end,
    };
  }

  /** Any flow of the session, or −1. */
  anyOf(slot: number): number {
    return this.#sessionHead[slot] ?? NONE;
  }

  isIdle(row: number, nowMs: number): boolean {
    return nowMs >= this.#dueMs(row);
  }

  /**
   * Calls back for each flow that has been idle too long; the callback removes it. Looks at no more than `rowsMax`
   * flows: then the rest is due at once.
   */
  expire(nowMs: number, rowsMax: number, end: (row: number) => void): void {
    const now = Math.floor(nowMs / WHEEL_TICK_MS);
    if (now < this.#soonestTick) return;
    const from = Math.max(this.#tick + 1, now - WHEEL_TICKS + 1, this.#soonestTick);
    let left = rowsMax;
    for (let tick = from; tick <= now; tick++) {
      let row = this.#wheel[tick % WHEEL_TICKS]!;
      while (row !== NONE) {
        if (left-- === 0) {
          this.#tick = tick - 1;
          this.#soonestTick = tick;
          return;
        }
        const next = this.#link(row, WHEEL_NEXT) - 1;
        if (this.isIdle(row, nowMs)) end(row);
        else if (this.#tickOf(row) > tick) {
          this.#unlinkFromWheel(row);
          this.#schedule(row, nowMs);
        }
        row = next;
      }
    }
    this.#tick = now;
    this.#soonestTick = Number.POSITIVE_INFINITY;
    if (this.#size === 0) return;
    for (let tick = now + 1; tick <= now + WHEEL_TICKS; tick++) {
      if (this.#wheel[tick % WHEEL_TICKS] === NONE) continue;
      this.#soonestTick = tick;
      return;
    }
  }

  /** Infinite when there is no flow. May be early: packets don't move a flow in the wheel. */
  nextDeadlineMs(): number {
    return this.#size === 0 ? Number.POSITIVE_INFINITY : this.#soonestTick * WHEEL_TICK_MS;
  }

  #word(row: number, field: number): number {
    return this.#pages.of(row).words[wordsAt(row) + field]!;
  }

  #setWord(row: number, field: number, value: number): void {
    this.#pages.of(row).words[wordsAt(row) + field] = value;
  }

  #link(row: number, field: number): number {
    return this.#pages.of(row).links[linksAt(row) + field]!;
  }

  #setLink(row: number, field: number, value: number): void {
    this.#pages.of(row).links[linksAt(row) + field] = value;
  }

  #lastMs(row: number): number {
    return this.#pages.of(row).numbers[numbersAt(row) + LAST_MS]!;
  }

  #dueMs(row: number): number {
    return this.#lastMs(row) + idleMs(this.protocol(row), this.#word(row, STATE));
  }

  #tickOf(row: number): number {
    return Math.ceil(this.#dueMs(row) / WHEEL_TICK_MS);
  }

  #schedule(row: number, nowMs: number): void {
    if (this.#tick === Number.NEGATIVE_INFINITY) this.#tick = Math.floor(nowMs / WHEEL_TICK_MS);
    const tick = Math.max(this.#tickOf(row), this.#tick + 1);
    const place = tick % WHEEL_TICKS;
    const head = this.#wheel[place]!;
    this.#setWord(row, WHEEL_PLACE, place + 1);
    this.#setLink(row, WHEEL_PREVIOUS, 0);
    this.#setLink(row, WHEEL_NEXT, head + 1);
    if (head !== NONE) this.#setLink(head, WHEEL_PREVIOUS, row + 1);
    this.#wheel[place] = row;
    if (tick < this.#soonestTick) this.#soonestTick = tick;
  }

  #unlinkFromWheel(row: number): void {
    const next = this.#link(row, WHEEL_NEXT) - 1;
    const previous = this.#link(row, WHEEL_PREVIOUS) - 1;
    if (previous === NONE) this.#wheel[this.#word(row, WHEEL_PLACE) - 1] = next;
    else this.#setLink(previous, WHEEL_NEXT, next + 1);
    if (next !== NONE) this.#setLink(next, WHEEL_PREVIOUS, previous + 1);
  }

  #linkToSession(row: number, slot: number): void {
    const tail = this.#sessionTail[slot] ?? NONE;
    this.#setLink(row, SESSION_PREVIOUS, tail + 1);
    this.#setLink(row, SESSION_NEXT, 0);
    if (tail === NONE) this.#sessionHead[slot] = row;
    else this.#setLink(tail, SESSION_NEXT, row + 1);
    this.#sessionTail[slot] = row;
  }

  #unlinkFromSession(row: number, slot: number): void {
    const next = this.#link(row, SESSION_NEXT) - 1;
    const previous = this.#link(row, SESSION_PREVIOUS) - 1;
    if (previous === NONE) this.#sessionHead[slot] = next;
    else this.#setLink(previous, SESSION_NEXT, next + 1);
    if (next === NONE) this.#sessionTail[slot] = previous;
    else this.#setLink(next, SESSION_PREVIOUS, previous + 1);
  }
}

function openerOf(state: number): Direction {
  return (state & OPENED_BY_LOCAL) === 0 ? INBOUND : OUTBOUND;
}

function isClosed(state: number): boolean {
  return (state & RESET) !== 0 || (state & (FIN_OF_OPENER | FIN_OF_OTHER)) === (FIN_OF_OPENER | FIN_OF_OTHER);
}

function idleMs(protocol: number, state: number): number {
  switch (protocol) {
    case PROTOCOL_TCP:
      if (isClosed(state)) return FLOW_IDLE_TCP_CLOSING_MS;
      return (state & ANSWERED) === 0 ? FLOW_IDLE_TCP_OPENING_MS : FLOW_IDLE_TCP_MS;
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMPV6:
      return FLOW_IDLE_ICMP_MS;
    default:
      return FLOW_IDLE_UDP_MS;
  }
}
