// One peer's end of the protocol: its sessions (previous, current, next), the handshake in flight, packets that wait
// for it, and what happened when [WG §6]. A Device owns tunnels and hands them their messages; nobody else calls the
// methods marked "by the device".
import { type Endpoint, equalEndpoint } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import type { DeadlineHeap } from "../base/deadline-heap.ts";
import { DOUBLE_ZERO } from "../base/double-zero.ts";
import { type Random, randomBelow } from "../base/random.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import {
  DATA_HEADER_BYTES,
  DATA_MIN_BYTES,
  encodeInitiation,
  encodeResponse,
  type Response,
} from "../wire/wireguard.ts";
import { Answer } from "./answer.ts";
import { CookieAsker } from "./cookies.ts";
import {
  dueReason,
  KEEPALIVE_TIMEOUT_MS,
  nextDeadlineMs,
  REJECT_AFTER_TIME_MS,
  REKEY_JITTER_MAX_MS,
  REKEY_TIMEOUT_MS,
  TunnelTimes,
} from "./deadlines.ts";
import {
  consumeResponse,
  createInitiation,
  type InitiatorState,
  newEphemeral,
  type ResponderState,
  wipeHandshake,
} from "./handshake.ts";
import type { HandshakeWork } from "./handshake-work.ts";
import type { IndexTable } from "./index-table.ts";
import type { DeviceCounters } from "./received.ts";
import { Session } from "./session.ts";
import { PADDING_BYTES, STAGED_ROOM_BYTES, StagedPackets } from "./staged-packets.ts";
import { compareTai64n, nextTai64n } from "./tai64n.ts";

export type MessageKind = "initiation" | "response" | "cookie" | "data";

export type SendResult = "SENT" | "STAGED" | "DROPPED_TOO_LARGE" | "DROPPED_NO_PEER";

/** What the device tells and asks of the layer around it. Called inside a turn; must not throw. */
export interface DeviceSink<Owner> {
  /**
   * Send one WireGuard message. `to` undefined: the path layer chooses (`tunnel.endpoint`, or all candidates for an
   * initiation). `tunnel` is undefined for cookie replies. The bytes are valid during the call only.
   */
  sendDatagram(
    nowMs: number,
    tunnel: Tunnel<Owner> | undefined,
    to: Endpoint | undefined,
    kind: MessageKind,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void;
  /** A new session can send. Called before staged packets are flushed, so that what must go first (a lease) can. */
  sessionStarted(nowMs: number, tunnel: Tunnel<Owner>, role: "initiator" | "responder"): void;
  /** REKEY_ATTEMPT_TIME passed without an answer; staged packets are gone. The next packet begins another attempt. */
  handshakeFailed(nowMs: number, tunnel: Tunnel<Owner>): void;
  /**
   * The peer's authenticated messages come from another endpoint than before (roaming, [WG §2.1]); or a handshake
   * message that had to wait was found authentic, from whatever endpoint.
   */
  endpointChanged(nowMs: number, tunnel: Tunnel<Owner>, endpoint: Endpoint): void;
}

/** What all tunnels of a device share. */
export interface TunnelContext<Owner> {
  readonly crypto: Crypto;
  readonly random: Random;
  readonly keyPair: KeyPair;
  readonly sink: DeviceSink<Owner>;
  readonly indexes: IndexTable<Tunnel<Owner>>;
  readonly heap: DeadlineHeap<Tunnel<Owner>>;
  readonly counters: DeviceCounters;
  readonly work: HandshakeWork;
  /** Whose initiations wait for their turn, in the order of their asking. */
  readonly deferred: Set<Tunnel<Owner>>;
  mtuBytes: number;
  /** The greatest TAI64N stamp ever sent to anyone. */
  lastTimestamp: Uint8Array | undefined;
}

export interface TunnelOptions<Owner> {
  readonly owner: Owner;
  /** X25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes. */
  readonly presharedKey?: Uint8Array;
  /** None when undefined. */
  readonly persistentKeepaliveMs?: number;
  readonly endpoint?: Endpoint;
}

const NEVER = Number.POSITIVE_INFINITY;
const INITIATIONS_MIN_INTERVAL_MS = 20; // as the kernel and wireguard-go: at most 50 a second of one peer

/** Not slice(): of a Buffer that is a view. */
function copyOf(key: Uint8Array | undefined): Uint8Array | undefined {
  return key === undefined ? undefined : new Uint8Array(key);
}

export class Tunnel<Owner> {
  readonly owner: Owner;
  readonly publicKey: Uint8Array;
  /** Last authenticated source, or as configured. */
  endpoint: Endpoint | undefined;
  /** When the last handshake completed; undefined before the first. */
  lastHandshakeMs: number | undefined;
  /** Of WireGuard messages, handshakes and headers included. */
  bytesIn = DOUBLE_ZERO;
  bytesOut = DOUBLE_ZERO;

  /** Place in the device's deadline heap. */
  scheduledMs = NEVER;
  heapIndex = -1;

  readonly times = new TunnelTimes();
  readonly #context: TunnelContext<Owner>;
  readonly #cookies: CookieAsker;
  #presharedKey: Uint8Array | undefined;
  #staticShared: Uint8Array | undefined;
  #previous: Session | undefined;
  #current: Session | undefined;
  /** As responder: made by our response, confirmed by the first data message under it [WG §5.4.5]. */
  #next: Session | undefined;
  #pending: { readonly state: InitiatorState; readonly localIndex: number; forged: number } | undefined;
  /** Who asked, and is to be answered in this turn or the next ones. */
  #asked: Answer | undefined;
  readonly #staged = new StagedPackets();
  #lastSentTimestamp: Uint8Array | undefined;
  #lastReceivedTimestamp: Uint8Array | undefined;
  #lastInitiationReceivedMs = -NEVER;
  #removed = false;

  constructor(context: TunnelContext<Owner>, options: TunnelOptions<Owner>) {
    this.#context = context;
    this.owner = options.owner;
    this.publicKey = new Uint8Array(options.publicKey);
    this.endpoint = options.endpoint;
    this.#presharedKey = copyOf(options.presharedKey);
    this.#cookies = new CookieAsker(context.crypto, this.publicKey);
    this.#lastSentTimestamp = context.lastTimestamp;
  }

  get removed(): boolean {
    return this.#removed;
  }

  get stagedPackets(): number {
    return this.#staged.size;
  }

  /** A packet given now would be sent at once. */
  hasSession(nowMs: number): boolean {
    return this.#current?.canSend(nowMs) === true;
  }

  /** A handshake is wanted and not done. */
  get isHandshaking(): boolean {
    return this.times.attemptStartedMs !== NEVER;
  }

  // What follows is called by the device.

  setPresharedKey(key: Uint8Array | undefined): void {
    this.#presharedKey?.fill(0);
    this.#presharedKey = copyOf(key);
  }

  /** Undefined or 0: none. Sends one at once, as wg(8) does when the interval is set, so that a NAT is opened. */
  setPersistentKeepalive(nowMs: number, intervalMs: number | undefined): void {
    const wanted = intervalMs === undefined || intervalMs <= 0 ? NEVER : intervalMs;
    if (wanted === this.times.persistentKeepaliveMs) return;
    this.times.persistentKeepaliveMs = wanted;
    if (wanted === NEVER) return;
    this.times.lastTraversalMs = nowMs;
    this.#sendKeepalive(nowMs);
    this.#reschedule();
  }

  /** As a persistent keepalive, but from the next silence on: nothing is sent now. Undefined: no more. */
  keepOpen(intervalMs: number | undefined): void {
    this.times.persistentKeepaliveMs = intervalMs ?? NEVER;
    this.#reschedule();
  }

  send(nowMs: number, buffer: Uint8Array, offset: number, length: number): SendResult {
    if (this.#removed) return "DROPPED_NO_PEER";
    if (length > this.#context.mtuBytes) {
      this.#context.counters.PACKET_TOO_LARGE++;
      return "DROPPED_TOO_LARGE";
    }
    const session = this.#current;
    if (session?.canSend(nowMs)) {
      this.#sendData(nowMs, session, buffer, offset, length);
      return "SENT";
    }
    this.#stage(buffer, offset, length);
    this.startHandshake(nowMs);
    return "STAGED";
  }

  /**
   * Begins an attempt unless one is on. Never two initiations within REKEY_TIMEOUT: a too early attempt waits for its
   * deadline.
   */
  startHandshake(nowMs: number): void {
    if (this.#removed) return;
    if (this.times.attemptStartedMs === NEVER) this.times.attemptStartedMs = nowMs;
    if (nowMs >= this.times.lastHandshakeSentMs + REKEY_TIMEOUT_MS) this.#sendInitiation(nowMs);
    this.#reschedule();
  }

  /** The initiator's static key was found to be ours: DH(S, S), computed once. */
  staticShared(): Uint8Array {
    if (this.#staticShared === undefined) {
      const shared = this.#context.crypto.dh(this.#context.keyPair.privateKey, this.publicKey);
      assert(shared !== undefined, "a low-order key is refused when the peer is added");
      this.#staticShared = shared;
    }
    return this.#staticShared;
  }

  /** After both halves of message 1 were opened: whether it is to be answered, by `answer`. */
  acceptInitiation(
    nowMs: number,
    from: Endpoint,
    state: ResponderState,
    remoteIndex: number,
    timestamp: Uint8Array,
  ): "HANDSHAKE" | "TIMESTAMP_OLD" | "INITIATION_TOO_SOON" {
    if (this.#lastReceivedTimestamp !== undefined && compareTai64n(timestamp, this.#lastReceivedTimestamp) <= 0) {
      return "TIMESTAMP_OLD";
    }
    if (nowMs - this.#lastInitiationReceivedMs < INITIATIONS_MIN_INTERVAL_MS) return "INITIATION_TOO_SOON";
    this.#lastReceivedTimestamp = timestamp;
    this.#lastInitiationReceivedMs = nowMs;
    this.#dropAsked();
    this.#asked = new Answer(from, state, remoteIndex);
    return "HANDSHAKE";
  }

  /** Half of an answer's work; true once message 2 went to where message 1 came from. */
  answer(nowMs: number): boolean {
    const { crypto, random, indexes, counters } = this.#context;
    const asked = this.#asked;
    if (asked === undefined) return true;
    if (asked.prepare(crypto, random)) return false;
    this.#asked = undefined;
    const { from, remoteIndex } = asked;
    const response = asked.finish(crypto, this.publicKey, this.#presharedKey);
    const localIndex = indexes.allocate(this);
    const session = new Session(crypto, response.keys, "responder", localIndex, remoteIndex, nowMs);
    indexes.bind(localIndex, session);
    this.#drop(this.#next);
    this.#drop(this.#previous);
    this.#previous = undefined;
    this.#next = session;
    this.times.keysMadeMs = nowMs;

    const message = encodeResponse({ senderIndex: localIndex, receiverIndex: remoteIndex, ...response.fields });
    this.#cookies.addMacs(nowMs, message);
    this.#noteSource(nowMs, from);
    this.#noteReceived();
    counters.RESPONSES_SENT++;
    this.#sendHandshake(nowMs, from, "response", message);
    this.#reschedule();
    return true;
  }

  /**
   * Message 2, found by the index that our message 1 carried. A forged one leaves the handshake in flight as it was.
   */
  acceptResponse(
    nowMs: number,
    from: Endpoint,
    response: Response,
  ): "HANDSHAKE" | "RESPONSE_FORGED" | "LOW_ORDER_POINT" | "UNKNOWN_INDEX" {
    const { crypto, keyPair, indexes, sink } = this.#context;
    const pending = this.#pending;
    if (pending === undefined || pending.localIndex !== response.receiverIndex) return "UNKNOWN_INDEX";
    const accepted = consumeResponse(crypto, pending.state, keyPair, this.#presharedKey, response);
    if (typeof accepted === "string") {
      pending.forged++;
      return accepted;
    }
    wipeHandshake(pending.state);
    this.#pending = undefined;

    const session = new Session(crypto, accepted.keys, "initiator", pending.localIndex, response.senderIndex, nowMs);
    indexes.bind(pending.localIndex, session);
    this.#drop(this.#previous);
    if (this.#next !== undefined) {
      // Both ends asked at once: the other end may already send under the session that it began.
      this.#drop(this.#current);
      this.#previous = this.#next;
      this.#next = undefined;
    } else {
      this.#previous = this.#current;
    }
    this.#current = session;
    this.times.keysMadeMs = nowMs;
    this.#noteSource(nowMs, from);
    this.#noteReceived();
    this.#handshakeCompleted(nowMs);
    sink.sessionStarted(nowMs, this, "initiator");
    this.#flushStaged(nowMs);
    if (session.hasSentNothing) this.#sendKeepalive(nowMs); // confirms the session to the responder [WG §5.4.5]
    this.#reschedule();
    return "HANDSHAKE";
  }

  /** Responses to the initiation of this index that were no true ones; undefined: none is waited for. */
  forgedResponses(localIndex: number): number | undefined {
    return this.#pending?.localIndex === localIndex ? this.#pending.forged : undefined;
  }

  /** A cookie reply, found by the index of a message we sent. */
  acceptCookie(nowMs: number, reply: Parameters<CookieAsker["consumeReply"]>[1]): boolean {
    return this.#cookies.consumeReply(nowMs, reply);
  }

  /** After a data message of this session has been opened. */
  noteData(nowMs: number, from: Endpoint, session: Session, messageBytes: number): void {
    const times = this.times;
    this.bytesIn += messageBytes;
    if (this.endpoint === undefined || !equalEndpoint(this.endpoint, from)) this.#noteSource(nowMs, from);
    times.firstSentUnansweredMs = NEVER;
    times.lastTraversalMs = nowMs;
    if (session === this.#next) this.#confirm(nowMs, session);
    if (messageBytes > DATA_MIN_BYTES && times.firstReceivedUnansweredMs === NEVER) {
      times.firstReceivedUnansweredMs = nowMs;
      this.#scheduleBy(nowMs + KEEPALIVE_TIMEOUT_MS);
    }
    // [WG §6.2] Who only receives renews too, late, as long as an answer still fits.
    if (
      session === this.#current &&
      session.role === "initiator" &&
      nowMs - session.createdMs >= REJECT_AFTER_TIME_MS - KEEPALIVE_TIMEOUT_MS - REKEY_TIMEOUT_MS &&
      !this.isHandshaking
    ) {
      this.startHandshake(nowMs);
    }
  }

  /** Does what is due and says when to come again (through the heap). */
  handleTimeout(nowMs: number): void {
    const { counters, sink } = this.#context;
    for (let reason = dueReason(this.times, nowMs); reason !== undefined; reason = dueReason(this.times, nowMs)) {
      switch (reason) {
        case "give-up":
          this.#giveUp(nowMs);
          counters.HANDSHAKES_GIVEN_UP++;
          sink.handshakeFailed(nowMs, this);
          break;
        case "zero-keys":
          this.#zeroKeys();
          break;
        case "no-answer":
          this.times.firstSentUnansweredMs = NEVER;
          this.startHandshake(nowMs);
          break;
        case "retry-handshake":
          this.#sendInitiation(nowMs);
          break;
        case "keepalive":
          this.times.firstReceivedUnansweredMs = NEVER;
          if (this.hasSession(nowMs)) this.#sendKeepalive(nowMs);
          break;
        case "persistent-keepalive":
          this.times.lastTraversalMs = nowMs;
          this.#sendKeepalive(nowMs);
          break;
      }
    }
    this.#reschedule();
  }

  /** Overwrites every key and drops what is staged: nothing can be sent or received until a new handshake. */
  expireSessions(): void {
    this.#zeroKeys();
    this.#clearStaged();
    this.#endAttempt();
    this.times.firstSentUnansweredMs = NEVER;
    this.times.firstReceivedUnansweredMs = NEVER;
    this.#reschedule();
  }

  /** The tunnel is gone; any later call is without effect. */
  remove(): void {
    this.#removed = true;
    this.times.persistentKeepaliveMs = NEVER;
    this.expireSessions();
    this.#context.heap.remove(this);
    this.#presharedKey?.fill(0);
    this.#staticShared?.fill(0);
    this.#presharedKey = undefined;
    this.#staticShared = undefined;
  }

  #sendData(nowMs: number, session: Session, buffer: Uint8Array, offset: number, length: number): void {
    const times = this.times;
    this.#context.counters.DATA_SENT++;
    this.#sealAndSend(nowMs, session, buffer, offset, length);
    if (times.firstSentUnansweredMs === NEVER) {
      times.firstSentUnansweredMs = nowMs;
      times.answerJitterMs = this.#jitterMs();
      this.#scheduleBy(nowMs + KEEPALIVE_TIMEOUT_MS + REKEY_TIMEOUT_MS + times.answerJitterMs);
    }
  }

  /** [WG §5.4.6] Padded with zeros to 16 bytes, never above the MTU. */
  #sealAndSend(nowMs: number, session: Session, buffer: Uint8Array, offset: number, length: number): void {
    const { mtuBytes, sink } = this.#context;
    const padded = Math.min((length + PADDING_BYTES - 1) & -PADDING_BYTES, mtuBytes);
    for (let at = offset + length; at < offset + padded; at++) buffer[at] = 0;
    session.seal(buffer, offset, padded);
    this.bytesOut += padded + DATA_MIN_BYTES;
    this.times.firstReceivedUnansweredMs = NEVER;
    this.times.lastTraversalMs = nowMs;
    sink.sendDatagram(nowMs, this, undefined, "data", buffer, offset - DATA_HEADER_BYTES, padded + DATA_MIN_BYTES);
    if (session.wantsRekey(nowMs) && !this.isHandshaking) this.startHandshake(nowMs);
  }

  /** Without a session it begins a handshake instead: what asked for the keepalive wants the other end to hear us. */
  #sendKeepalive(nowMs: number): void {
    const session = this.#current;
    if (!session?.canSend(nowMs)) {
      this.startHandshake(nowMs);
      return;
    }
    this.#context.counters.KEEPALIVES_SENT++;
    this.#sealAndSend(nowMs, session, new Uint8Array(DATA_MIN_BYTES), DATA_HEADER_BYTES, 0);
  }

  #stage(buffer: Uint8Array, offset: number, length: number): void {
    const { counters } = this.#context;
    if (!this.#staged.push(buffer, offset, length)) counters.STAGED_DROPPED++;
    counters.STAGED++;
  }

  #flushStaged(nowMs: number): void {
    while (this.#current?.canSend(nowMs)) {
      const packet = this.#staged.shift();
      if (packet === undefined) return;
      this.#sendData(nowMs, this.#current, packet, DATA_HEADER_BYTES, packet.length - STAGED_ROOM_BYTES);
    }
  }

  #clearStaged(): void {
    this.#context.counters.STAGED_DROPPED += this.#staged.clear();
  }

  /** At once, or when other handshakes have had their time; for the timers it is sent either way. */
  #sendInitiation(nowMs: number): void {
    const { work, deferred, counters } = this.#context;
    if (work.isReady(nowMs)) {
      deferred.delete(this);
      work.begin();
      this.#makeInitiation(nowMs);
      work.end(nowMs);
      work.noteAsked();
      return;
    }
    this.times.lastHandshakeSentMs = nowMs;
    this.times.retryJitterMs = this.#jitterMs();
    if (!deferred.has(this)) counters.INITIATIONS_DEFERRED++;
    deferred.add(this);
  }

  /** Its turn has come. Who no longer wants a handshake is no longer among the deferred. */
  sendDeferred(nowMs: number): void {
    this.#sendInitiation(nowMs);
    this.#reschedule();
  }

  /** A new ephemeral key and timestamp each time; an answer to an earlier one is of no use any more. */
  #makeInitiation(nowMs: number): void {
    const { crypto, random, keyPair, indexes, counters } = this.#context;
    this.#dropPending();
    const timestamp = nextTai64n(nowMs, this.#lastSentTimestamp);
    this.#lastSentTimestamp = timestamp;
    const { lastTimestamp } = this.#context;
    if (lastTimestamp === undefined || compareTai64n(timestamp, lastTimestamp) > 0) {
      this.#context.lastTimestamp = timestamp;
    }
    const ephemeral = newEphemeral(crypto, random);
    const made = createInitiation(crypto, keyPair, this.publicKey, this.staticShared(), ephemeral, timestamp);
    assert(made !== undefined, "a low-order key is refused when the peer is added");
    const localIndex = indexes.allocate(this);
    this.#pending = { state: made.state, localIndex, forged: 0 };
    const message = encodeInitiation({ senderIndex: localIndex, ...made.fields });
    this.#cookies.addMacs(nowMs, message);
    counters.INITIATIONS_SENT++;
    this.#sendHandshake(nowMs, undefined, "initiation", message);
  }

  #sendHandshake(nowMs: number, to: Endpoint | undefined, kind: MessageKind, message: Uint8Array): void {
    const times = this.times;
    times.lastHandshakeSentMs = nowMs;
    times.retryJitterMs = this.#jitterMs();
    times.firstReceivedUnansweredMs = NEVER;
    times.lastTraversalMs = nowMs;
    this.bytesOut += message.length;
    this.#context.sink.sendDatagram(nowMs, this, to, kind, message, 0, message.length);
  }

  /** The first data under our responder's session proves that the initiator has the keys [WG §5.4.5]. */
  #confirm(nowMs: number, session: Session): void {
    this.#drop(this.#previous);
    this.#previous = this.#current;
    this.#current = session;
    this.#next = undefined;
    this.#handshakeCompleted(nowMs);
    this.#context.sink.sessionStarted(nowMs, this, "responder");
    this.#flushStaged(nowMs);
  }

  #handshakeCompleted(nowMs: number): void {
    this.lastHandshakeMs = nowMs;
    this.#context.counters.HANDSHAKES_COMPLETED++;
    this.#endAttempt();
  }

  #endAttempt(): void {
    this.#context.deferred.delete(this);
    this.times.attemptStartedMs = NEVER;
    this.#dropPending();
  }

  #giveUp(nowMs: number): void {
    this.#endAttempt();
    this.#clearStaged();
    this.times.firstReceivedUnansweredMs = NEVER;
    if (this.times.keysMadeMs === NEVER) this.times.keysMadeMs = nowMs;
  }

  #zeroKeys(): void {
    this.#drop(this.#previous);
    this.#drop(this.#current);
    this.#drop(this.#next);
    this.#previous = undefined;
    this.#current = undefined;
    this.#next = undefined;
    this.#dropPending();
    this.#dropAsked();
    this.times.keysMadeMs = NEVER;
  }

  #drop(session: Session | undefined): void {
    if (session === undefined) return;
    this.#context.indexes.free(session.localIndex);
    session.destroy();
  }

  #dropPending(): void {
    if (this.#pending === undefined) return;
    this.#context.indexes.free(this.#pending.localIndex);
    wipeHandshake(this.#pending.state);
    this.#pending = undefined;
  }

  #dropAsked(): void {
    this.#asked?.wipe();
    this.#asked = undefined;
  }

  #noteSource(nowMs: number, from: Endpoint): void {
    if (this.endpoint !== undefined && equalEndpoint(this.endpoint, from)) return;
    this.endpoint = from;
    this.#context.sink.endpointChanged(nowMs, this, from);
  }

  #noteReceived(): void {
    this.times.firstSentUnansweredMs = NEVER;
  }

  #jitterMs(): number {
    return randomBelow(this.#context.random, REKEY_JITTER_MAX_MS + 1);
  }

  /**
   * A deadline that has come nearer. One that has moved away is found when the earlier one is due: one idle turn, no
   * work per packet.
   */
  #scheduleBy(atMs: number): void {
    if (atMs < this.scheduledMs && !this.#removed) this.#context.heap.schedule(this, atMs);
  }

  #reschedule(): void {
    if (!this.#removed) this.#context.heap.schedule(this, nextDeadlineMs(this.times));
  }
}
