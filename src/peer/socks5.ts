// SOCKS5 for what is not Node: a local program's CONNECT becomes a flow of the overlay under this session's rights.
// The reply is sent only after the far end answered; what is denied and what doesn't exist get the same bytes
// (socks5-handshake.ts).
import type { Socket } from "node:net";
import { clearTimeout, setTimeout } from "node:timers";
import { WirebadgeError } from "../base/errors.ts";
import { PROXY_HANDSHAKE_MAX_MS } from "../base/limits.ts";
import type { EntryPoint } from "./local-api-schema.ts";
import { formatListen, type ListenAt, LocalListener, type RefusedClient } from "./local-listener.ts";
import { DialError, type DialTarget, type OverlayDialer } from "./overlay.ts";
import type { OwnerCheck } from "./owner.ts";
import { resetSocket, SocketPipe } from "./pipe-sockets.ts";
import {
  encodeSocks5Reply,
  SOCKS5_GENERAL_FAILURE,
  SOCKS5_REPLIES,
  SOCKS5_SUCCEEDED,
  type Socks5Credentials,
  Socks5Handshake,
  type Socks5Step,
} from "./socks5-handshake.ts";
import type { Turns } from "./turns.ts";

/** How long a client may take to read a failure's reply and close. */
const FAREWELL_MAX_MS = 1_000;

export interface Socks5Options {
  readonly at: ListenAt;
  readonly dialer: OverlayDialer;
  readonly turns: Turns;
  readonly owner: OwnerCheck;
  readonly credentials?: Socks5Credentials;
  readonly allowRemote?: boolean;
  readonly onRefused: (refused: RefusedClient) => void;
  /** A dial that failed, for the peer's stderr. */
  readonly onDialError?: (error: DialError) => void;
  readonly clientsMax?: number;
  readonly handshakeMaxMs?: number;
}

function checkCredentials(credentials: Socks5Credentials | undefined): void {
  for (const text of credentials === undefined ? [] : [credentials.user, credentials.password]) {
    const bytes = Buffer.byteLength(text);
    if (bytes >= 1 && bytes <= 255) continue;
    throw new WirebadgeError("USAGE", "SOCKS5 credentials have 1 to 255 bytes each (RFC 1929)", {
      hint: "choose a shorter user name and password",
    });
  }
}

export class Socks5Server {
  readonly counters: Record<string, number> = {};
  readonly #options: Socks5Options;
  #listener: LocalListener | undefined;

  private constructor(options: Socks5Options) {
    this.#options = options;
  }

  /** @throws WirebadgeError USAGE, PORT_TAKEN */
  static async open(options: Socks5Options): Promise<Socks5Server> {
    checkCredentials(options.credentials);
    const server = new Socks5Server(options);
    server.#listener = await LocalListener.open({
      at: options.at,
      owner: options.owner,
      credentials: options.credentials !== undefined,
      allowRemote: options.allowRemote === true,
      onClient: (socket) => server.#serve(socket),
      onRefused: options.onRefused,
      ...(options.clientsMax === undefined ? {} : { clientsMax: options.clientsMax }),
    });
    return server;
  }

  get at(): ListenAt {
    return this.#listener?.at ?? this.#options.at;
  }

  get entryPoint(): EntryPoint {
    return { kind: "socks5", listen: formatListen(this.at), protection: this.#listener?.protection ?? "folder" };
  }

  async close(): Promise<void> {
    await this.#listener?.close();
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }

  #serve(socket: Socket): void {
    const handshake = new Socks5Handshake(this.#options.credentials);
    // One limit for the whole handshake, not for each byte of it: a client that drips is closed like one that is
    // silent.
    const timer = setTimeout(() => {
      this.#count("handshake-timeout");
      socket.destroy();
    }, this.#options.handshakeMaxMs ?? PROXY_HANDSHAKE_MAX_MS);
    const stop = (): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("end", onEnd);
      socket.pause();
    };
    const onEnd = (): void => {
      this.#count("handshake-ended");
      socket.destroy();
    };
    const onData = (bytes: Uint8Array): void => {
      handshake.push(bytes);
      for (let step = handshake.next(); step !== undefined; step = handshake.next()) this.#step(socket, step, stop);
    };
    socket.once("close", () => clearTimeout(timer));
    socket.on("data", onData).on("end", onEnd).resume();
  }

  #step(socket: Socket, step: Socks5Step, stop: () => void): void {
    if (step.kind === "reply") {
      socket.write(step.bytes);
      return;
    }
    stop();
    if (step.kind === "fail") {
      this.#count(step.reason);
      this.#farewell(socket, step.bytes);
    } else void this.#connect(socket, step.target, step.rest);
  }

  async #connect(socket: Socket, target: DialTarget, rest: Uint8Array): Promise<void> {
    const controller = new AbortController();
    const onClose = (): void => controller.abort();
    socket.once("close", onClose);
    try {
      const overlay = await this.#options.dialer.dial(target, controller.signal);
      socket.off("close", onClose);
      socket.write(encodeSocks5Reply(SOCKS5_SUCCEEDED, overlay.localEndpoint));
      if (rest.length > 0) socket.unshift(rest);
      const { connection, closed } = overlay.detach();
      this.#count("connected");
      new SocketPipe({ socket, reader: undefined }, connection, this.#options.turns, ignore, closed);
    } catch (error) {
      socket.off("close", onClose);
      this.#fail(socket, error);
    }
  }

  #fail(socket: Socket, error: unknown): void {
    if (!(error instanceof DialError)) {
      this.#count("failed");
      this.#farewell(socket, encodeSocks5Reply(SOCKS5_GENERAL_FAILURE));
      return;
    }
    this.#count(error.kind);
    if (error.kind !== "aborted") this.#options.onDialError?.(error);
    this.#farewell(socket, encodeSocks5Reply(SOCKS5_REPLIES[error.kind]));
  }

  /** The reply reaches the client before the close: what it sent on is read and thrown away, for a bounded time. */
  #farewell(socket: Socket, bytes: Uint8Array): void {
    if (socket.destroyed) return;
    const timer = setTimeout(() => resetSocket(socket), FAREWELL_MAX_MS);
    socket.once("close", () => clearTimeout(timer));
    socket.once("end", () => socket.destroySoon());
    socket.end(bytes);
    socket.on("data", ignore).resume();
  }
}

function ignore(): void {
  // Thrown away.
}
