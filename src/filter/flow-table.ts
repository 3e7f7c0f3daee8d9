// Every flow that passes, in columns of numbers that a packet finds without allocating: a chained hash table, a list
// for each session and a timing wheel, all threaded through the same rows. It knows no rules; filter.ts judges, this
// remembers. Hash: multilinear multiply-shift (Dietzfelbinger 1996; Lemire, Kaser 2014 §2): 2-universal under a random
// key, so that nobody can choose ports that share a chain.
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
import { type Random, randomU32 } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../wire/packet.ts";
import type { FlowEnd, FlowRecord } from "./contract.ts";
import {
  type Direction,
  type FlowKey,
  INBOUND,
  KEY_WORDS,
  LOCAL,
  PORTS,
  REMOTE,
  SESSION_AND_PROTOCOL,
} from "./flow-key.ts";
import type { CompiledRule } from "./rules.ts";

const NONE = -1;
const ROWS_FIRST = 1_024;
const BUCKETS_MAX = 131_072; // 17 bits are what the hash can give
const WHEEL_TICKS = 8_192; // of one second: longer than the longest idle time
const WHEEL_TICK_MS = SECOND_MS;
const EVICTION_SAMPLE = 8;

// Bits of #state
const ANSWERED = 1; // a packet came from the end that did not open
const FIN_OF_OPENER = 2;
const FIN_OF_OTHER = 4;
const RESET = 8;

/** A row is a number; it stays the same for as long as the flow lives. */
export class FlowTable {
  readonly #rowsMax: number;
  readonly #perSessionMax: number;
  readonly #seed = new Uint32Array(2 * KEY_WORDS + 1);
  readonly #heads = new Int32Array(BUCKETS_MAX).fill(NONE);

  #capacity = 0;
  #used = 0; // rows ever taken
  #freeRow = NONE; // taken and given back, linked by #chain
  #size = 0;

  #key = new Uint32Array(0);
  #bucket = new Int32Array(0);
  #chain = new Int32Array(0);
  #sessionNext = new Int32Array(0);
  #sessionPrevious = new Int32Array(0);
  #wheelNext = new Int32Array(0);
  #wheelPrevious = new Int32Array(0);
  #wheelTick = new Int32Array(0); // NONE: the row is free
  #opener = new Uint8Array(0);
  #state = new Uint8Array(0);
  #generation = new Float64Array(0);
  #startedMs = new Float64Array(0);
  #lastMs = new Float64Array(0);
  #bytesIn = new Float64Array(0);
  #bytesOut = new Float64Array(0);
  #rule: (CompiledRule | undefined)[] = [];

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
    for (let i = 0; i < this.#seed.length; i++) this.#seed[i] = randomU32(random);
  }

  get size(): number {
    return this.#size;
  }

  /** Rows are below this; some of them are free. */
  get rowsUsed(): number {
    return this.#used;
  }

  sessionSize(slot: number): number {
    return this.#sessionSize[slot] ?? 0;
  }

  #hash(words: Uint32Array): number {
    const seed = this.#seed;
    let sum = seed[2 * KEY_WORDS]!;
    for (let i = 0; i < KEY_WORDS; i++) {
      const word = words[i]!;
      sum = (sum + Math.imul(seed[2 * i]!, word >>> 16) + Math.imul(seed[2 * i + 1]!, word & 0xffff)) | 0;
    }
    return sum >>> 15;
  }

  /** The row, or −1. */
  find(key: FlowKey): number {
    const { words } = key;
    const keys = this.#key;
    for (let row = this.#heads[this.#hash(words)]!; row !== NONE; row = this.#chain[row]!) {
      const at = row * KEY_WORDS;
      if (
        keys[at + 9] === words[9] &&
        keys[at] === words[0] &&
        keys[at + 4] === words[4] &&
        keys[at + 8] === words[8] &&
        keys[at + 3] === words[3] &&
        keys[at + 7] === words[7] &&
        keys[at + 2] === words[2] &&
        keys[at + 6] === words[6] &&
        keys[at + 1] === words[1] &&
        keys[at + 5] === words[5]
      ) {
        return row;
      }
    }
    return NONE;
  }

  isLive(row: number): boolean {
    return this.#wheelTick[row]! >= 0;
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

  /** Of the first few in the session's list the one unused for longest; those looked at go to the end of it. */
  #stalestOf(slot: number): number {
    let stalest = this.#sessionHead[slot]!;
    for (let i = 0; i < EVICTION_SAMPLE; i++) {
      const row = this.#sessionHead[slot]!;
      if (this.#lastMs[row]! < this.#lastMs[stalest]!) stalest = row;
      this.#unlinkFromSession(row, slot);
      this.#linkToSession(row, slot);
    }
    return stalest;
  }

  /** There must be room: see `victimFor`. */
  insert(key: FlowKey, opener: Direction, rule: CompiledRule, generation: number, nowMs: number): number {
    assert(this.#size < this.#rowsMax, "room in the flow table");
    let row = this.#freeRow;
    if (row !== NONE) this.#freeRow = this.#chain[row]!;
    else {
      if (this.#used === this.#capacity) this.#grow();
      row = this.#used++;
    }
    const slot = key.words[SESSION_AND_PROTOCOL]! >>> 8;
    this.#key.set(key.words, row * KEY_WORDS);
    const bucket = this.#hash(key.words);
    this.#bucket[row] = bucket;
    this.#chain[row] = this.#heads[bucket]!;
    this.#heads[bucket] = row;
    this.#linkToSession(row, slot);
    const count = (this.#sessionSize[slot] ?? 0) + 1;
    this.#sessionSize[slot] = count;
    if (count === 1) this.#sessionsWithFlows++;
    this.#opener[row] = opener;
    this.#state[row] = 0;
    this.#generation[row] = generation;
    this.#startedMs[row] = nowMs;
    this.#lastMs[row] = nowMs;
    this.#bytesIn[row] = 0;
    this.#bytesOut[row] = 0;
    this.#rule[row] = rule;
    this.#size++;
    this.#wheelTick[row] = NONE;
    this.#schedule(row, nowMs);
    return row;
  }

  remove(row: number): void {
    assert(this.isLive(row), "a live flow");
    const bucket = this.#bucket[row]!;
    if (this.#heads[bucket] === row) this.#heads[bucket] = this.#chain[row]!;
    else {
      let before = this.#heads[bucket]!;
      while (this.#chain[before] !== row) before = this.#chain[before]!;
      this.#chain[before] = this.#chain[row]!;
    }
    const slot = this.slot(row);
    this.#unlinkFromSession(row, slot);
    const count = this.#sessionSize[slot]! - 1;
    this.#sessionSize[slot] = count;
    if (count === 0) this.#sessionsWithFlows--;
    this.#unlinkFromWheel(row);
    this.#wheelTick[row] = NONE;
    this.#rule[row] = undefined;
    this.#chain[row] = this.#freeRow;
    this.#freeRow = row;
    this.#size--;
  }

  /** A packet of the flow passes. */
  touch(row: number, direction: Direction, protocol: number, tcpFlags: number, bytes: number, nowMs: number): void {
    this.#lastMs[row] = nowMs;
    if (direction === INBOUND) this.#bytesIn[row]! += bytes;
    else this.#bytesOut[row]! += bytes;
    const byOpener = this.#opener[row] === direction;
    const before = this.#state[row]!;
    let state = before;
    if (!byOpener) state |= ANSWERED;
    if (protocol === PROTOCOL_TCP) {
      // the same ports, a new connection
      if ((tcpFlags & (TCP_SYN | TCP_ACK)) === TCP_SYN && isClosed(state)) state = 0;
      if ((tcpFlags & TCP_FIN) !== 0) state |= byOpener ? FIN_OF_OPENER : FIN_OF_OTHER;
      if ((tcpFlags & TCP_RST) !== 0) state |= RESET;
    }
    if (state === before) return;
    this.#state[row] = state;
    if (isClosed(state) && !isClosed(before)) {
      this.#unlinkFromWheel(row); // due sooner than it was
      this.#schedule(row, nowMs);
    }
  }

  /** Both ways, or by a reset. */
  isClosed(row: number): boolean {
    return isClosed(this.#state[row]!);
  }

  slot(row: number): number {
    return this.#key[row * KEY_WORDS]! >>> 8;
  }

  protocol(row: number): number {
    return this.#key[row * KEY_WORDS]! & 0xff;
  }

  remote(row: number): Address {
    return this.#address(row * KEY_WORDS + REMOTE);
  }

  local(row: number): Address {
    return this.#address(row * KEY_WORDS + LOCAL);
  }

  #address(at: number): Address {
    const key = this.#key;
    return { w0: key[at]!, w1: key[at + 1]!, w2: key[at + 2]!, w3: key[at + 3]! };
  }

  remotePort(row: number): number {
    return this.#key[row * KEY_WORDS + PORTS]! >>> 16;
  }

  localPort(row: number): number {
    return this.#key[row * KEY_WORDS + PORTS]! & 0xffff;
  }

  opener(row: number): Direction {
    return this.#opener[row] as Direction;
  }

  rule(row: number): CompiledRule {
    return this.#rule[row]!;
  }

  generation(row: number): number {
    return this.#generation[row]!;
  }

  /** After it was judged again. */
  rejudged(row: number, rule: CompiledRule, generation: number): void {
    this.#rule[row] = rule;
    this.#generation[row] = generation;
  }

  record(row: number, session: string, revision: number, end: FlowEnd | undefined): FlowRecord {
    const inbound = this.#opener[row] === INBOUND;
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
      startedMs: this.#startedMs[row]!,
      lastMs: this.#lastMs[row]!,
      bytesIn: this.#bytesIn[row]!,
      bytesOut: this.#bytesOut[row]!,
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

  /** Calls back for each flow that has been idle too long; the callback removes it. */
  expire(nowMs: number, end: (row: number) => void): void {
    const now = Math.floor(nowMs / WHEEL_TICK_MS);
    if (now < this.#soonestTick) return;
    const from = Math.max(this.#tick + 1, now - WHEEL_TICKS + 1, this.#soonestTick);
    for (let tick = from; tick <= now; tick++) {
      let row = this.#wheel[tick % WHEEL_TICKS]!;
      while (row !== NONE) {
        const next = this.#wheelNext[row]!;
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

  #dueMs(row: number): number {
    return this.#lastMs[row]! + idleMs(this.protocol(row), this.#state[row]!);
  }

  #tickOf(row: number): number {
    return Math.ceil(this.#dueMs(row) / WHEEL_TICK_MS);
  }

  #schedule(row: number, nowMs: number): void {
    if (this.#tick === Number.NEGATIVE_INFINITY) this.#tick = Math.floor(nowMs / WHEEL_TICK_MS);
    const tick = Math.max(this.#tickOf(row), this.#tick + 1);
    const place = tick % WHEEL_TICKS;
    const head = this.#wheel[place]!;
    this.#wheelTick[row] = place;
    this.#wheelPrevious[row] = NONE;
    this.#wheelNext[row] = head;
    if (head !== NONE) this.#wheelPrevious[head] = row;
    this.#wheel[place] = row;
    if (tick < this.#soonestTick) this.#soonestTick = tick;
  }

  #unlinkFromWheel(row: number): void {
    const next = this.#wheelNext[row]!;
    const previous = this.#wheelPrevious[row]!;
    if (previous === NONE) this.#wheel[this.#wheelTick[row]!] = next;
    else this.#wheelNext[previous] = next;
    if (next !== NONE) this.#wheelPrevious[next] = previous;
  }

  #linkToSession(row: number, slot: number): void {
    const tail = this.#sessionTail[slot] ?? NONE;
    this.#sessionPrevious[row] = tail;
    this.#sessionNext[row] = NONE;
    if (tail === NONE) this.#sessionHead[slot] = row;
    else this.#sessionNext[tail] = row;
    this.#sessionTail[slot] = row;
  }

  #unlinkFromSession(row: number, slot: number): void {
    const next = this.#sessionNext[row]!;
    const previous = this.#sessionPrevious[row]!;
    if (previous === NONE) this.#sessionHead[slot] = next;
    else this.#sessionNext[previous] = next;
    if (next === NONE) this.#sessionTail[slot] = previous;
    else this.#sessionPrevious[next] = previous;
  }

  #grow(): void {
    const capacity = Math.min(this.#rowsMax, Math.max(ROWS_FIRST, this.#capacity * 2));
    const key = new Uint32Array(capacity * KEY_WORDS);
    key.set(this.#key);
    this.#key = key;
    this.#bucket = grown(this.#bucket, new Int32Array(capacity));
    this.#chain = grown(this.#chain, new Int32Array(capacity));
    this.#sessionNext = grown(this.#sessionNext, new Int32Array(capacity));
    this.#sessionPrevious = grown(this.#sessionPrevious, new Int32Array(capacity));
    this.#wheelNext = grown(this.#wheelNext, new Int32Array(capacity));
    this.#wheelPrevious = grown(this.#wheelPrevious, new Int32Array(capacity));
    this.#wheelTick = grown(this.#wheelTick, new Int32Array(capacity).fill(NONE));
    this.#opener = grown(this.#opener, new Uint8Array(capacity));
    this.#state = grown(this.#state, new Uint8Array(capacity));
    this.#generation = grown(this.#generation, new Float64Array(capacity));
    this.#startedMs = grown(this.#startedMs, new Float64Array(capacity));
    this.#lastMs = grown(this.#lastMs, new Float64Array(capacity));
    this.#bytesIn = grown(this.#bytesIn, new Float64Array(capacity));
    this.#bytesOut = grown(this.#bytesOut, new Float64Array(capacity));
    this.#capacity = capacity;
  }
}

function grown<T extends Int32Array | Uint8Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
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
