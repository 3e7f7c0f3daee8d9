// A TCP connection of the userspace stack as a Node stream, for whoever speaks streams (SDK, HTTP). The entry points of
// this folder take the connection out again with `detach` and join it to a real socket without the stream's cost
// (pipe-sockets.ts).
import { Duplex } from "node:stream";
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import type { Endpoint } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { KIB, MINUTE_MS } from "../base/units.ts";
import type { TcpCloseReason, TcpConnection, TcpHandler } from "../netstack/contract.ts";
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

/** An error as a net.Socket gives it: with `code`. */
export class OverlaySocketError extends Error {
  override readonly name = "OverlaySocketError";
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${code}: ${message}`);
    this.code = code;
  }
}

function errorOf(reason: TcpCloseReason): OverlaySocketError | undefined {
  if (reason === "closed" || reason === "aborted") return undefined;
  return new OverlaySocketError(...CLOSE_ERRORS[reason]);
}

/** What `detach` gives: the connection, and how it was closed if that has happened already. */
export interface DetachedTcp {
  readonly connection: TcpConnection;
  readonly closed: TcpCloseReason | undefined;
}

/**
 * `end()` sends FIN and reading goes on; `destroy()` before that resets. Errors carry `code`: ECONNRESET, ETIMEDOUT,
 * EHOSTUNREACH, EACCES. Stream callbacks never run inside the stack: they are put off to the end of the event loop's
 * turn.
 */
export class OverlaySocket extends Duplex {
  readonly #connection: TcpConnection;
  readonly #turns: Turns;
  #readWanted = false;
  #write: { bytes: Uint8Array; callback: (error?: Error | null) => void } | undefined;
  #closed: TcpCloseReason | undefined;
  #endSent = false;
  #endSeen = false;
  #detached = false;
  #pokeQueued = false;
  #bytesRead = 0;
  #bytesWritten = 0;

  /** Of a connection whose handshake has ended; takes its handler over. */
  constructor(connection: TcpConnection, turns: Turns) {
    super({ allowHalfOpen: true, readableHighWaterMark: READ_MAX_BYTES, writableHighWaterMark: READ_MAX_BYTES });
    this.#connection = connection;
    this.#turns = turns;
    const handler: TcpHandler = {
      readable: () => this.#poke(),
      writable: () => this.#poke(),
      closed: (reason) => {
        this.#closed = reason;
        this.#poke();
      },
    };
    connection.handler = handler;
  }

  get localEndpoint(): Endpoint {
    return this.#connection.local;
  }

  get remoteEndpoint(): Endpoint {
    return this.#connection.remote;
  }

  get bytesRead(): number {
    return this.#bytesRead;
  }

  get bytesWritten(): number {
    return this.#bytesWritten;
  }

  /** Gives the connection to the caller, who sets its handler at once. Only before anything was read or written. */
  detach(): DetachedTcp {
    assert(this.#bytesRead === 0 && this.#bytesWritten === 0 && !this.#endSent, "an unused socket is detached");
    assert(!this.destroyed, "a live socket is detached");
    this.#detached = true;
    this.destroy();
    return { connection: this.#connection, closed: this.#closed };
  }

  override _read(): void {
    this.#readWanted = true;
    this.#pull();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#write = { bytes: chunk, callback };
    this.#flush();
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#endSent = true;
    if (this.#closed === undefined) this.#turns.turn((nowMs) => this.#connection.end(nowMs));
    callback();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (!this.#detached && this.#closed === undefined) this.#leave(error);
    this.#write = undefined;
    callback(error);
  }

  /** After an orderly end the stack delivers what it had accepted; anything else is a reset. */
  #leave(error: Error | null): void {
    const connection = this.#connection;
    const turns = this.#turns;
    const abort = (): void => turns.turn((nowMs) => connection.abort(nowMs));
    if (error !== null || !this.#endSent) {
      connection.handler = { readable: ignore, writable: ignore, closed: ignore };
      abort();
      return;
    }
    const timer = setTimeout(abort, ORPHAN_MAX_MS);
    timer.unref();
    connection.handler = {
      // Data for a reader that has gone is answered as a kernel does it, with a reset.
      readable: () => {
        if (connection.readableBytes > 0) setImmediate(abort);
      },
      writable: ignore,
      closed: () => clearTimeout(timer),
    };
    if (connection.readableBytes > 0) abort();
  }

  #poke(): void {
    if (this.#pokeQueued) return;
    this.#pokeQueued = true;
    setImmediate(() => {
      this.#pokeQueued = false;
      if (this.destroyed) return;
      this.#flush();
      this.#pull();
      this.#settle();
    });
  }

  #pull(): void {
    while (this.#readWanted && !this.#endSeen) {
      const chunk = this.#turns.turn((nowMs) => this.#connection.read(nowMs, READ_MAX_BYTES));
      if (chunk === undefined) {
        if (this.#connection.remoteEnded || this.#closed === "closed") {
          this.#endSeen = true;
          this.push(null);
        }
        return;
      }
      this.#bytesRead += chunk.length;
      this.#readWanted = this.push(chunk);
    }
  }

  #flush(): void {
    const write = this.#write;
    if (write === undefined) return;
    if (this.#closed !== undefined) {
      this.#write = undefined;
      write.callback(errorOf(this.#closed) ?? new OverlaySocketError("EPIPE", "the connection has ended"));
      return;
    }
    const taken = this.#turns.turn((nowMs) => this.#connection.write(nowMs, write.bytes));
    this.#bytesWritten += taken;
    if (taken < write.bytes.length) {
      write.bytes = write.bytes.subarray(taken);
      return;
    }
    this.#write = undefined;
    write.callback();
  }

  #settle(): void {
    if (this.#closed === undefined || this.#closed === "closed" || this.destroyed) return;
    this.destroy(errorOf(this.#closed));
  }
}

function ignore(): void {
  // Nobody listens any more.
}
