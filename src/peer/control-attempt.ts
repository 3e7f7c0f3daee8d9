// One WebSocket of the peer to its coordinator, from connecting to its end: handshake, hello, proof, records. Knows
// nothing of sessions, leases or retries; control-client.ts does.
import type { ClientRequest } from "node:http";
import { WebSocket } from "ws";
import { type Address, parseAddress } from "../base/address.ts";
import { fromBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { CONTROL_ANSWER_MAX_MS, CONTROL_RECORD_MAX_BYTES, CONTROL_SEND_QUEUE_MAX_BYTES } from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { Channel, NOISE_MESSAGE_MAX_BYTES } from "../control/channel.ts";
import { CLOSE } from "../control/close-codes.ts";
import { controlUrl, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, prologueOf } from "../control/contexts.ts";
import {
  type CoordinatorRecord,
  decodeCoordinatorRecord,
  encodeJsonRecord,
  type PeerMessage,
} from "../control/messages.ts";
import { NoiseInitiator } from "../control/noise-nk.ts";
import { type Crypto, KEY_BYTES } from "../crypto/provider.ts";

export interface AttemptHandler {
  /** The channel stands and the coordinator's challenge key is here: time to say hello. */
  onChallenge(challengeKey: Uint8Array, handshakeHash: Uint8Array): void;
  onRecord(record: CoordinatorRecord): void;
  /** Once, whatever happened. */
  onEnd(error: WirebadgeError): void;
}

export interface AttemptOptions {
  readonly url: string;
  readonly coordinatorKey: Uint8Array;
  readonly crypto: Crypto;
  readonly random: Random;
  /** It doesn't keep the process alive. */
  readonly background?: boolean | undefined;
}

function endInBackground(request: ClientRequest): void {
  request.once("socket", (socket) => socket.unref());
  request.end();
}

export class ControlAttempt {
  readonly #options: AttemptOptions;
  readonly #handler: AttemptHandler;
  readonly #socket: WebSocket;
  #initiator: NoiseInitiator | undefined;
  #channel: Channel | undefined;
  #challenged = false;
  #ended = false;
  #remoteAddress: Address | undefined;

  constructor(options: AttemptOptions, handler: AttemptHandler) {
    this.#options = options;
    this.#handler = handler;
    this.#socket = new WebSocket(controlUrl(options.url), {
      perMessageDeflate: false,
      maxPayload: NOISE_MESSAGE_MAX_BYTES,
      handshakeTimeout: CONTROL_ANSWER_MAX_MS,
      followRedirects: false,
      skipUTF8Validation: true,
      ...(options.background === true && { finishRequest: endInBackground }),
    });
    this.#socket.binaryType = "nodebuffer";
    this.#socket.on("upgrade", ({ socket }) => {
      this.#remoteAddress = parseAddress(socket.remoteAddress?.replace(/%.*$/, "") ?? "");
    });
    this.#socket.on("open", () => this.#onOpen());
    this.#socket.on("message", (data, isBinary) => this.#onMessage(data as Buffer, isBinary));
    this.#socket.on("error", (cause) => this.#end(this.#unreachable(cause.message, cause)));
    this.#socket.on("close", (code, reason) => this.#onClose(code, reason.toString("latin1")));
  }

  /** Of the coordinator, or of the proxy before it, once there is a connection. */
  get remoteAddress(): Address | undefined {
    return this.#remoteAddress;
  }

  /** False when the channel is not up, or so far behind that it was given up. */
  send(message: PeerMessage): boolean {
    if (this.#channel === undefined || this.#ended) return false;
    const messages = this.#channel.seal(encodeJsonRecord(message));
    if (typeof messages === "string" || this.#socket.bufferedAmount > CONTROL_SEND_QUEUE_MAX_BYTES) {
      this.#end(this.#unreachable("the channel is used up"));
      return false;
    }
    for (const part of messages) this.#socket.send(part);
    return true;
  }

  close(): void {
    this.#ended = true;
    this.#channel?.close();
    this.#socket.close(1000);
    const timer = setTimeout(() => this.#socket.terminate(), 1_000);
    timer.unref();
    this.#socket.once("close", () => clearTimeout(timer));
  }

  /** Ends the attempt as if the network had. */
  fail(message: string): void {
    this.#end(this.#unreachable(message));
  }

  #onOpen(): void {
    const { crypto, random, coordinatorKey } = this.#options;
    this.#initiator = new NoiseInitiator(crypto, random, prologueOf(PROTOCOL_VERSION), coordinatorKey);
    const message1 = this.#initiator.writeMessage1();
    if (message1 === undefined) {
      this.#end(this.#untrusted());
      return;
    }
    const framed = new Uint8Array(1 + message1.length);
    framed[0] = PROTOCOL_VERSION;
    framed.set(message1, 1);
    this.#socket.send(framed);
  }

  #onMessage(data: Uint8Array, isBinary: boolean): void {
    if (this.#ended || this.#initiator === undefined) return;
    if (!isBinary) {
      this.#end(this.#unreachable("it sent a text frame"));
      return;
    }
    if (this.#channel === undefined) {
      const answer = this.#initiator.readMessage2(data);
      if (typeof answer === "string" || answer.payload.length > 0) {
        this.#end(this.#untrusted());
        return;
      }
      this.#channel = new Channel(this.#options.crypto, answer.keys, CONTROL_RECORD_MAX_BYTES);
      return;
    }
    const record = this.#channel.open(data);
    if (record === "more") return;
    const decoded = typeof record === "string" ? record : decodeCoordinatorRecord(record);
    if (typeof decoded === "string") {
      this.#end(this.#unreachable(`it sent what is no record (${decoded})`));
      return;
    }
    this.#onRecord(decoded);
  }

  #onRecord(record: CoordinatorRecord): void {
    if (this.#challenged) {
      this.#handler.onRecord(record);
      return;
    }
    const key = record.kind === "message" && record.message.type === "challenge" ? record.message.key : "";
    const challengeKey = fromBase64(key);
    if (challengeKey?.length !== KEY_BYTES) {
      this.#end(this.#unreachable("it sent no challenge"));
      return;
    }
    this.#challenged = true;
    this.#handler.onChallenge(challengeKey, this.#channel!.handshakeHash);
  }

  #onClose(code: number, reason: string): void {
    if (code === CLOSE.protocolVersion && this.#channel === undefined) this.#end(this.#otherVersion(reason));
    else if (code === CLOSE.handshakeRefused && this.#channel === undefined) this.#end(this.#untrusted());
    else if (code === CLOSE.tooMany) this.#end(this.#unreachable("it asks for patience: too many requests from here"));
    else if (code === CLOSE.stopping) this.#end(this.#unreachable("it is stopping"));
    else if (code === CLOSE.replaced) this.#end(this.#unreachable("another process with the same state took over"));
    else this.#end(this.#unreachable(`the connection ended (${code})`));
  }

  #end(error: WirebadgeError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#channel?.close();
    this.#socket.terminate();
    this.#handler.onEnd(error);
  }

  #unreachable(what: string, cause?: unknown): WirebadgeError {
    return new WirebadgeError(
      "COORDINATOR_UNREACHABLE",
      `the coordinator at ${this.#options.url} can't be reached: ${what}`,
      {
        hint: "check that it runs and that this machine reaches it; known peers stay reachable until leases end",
        cause,
      },
    );
  }

  #untrusted(): WirebadgeError {
    return new WirebadgeError(
      "COORDINATOR_UNTRUSTED",
      `what answers at ${this.#options.url} doesn't hold the coordinator's key that the token pins`,
      { hint: "somebody stands in between, or the coordinator was made anew: then ask for a new token" },
    );
  }

  /** `reason` is unauthenticated: only two small numbers are taken from it. */
  #otherVersion(reason: string): WirebadgeError {
    const match = /^(\d{1,3})-(\d{1,3})$/.exec(reason);
    const [lowest, highest] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)];
    const newer = lowest > PROTOCOL_VERSION;
    const older = match !== null && highest < PROTOCOL_VERSION_MIN;
    const hint = newer
      ? "upgrade wirebadge on this machine"
      : older
        ? "upgrade the coordinator"
        : "upgrade the older end";
    const served = match === null ? "" : ` ${lowest} to ${highest}`;
    return new WirebadgeError(
      "PROTOCOL_VERSION",
      `the coordinator speaks control protocol${served}, this peer ${PROTOCOL_VERSION_MIN} to ${PROTOCOL_VERSION}`,
      { hint },
    );
  }
}
