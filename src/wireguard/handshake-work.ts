// When the costly part of handshakes is done, and when there is too much of it. One message at a time: after each the
// device rests for as long as keeps handshakes within their share of the time, so that data goes first and no turn
// holds more than one. While data flows, or where it was slow to open, an initiation is worked on in three turns: to
// open it, and its answer in two halves. What comes meanwhile waits. "Under load" [WG §5.4.7] is decided by the work
// that waits, by its cost on this machine, not by counting what came in.
import {
  HANDSHAKE_LOAD_WAIT_MS,
  HANDSHAKE_SHARE_BUSY,
  HANDSHAKE_SHARE_QUIET,
  HANDSHAKE_TURN_MS,
  HANDSHAKES_WAITING_MAX,
} from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";

/** A clock for durations, in ms with fractions: what it says at two moments differs by the time between them. */
export type Stopwatch = () => number;

/** Data that flowed so lately competes with handshakes for the thread. */
const BUSY_MS = 20;
/** A pause of the whole machine within one message says nothing of the next one's cost. */
const COST_MAX_MS = 5;
const COST_WEIGHT = 1 / 8; // of the newest message in the running average
const LOADED_FOR_MS = SECOND_MS; // after the last moment with too much work, as the other implementations

export class HandshakeWork {
  readonly #stopwatch: Stopwatch;
  readonly #cpuStopwatch: Stopwatch;
  #startedMs = 0;
  #cpuStartedMs = 0;
  #workedMs = Number.NEGATIVE_INFINITY;
  #readyMs = Number.NEGATIVE_INFINITY;
  #isAnswerDue = false;
  #costMs = 0;
  #lastDataMs = Number.NEGATIVE_INFINITY;
  #loadedUntilMs = Number.NEGATIVE_INFINITY;
  /** Since the beginning. */
  spentMs = 0;
  /** Pieces of work, of which a turn holds one: a message, or a part of one. */
  messages = 0;
  /** Those of them that took more of the CPU than HANDSHAKE_TURN_MS, and what the longest took. */
  longMessages = 0;
  longestMs = 0;

  /** The second one stands still while the thread waits for a CPU; the first one, unless given. */
  constructor(stopwatch: Stopwatch, cpuStopwatch = stopwatch) {
    this.#stopwatch = stopwatch;
    this.#cpuStopwatch = cpuStopwatch;
  }

  /** The earliest moment for the next message. */
  get readyMs(): number {
    return this.#readyMs;
  }

  isReady(nowMs: number): boolean {
    return nowMs >= this.#readyMs;
  }

  /** We have asked: one answer may come ahead of the pause that our asking made. It lengthens that pause. */
  noteAsked(): void {
    this.#isAnswerDue = true;
  }

  /** True once for each time that we have asked, whoever answers: what else comes waits. */
  takeAnswer(): boolean {
    const isDue = this.#isAnswerDue;
    this.#isAnswerDue = false;
    return isDue;
  }

  noteData(nowMs: number): void {
    this.#lastDataMs = nowMs;
  }

  begin(): void {
    this.#cpuStartedMs = this.#cpuStopwatch();
    this.#startedMs = this.#stopwatch();
  }

  /**
   * Another part of the same message's work, of which there are three, may follow in this turn: so little time has
   * passed since `begin`, and no data waits.
   */
  hasRoom(nowMs: number): boolean {
    return !this.#isBusy(nowMs) && this.#stopwatch() - this.#startedMs <= HANDSHAKE_TURN_MS / 2;
  }

  /** When a message, or a part of one, was last worked on: the time of that turn. */
  get workedMs(): number {
    return this.#workedMs;
  }

  /** A message, or a part of one, has been worked on in this turn. */
  hasWorked(nowMs: number): boolean {
    return nowMs === this.#workedMs;
  }

  /** `nowMs` is the turn's. */
  end(nowMs: number): void {
    const tookMs = this.#stopwatch() - this.#startedMs;
    this.#workedMs = nowMs;
    this.spentMs += tookMs;
    this.messages++;
    const cpuMs = this.#cpuStopwatch() - this.#cpuStartedMs;
    if (cpuMs > HANDSHAKE_TURN_MS) this.longMessages++;
    if (cpuMs > this.longestMs) this.longestMs = cpuMs;
    const costMs = Math.min(tookMs, COST_MAX_MS);
    this.#costMs = this.#costMs === 0 ? costMs : this.#costMs + (costMs - this.#costMs) * COST_WEIGHT;
    this.#readyMs = Math.max(nowMs, this.#readyMs) + costMs / this.#share(nowMs);
  }

  /** So many messages wait. */
  noteWaiting(nowMs: number, count: number): void {
    const waitMs = (count * this.#costMs) / this.#share(nowMs);
    if (waitMs > HANDSHAKE_LOAD_WAIT_MS) this.#loadedUntilMs = nowMs + LOADED_FOR_MS;
  }

  isLoaded(nowMs: number): boolean {
    return nowMs < this.#loadedUntilMs;
  }

  #isBusy(nowMs: number): boolean {
    return nowMs - this.#lastDataMs < BUSY_MS;
  }

  #share(nowMs: number): number {
    return this.#isBusy(nowMs) ? HANDSHAKE_SHARE_BUSY : HANDSHAKE_SHARE_QUIET;
  }
}

/**
 * Who waits: strangers; who showed that it receives where it sends from (mac2); who has been authenticated from that
 * source before, or answers us. They take turns, so that a flood of one kind leaves the others their part.
 */
export const LANES = ["stranger", "proven", "known"] as const;
export type Lane = (typeof LANES)[number];

/**
 * Within a lane the newest goes first: when there is too much for all, those just come are served within the moment and
 * those who have waited long give way, where in order of arrival everyone would come too late.
 */
export class HandshakeQueue<T> {
  readonly #lanes: Readonly<Record<Lane, Stack<T>>> = {
    stranger: new Stack(HANDSHAKES_WAITING_MAX),
    proven: new Stack(HANDSHAKES_WAITING_MAX),
    known: new Stack(HANDSHAKES_WAITING_MAX),
  };
  #turn = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The message that gave way, if the lane was full. */
  push(lane: Lane, item: T): T | undefined {
    const pushedOut = this.#lanes[lane].push(item);
    if (pushedOut === undefined) this.#size++;
    return pushedOut;
  }

  take(): T | undefined {
    for (let tries = 0; tries < LANES.length; tries++) {
      this.#turn = (this.#turn + 1) % LANES.length;
      const item = this.#lanes[LANES[this.#turn]!].pop();
      if (item === undefined) continue;
      this.#size--;
      return item;
    }
    return undefined;
  }
}

/** Last in, first out, of fixed capacity: at capacity the oldest makes room. */
class Stack<T> {
  readonly #items: (T | undefined)[];
  #next = 0;
  #size = 0;

  constructor(capacity: number) {
    this.#items = new Array<T | undefined>(capacity);
  }

  push(item: T): T | undefined {
    const capacity = this.#items.length;
    const oldest = this.#size === capacity ? this.#items[this.#next] : undefined;
    this.#items[this.#next] = item;
    this.#next = (this.#next + 1) % capacity;
    if (this.#size < capacity) this.#size++;
    return oldest;
  }

  pop(): T | undefined {
    if (this.#size === 0) return undefined;
    this.#size--;
    this.#next = (this.#next + this.#items.length - 1) % this.#items.length;
    const item = this.#items[this.#next];
    this.#items[this.#next] = undefined;
    return item;
  }
}
