// The peer's end of the control channel: connects, proves its keys, enrols or resumes, keeps the netmap and the lease
// fresh, and comes back after every interruption with jittered backoff. What it learns it emits; it decides nothing
// about packets.
import type { Address } from "../base/address.ts";
import { fromBase64, toBase64 } from "../base/bytes.ts";
import { ERROR_CODES, type ErrorCode, WirebadgeError } from "../base/errors.ts";
import {
  CONTROL_ANSWER_MAX_MS,
  CONTROL_BACKOFF_MAX_MS,
  CONTROL_BACKOFF_MIN_MS,
  CONTROL_PING_EVERY_MS,
  RECORDS_PER_MESSAGE_MAX,
} from "../base/limits.ts";
import { type Random, randomU32 } from "../base/random.ts";
import { PROTOCOL_VERSION } from "../control/contexts.ts";
import { possessionProof, signHello } from "../control/hello.ts";
import { leaseHalfLifeMs, verifyLease } from "../control/lease.ts";
import type {
  CoordinatorMessage,
  CoordinatorRecord,
  DenialReport,
  FlowReport,
  Offers,
  PeerMessage,
  Welcome,
} from "../control/messages.ts";
import type { Netmap } from "../control/netmap.ts";
import { applyDelta, openDelta, openNetmap, toNetmapView } from "../control/netmap-codec.ts";
import type { ProbeKey } from "../control/probe.ts";
import { type Crypto, KEY_BYTES } from "../crypto/provider.ts";
import type { Clock } from "../io/clock.ts";
import { ControlAttempt } from "./control-attempt.ts";
import { ControlEmitter, type ControlEvents, type ControlState } from "./control-events.ts";
import { KeptForCoordinator, type KeptState } from "./kept-for-coordinator.ts";

export interface ControlTimers {
  /** Runs `fire` once after the delay; the function given back cancels it. */
  after(delayMs: number, fire: () => void): () => void;
}

export interface ControlClientOptions {
  /** From the token: `http(s)://HOST[:PORT][/PATH]`. */
  readonly url: string;
  /** The coordinator's Noise static key, from the token. */
  readonly coordinatorKey: Uint8Array;
  /** Ed25519 seed of the session key. */
  readonly signSeed: Uint8Array;
  /** X25519 WireGuard private key. */
  readonly wireguardKey: Uint8Array;
  /** Known session to resume; else `enrolment` is used. */
  readonly session?: string | undefined;
  readonly enrolment?: { readonly tokenId: string; readonly secret: Uint8Array } | undefined;
  readonly offers?: Offers | undefined;
  /** From the state file: see kept-for-coordinator.ts. */
  readonly kept?: KeptState | undefined;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly clock: Clock;
  /** Node's timers unless given. */
  readonly timers?: ControlTimers | undefined;
  /** "wirebadge 0.1.0" */
  readonly software: string;
  /** Neither the channel nor its timers keep the process alive. */
  readonly background?: boolean | undefined;
}

function nodeTimers(background: boolean): ControlTimers {
  return {
    after: (delayMs, fire) => {
      const timer = setTimeout(fire, Math.min(delayMs, 2 ** 31 - 1));
      if (background) timer.unref();
      return () => clearTimeout(timer);
    },
  };
}

/** Refusals inside the channel that no retry mends. */
const FINAL: readonly ErrorCode[] = [
  "TOKEN_INVALID",
  "TOKEN_SPENT",
  "TOKEN_EXPIRED",
  "TOKEN_REVOKED",
  "TOKEN_OTHER_NETWORK",
  "IDENTITY_MISMATCH",
  "SESSION_REVOKED",
  "NOT_FOUND",
  "FORBIDDEN",
];

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}

/**
 * @example
 * const client = new ControlClient({ ...token, signSeed, wireguardKey, enrolment: { tokenId: token.id, secret:
 * token.secret }, … });
 * client.on("netmap", (view) => peer.apply(view));
 * client.start();
 * await client.ready;
 */
export class ControlClient {
  readonly ready: Promise<void>;
  readonly #options: ControlClientOptions;
  readonly #timers: ControlTimers;
  readonly #events = new ControlEmitter();
  readonly #signKey: Uint8Array;
  readonly #publicKey: Uint8Array;
  readonly #kept: KeptForCoordinator;
  #offsetMs = 0;
  #readyResolve: () => void = () => undefined;
  #readyReject: (error: WirebadgeError) => void = () => undefined;
  #state: ControlState = "disconnected";
  #attempt: ControlAttempt | undefined;
  #attemptNumber = 0;
  #remoteAddress: Address | undefined;
  #failures = 0;
  #session: string | undefined;
  #offers: Offers;
  #endpoints: readonly string[] = [];
  #coordinatorSignKey: Uint8Array | undefined;
  #netmap: Netmap | undefined;
  #probeKey: ProbeKey | undefined;
  #probeServers: readonly string[] = [];
  #leased = false;
  #pingNumber = 0;
  #pingSentMs: number | undefined;
  #cancelRetry: (() => void) | undefined;
  #cancelPing: (() => void) | undefined;
  #cancelAnswer: (() => void) | undefined;
  #cancelRenew: (() => void) | undefined;
  #left: (() => void) | undefined;
  #admissionSentMs = 0;

  constructor(options: ControlClientOptions) {
    this.#options = options;
    this.#timers = options.timers ?? nodeTimers(options.background === true);
    this.#session = options.session;
    this.#kept = new KeptForCoordinator(options.kept);
    this.#offers = options.offers ?? { routes: [], serves: [] };
    this.#signKey = options.crypto.signPublicKey(options.signSeed);
    this.#publicKey = options.crypto.publicKey(options.wireguardKey);
    this.ready = new Promise((resolve, reject) => {
      this.#readyResolve = resolve;
      this.#readyReject = reject;
    });
    this.ready.catch(() => undefined); // whoever waits sees it; nobody waiting is no crash
  }

  on<K extends keyof ControlEvents>(event: K, listener: (...details: ControlEvents[K]) => void): () => void {
    return this.#events.on(event, listener);
  }

  get state(): ControlState {
    return this.#state;
  }

  get session(): string | undefined {
    return this.#session;
  }

  /** Where the coordinator was last found, by a channel that it has proved to be its own. */
  get remoteAddress(): Address | undefined {
    return this.#remoteAddress;
  }

  /** Key and `HOST:PORT`s to probe from the WireGuard socket, while connected. */
  get probe(): { readonly key: ProbeKey; readonly servers: readonly string[] } | undefined {
    return this.#probeKey === undefined ? undefined : { key: this.#probeKey, servers: this.#probeServers };
  }

  /** Begins to connect; returns at once. */
  start(): void {
    if (this.#state !== "disconnected" || this.#attempt !== undefined || this.#cancelRetry !== undefined) return;
    this.#connect();
  }

  setOffers(offers: Offers): void {
    this.#offers = offers;
    this.#send({ type: "offers", ...offers });
  }

  /** Outer endpoints as text, local and probed; the whole list each time. */
  setEndpoints(endpoints: readonly string[]): void {
    if (endpoints.join() === this.#endpoints.join()) return;
    this.#endpoints = [...endpoints];
    this.#send({ type: "endpoints", endpoints: [...endpoints] });
  }

  /** Asks that peer, through the coordinator, to try our endpoints now. */
  punch(session: string): void {
    this.#send({ type: "punch", session });
  }

  /** Best effort: dropped while disconnected. */
  reportDenials(records: readonly DenialReport[]): void {
    for (let at = 0; at < records.length; at += RECORDS_PER_MESSAGE_MAX)
      this.#send({ type: "denials", records: records.slice(at, at + RECORDS_PER_MESSAGE_MAX) });
  }

  reportFlows(records: readonly FlowReport[]): void {
    for (let at = 0; at < records.length; at += RECORDS_PER_MESSAGE_MAX)
      this.#send({ type: "flows", records: records.slice(at, at + RECORDS_PER_MESSAGE_MAX) });
  }

  /** Ends the session for good at the coordinator, then stops. COORDINATOR_UNREACHABLE when it could not be told. */
  async leave(): Promise<void> {
    const told = new Promise<boolean>((resolve) => {
      this.#left = () => resolve(true);
      this.#timers.after(CONTROL_ANSWER_MAX_MS, () => resolve(false));
    });
    const sent = this.#state === "connected" && this.#send({ type: "leave" });
    const done = sent && (await told);
    await this.stop();
    if (!done)
      throw new WirebadgeError("COORDINATOR_UNREACHABLE", "the coordinator could not be told that this session ends", {
        hint: "its lease ends by itself; `wirebadge revoke session:ID` ends it at once",
      });
  }

  async stop(): Promise<void> {
    if (this.#state === "stopped") return;
    this.#cancelRetry?.();
    this.#dropAttempt()?.close();
    this.#setState("stopped");
    this.#readyReject(new WirebadgeError("COORDINATOR_UNREACHABLE", "the control client was stopped", {}));
  }

  #setState(state: ControlState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#events.emit("state", state);
  }

  #send(message: PeerMessage): boolean {
    return this.#state === "connected" && this.#attempt?.send(message) === true;
  }

  #connect(): void {
    this.#cancelRetry = undefined;
    const number = ++this.#attemptNumber;
    const current = (): boolean => number === this.#attemptNumber;
    this.#setState("connecting");
    this.#attempt = new ControlAttempt(this.#options, {
      onChallenge: (key, hash) => current() && this.#onChallenge(key, hash),
      onRecord: (record) => current() && this.#onRecord(record),
      onEnd: (error) => current() && this.#onEnd(error),
    });
    this.#awaitAnswer("it didn't answer in time");
  }

  /** Forgets the attempt and its timers; late events of it are ignored. */
  #dropAttempt(): ControlAttempt | undefined {
    const attempt = this.#attempt;
    this.#attempt = undefined;
    this.#attemptNumber++;
    this.#cancelPing?.();
    this.#cancelAnswer?.();
    this.#cancelRenew?.();
    this.#probeKey = undefined;
    this.#pingSentMs = undefined;
    return attempt;
  }

  #awaitAnswer(what: string): void {
    this.#cancelAnswer?.();
    this.#cancelAnswer = this.#timers.after(CONTROL_ANSWER_MAX_MS, () => this.#attempt?.fail(what));
  }

  #onEnd(error: WirebadgeError): void {
    this.#dropAttempt();
    this.#setState("disconnected");
    // Neither is authenticated: who has been connected goes on trying, only a first start fails by them.
    const final = !this.#leased && (error.code === "PROTOCOL_VERSION" || error.code === "COORDINATOR_UNTRUSTED");
    if (final) this.#readyReject(error); // before a listener stops us: the reason is this
    this.#events.emit("problem", error, final);
    if (final) this.#giveUp(error);
    else this.#retry();
  }

  /** Full jitter: a fleet that lost its coordinator comes back spread out. */
  #retry(): void {
    const ceilingMs = Math.min(CONTROL_BACKOFF_MAX_MS, CONTROL_BACKOFF_MIN_MS * 2 ** Math.min(this.#failures, 20));
    this.#failures++;
    const share = randomU32(this.#options.random) / 2 ** 32;
    const delayMs = CONTROL_BACKOFF_MIN_MS / 2 + share * ceilingMs;
    this.#cancelRetry = this.#timers.after(delayMs, () => this.#connect());
  }

  #giveUp(error: WirebadgeError): void {
    this.#readyReject(error);
    this.#dropAttempt()?.close();
    this.#setState("stopped");
  }

  #onChallenge(challengeKey: Uint8Array, handshakeHash: Uint8Array): void {
    const { crypto, signSeed, wireguardKey, enrolment, software } = this.#options;
    const [signKey, publicKey] = [this.#signKey, this.#publicKey];
    const inputs = {
      privateKey: wireguardKey,
      publicKey: challengeKey,
      handshakeHash,
      signKey,
      wireguardKey: publicKey,
    };
    const proof = possessionProof(crypto, inputs);
    if (proof === undefined) {
      this.#attempt?.fail("it sent a low-order challenge key");
      return;
    }
    const signature = toBase64(signHello(crypto, signSeed, handshakeHash));
    const attempt = this.#attempt!;
    this.#remoteAddress = attempt.remoteAddress;
    attempt.send({ type: "hello", version: PROTOCOL_VERSION, signKey: toBase64(signKey), signature, software });
    this.#admissionSentMs = this.#options.clock.nowMs();
    const keys = { publicKey: toBase64(publicKey), proof: toBase64(proof) };
    const offered = { offers: this.#offers, endpoints: [...this.#endpoints], kept: this.#kept.toMessage() };
    if (this.#session !== undefined) {
      attempt.send({ type: "resume", session: this.#session, ...keys, ...offered });
    } else if (enrolment !== undefined) {
      const secret = toBase64(enrolment.secret);
      attempt.send({ type: "enroll", token: enrolment.tokenId, secret, ...keys, ...offered });
    } else {
      this.#final(new WirebadgeError("TOKEN_INVALID", "neither a session nor a token", { hint: "give a token" }));
    }
  }

  #onRecord(record: CoordinatorRecord): void {
    switch (record.kind) {
      case "message":
        this.#onMessage(record.message);
        break;
      case "netmap":
        this.#onNetmap(record.bytes);
        break;
      case "delta":
        this.#onDelta(record.bytes);
        break;
      case "lease":
        this.#onLease(record.bytes);
        break;
    }
  }

  #onMessage(message: CoordinatorMessage): void {
    switch (message.type) {
      case "challenge":
        this.#attempt?.fail("it sent a second challenge");
        break;
      case "welcome":
        this.#onWelcome(message);
        break;
      case "pong":
        this.#kept.setBookmark(message.bookmark);
        this.#onPong(message.n, message.timeMs);
        break;
      case "punch":
        this.#events.emit("punch", message.session);
        break;
      case "left":
        this.#left?.();
        break;
      case "error":
        this.#onError(message.code, message.message, message.hint);
        break;
    }
  }

  #onError(code: string, message: string, hint: string | undefined): void {
    const known: ErrorCode = isErrorCode(code) ? code : "COORDINATOR_UNREACHABLE";
    const error = new WirebadgeError(known, message, hint === undefined ? {} : { hint });
    if (known === "SESSION_REVOKED") {
      this.#readyReject(error); // before a listener stops us: the reason is this
      this.#events.emit("revoked", error);
    }
    if (known === "SESSION_REVOKED" || (this.#state !== "connected" && FINAL.includes(known))) this.#final(error);
    else this.#events.emit("problem", error, false);
  }

  /** The owner can't take what the coordinator gave: the same as a refusal that no retry mends. */
  refuse(error: WirebadgeError): void {
    this.#final(error);
  }

  #final(error: WirebadgeError): void {
    this.#readyReject(error); // before a listener stops us: the reason is this
    this.#events.emit("problem", error, true);
    this.#giveUp(error);
  }

  #onWelcome(welcome: Welcome): void {
    const signKey = fromBase64(welcome.signKey);
    const probeId = fromBase64(welcome.probe.id);
    const probeKey = fromBase64(welcome.probe.key);
    if (signKey?.length !== KEY_BYTES || probeId?.length !== 8 || probeKey?.length !== KEY_BYTES) {
      this.#attempt?.fail("its welcome holds no keys");
      return;
    }
    this.#cancelAnswer?.();
    this.#session = welcome.session;
    this.#coordinatorSignKey = signKey;
    this.#probeKey = { id: probeId, key: probeKey };
    this.#setState("connected");
    this.#kept.setBookmark(welcome.bookmark);
    const { session, identity, epoch } = welcome;
    this.#events.emit("welcome", {
      session,
      identity,
      coordinatorSignKey: signKey,
      epoch,
      kept: this.#kept.toState(),
    });
    this.#learnTime(welcome.timeMs, this.#admissionSentMs);
    this.#schedulePing();
    this.#awaitAnswer("it sent no netmap");
  }

  /**
   * The coordinator's clock stood at `timeMs` some time after `sentMs`: the sum errs towards later, so leases end
   * early.
   */
  #learnTime(timeMs: number, sentMs: number): void {
    this.#offsetMs = timeMs - sentMs;
    this.#events.emit("time", this.#offsetMs);
  }

  #schedulePing(): void {
    const jitter = 0.9 + (randomU32(this.#options.random) / 2 ** 32) * 0.2;
    this.#cancelPing = this.#timers.after(CONTROL_PING_EVERY_MS * jitter, () => {
      this.#pingSentMs = this.#options.clock.nowMs();
      this.#send({ type: "ping", n: ++this.#pingNumber });
      this.#awaitAnswer("it is silent");
    });
  }

  #onPong(n: number, timeMs: number): void {
    if (n !== this.#pingNumber || this.#pingSentMs === undefined) return;
    this.#cancelAnswer?.();
    this.#learnTime(timeMs, this.#pingSentMs);
    this.#pingSentMs = undefined;
    this.#failures = 0; // not at the welcome: two processes with one state would replace each other at full speed
    this.#schedulePing();
  }

  #onNetmap(signed: Uint8Array): void {
    if (this.#coordinatorSignKey === undefined || this.#session === undefined) return;
    const netmap = openNetmap(this.#options.crypto, this.#coordinatorSignKey, this.#session, signed);
    if (typeof netmap === "string") {
      this.#attempt?.fail(`its netmap was refused (${netmap})`);
      return;
    }
    // Our bookmark would have told it: it took none, and goes on as if nothing had been after its backup.
    if (this.#netmap !== undefined && netmap.epoch < this.#netmap.epoch) {
      this.#attempt?.fail(`its netmap is of epoch ${netmap.epoch}, this peer has seen ${this.#netmap.epoch}`);
      return;
    }
    this.#cancelAnswer?.();
    this.#apply(netmap);
  }

  #onDelta(signed: Uint8Array): void {
    if (this.#coordinatorSignKey === undefined || this.#session === undefined) return;
    const delta = openDelta(this.#options.crypto, this.#coordinatorSignKey, this.#session, signed);
    if (typeof delta === "string") {
      this.#attempt?.fail(`its netmap delta was refused (${delta})`);
      return;
    }
    const netmap = this.#netmap === undefined ? "delta-gap" : applyDelta(this.#netmap, delta);
    if (typeof netmap === "string") {
      this.#send({ type: "full" });
      this.#awaitAnswer("it sent no netmap");
      return;
    }
    this.#apply(netmap);
  }

  #apply(netmap: Netmap): void {
    const told = toNetmapView(netmap);
    if ("key" in told) {
      this.#attempt?.fail(`its netmap was refused: ${told.key}: ${told.message}`);
      return;
    }
    const { view, changed } = this.#kept.take(told, this.#options.clock.nowMs() + this.#offsetMs);
    if (changed) this.#events.emit("kept", this.#kept.toState());
    this.#netmap = netmap;
    this.#probeServers = view.network.probes;
    this.#events.emit("netmap", view, netmap);
    this.#settle();
  }

  #onLease(bytes: Uint8Array): void {
    if (this.#coordinatorSignKey === undefined) return;
    const lease = verifyLease(this.#options.crypto, this.#coordinatorSignKey, bytes);
    if (typeof lease === "string" || lease.session !== this.#session) {
      this.#attempt?.fail("its lease was refused");
      return;
    }
    this.#leased = true;
    this.#events.emit("lease", bytes, lease);
    this.#cancelRenew?.();
    const halfMs = leaseHalfLifeMs(lease) - lease.issuedMs;
    this.#cancelRenew = this.#timers.after(halfMs, () => this.#renew());
    this.#settle();
  }

  /** Asked again until a lease comes. */
  #renew(): void {
    this.#send({ type: "renew" });
    this.#cancelRenew = this.#timers.after(CONTROL_ANSWER_MAX_MS, () => this.#renew());
  }

  #settle(): void {
    if (this.#leased && this.#netmap !== undefined) this.#readyResolve();
  }
}
