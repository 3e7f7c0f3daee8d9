// A TCP connection of the userspace stack as a net.Socket, for whoever speaks streams (SDK, HTTP). The entry points of
// this folder take the connection out again with `detach` and join it to a real socket without the stream's cost
// (pipe-sockets.ts). A net.Socket without a handle leaves nearly everything to its stream methods: `StreamEnd` has what
// stands behind those, so that a socket which somebody else has made can be given the same ones (sdk/register.ts).
import { Buffer } from "node:buffer";
import { EventEmitter } from "node:events";
import { type NetConnectOpts, Socket, type SocketConstructorOpts } from "node:net";
import { addAbortSignal } from "node:stream";
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import { type Endpoint, formatAddress, isV4 } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { KIB, MINUTE_MS } from "../base/units.ts";
import type { TcpCloseReason, TcpConnection } from "../netstack/contract.ts";
import { socketError } from "./socket-error.ts";
import type { Turns } from "./turns.ts";

const READ_MAX_BYTES = 64 * KIB;
/** How long a connection that was destroyed after its end may take to deliver what it had accepted. */
export const ORPHAN_MAX_MS = MINUTE_MS;

const CLOSE_ERRORS: Readonly<
  Record<Exclude<TcpCloseReason, "closed" | "aborted">, readonly [code: string, text: string]>
> = {
  reset: ["ECONNRESET", "the far end reset the connection"],
  refused: ["ECONNREFUSED", "the far end refused the connection"],
  timeout: ["ETIMEDOUT", "the far end stopped answering"],
  unreachable: ["EHOSTUNREACH", "the far end can't be reached"],
  prohibited: ["EACCES", "the policy prohibits the connection"],
};

function errorOf(reason: TcpCloseReason): Error | undefined {
  if (reason === "closed" || reason === "aborted") return undefined;
  return socketError(...CLOSE_ERRORS[reason]);
}

/** A connection whose handshake has ended and that nobody reads yet, and how it was closed if that has happened. */
export interface DetachedTcp {
  readonly connection: TcpConnection;
  readonly closed: TcpCloseReason | undefined;
}

/** Keeps a connection until somebody takes its handler over. */
export class HeldTcp implements DetachedTcp {
  readonly connection: TcpConnection;
  closed: TcpCloseReason | undefined;

  constructor(connection: TcpConnection) {
    this.connection = connection;
    connection.handler = {
      readable: ignore,
      writable: ignore,
      closed: (reason) => {
        this.closed = reason;
      },
    };
  }
}

/** What keeps the process alive while a socket is open. */
export interface ProcessHold {
  hold(): void;
  release(): void;
}

export const NO_HOLD: ProcessHold = { hold: ignore, release: ignore };

/** As Node's writev gives them. */
export interface WriteChunk {
  readonly chunk: Uint8Array | string;
  readonly encoding: BufferEncoding;
}

type WriteCallback = (error?: Error | null) => void;

/** The fields of a net.Socket that its types don't name, and that Node itself reads. */
interface SocketInside {
  connecting: boolean;
  _unrefTimer(): void;
  _server?: { _connections: number; _emitCloseIfDrained?(): void } | null;
}

/**
 * What a net.Socket does, done by a connection of the stack. Before `attach` it waits: a read, one write and the end.
 * Stream callbacks never run inside the stack: they are put off to the end of the event loop's turn.
 */
export class StreamEnd {
  readonly #socket: Socket;
  readonly #inside: SocketInside;
  readonly #turns: Turns;
  readonly #hold: ProcessHold;
  #holds = false;
  #begun = false;
  #wanted = true; // by the program: not unref'd
  #connection: TcpConnection | undefined;
  #readWanted = false;
  #write: { bytes: Uint8Array; callback: WriteCallback } | undefined;
  #final: WriteCallback | undefined;
  #closed: TcpCloseReason | undefined;
  #endSent = false;
  #endSeen = false;
  #detached = false;
  #pokeQueued = false;
  bytesRead = 0;
  bytesWritten = 0;

  constructor(socket: Socket, turns: Turns, hold: ProcessHold) {
    this.#socket = socket;
    this.#inside = socket as unknown as SocketInside;
    this.#turns = turns;
    this.#hold = hold;
  }

  /** It is connecting. */
  begin(): void {
    this.#begun = true;
    this.#inside.connecting = true;
    this.#setHold();
  }

  get isBegun(): boolean {
    return this.#begun;
  }

  get connection(): TcpConnection | undefined {
    return this.#connection;
  }

  /** The handshake has ended; takes the connection's handler over. */
  attach({ connection, closed }: DetachedTcp): void {
    if (this.#socket.destroyed) {
      this.#turns.turn((nowMs) => connection.abort(nowMs));
      return;
    }
    if (!this.#begun) this.begin();
    this.#connection = connection;
    this.#closed = closed;
    this.#inside.connecting = false;
    connection.handler = {
      readable: () => this.#poke(),
      writable: () => this.#poke(),
      closed: (reason) => {
        this.#closed = reason;
        this.#poke();
      },
    };
    if (this.#write !== undefined) this.#flush();
    if (this.#final !== undefined) this.final(this.#final);
    if (this.#readWanted || connection.readableBytes > 0 || connection.remoteEnded || closed !== undefined) {
      this.#poke();
    }
  }

  /** Gives the connection to the caller, who sets its handler at once. Only before anything was read or written. */
  detach(): DetachedTcp {
    const connection = this.#connection;
    assert(connection !== undefined && !this.#socket.destroyed, "a live socket is detached");
    assert(this.bytesRead === 0 && this.bytesWritten === 0 && !this.#endSent, "an unused socket is detached");
    this.#detached = true;
    this.#socket.destroy();
    return { connection, closed: this.#closed };
  }

  ref(wanted: boolean): void {
    this.#wanted = wanted;
    this.#setHold();
  }

  read(): void {
    this.#readWanted = true;
    this.#pull();
  }

  write(chunk: Uint8Array | string, encoding: BufferEncoding, callback: WriteCallback): void {
    this.#inside._unrefTimer();
    this.#write = { bytes: typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk, callback };
    this.#flush();
  }

  /** As one: a head and its body are one segment where they fit. */
  writeAll(chunks: readonly WriteChunk[], callback: WriteCallback): void {
    const all = chunks.map(({ chunk, encoding }) => (typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk));
    this.write(Buffer.concat(all), "utf8", callback);
  }

  /** FIN, once what was written is taken. */
  final(callback: WriteCallback): void {
    const connection = this.#connection;
    if (connection === undefined) {
      this.#final = callback;
      return;
    }
    this.#final = undefined;
    this.#endSent = true;
    if (this.#closed === undefined) this.#turns.turn((nowMs) => connection.end(nowMs));
    callback();
  }

  destroy(error: Error | null, callback: WriteCallback): void {
    const socket = this.#socket;
    this.#inside.connecting = false;
    if (!this.#detached && this.#closed === undefined) this.#leave();
    this.#write = undefined;
    this.#setHold();
    callback(error);
    process.nextTick(() => socket.emit("close", error !== null));
    const { _server: server } = this.#inside;
    if (server === undefined || server === null) return;
    server._connections--;
    server._emitCloseIfDrained?.();
  }

  /** RST, whatever is in flight. */
  reset(): void {
    const connection = this.#connection;
    if (connection !== undefined && this.#closed === undefined) {
      connection.handler = { readable: ignore, writable: ignore, closed: ignore };
      this.#closed = "aborted";
      this.#turns.turn((nowMs) => connection.abort(nowMs));
    }
    this.#socket.destroy();
  }

  #setHold(): void {
    const holds = this.#begun && this.#wanted && !this.#socket.destroyed;
    if (holds === this.#holds) return;
    this.#holds = holds;
    if (holds) this.#hold.hold();
    else this.#hold.release();
  }

  /** As close(2): the stack delivers what it had accepted; data that nobody will read is answered by a reset. */
  #leave(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const turns = this.#turns;
    const abort = (): void => turns.turn((nowMs) => connection.abort(nowMs));
    const timer = setTimeout(abort, ORPHAN_MAX_MS);
    timer.unref();
    connection.handler = {
      readable: () => {
        if (connection.readableBytes > 0) setImmediate(abort);
      },
      writable: ignore,
      closed: () => clearTimeout(timer),
    };
    if (connection.readableBytes > 0) abort();
    else if (!this.#endSent) turns.turn((nowMs) => connection.end(nowMs));
  }

  #poke(): void {
    if (this.#pokeQueued) return;
    this.#pokeQueued = true;
    setImmediate(() => {
      this.#pokeQueued = false;
      if (this.#socket.destroyed) return;
      this.#flush();
      this.#pull();
      this.#settle();
    });
  }

  #pull(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    while (this.#readWanted && !this.#endSeen) {
      const chunk = this.#turns.turn((nowMs) => connection.read(nowMs, READ_MAX_BYTES));
      if (chunk === undefined) {
        if (connection.remoteEnded || this.#closed === "closed") {
          this.#endSeen = true;
          this.#socket.push(null);
          this.#socket.read(0); // an end without data is told at once only to who reads
        }
        return;
      }
      this.bytesRead += chunk.length;
      this.#inside._unrefTimer();
      this.#readWanted = this.#socket.push(chunk);
    }
  }

  #flush(): void {
    const write = this.#write;
    const connection = this.#connection;
    if (write === undefined || connection === undefined) return;
    if (this.#closed !== undefined) {
      this.#write = undefined;
      write.callback(errorOf(this.#closed) ?? socketError("EPIPE", "the connection has ended", "write"));
      return;
    }
    const taken = this.#turns.turn((nowMs) => connection.write(nowMs, write.bytes));
    this.bytesWritten += taken;
    if (taken > 0) this.#inside._unrefTimer();
    if (taken < write.bytes.length) {
      write.bytes = write.bytes.subarray(taken);
      return;
    }
    this.#write = undefined;
    write.callback();
  }

  #settle(): void {
    if (this.#closed === undefined || this.#closed === "closed" || this.#socket.destroyed) return;
    this.#socket.destroy(errorOf(this.#closed));
  }
}

export interface OverlaySocketOptions extends Pick<SocketConstructorOpts, "allowHalfOpen" | "signal"> {
  readonly turns: Turns;
  readonly hold?: ProcessHold;
  /** Where it is connected; without, `attach` follows. */
  readonly tcp?: DetachedTcp;
  /** What `connect()` does, of a socket that is not connecting yet. */
  readonly dial?: (socket: OverlaySocket, host: string, port: number) => void;
}

/** As `socket.address()` gives it. */
export function addressInfo({ address, port }: Endpoint): { address: string; family: string; port: number } {
  return { address: formatAddress(address), family: isV4(address) ? "IPv4" : "IPv6", port };
}

/**
 * `destroy()` is close(2): FIN, or a reset when data is left unread; `resetAndDestroy()` resets. Errors carry `code`:
 * ECONNRESET, ETIMEDOUT, EHOSTUNREACH, EACCES.
 * TCP_NODELAY is always on (the stack holds no small segment back), and the stack probes idle connections itself.
 */
export class OverlaySocket extends Socket {
  readonly #end: StreamEnd;
  readonly #dial: OverlaySocketOptions["dial"];

  static {
    Object.defineProperties(
      OverlaySocket.prototype,
      factsOf((socket) => (socket as OverlaySocket).#end),
    );
  }

  constructor(options: OverlaySocketOptions) {
    const { allowHalfOpen = false, signal, turns, hold = NO_HOLD, tcp, dial } = options;
    // Node passes the rest of the options on to the stream.
    const stream = { readableHighWaterMark: READ_MAX_BYTES, writableHighWaterMark: READ_MAX_BYTES };
    super({ allowHalfOpen, ...stream });
    this.#end = new StreamEnd(this, turns, hold);
    this.#dial = dial;
    if (dial === undefined) this.#end.begin();
    if (signal !== undefined) addAbortSignal(signal, this); // an aborted one destroys at once
    if (tcp !== undefined) this.#end.attach(tcp);
  }

  /** Connected: "connect" and "ready" follow. */
  attach(tcp: DetachedTcp): void {
    attachSocket(this, this.#end, tcp);
  }

  /** See StreamEnd. */
  detach(): DetachedTcp {
    return this.#end.detach();
  }

  get localEndpoint(): Endpoint {
    return this.#end.connection!.local;
  }

  get remoteEndpoint(): Endpoint {
    return this.#end.connection!.remote;
  }

  /** As of net.Socket: `(port, host[, done])` or `({ port, host }[, done])`. */
  override connect(...args: readonly unknown[]): this {
    if (this.#dial === undefined || this.#end.isBegun) {
      throw socketError("EISCONN", "the socket is connected, or was: make another", "connect");
    }
    const { options, done } = readConnect(args);
    if (done !== undefined) this.once("connect", done);
    this.#end.begin();
    this.#dial(this, String("host" in options ? options.host : ""), Number("port" in options ? options.port : 0));
    return this;
  }

  override _read(): void {
    this.#end.read();
  }

  override _write(chunk: Uint8Array | string, encoding: BufferEncoding, callback: WriteCallback): void {
    this.#end.write(chunk, encoding, callback);
  }

  override _writev(chunks: WriteChunk[], callback: WriteCallback): void {
    this.#end.writeAll(chunks, callback);
  }

  override _final(callback: WriteCallback): void {
    this.#end.final(callback);
  }

  override _destroy(error: Error | null, callback: WriteCallback): void {
    this.#end.destroy(error, callback);
  }

  override ref(): this {
    this.#end.ref(true);
    return this;
  }

  override unref(): this {
    this.#end.ref(false);
    return this;
  }

  override resetAndDestroy(): this {
    this.#end.reset();
    return this;
  }
}

/** The arguments of Socket.connect: (options[, done]), (port[, host][, done]), (path[, done]), or Node's own array. */
export function readConnect(args: readonly unknown[]): { options: NetConnectOpts; done: (() => void) | undefined } {
  const all = Array.isArray(args[0]) ? (args[0] as readonly unknown[]) : args;
  const done = all.find((arg) => typeof arg === "function") as (() => void) | undefined;
  const [first, second] = all;
  if (typeof first === "object" && first !== null) return { options: first as NetConnectOpts, done };
  if (typeof first === "string" && !/^\d+$/.test(first)) return { options: { path: first }, done };
  return { options: { port: Number(first), ...(typeof second === "string" ? { host: second } : {}) }, done };
}

/** As a net.Socket tells it, in its order. */
export function attachSocket(socket: Socket, end: StreamEnd, tcp: DetachedTcp): void {
  end.attach(tcp);
  if (socket.destroyed) return;
  socket.emit("connect");
  socket.emit("ready");
  if (socket.readable && !socket.isPaused()) socket.read(0);
}

/** What a net.Socket asks its handle for, as properties of the socket or its prototype. */
export function factsOf(endOf: (socket: Socket) => StreamEnd): PropertyDescriptorMap {
  const shown = (endpoint: Endpoint | undefined) => (endpoint === undefined ? {} : addressInfo(endpoint));
  const method = (value: (this: Socket, ...args: never[]) => unknown): PropertyDescriptor => ({
    value,
    configurable: true,
  });
  const getter = (get: (this: Socket) => unknown): PropertyDescriptor => ({ get, configurable: true });
  return {
    _getsockname: method(function () {
      return shown(endOf(this).connection?.local);
    }),
    _getpeername: method(function () {
      return shown(endOf(this).connection?.remote);
    }),
    // TLS over a net.Socket without a handle waits for "connect", also of one that is connected: it is told at once.
    once: method(function (event: string, listener: () => void) {
      if (event !== "connect" || endOf(this).connection === undefined) {
        return EventEmitter.prototype.once.call(this, event, listener);
      }
      process.nextTick(() => this.destroyed || listener.call(this));
      return this;
    }),
    // Its timer outlasts a socket that has no handle to close.
    _onTimeout: method(function () {
      if (!this.destroyed) this.emit("timeout");
    }),
    pending: getter(function () {
      return endOf(this).connection === undefined;
    }),
    bytesRead: getter(function () {
      return endOf(this).bytesRead;
    }),
    // With what waits, as Node counts it.
    bytesWritten: getter(function () {
      const end = endOf(this);
      return end.connection === undefined ? this.writableLength : end.bytesWritten;
    }),
  };
}

function ignore(): void {
  // Nobody listens any more.
}
