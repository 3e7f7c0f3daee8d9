// The WireGuard protocol of one key pair: messages in, messages out, deadlines; clock and chance are given. Inbound
// step 2 (session by receiver index), 3 (open) and 4 (replay), outbound step 4 (session, or stage and start a
// handshake) and 5 (seal). Read [WG §5, §6].
import type { Endpoint } from "../base/address.ts";
import { equalBytes, isAllZero, toHex } from "../base/bytes.ts";
import { DeadlineHeap } from "../base/deadline-heap.ts";
import { FORGED_RESPONSES_MAX, PEERS_MAX } from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { isLowOrderPoint } from "../crypto/low-order.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import {
  COOKIE_REPLY_BYTES,
  classifyMessage,
  DATA_HEADER_BYTES,
  DATA_MIN_BYTES,
  decodeCookieReply,
  decodeInitiation,
  decodeResponse,
  INITIATION_BYTES,
  RESPONSE_BYTES,
  readDataReceiver,
  readResponseReceiver,
  TYPE_COOKIE_REPLY,
  TYPE_DATA,
  TYPE_INITIATION,
  TYPE_RESPONSE,
} from "../wire/wireguard.ts";
import { CookieAnswerer } from "./cookies.ts";
import { openInitiationStatic, openInitiationTimestamp } from "./handshake.ts";
import { HandshakeGate, type Standing } from "./handshake-gate.ts";
import { HandshakeWork, type Stopwatch } from "./handshake-work.ts";
import { IndexTable } from "./index-table.ts";
import { type DeviceCounters, newDeviceCounters, Received, type ReceivedKind } from "./received.ts";
import { type DeviceSink, type SendResult, Tunnel, type TunnelContext, type TunnelOptions } from "./tunnel.ts";

export interface DeviceOptions<Owner> {
  readonly crypto: Crypto;
  /** Of cryptographic quality outside tests. */
  readonly random: Random;
  readonly keyPair: KeyPair;
  readonly sink: DeviceSink<Owner>;
  /** Of inner packets: larger ones are refused, padding never goes beyond. */
  readonly mtuBytes: number;
  /** `lastTimestamp` of this key pair's former run, from its state file: 12 bytes. */
  readonly lastTimestamp?: Uint8Array;
  /** By which the work of handshakes is measured and kept within its share; absent: it takes no time. */
  readonly stopwatch?: Stopwatch;
  /** The same without the time that other threads had the CPU: what a message costs; `stopwatch` unless given. */
  readonly cpuStopwatch?: Stopwatch;
  readonly peersMax?: number;
}

/** An answer that the turn of its initiation has no room for is made in the next one, and no driver's comes sooner. */
const ANSWER_AFTER_MS = 1;

export type PeerRefusal = "OWN_KEY" | "ZERO_KEY" | "LOW_ORDER_KEY" | "DUPLICATE_KEY" | "TOO_MANY_PEERS";

/** What can change without a new handshake. `undefined` values take the setting away, absent ones leave it. */
export interface PeerUpdate {
  readonly presharedKey?: Uint8Array | undefined;
  readonly persistentKeepaliveMs?: number | undefined;
  readonly endpoint?: Endpoint | undefined;
}

/**
 * `Owner` is whatever the engine keeps for a peer; it comes back as `tunnel.owner`.
 *
 * @example
 * const device = new Device({ crypto, random, keyPair, sink, mtuBytes: 1420 });
 * const tunnel = device.addPeer(nowMs, { owner: peer, publicKey, endpoint });
 * if (typeof tunnel === "string") refuse(tunnel); // a PeerRefusal
 * else device.send(nowMs, tunnel, buffer, 16, packetBytes);
 */
export class Device<Owner> {
  readonly publicKey: Uint8Array;
  readonly counters: DeviceCounters = newDeviceCounters();
  readonly #context: TunnelContext<Owner>;
  readonly #cookies: CookieAnswerer;
  readonly #gate: HandshakeGate;
  readonly #peersMax: number;
  readonly #tunnels = new Map<string, Tunnel<Owner>>(); // by the public key in hexadecimal
  readonly #received = new Received<Owner>();
  /** Whose initiation was opened in a turn that had no room for the answer, and when that is due. */
  readonly #answers = new Map<Tunnel<Owner>, number>();
  #ownTurn = false;

  constructor(options: DeviceOptions<Owner>) {
    const { crypto, random, keyPair, sink, mtuBytes } = options;
    this.publicKey = keyPair.publicKey;
    this.#context = {
      crypto,
      random,
      keyPair,
      sink,
      indexes: new IndexTable(random),
      heap: new DeadlineHeap(),
      counters: this.counters,
      work: new HandshakeWork(options.stopwatch ?? (() => 0), options.cpuStopwatch),
      deferred: new Set(),
      mtuBytes,
      lastTimestamp: options.lastTimestamp,
    };
    this.#cookies = new CookieAnswerer(crypto, random, keyPair.publicKey);
    this.#gate = new HandshakeGate(this.#cookies, this.#context.work, this.counters, (nowMs, to, reply) =>
      sink.sendDatagram(nowMs, undefined, to, "cookie", reply, 0, reply.length),
    );
    this.#peersMax = options.peersMax ?? PEERS_MAX;
  }

  /** The greatest TAI64N stamp sent so far: belongs into the state file, or a clock set back locks this key out. */
  get lastTimestamp(): Uint8Array | undefined {
    return this.#context.lastTimestamp;
  }

  get mtuBytes(): number {
    return this.#context.mtuBytes;
  }

  set mtuBytes(value: number) {
    this.#context.mtuBytes = value;
  }

  /** Receiver indexes in use: at most four per peer. */
  get indexCount(): number {
    return this.#context.indexes.size;
  }

  tunnels(): IterableIterator<Tunnel<Owner>> {
    return this.#tunnels.values();
  }

  tunnelByKey(publicKey: Uint8Array): Tunnel<Owner> | undefined {
    return this.#tunnels.get(toHex(publicKey));
  }

  /** The new tunnel, or why there is none. With a persistent keepalive it calls the sink before it returns. */
  addPeer(nowMs: number, options: TunnelOptions<Owner>): Tunnel<Owner> | PeerRefusal {
    const { publicKey } = options;
    if (isAllZero(publicKey)) return "ZERO_KEY";
    if (isLowOrderPoint(publicKey)) return "LOW_ORDER_KEY";
    if (equalBytes(publicKey, this.publicKey)) return "OWN_KEY";
    const key = toHex(publicKey);
    if (this.#tunnels.has(key)) return "DUPLICATE_KEY";
    if (this.#tunnels.size >= this.#peersMax) return "TOO_MANY_PEERS";
    const tunnel = new Tunnel(this.#context, options);
    this.#tunnels.set(key, tunnel);
    tunnel.setPersistentKeepalive(nowMs, options.persistentKeepaliveMs);
    return tunnel;
  }

  updatePeer(nowMs: number, tunnel: Tunnel<Owner>, update: PeerUpdate): void {
    if ("presharedKey" in update) tunnel.setPresharedKey(update.presharedKey);
    if ("endpoint" in update) tunnel.endpoint = update.endpoint;
    if ("persistentKeepaliveMs" in update) tunnel.setPersistentKeepalive(nowMs, update.persistentKeepaliveMs);
  }

  /** Overwrites its keys. False when there is no such peer. */
  removePeer(publicKey: Uint8Array): boolean {
    const key = toHex(publicKey);
    const tunnel = this.#tunnels.get(key);
    if (tunnel === undefined) return false;
    this.#tunnels.delete(key);
    tunnel.remove();
    return true;
  }

  /** Overwrites every peer's keys. */
  close(): void {
    for (const tunnel of this.#tunnels.values()) tunnel.remove();
    this.#tunnels.clear();
  }

  /**
   * One datagram. Data is opened in place: after kind DATA the inner packet stands in `buffer` at the result's offset.
   * Any other kind is done with, or a named drop that has been counted. The result is one object, valid until the next
   * call.
   */
  receive(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number): Received<Owner> {
    const received = this.#received;
    received.clear();
    const type = classifyMessage(buffer, offset, length);
    switch (type) {
      case TYPE_DATA:
        received.kind = this.#receiveData(nowMs, from, buffer, offset, length);
        break;
      case TYPE_INITIATION:
        received.kind = this.#receiveHandshake(nowMs, from, buffer, offset, INITIATION_BYTES);
        break;
      case TYPE_RESPONSE:
        received.kind = this.#receiveHandshake(nowMs, from, buffer, offset, RESPONSE_BYTES);
        break;
      case TYPE_COOKIE_REPLY:
        received.kind = this.#receiveCookieReply(nowMs, buffer, offset);
        break;
      default:
        received.kind = type;
    }
    this.#count(received.kind);
    return received;
  }

  /**
   * Seals in place and sends. `buffer` has 16 bytes of room before `offset` and 32 behind the packet. Without a session
   * the packet is copied and staged (the oldest of STAGED_PACKETS_MAX gives way) and a handshake begins.
   */
  send(nowMs: number, tunnel: Tunnel<Owner>, buffer: Uint8Array, offset: number, length: number): SendResult {
    this.#context.work.noteData(nowMs);
    return tunnel.send(nowMs, buffer, offset, length);
  }

  /** At once, also when there is a session (hole punching); but never two initiations within REKEY_TIMEOUT. */
  startHandshake(nowMs: number, tunnel: Tunnel<Owner>): void {
    tunnel.startHandshake(nowMs);
  }

  /** Cuts: keys overwritten, staged packets dropped. A later packet or initiation begins anew. */
  expireSessions(tunnel: Tunnel<Owner>): void {
    tunnel.expireSessions();
  }

  handleTimeout(nowMs: number): void {
    for (let due = this.#context.heap.takeDue(nowMs); due !== undefined; due = this.#context.heap.takeDue(nowMs)) {
      due.handleTimeout(nowMs);
    }
    this.#answerOne(nowMs);
    while (this.#waiting > 0 && this.#context.work.isReady(nowMs)) this.#workOne(nowMs);
  }

  /** Infinity when nothing is due. May be early, by less than one deadline of [WG §6], never late. */
  nextDeadlineMs(): number {
    let dueMs = this.#context.heap.nextMs();
    if (this.#waiting > 0) dueMs = Math.min(dueMs, this.#context.work.readyMs);
    const turnMs = this.#context.work.workedMs + ANSWER_AFTER_MS; // one piece a turn: the next of several waits for one
    for (const answerMs of this.#answers.values()) return Math.min(dueMs, Math.max(answerMs, turnMs));
    return dueMs;
  }

  /** Handshake messages that came, and initiations of our own, that wait for their turn. */
  get #waiting(): number {
    return this.#gate.waiting + this.#context.deferred.size;
  }

  /** More handshakes are asked for than there is time for: strangers are asked for a cookie. */
  isUnderLoad(nowMs: number): boolean {
    return this.#context.work.isLoaded(nowMs);
  }

  /** Received handshake messages that wait: at most HANDSHAKES_WAITING_MAX of each of three kinds of sender. */
  get handshakesWaiting(): number {
    return this.#gate.waiting;
  }

  /** What handshakes have cost so far. */
  get handshakeWork(): Pick<HandshakeWork, "spentMs" | "longestMs" | "messages" | "longMessages"> {
    return this.#context.work;
  }

  #count(kind: ReceivedKind): void {
    switch (kind) {
      case "DATA":
        this.counters.DATA_RECEIVED++;
        break;
      case "KEEPALIVE":
        this.counters.KEEPALIVES_RECEIVED++;
        break;
      case "HANDSHAKE": // counted by message
      case "COOKIE":
        break;
      default:
        this.counters[kind]++;
    }
  }

  #receiveData(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number): ReceivedKind {
    const entry = this.#context.indexes.find(readDataReceiver(buffer, offset));
    const session = entry?.session;
    if (entry === undefined || session === undefined) return "UNKNOWN_INDEX";
    const opened = session.open(nowMs, buffer, offset, length);
    if (opened !== "OPENED") return opened;
    const { tunnel } = entry;
    this.#context.work.noteData(nowMs);
    tunnel.noteData(nowMs, from, session, length);
    this.#received.tunnel = tunnel;
    this.#received.session = session;
    if (length === DATA_MIN_BYTES) return "KEEPALIVE";
    this.#received.offset = offset + DATA_HEADER_BYTES;
    this.#received.length = length - DATA_MIN_BYTES;
    return "DATA";
  }

  #receiveHandshake(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number): ReceivedKind {
    if (!this.#cookies.checkMac1(buffer, offset, length)) return "MAC1_WRONG";
    const standing = length === RESPONSE_BYTES ? this.#standingOf(buffer, offset) : "asks";
    if (standing === undefined) return "UNKNOWN_INDEX";
    const admission = this.#gate.admit(nowMs, from, buffer, offset, length, standing);
    return admission === "NOW" ? this.#work(nowMs, from, buffer, offset, length) : admission;
  }

  /** Undefined: a response that nobody waits for, which costs no Diffie–Hellman. */
  #standingOf(buffer: Uint8Array, offset: number): Standing | undefined {
    const index = readResponseReceiver(buffer, offset);
    const forged = this.#context.indexes.find(index)?.tunnel.forgedResponses(index);
    if (forged === undefined) return undefined;
    return forged < FORGED_RESPONSES_MAX ? "answers" : "doubted";
  }

  /** The costly part of a handshake message, and its time. */
  #work(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number): ReceivedKind {
    const { work } = this.#context;
    work.begin();
    const kind =
      length === INITIATION_BYTES
        ? this.#receiveInitiation(nowMs, from, buffer, offset)
        : this.#receiveResponse(nowMs, from, buffer, offset);
    work.end(nowMs);
    if (kind === "HANDSHAKE") this.#gate.noteAuthenticated(nowMs, from);
    return kind;
  }

  /** The rest of an initiation's work; the pause that its beginning made does not hold it up. */
  #answerOne(nowMs: number): void {
    const { work } = this.#context;
    for (const tunnel of this.#answers.keys()) {
      if (work.hasWorked(nowMs)) {
        this.#answers.set(tunnel, nowMs + ANSWER_AFTER_MS);
        return;
      }
      this.#answers.delete(tunnel);
      work.begin();
      this.#answer(nowMs, tunnel);
      work.end(nowMs);
      return;
    }
  }

  /** Of what waits: an initiation of our own and a message that came, by turns. */
  #workOne(nowMs: number): void {
    const { deferred, sink } = this.#context;
    this.#ownTurn = !this.#ownTurn;
    if (deferred.size > 0 && (this.#ownTurn || this.#gate.waiting === 0)) {
      for (const tunnel of deferred) {
        deferred.delete(tunnel);
        tunnel.sendDeferred(nowMs);
        return;
      }
    }
    const message = this.#gate.next(nowMs);
    if (message === undefined) return;
    const { from, bytes } = message;
    const received = this.#received;
    received.clear();
    const kind = this.#work(nowMs, from, bytes, 0, bytes.length);
    this.#count(kind);
    if (received.tunnel !== undefined) sink.endpointChanged(nowMs, received.tunnel, from);
  }

  #receiveInitiation(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number): ReceivedKind {
    const { crypto, keyPair } = this.#context;
    const message = decodeInitiation(buffer, offset);
    const opened = openInitiationStatic(crypto, keyPair, message);
    if (typeof opened === "string") return opened;
    const tunnel = this.tunnelByKey(opened.remotePublicKey);
    if (tunnel === undefined) return "UNKNOWN_PEER";
    const timestamp = openInitiationTimestamp(crypto, opened.state, tunnel.staticShared(), message);
    if (timestamp === undefined) return "INITIATION_FORGED";
    const accepted = tunnel.acceptInitiation(nowMs, from, opened.state, message.senderIndex, timestamp);
    if (accepted === "HANDSHAKE") {
      this.counters.INITIATIONS_RECEIVED++;
      this.#noteHandshake(tunnel, INITIATION_BYTES);
      this.#answers.delete(tunnel);
      if (this.#context.work.hasRoom(nowMs)) this.#answer(nowMs, tunnel);
      else this.#answers.set(tunnel, nowMs + ANSWER_AFTER_MS);
    }
    return accepted;
  }

  /** Half of an answer, and the other half if there is room for it. */
  #answer(nowMs: number, tunnel: Tunnel<Owner>): void {
    if (tunnel.answer(nowMs)) return;
    if (!this.#context.work.hasRoom(nowMs) || !tunnel.answer(nowMs)) {
      this.#answers.set(tunnel, nowMs + ANSWER_AFTER_MS);
    }
  }

  #receiveResponse(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number): ReceivedKind {
    const message = decodeResponse(buffer, offset);
    const entry = this.#context.indexes.find(message.receiverIndex);
    if (entry === undefined) return "UNKNOWN_INDEX";
    const accepted = entry.tunnel.acceptResponse(nowMs, from, message);
    if (accepted === "HANDSHAKE") {
      this.counters.RESPONSES_RECEIVED++;
      this.#noteHandshake(entry.tunnel, RESPONSE_BYTES);
    }
    return accepted;
  }

  #receiveCookieReply(nowMs: number, buffer: Uint8Array, offset: number): ReceivedKind {
    const message = decodeCookieReply(buffer, offset);
    const entry = this.#context.indexes.find(message.receiverIndex);
    if (entry === undefined) return "UNKNOWN_INDEX";
    if (!entry.tunnel.acceptCookie(nowMs, message)) return "COOKIE_FORGED";
    this.counters.COOKIES_RECEIVED++;
    entry.tunnel.bytesIn += COOKIE_REPLY_BYTES;
    // It is sealed under a key that follows from the peer's public one: whoever saw our message can make it. So it says
    // nothing of who sent it, or of where the peer is.
    return "COOKIE";
  }

  #noteHandshake(tunnel: Tunnel<Owner>, messageBytes: number): void {
    tunnel.bytesIn += messageBytes;
    this.#received.tunnel = tunnel;
  }
}
