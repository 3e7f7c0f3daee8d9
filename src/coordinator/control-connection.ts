// One WebSocket of the control channel, from its first byte: message 1 → challenge → hello → enrol or resume → records.
// Nothing that comes in is acted on before the hello's signature holds. Records are worked on one at a time; every
// refusal has a name and a counter.

import type { WebSocket } from "ws";
import { fromBase64, toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import {
  CONTROL_RECORDS_PER_SECOND_MAX,
  CONTROL_RECORDS_WAITING_MAX,
  CONTROL_REQUEST_MAX_BYTES,
  CONTROL_SEND_QUEUE_MAX_BYTES,
} from "../base/limits.ts";
import { type Random, randomBytes } from "../base/random.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { Channel } from "../control/channel.ts";
import { CLOSE, type CloseCode } from "../control/close-codes.ts";
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, prologueOf } from "../control/contexts.ts";
import { verifyHello, verifyPossession } from "../control/hello.ts";
import {
  type CoordinatorMessage,
  decodePeerRecord,
  encodeBytesRecord,
  encodeJsonRecord,
  type PeerMessage,
  type PeerMessageOf,
  type RECORD_DELTA,
  type RECORD_LEASE,
  type RECORD_NETMAP,
} from "../control/messages.ts";
import { respond } from "../control/noise-nk.ts";
import { type Crypto, KEY_BYTES, type KeyPair } from "../crypto/provider.ts";
import type { Clock } from "../io/clock.ts";
import type { Counters } from "./counters.ts";
import type { Logger } from "./options.ts";
import type { SourceLimits } from "./source-limits.ts";

/** A peer that proved both its keys and asks to come in. */
export interface Applicant {
  readonly connection: ControlConnection;
  /** Base64. */
  readonly signKey: string;
  readonly publicKey: string;
  readonly software: string;
  readonly request: PeerMessageOf<"enroll"> | PeerMessageOf<"resume">;
}

/** What a connection hands its peers to: the coordinator. */
export interface ControlHandler {
  /** Enrols or resumes, and sends the welcome; the session id. Throws WirebadgeError to refuse. */
  admit(applicant: Applicant): Promise<string>;
  /** A record of an admitted peer. Throws WirebadgeError to answer with an error. */
  handle(session: string, message: PeerMessage, connection: ControlConnection): Promise<void> | void;
  /** The connection of an admitted peer is gone. */
  detach(session: string, connection: ControlConnection): void;
}

export interface ConnectionContext {
  readonly crypto: Crypto;
  readonly random: Random;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly counters: Counters;
  readonly noiseKeys: KeyPair;
  readonly handler: ControlHandler;
  readonly handshakes: SourceLimits;
}

type Stage = "message1" | "hello" | "admission" | "admitted" | "closed";

export class ControlConnection {
  readonly source: string;
  readonly openedMs: number;
  readonly #context: ConnectionContext;
  readonly #socket: WebSocket;
  #stage: Stage = "message1";
  #channel: Channel | undefined;
  #challengeKey: Uint8Array | undefined;
  #signKey: Uint8Array | undefined;
  #software = "";
  #session: string | undefined;
  #working = false;
  #waiting: Uint8Array[] = [];
  #heardMs: number;
  #rate: TokenBucket | undefined;
  readonly #onAdmitted: () => void;

  constructor(context: ConnectionContext, socket: WebSocket, source: string, onAdmitted: () => void) {
    this.#context = context;
    this.#socket = socket;
    this.source = source;
    this.openedMs = context.clock.nowMs();
    this.#heardMs = this.openedMs;
    this.#onAdmitted = onAdmitted;
    socket.binaryType = "nodebuffer";
    socket.on("message", (data, isBinary) => this.#onMessage(data as Buffer, isBinary));
    socket.on("close", () => this.#onClose());
    socket.on("error", () => this.#drop("websocket-error")); // ws closes it itself
  }

  get session(): string | undefined {
    return this.#session;
  }

  get admitted(): boolean {
    return this.#stage === "admitted";
  }

  /** Closed, or closing. */
  get ended(): boolean {
    return this.#stage === "closed";
  }

  /** When a record last came in. */
  get heardMs(): number {
    return this.#heardMs;
  }

  sendMessage(message: CoordinatorMessage): void {
    this.#sendRecord(encodeJsonRecord(message));
  }

  sendBytes(kind: typeof RECORD_NETMAP | typeof RECORD_DELTA | typeof RECORD_LEASE, bytes: Uint8Array): void {
    this.#sendRecord(encodeBytesRecord(kind, bytes));
  }

  /** Says why inside the channel, then closes. */
  refuse(error: WirebadgeError): void {
    this.#sendError(error);
    this.close(CLOSE.refused);
  }

  close(code: CloseCode, reason = ""): void {
    if (this.#stage === "closed") return;
    const session = this.#session;
    this.#stage = "closed";
    this.#waiting = [];
    this.#channel?.close();
    this.#socket.close(code, reason);
    // A peer that doesn't answer the close frame must not hold the socket for ws's 30 s.
    const timer = setTimeout(() => this.#socket.terminate(), 1_000);
    timer.unref();
    this.#socket.once("close", () => clearTimeout(timer));
    if (session !== undefined) this.#context.handler.detach(session, this);
  }

  #onClose(): void {
    const session = this.#session;
    const open = this.#stage !== "closed";
    this.#stage = "closed";
    this.#waiting = [];
    if (open) this.#channel?.close();
    if (open && session !== undefined) this.#context.handler.detach(session, this);
  }

  #drop(name: string): void {
    this.#context.counters.add(name);
  }

  #fail(name: string, code: CloseCode, reason = ""): void {
    this.#drop(name);
    this.close(code, reason);
  }

  #sendRecord(record: Uint8Array): void {
    if (this.#channel === undefined || this.#stage === "closed") return;
    const messages = this.#channel.seal(record);
    if (typeof messages === "string") {
      this.#fail(messages, CLOSE.tooMany);
      return;
    }
    for (const message of messages) this.#socket.send(message);
    if (this.#socket.bufferedAmount > CONTROL_SEND_QUEUE_MAX_BYTES) {
      this.#fail("control-send-queue-full", CLOSE.tooSlow);
      this.#socket.terminate();
    }
  }

  #sendError(error: WirebadgeError): void {
    const { code, message, hint } = error;
    this.sendMessage({
      type: "error",
      code,
      message: message.slice(0, 1_024),
      ...(hint && { hint: hint.slice(0, 1_024) }),
    });
  }

  #onMessage(data: Uint8Array, isBinary: boolean): void {
    if (this.#stage === "closed") return;
    if (!isBinary) {
      this.#fail("control-text-frame", CLOSE.badRecord);
      return;
    }
    this.#heardMs = this.#context.clock.nowMs();
    if (this.#stage === "message1") {
      this.#onMessage1(data);
      return;
    }
    const record = this.#channel!.open(data);
    if (record === "more") return;
    if (typeof record === "string") {
      this.#fail(record, CLOSE.badRecord);
      return;
    }
    if (this.#waiting.length >= CONTROL_RECORDS_WAITING_MAX) {
      this.#fail("control-records-waiting", CLOSE.tooMany);
      return;
    }
    this.#waiting.push(record);
    if (!this.#working) void this.#work();
  }

  /**
   * version 1 byte ‖ Noise message 1. The version is in the prologue too, so that changing the byte breaks the
   * handshake.
   */
  #onMessage1(data: Uint8Array): void {
    const { crypto, random, noiseKeys, handshakes } = this.#context;
    const version = data[0] ?? 0;
    if (version < PROTOCOL_VERSION_MIN || version > PROTOCOL_VERSION) {
      this.#fail("control-version", CLOSE.protocolVersion, `${PROTOCOL_VERSION_MIN}-${PROTOCOL_VERSION}`);
      return;
    }
    if (!handshakes.allows(this.source, this.openedMs)) {
      this.#fail("control-handshakes", CLOSE.tooMany);
      return;
    }
    const answer = respond(crypto, random, prologueOf(version), noiseKeys, data.subarray(1));
    if (typeof answer === "string") {
      this.#fail(answer, CLOSE.handshakeRefused);
      return;
    }
    if (answer.payload.length > 0) {
      this.#fail("noise-payload", CLOSE.handshakeRefused);
      return;
    }
    this.#channel = new Channel(crypto, answer.keys, CONTROL_REQUEST_MAX_BYTES);
    this.#challengeKey = randomBytes(random, KEY_BYTES);
    this.#stage = "hello";
    this.#socket.send(answer.message2);
    this.sendMessage({ type: "challenge", key: toBase64(crypto.publicKey(this.#challengeKey)) });
  }

  /** Records in order, one at a time. */
  async #work(): Promise<void> {
    this.#working = true;
    for (;;) {
      const record = this.#waiting.shift();
      if (record === undefined) break;
      try {
        await this.#onRecord(record);
      } catch (error) {
        this.#onFailure(error);
      }
    }
    this.#working = false;
  }

  #onFailure(error: unknown): void {
    const admitted = this.#stage === "admitted";
    if (error instanceof WirebadgeError && error.code !== "STORE_FAILED") {
      this.#drop(`refused-${error.code}`);
      if (admitted && error.code !== "SESSION_REVOKED") this.#sendError(error);
      else this.refuse(error);
      return;
    }
    this.#context.logger.error({ err: error }, "a control record could not be worked on");
    this.refuse(
      new WirebadgeError("STORE_FAILED", "the coordinator failed to keep this", { hint: "see the coordinator's log" }),
    );
  }

  async #onRecord(record: Uint8Array): Promise<void> {
    if (this.#stage === "closed") return;
    const message = decodePeerRecord(record);
    if (typeof message === "string") {
      this.#fail(message, CLOSE.badRecord);
      return;
    }
    if (this.#stage === "hello") {
      this.#onHello(message);
      return;
    }
    if (this.#stage === "admission") return await this.#onAdmission(message);
    this.#rate ??= new TokenBucket(this.#heardMs, CONTROL_RECORDS_PER_SECOND_MAX, 2 * CONTROL_RECORDS_PER_SECOND_MAX);
    if (!this.#rate.take(this.#heardMs)) {
      this.#fail("control-record-rate", CLOSE.tooMany);
      return;
    }
    if (message.type === "hello" || message.type === "enroll" || message.type === "resume") {
      this.#fail("control-out-of-order", CLOSE.badRecord);
      return;
    }
    await this.#context.handler.handle(this.#session!, message, this);
  }

  #onHello(message: PeerMessage): void {
    if (message.type !== "hello") {
      this.#fail("control-out-of-order", CLOSE.badRecord);
      return;
    }
    const signKey = fromBase64(message.signKey);
    const signature = fromBase64(message.signature);
    const hash = this.#channel!.handshakeHash;
    if (signKey?.length !== KEY_BYTES || signature === undefined) {
      this.#fail("record-bad-shape", CLOSE.badRecord);
      return;
    }
    if (!verifyHello(this.#context.crypto, signKey, hash, signature)) {
      this.#fail("hello-bad-signature", CLOSE.badRecord);
      return;
    }
    this.#signKey = signKey;
    this.#software = message.software;
    this.#stage = "admission";
  }

  async #onAdmission(message: PeerMessage): Promise<void> {
    if (message.type !== "enroll" && message.type !== "resume") {
      this.#fail("control-out-of-order", CLOSE.badRecord);
      return;
    }
    const wireguardKey = fromBase64(message.publicKey);
    const proof = fromBase64(message.proof);
    const signKey = this.#signKey!;
    if (wireguardKey?.length !== KEY_BYTES || proof === undefined) {
      this.#fail("record-bad-shape", CLOSE.badRecord);
      return;
    }
    const inputs = {
      privateKey: this.#challengeKey!,
      publicKey: wireguardKey,
      handshakeHash: this.#channel!.handshakeHash,
      signKey,
      wireguardKey,
    };
    const proved = verifyPossession(this.#context.crypto, inputs, proof);
    this.#challengeKey!.fill(0);
    this.#challengeKey = undefined;
    if (!proved) {
      this.#fail("possession-not-proved", CLOSE.badRecord);
      return;
    }
    const session = await this.#context.handler.admit({
      connection: this,
      signKey: toBase64(signKey),
      publicKey: message.publicKey,
      software: this.#software,
      request: message,
    });
    // It may have closed while its enrolment was written.
    if ((this.#stage as Stage) === "closed") {
      this.#context.handler.detach(session, this);
      return;
    }
    this.#session = session;
    this.#stage = "admitted";
    this.#onAdmitted();
  }
}
