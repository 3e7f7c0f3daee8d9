// Where local programs enter: a loopback TCP port or a unix socket, under the rules for entry points. Whoever gets
// past here has the session's rights, so: loopback only (another address needs --allow-remote and credentials), one
// owner, bounded, strict.
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { createConnection, createServer, type ListenOptions, type Server, type Socket } from "node:net";
import { dirname, resolve as resolvePath } from "node:path";
import { getuid } from "node:process";
import { type Address, formatAddress, isV4, parseAddress } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import { PROXY_CLIENTS_MAX } from "../base/limits.ts";
import type { EntryPoint } from "./local-api-schema.ts";
import type { OwnerCheck, OwnerVerdict } from "./owner.ts";
import { errnoOf } from "./real-network.ts";

export type ListenAt = { readonly address: Address; readonly port: number } | { readonly path: string };

/** A client that was turned away at the door: an audit line, without what it sent. */
export interface RefusedClient {
  readonly listen: string;
  readonly reason: Exclude<OwnerVerdict, { allowed: true }>["reason"] | "too-many-clients";
  readonly uid: number | undefined;
  readonly from: string;
}

export interface LocalListenerOptions {
  readonly at: ListenAt;
  readonly owner: OwnerCheck;
  /** The protocol spoken behind demands a password: the owner isn't asked. */
  readonly credentials: boolean;
  readonly allowRemote: boolean;
  /** The socket allows half-open and is paused until it is read. */
  readonly onClient: (socket: Socket) => void;
  readonly onRefused: (refused: RefusedClient) => void;
  readonly clientsMax?: number;
}

const FOLDER_MODE = 0o700;
const SOCKET_PATH_MAX_BYTES = 103; // of 108 with the final zero on Linux, 104 on macOS

/** `127.0.0.1:1080`, `[::1]:1080`, `1080` (on 127.0.0.1), `/path` or `unix:/path`. @throws USAGE */
export function parseListen(option: string, text: string): ListenAt {
  if (text.startsWith("unix:/")) return { path: text.slice("unix:".length) };
  if (text.startsWith("/")) return { path: text };
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "127.0.0.1";
  const address = parseAddress(host === "localhost" ? "127.0.0.1" : host);
  const port = Number(match?.[3]);
  if (match === null || address === undefined || port > 65_535) {
    throw new WirebadgeError("USAGE", `${option} ${JSON.stringify(text)} is no place to listen at`, {
      hint: "give HOST:PORT with an IP address, PORT (on 127.0.0.1), or the path of a unix socket",
    });
  }
  return { address, port };
}

export function formatListen(at: ListenAt): string {
  if ("path" in at) return at.path;
  const host = formatAddress(at.address);
  return isV4(at.address) ? `${host}:${at.port}` : `[${host}]:${at.port}`;
}

function isLoopback(address: Address): boolean {
  if (isV4(address)) return address.w3 >>> 24 === 127;
  return formatAddress(address) === "::1";
}

/** Before anything is opened. @throws USAGE */
function checkPlace(options: LocalListenerOptions): void {
  const { at } = options;
  if ("path" in at) return;
  const listen = formatListen(at);
  if (!isLoopback(at.address) && !(options.allowRemote && options.credentials)) {
    throw new WirebadgeError("USAGE", `a local entry point does not listen at ${listen}: it isn't loopback`, {
      hint: "whoever reaches it has this session's rights; if that is meant, give --allow-remote and credentials",
    });
  }
  if (!options.credentials && options.owner.mode === "refused") {
    throw new WirebadgeError("USAGE", `this system can't tell who connects to ${listen}`, {
      hint: "give credentials, or listen on a unix socket (its path instead of HOST:PORT)",
    });
  }
}

/** The folder is the guard: ours, and closed to everybody else. Made if it isn't there. */
function guardFolder(path: string): void {
  const folder = dirname(resolvePath(path));
  mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  const stat = lstatSync(folder);
  const foreign = getuid !== undefined && stat.uid !== getuid();
  if (!stat.isDirectory() || foreign || (stat.mode & 0o077) !== 0) {
    throw new WirebadgeError("USAGE", `the folder of the socket ${JSON.stringify(path)} is open to others`, {
      hint: "put the socket into a folder of your own with mode 0700",
    });
  }
}

/** Of a process that was killed: nobody answers there. A live one is left alone. */
async function removeStale(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw taken(path, undefined);
  const live = await new Promise<boolean>((done) => {
    const probe = createConnection({ path });
    probe.once("connect", () => {
      probe.destroy();
      done(true);
    });
    probe.once("error", (error) => done(errnoOf(error) !== "ECONNREFUSED" && errnoOf(error) !== "ENOENT"));
  });
  if (live) throw taken(path, undefined);
  unlinkSync(path);
}

function taken(listen: string, cause: unknown): WirebadgeError {
  return new WirebadgeError(
    "PORT_TAKEN",
    `can't listen at ${listen} (${cause === undefined ? "in use" : errnoOf(cause)})`,
    {
      hint: "choose another address or port, or end the program that has it",
      cause,
    },
  );
}

function listen(server: Server, where: ListenOptions, shown: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => reject(taken(shown, error));
    server.once("error", onError);
    server.listen(where, () => {
      server.off("error", onError);
      resolve();
    });
  });
}

/** In a folder that is ours alone; a socket left behind by a killed process is taken over. @throws USAGE, PORT_TAKEN */
export async function openUnixSocket(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > SOCKET_PATH_MAX_BYTES) {
    throw new WirebadgeError("USAGE", `the path of the socket ${JSON.stringify(path)} is too long`, {
      hint: `${SOCKET_PATH_MAX_BYTES} bytes are the most (unix(7)): choose a shorter folder, with --state`,
    });
  }
  guardFolder(path);
  await removeStale(path);
  await listen(server, { path }, path);
  chmodSync(path, 0o600);
}

export class LocalListener {
  /** As bound: with the port that the system chose for port 0. */
  readonly at: ListenAt;
  readonly counters: Record<string, number> = {};
  readonly #server: Server;
  readonly #options: LocalListenerOptions;
  readonly #clients = new Set<Socket>();

  private constructor(at: ListenAt, server: Server, options: LocalListenerOptions) {
    this.at = at;
    this.#server = server;
    this.#options = options;
    server.on("connection", (socket) => this.#accept(socket));
    server.on("error", (error) => this.#count(`server-${errnoOf(error)}`)); // e.g. out of descriptors
  }

  /** @throws WirebadgeError USAGE, PORT_TAKEN */
  static async open(options: LocalListenerOptions): Promise<LocalListener> {
    checkPlace(options);
    const { at } = options;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    if ("path" in at) await openUnixSocket(server, at.path);
    else await listen(server, { host: formatAddress(at.address), port: at.port, ipv6Only: true }, formatListen(at));
    const bound = server.address();
    const port = bound !== null && typeof bound === "object" ? bound.port : 0;
    return new LocalListener("path" in at ? at : { address: at.address, port }, server, options);
  }

  get protection(): EntryPoint["protection"] {
    if ("path" in this.at) return "folder";
    if (this.#options.credentials) return "credentials";
    return this.#options.owner.mode === "sock-diag" ? "owner-sock-diag" : "owner-proc";
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** Clients are cut, too. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#clients) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    socket.on("error", () => this.#count("client-error")); // a reset before anybody else listens
    if (this.#clients.size >= (this.#options.clientsMax ?? PROXY_CLIENTS_MAX)) {
      this.#refuse(socket, "too-many-clients", undefined);
      return;
    }
    if (!("path" in this.at) && !this.#options.credentials) {
      const verdict = this.#options.owner.judgeSocket(socket);
      if (!verdict.allowed) {
        this.#refuse(socket, verdict.reason, verdict.uid);
        return;
      }
    }
    this.#clients.add(socket);
    socket.once("close", () => this.#clients.delete(socket));
    this.#options.onClient(socket);
  }

  #refuse(socket: Socket, reason: RefusedClient["reason"], uid: number | undefined): void {
    this.#count(`refused-${reason}`);
    const from = `${socket.remoteAddress ?? "?"} port ${socket.remotePort ?? "?"}`;
    socket.destroy();
    this.#options.onRefused({ listen: formatListen(this.at), reason, uid, from });
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }
}
