// Joins a real socket and a connection of the userspace stack: the fast path of gateway, SOCKS5 and forwards. No stream
// between them; large chunks, backpressure and half-close both ways, a reset is passed on, bytes are counted.
import type { Socket } from "node:net";
import { setImmediate } from "node:timers";
import { KIB } from "../base/units.ts";
import type { TcpCloseReason, TcpConnection } from "../netstack/contract.ts";
import type { Turns } from "./turns.ts";

/** One write to a kernel socket costs as much for 64 KiB as for 16: large chunks halve the CPU a megabyte. */
const CHUNK_MAX_BYTES = 256 * KIB;

export type PipeEnd = "closed" | "local-reset" | "cut" | Exclude<TcpCloseReason, "closed">;

export interface PipeResult {
  /** "closed": both directions ended in order. */
  readonly end: PipeEnd;
  readonly bytesToOverlay: number;
  readonly bytesFromOverlay: number;
}

/**
 * Where a real socket's bytes come from. `net.connect({ onread })` into one buffer costs half of what 'data' events do,
 * but a socket that a server accepted has no such option.
 */
export interface LocalSocket {
  readonly socket: Socket;
  /**
   * Set by the pipe; the bytes are valid until the next resume. False: pause after this. Undefined: 'data' events are
   * used.
   */
  readonly reader: { onBytes: ((bytes: Uint8Array) => boolean) | undefined } | undefined;
}

/** Ends when both sides are gone, then calls `onDone` once. The socket must allow half-open. */
export class SocketPipe {
  readonly #local: LocalSocket;
  readonly #socket: Socket;
  readonly #connection: TcpConnection;
  readonly #turns: Turns;
  readonly #onDone: (result: PipeResult) => void;
  #pending: Uint8Array | undefined; // read from the socket, not yet taken by the stack
  #localEnded = false;
  #overlayEndSent = false;
  #localEndSent = false;
  #overlayClosed: TcpCloseReason | undefined;
  #localClosed = false;
  #end: PipeEnd | undefined;
  #pokeQueued = false;
  #blocked = false; // the socket's buffer is full: wait for drain
  #done = false;
  #bytesToOverlay = 0;
  #bytesFromOverlay = 0;

  constructor(
    local: LocalSocket,
    connection: TcpConnection,
    turns: Turns,
    onDone: (result: PipeResult) => void,
    closed?: TcpCloseReason,
  ) {
    this.#local = local;
    this.#socket = local.socket;
    this.#connection = connection;
    this.#turns = turns;
    this.#onDone = onDone;
    connection.handler = {
      readable: () => this.#poke(),
      writable: () => this.#poke(),
      closed: (reason) => {
        this.#overlayClosed = reason;
        this.#poke();
      },
    };
    if (closed !== undefined) this.#overlayClosed = closed;
    this.#listen();
    this.#poke();
  }

  get bytesToOverlay(): number {
    return this.#bytesToOverlay;
  }

  get bytesFromOverlay(): number {
    return this.#bytesFromOverlay;
  }

  /** Ends both sides now, by reset: the right to this flow has ended. */
  cut(): void {
    if (this.#done) return;
    this.#end ??= "cut";
    this.#tearDown();
  }

  #listen(): void {
    const socket = this.#socket;
    const onBytes = (bytes: Uint8Array): boolean => this.#toOverlay(bytes);
    if (this.#local.reader === undefined) {
      socket.on("data", (chunk: Uint8Array) => {
        if (!onBytes(chunk)) socket.pause();
      });
    } else {
      this.#local.reader.onBytes = onBytes;
    }
    socket.on("end", () => {
      this.#localEnded = true;
      this.#sendOverlayEnd();
    });
    socket.on("drain", () => {
      this.#blocked = false;
      this.#turns.turn(() => this.#fromOverlay());
    });
    socket.on("error", () => {
      this.#end ??= "local-reset"; // 'close' follows
    });
    socket.on("close", () => {
      this.#localClosed = true;
      this.#settle();
    });
    if (socket.destroyed) {
      this.#localClosed = true;
      this.#end ??= "local-reset";
    } else socket.resume();
  }

  /** False: pause, the bytes behind what was taken are kept. */
  #toOverlay(bytes: Uint8Array): boolean {
    if (this.#done || this.#overlayClosed !== undefined) return true; // discarded: the far end has gone
    const taken = this.#turns.turn((nowMs) => this.#connection.write(nowMs, bytes));
    this.#bytesToOverlay += taken;
    if (taken === bytes.length) return true;
    this.#pending = bytes.subarray(taken);
    return false;
  }

  #retryPending(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    if (!this.#toOverlay(pending)) return;
    this.#sendOverlayEnd();
    if (!this.#localEnded) this.#socket.resume();
  }

  #sendOverlayEnd(): void {
    if (!this.#localEnded || this.#overlayEndSent || this.#pending !== undefined) return;
    this.#overlayEndSent = true;
    if (this.#overlayClosed === undefined) this.#turns.turn((nowMs) => this.#connection.end(nowMs));
  }

  /** Once per event loop turn, not once per packet: one write carries all that arrived in it. */
  #poke(): void {
    if (this.#pokeQueued || this.#done) return;
    this.#pokeQueued = true;
    setImmediate(() => {
      this.#pokeQueued = false;
      if (!this.#done) this.#turns.turn(() => this.#goOn());
    });
  }

  #goOn(): void {
    this.#retryPending();
    this.#fromOverlay();
    this.#settle();
  }

  #fromOverlay(): void {
    if (this.#done || this.#localClosed) return;
    while (!this.#blocked) {
      const chunk = this.#turns.turn((nowMs) => this.#connection.read(nowMs, CHUNK_MAX_BYTES));
      if (chunk === undefined) break;
      this.#bytesFromOverlay += chunk.length;
      if (!this.#socket.write(chunk)) this.#blocked = true;
    }
    const drained = this.#connection.readableBytes === 0;
    if (drained && !this.#localEndSent && (this.#connection.remoteEnded || this.#overlayClosed === "closed")) {
      this.#localEndSent = true;
      this.#socket.end();
      this.#settle();
    }
  }

  #settle(): void {
    if (this.#done) return;
    if (this.#overlayClosed !== undefined && this.#overlayClosed !== "closed") this.#end ??= this.#overlayClosed;
    if (this.#localClosed && this.#end === undefined) {
      const orderly = this.#localEndSent && this.#localEnded;
      if (!orderly) this.#end = "local-reset";
    }
    if (this.#end !== undefined) this.#tearDown();
    else if (this.#localClosed && this.#overlayEndSent) this.#finish("closed"); // the stack delivers the rest
  }

  #tearDown(): void {
    if (this.#overlayClosed === undefined) this.#turns.turn((nowMs) => this.#connection.abort(nowMs));
    if (!this.#localClosed) resetSocket(this.#socket);
    this.#finish(this.#end ?? "closed");
  }

  #finish(end: PipeEnd): void {
    this.#done = true;
    this.#pending = undefined;
    this.#onDone({ end, bytesToOverlay: this.#bytesToOverlay, bytesFromOverlay: this.#bytesFromOverlay });
  }
}

/** RST where the socket has one (TCP), else a plain close (unix sockets). */
export function resetSocket(socket: Socket): void {
  if (socket.remoteAddress === undefined) socket.destroy();
  else socket.resetAndDestroy();
}
