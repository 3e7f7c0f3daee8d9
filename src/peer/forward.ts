// `--forward L=R`: a local port or socket whose every connection becomes a flow to one overlay host:port.
// (`--expose`, the other way round, is a target of the gateway: it is dialled before the caller's SYN is answered.)
import type { Socket } from "node:net";
import { parseAddress } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import { parseHostName } from "./host-name.ts";
import type { EntryPoint } from "./local-api-schema.ts";
import { formatListen, type ListenAt, LocalListener, parseListen, type RefusedClient } from "./local-listener.ts";
import { DialError, type DialTarget, type OverlayDialer } from "./overlay.ts";
import type { OwnerCheck } from "./owner.ts";
import { resetSocket, SocketPipe } from "./pipe-sockets.ts";
import type { Turns } from "./turns.ts";

export interface Forward {
  readonly at: ListenAt;
  readonly target: DialTarget;
}

/**
 * `5432=staging-db:5432`, `127.0.0.1:5432=service:staging-db` (a service's only port), `8080=[fd00::1]:80`,
 * `/run/user/1000/db.sock=node:gw-1:22`.
 * @throws WirebadgeError USAGE
 */
export function parseForward(text: string): Forward {
  const at = text.lastIndexOf("=");
  const match = /^(service:|node:)?(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text.slice(at + 1));
  const kind = match?.[1] ?? "";
  const literal = match?.[2];
  const host = literal ?? match?.[3] ?? "";
  const port = match?.[4] === undefined ? 0 : Number(match[4]);
  const isAddress = kind === "" && parseAddress(host) !== undefined;
  const valid = isAddress || (literal === undefined && parseHostName(host) !== undefined);
  const hasPort = match?.[4] === undefined ? kind === "service:" : port >= 1 && port <= 65_535;
  if (at < 1 || !valid || !hasPort) {
    throw new WirebadgeError("USAGE", `--forward ${JSON.stringify(text)} can't be read`, {
      hint: "it takes LOCAL=HOST:PORT or LOCAL=service:NAME, as 5432=staging-db:5432 or 8080=[fd00::1]:80",
    });
  }
  return { at: parseListen("--forward", text.slice(0, at)), target: { host: `${kind}${host}`, port } };
}

export interface ForwardOptions {
  readonly forward: Forward;
  readonly dialer: OverlayDialer;
  readonly turns: Turns;
  readonly owner: OwnerCheck;
  readonly onRefused: (refused: RefusedClient) => void;
  readonly onDialError?: (error: DialError) => void;
  readonly clientsMax?: number;
}

/** A failed dial resets the local client: it has no protocol of its own to say why; the peer's stderr does. */
export class ForwardServer {
  readonly counters: Record<string, number> = {};
  readonly #options: ForwardOptions;
  #listener: LocalListener | undefined;

  private constructor(options: ForwardOptions) {
    this.#options = options;
  }

  /** @throws WirebadgeError USAGE, PORT_TAKEN */
  static async open(options: ForwardOptions): Promise<ForwardServer> {
    const server = new ForwardServer(options);
    server.#listener = await LocalListener.open({
      at: options.forward.at,
      owner: options.owner,
      credentials: false,
      allowRemote: false,
      onClient: (socket) => void server.#serve(socket),
      onRefused: options.onRefused,
      ...(options.clientsMax === undefined ? {} : { clientsMax: options.clientsMax }),
    });
    return server;
  }

  get at(): ListenAt {
    return this.#listener?.at ?? this.#options.forward.at;
  }

  get entryPoint(): EntryPoint {
    const { host, port } = this.#options.forward.target;
    const shown = parseAddress(host) !== undefined && host.includes(":") ? `[${host}]` : host;
    const target = port === 0 ? shown : `${shown}:${port}`;
    return {
      kind: "forward",
      listen: formatListen(this.at),
      target,
      protection: this.#listener?.protection ?? "folder",
    };
  }

  async close(): Promise<void> {
    await this.#listener?.close();
  }

  async #serve(socket: Socket): Promise<void> {
    const controller = new AbortController();
    const onClose = (): void => controller.abort();
    socket.once("close", onClose);
    try {
      const overlay = await this.#options.dialer.dial(this.#options.forward.target, controller.signal);
      socket.off("close", onClose);
      const { connection, closed } = overlay.detach();
      this.#count("connected");
      new SocketPipe({ socket, reader: undefined }, connection, this.#options.turns, () => undefined, closed);
    } catch (error) {
      socket.off("close", onClose);
      resetSocket(socket);
      this.#count(error instanceof DialError ? error.kind : "failed");
      if (error instanceof DialError && error.kind !== "aborted") this.#options.onDialError?.(error);
    }
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }
}
