// The UAPI socket of a TUN device: /var/run/wireguard/NAME.sock, where wg(8) looks for it. Whoever may connect may read
// the keys and set everything, so the socket is its owner's alone from its first moment on. Requests of one connection
// are answered in order, sets of all connections one after the other.
import {
  chmodSync,
  type FSWatcher,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  watch,
} from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { getuid } from "node:process";
import { clearTimeout, setTimeout } from "node:timers";
import { WirebadgeError } from "../../base/errors.ts";
import { UAPI_CLIENTS_MAX, UAPI_REQUEST_MAX_BYTES, UAPI_REQUEST_MAX_MS } from "../../base/limits.ts";
import { errnoOf } from "../real-network.ts";
import {
  formatDevice,
  formatErrno,
  parseUapiRequest,
  UAPI_ERRNO,
  type UapiChange,
  type UapiDevice,
} from "./uapi-codec.ts";
import { DEVICE_NAME } from "./undo-journal.ts";

export const UAPI_FOLDER = "/var/run/wireguard";

const FOLDER_MODE = 0o700;
const SOCKET_MODE = 0o600;
const WRITABLE_BY_OTHERS = 0o022;
const CLIENT_GONE = ["ECONNRESET", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE"];

export interface UapiBackend {
  get(): Promise<UapiDevice>;
  /** Applies all of it or nothing. An errno of UAPI_ERRNO; 0: done. */
  set(change: UapiChange): Promise<number>;
}

export interface UapiServerOptions {
  /** Of the device. */
  readonly name: string;
  readonly backend: UapiBackend;
  /** Shows no private and preshared keys and refuses every set with EPERM. */
  readonly readOnly: boolean;
  /** A set under `readOnly`: an audit line. */
  readonly onRefusedSet?: () => void;
  /** Our own failure while answering, for the log; the client gets EIO. */
  readonly onFailure: (error: unknown) => void;
  /** Somebody has deleted the socket: as the specification has it, the device is then to end gracefully. */
  readonly onRemoved?: () => void;
  /** UAPI_FOLDER, but in tests. */
  readonly folder?: string;
  /** UAPI_REQUEST_MAX_MS, but in tests. */
  readonly requestMaxMs?: number;
}

function refused(message: string, hint: string): WirebadgeError {
  return new WirebadgeError("FORBIDDEN", message, { hint });
}

/** Made if need be. One that wireguard-go or wg-quick has made may be read by others; the sockets in it may not. */
function openFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  } catch (error) {
    const hint = `wg(8) looks there alone: run as root, or have root make it yours: install -d -o USER ${folder}`;
    throw refused(`${folder} can't be made (${errnoOf(error)})`, hint);
  }
  const stat = statSync(folder);
  const foreign = getuid !== undefined && stat.uid !== getuid();
  if (!stat.isDirectory() || foreign || (stat.mode & WRITABLE_BY_OTHERS) !== 0) {
    throw refused(`${folder} belongs to others, or may be written to by others`, `as its owner: chmod go-w ${folder}`);
  }
}

/** Does anybody answer there? */
function isLive(path: string): Promise<boolean> {
  return new Promise((done) => {
    const probe = createConnection({ path });
    probe.once("connect", () => {
      probe.destroy();
      done(true);
    });
    probe.once("error", (error) => done(errnoOf(error) !== "ECONNREFUSED" && errnoOf(error) !== "ENOENT"));
  });
}

function taken(name: string, path: string): WirebadgeError {
  return new WirebadgeError("PORT_TAKEN", `another process runs ${name}: it answers at ${path}`, {
    hint: "end that one (see `wg show`), or choose another name for this device",
  });
}

/** A socket that a killed process left is replaced. @throws PORT_TAKEN */
async function removeStale(name: string, path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket() || (await isLive(path))) throw taken(name, path);
  rmSync(path, { force: true });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ path }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/**
 * Born in a folder that nobody else enters, it comes to its place only when its mode is set; by a hard link, which of
 * two that start at once lets one succeed.
 */
async function bind(server: Server, folder: string, name: string, path: string): Promise<void> {
  const nursery = mkdtempSync(join(folder, ".new-"));
  const born = join(nursery, "s");
  try {
    await listen(server, born);
    chmodSync(born, SOCKET_MODE);
    linkSync(born, path);
  } catch (error) {
    server.close();
    if (errnoOf(error) === "EEXIST") throw taken(name, path);
    throw refused(`the socket ${path} can't be made (${errnoOf(error)})`, "see that its folder may be written to");
  } finally {
    rmSync(nursery, { recursive: true, force: true });
  }
}

export class UapiServer {
  readonly path: string;
  readonly #server: Server;
  readonly #options: UapiServerOptions;
  readonly #clients = new Set<Socket>();
  #inode: bigint | undefined;
  #watcher: FSWatcher | undefined;
  #sets: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(server: Server, options: UapiServerOptions, path: string) {
    this.path = path;
    this.#server = server;
    this.#options = options;
  }

  /** @throws PORT_TAKEN when another process answers there, FORBIDDEN by the folder, USAGE by the name */
  static async open(options: UapiServerOptions): Promise<UapiServer> {
    const { name } = options;
    const folder = options.folder ?? UAPI_FOLDER;
    if (!DEVICE_NAME.test(name)) {
      throw new WirebadgeError("USAGE", `${JSON.stringify(name)} is no name for a device`, {
        hint: "1 to 15 of the characters a-z A-Z 0-9 _ = + . -",
      });
    }
    openFolder(folder);
    const path = join(folder, `${name}.sock`);
    await removeStale(name, path);
    const server = createServer({ allowHalfOpen: true });
    const uapi = new UapiServer(server, options, path);
    server.on("connection", (socket) => uapi.#accept(socket));
    await bind(server, folder, name, path);
    server.on("error", options.onFailure); // e.g. out of descriptors
    uapi.#inode = uapi.#inodeThere();
    uapi.#watch(folder);
    return uapi;
  }

  /** Clients are cut. The file goes unless it is somebody else's by now. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher?.close();
    if (this.#inode !== undefined && this.#inodeThere() === this.#inode) rmSync(this.path, { force: true });
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#clients) socket.destroy();
    await closed;
  }

  #inodeThere(): bigint | undefined {
    return lstatSync(this.path, { throwIfNoEntry: false, bigint: true })?.ino;
  }

  #watch(folder: string): void {
    const { onRemoved } = this.#options;
    if (onRemoved === undefined) return;
    this.#watcher = watch(folder, { persistent: false }, () => {
      if (this.#closed || this.#inodeThere() === this.#inode) return;
      this.#watcher?.close();
      onRemoved();
    });
    this.#watcher.on("error", this.#options.onFailure);
  }

  #accept(socket: Socket): void {
    if (this.#clients.size >= UAPI_CLIENTS_MAX) {
      socket.destroy();
      return;
    }
    this.#clients.add(socket);
    socket.once("close", () => this.#clients.delete(socket));
    socket.on("error", () => socket.destroy()); // it went away: `wg show interfaces` connects and closes
    void new Connection(socket, this.#options, (change) => this.#set(change)).run().catch((error: unknown) => {
      if (!CLIENT_GONE.includes(errnoOf(error))) this.#options.onFailure(error);
      socket.destroy();
    });
  }

  /** One after the other, over all connections. */
  #set(change: UapiChange): Promise<number> {
    const done = this.#sets.then(() => (this.#closed ? UAPI_ERRNO.EIO : this.#options.backend.set(change)));
    this.#sets = done.catch(() => undefined); // whoever asked is told
    return done;
  }
}

/** Reads requests, each ended by an empty line, and answers them. */
class Connection {
  readonly #socket: Socket;
  readonly #options: UapiServerOptions;
  readonly #set: (change: UapiChange) => Promise<number>;
  #timer: NodeJS.Timeout | undefined;

  constructor(socket: Socket, options: UapiServerOptions, set: (change: UapiChange) => Promise<number>) {
    this.#socket = socket;
    this.#options = options;
    this.#set = set;
    socket.once("close", () => clearTimeout(this.#timer));
  }

  async run(): Promise<void> {
    this.#startTimer();
    let parts: string[] = [];
    let length = 0;
    let last = "";
    this.#socket.setEncoding("latin1"); // the language is ASCII: no byte of it is more than one character
    const chunks = this.#socket.iterator({ destroyOnReturn: false }) as AsyncIterable<string>; // a last answer may wait
    for await (const chunk of chunks) {
      length += chunk.length;
      if (length > UAPI_REQUEST_MAX_BYTES) {
        last = formatErrno(UAPI_ERRNO.E2BIG);
        break;
      }
      const before = parts.at(-1) ?? "";
      parts.push(chunk);
      // The end may lie across two chunks; before that it was looked for already.
      if (!`${before.slice(-1)}${chunk}`.includes("\n\n")) continue;
      const outcome = await this.#answerAll(parts.join(""));
      if (outcome.last !== undefined) {
        last = outcome.last;
        break;
      }
      parts = outcome.rest === "" ? [] : [outcome.rest];
      length = outcome.rest.length;
    }
    if (this.#socket.destroyed) return;
    this.#startTimer();
    this.#socket.end(last);
    this.#socket.resume(); // to see its end; the timer cuts one that never ends
  }

  /** `rest` is what follows the last whole request; `last`: nothing more is read after this answer. */
  async #answerAll(text: string): Promise<{ readonly rest: string; readonly last?: string }> {
    for (;;) {
      const end = text.indexOf("\n\n");
      if (end < 0) return { rest: text };
      const request = parseUapiRequest(text.slice(0, end));
      text = text.slice(end + 2);
      const answer = await this.#answer(request);
      // What follows a request that was not understood may be the rest of it.
      if (request.operation === "refused" || this.#socket.destroyed) return { rest: "", last: answer };
      this.#startTimer();
      if (!this.#socket.write(answer) && !(await this.#drained())) return { rest: "", last: "" };
    }
  }

  async #answer(request: ReturnType<typeof parseUapiRequest>): Promise<string> {
    const { backend, readOnly, onRefusedSet, onFailure } = this.#options;
    if (request.operation === "refused") return formatErrno(request.errno);
    if (request.operation === "set" && readOnly) {
      onRefusedSet?.();
      return formatErrno(UAPI_ERRNO.EPERM);
    }
    clearTimeout(this.#timer); // what the device takes is not the client's fault
    try {
      if (request.operation === "get") return formatDevice(await backend.get(), !readOnly);
      return formatErrno(await this.#set(request.change));
    } catch (error) {
      onFailure(error);
      return formatErrno(UAPI_ERRNO.EIO);
    }
  }

  /** False: the client took too long, or went. */
  #drained(): Promise<boolean> {
    return new Promise((resolve) => {
      const onDrain = (): void => {
        this.#socket.off("close", onClose);
        resolve(true);
      };
      const onClose = (): void => {
        this.#socket.off("drain", onDrain);
        resolve(false);
      };
      this.#socket.once("drain", onDrain).once("close", onClose);
    });
  }

  #startTimer(): void {
    clearTimeout(this.#timer);
    if (this.#socket.destroyed) return;
    const ms = this.#options.requestMaxMs ?? UAPI_REQUEST_MAX_MS;
    this.#timer = setTimeout(() => this.#socket.destroy(), ms);
    this.#timer.unref();
  }
}
