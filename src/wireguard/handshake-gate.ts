// What a handshake message with a right mac1 must pass before any Diffie–Hellman: at once when nothing else is at work;
// else it waits its turn; under load only who shows a cookie, is known, or asks for the first time in a while may wait,
// each as often as its source's buckets allow, and anyone else is offered a cookie [WG §5.4.7].
import type { Endpoint } from "../base/address.ts";
import {
  COOKIES_PER_SECOND_MAX,
  HANDSHAKE_WAIT_MAX_MS,
  KNOWN_SOURCES_MAX,
  RATE_LIMITER_SOURCES_MAX,
} from "../base/limits.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { SECOND_MS } from "../base/units.ts";
import { COOKIE_REPLY_BYTES } from "../wire/wireguard.ts";
import type { CookieAnswerer } from "./cookies.ts";
import { HandshakeQueue, type HandshakeWork, type Lane } from "./handshake-work.ts";
import {
  COOKIES_BURST,
  COOKIES_PER_SOURCE_BURST,
  COOKIES_PER_SOURCE_PER_SECOND,
  HANDSHAKES_PER_SOURCE_BURST,
  HANDSHAKES_PER_SOURCE_PER_SECOND,
  RateLimiter,
  type SourceKey,
  STRANGER_ASKS_EVERY_MS,
  sourceKey,
} from "./rate-limiter.ts";
import type { DeviceCounters } from "./received.ts";

/** "asks": an initiation. Else a response to an initiation of ours, "doubted" when many forged ones came before it. */
export type Standing = "asks" | "answers" | "doubted";

export type Admission = "NOW" | "HANDSHAKE_WAITING" | "COOKIE_REQUIRED" | "RATE_LIMITED";

export interface WaitingMessage {
  readonly from: Endpoint;
  readonly bytes: Uint8Array;
  readonly sinceMs: number;
}

/** Sends a cookie reply of COOKIE_REPLY_BYTES. */
export type SendCookie = (nowMs: number, to: Endpoint, reply: Uint8Array) => void;

export class HandshakeGate {
  readonly #cookies: CookieAnswerer;
  readonly #work: HandshakeWork;
  readonly #counters: DeviceCounters;
  readonly #sendCookie: SendCookie;
  readonly #queue = new HandshakeQueue<WaitingMessage>();
  readonly #proven = new RateLimiter(
    RATE_LIMITER_SOURCES_MAX,
    HANDSHAKES_PER_SOURCE_PER_SECOND,
    HANDSHAKES_PER_SOURCE_BURST,
  );
  /** Only who was authenticated gets into it, so that no flood can push out who is in it. */
  readonly #known = new RateLimiter(KNOWN_SOURCES_MAX, HANDSHAKES_PER_SOURCE_PER_SECOND, HANDSHAKES_PER_SOURCE_BURST);
  readonly #strangers = new RateLimiter(RATE_LIMITER_SOURCES_MAX, SECOND_MS / STRANGER_ASKS_EVERY_MS, 1);
  readonly #answered = new RateLimiter(
    RATE_LIMITER_SOURCES_MAX,
    COOKIES_PER_SOURCE_PER_SECOND,
    COOKIES_PER_SOURCE_BURST,
  );
  readonly #replies = new TokenBucket(0, COOKIES_PER_SECOND_MAX, COOKIES_BURST);

  constructor(cookies: CookieAnswerer, work: HandshakeWork, counters: DeviceCounters, sendCookie: SendCookie) {
    this.#cookies = cookies;
    this.#work = work;
    this.#counters = counters;
    this.#sendCookie = sendCookie;
  }

  get waiting(): number {
    return this.#queue.size;
  }

  /** How full the tables of sources are. */
  tables(): readonly { readonly size: number; readonly limit: number }[] {
    return [this.#proven, this.#known, this.#strangers, this.#answered].map(({ size, limit }) => ({ size, limit }));
  }

  /** NOW: nothing stands before it. Anything else: it is kept, or done with. */
  admit(
    nowMs: number,
    from: Endpoint,
    buffer: Uint8Array,
    offset: number,
    length: number,
    standing: Standing,
  ): Admission {
    const isAnswer = standing === "answers" && !this.#work.hasWorked(nowMs);
    const mayGo = this.#work.isReady(nowMs) || (isAnswer && this.#work.takeAnswer());
    const isIdle = this.#queue.size === 0 && mayGo;
    const isStrict = standing === "doubted" || this.#work.isLoaded(nowMs);
    if (isIdle && !isStrict) return "NOW";
    const key = sourceKey(from.address);
    let lane: Lane | "RATE_LIMITED" | undefined;
    if (isStrict) lane = this.#laneUnderLoad(nowMs, from, key, buffer, offset, length, standing);
    else lane = standing === "answers" || this.#known.has(key) ? "known" : "stranger";
    if (lane === "RATE_LIMITED") return lane;
    if (lane === undefined) return this.#offerCookie(nowMs, from, key, buffer, offset, length);
    if (isIdle) return "NOW";
    this.#wait(nowMs, from, buffer, offset, length, lane);
    return "HANDSHAKE_WAITING";
  }

  /** The next that is still worth its work. */
  next(nowMs: number): WaitingMessage | undefined {
    for (let message = this.#queue.take(); message !== undefined; message = this.#queue.take()) {
      if (nowMs - message.sinceMs < HANDSHAKE_WAIT_MAX_MS) return message;
      this.#counters.HANDSHAKE_STALE++;
    }
    return undefined;
  }

  /** A peer of ours has made a handshake from there: what comes from there next goes ahead of strangers. */
  noteAuthenticated(nowMs: number, from: Endpoint): void {
    this.#known.remember(nowMs, sourceKey(from.address));
  }

  /** Undefined: nothing speaks for it, it may try again with a cookie. */
  #laneUnderLoad(
    nowMs: number,
    from: Endpoint,
    key: SourceKey,
    buffer: Uint8Array,
    offset: number,
    length: number,
    standing: Standing,
  ): Lane | "RATE_LIMITED" | undefined {
    if (this.#cookies.checkMac2(nowMs, buffer, offset, length, from)) {
      return this.#proven.allows(nowMs, key) ? "proven" : "RATE_LIMITED";
    }
    if (standing === "doubted") return undefined;
    if (standing === "answers" && this.#proven.allows(nowMs, key)) return "known";
    if (this.#known.has(key) && this.#known.allows(nowMs, key)) return "known";
    return this.#strangers.allows(nowMs, key) ? "stranger" : undefined;
  }

  #wait(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number, lane: Lane): void {
    const bytes = new Uint8Array(buffer.subarray(offset, offset + length));
    const pushedOut = this.#queue.push(lane, { from, bytes, sinceMs: nowMs });
    this.#work.noteWaiting(nowMs, this.#queue.size);
    if (pushedOut === undefined) return;
    this.#counters.HANDSHAKE_PUSHED_OUT++;
    const key = sourceKey(pushedOut.from.address);
    this.#offerCookie(nowMs, pushedOut.from, key, pushedOut.bytes, 0, pushedOut.bytes.length);
  }

  /**
   * Replies are bounded, over all sources. A source that has had its own part gets what the others leave: so who forges
   * a peer's address can't use up that peer's cookies.
   */
  #offerCookie(
    nowMs: number,
    from: Endpoint,
    key: SourceKey,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): "COOKIE_REQUIRED" | "RATE_LIMITED" {
    const spare = this.#answered.allows(nowMs, key) ? 0 : COOKIES_BURST / 2;
    if (!this.#replies.take(nowMs, spare)) {
      this.#counters.COOKIES_WITHHELD++;
      return "RATE_LIMITED";
    }
    const reply = this.#cookies.createReply(nowMs, buffer, offset, length, from);
    this.#counters.COOKIES_SENT++;
    this.#sendCookie(nowMs, from, reply.subarray(0, COOKIE_REPLY_BYTES));
    return "COOKIE_REQUIRED";
  }
}
