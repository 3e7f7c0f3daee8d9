// The gateway's end of name-dial on one accepted connection: reads the one request within its time, then hands over.
import { clearTimeout, setTimeout } from "node:timers";
import { NAME_DIAL_REQUEST_MAX_MS } from "../base/limits.ts";
import type { TcpConnection, TcpHandler, TcpOpening } from "../netstack/contract.ts";
import { encodeNameDialAnswer, type NameDialRequest, NameDialRequestReader, type NameDialStatus } from "./name-dial.ts";
import type { Turns } from "./turns.ts";

export interface NameDialHandler {
  /** Undefined: what came is not a request, or came too late. The connection is the handler's from here on. */
  onRequest(request: NameDialRequest | undefined): void;
  /** The caller has gone, before or after its request. */
  onGone(): void;
}

/** One caller's connection to port 51822. */
export class NameDialExchange {
  readonly connection: TcpConnection;
  readonly #turns: Turns;
  readonly #handler: NameDialHandler;
  readonly #reader = new NameDialRequestReader();
  readonly #timer: NodeJS.Timeout;
  #asked = false;

  /** Answers the SYN; call it inside a turn. */
  constructor(opening: TcpOpening, turns: Turns, handler: NameDialHandler) {
    this.#turns = turns;
    this.#handler = handler;
    const tcp: TcpHandler = {
      readable: () => this.#readable(),
      writable: () => undefined,
      closed: () => {
        clearTimeout(this.#timer);
        this.#asked = true;
        handler.onGone();
      },
    };
    this.#timer = setTimeout(() => this.#ask(undefined), NAME_DIAL_REQUEST_MAX_MS);
    this.connection = opening.accept(turns.nowMs(), tcp);
  }

  /** `connected` keeps the connection open: the stream follows. Any other status ends it. */
  answer(status: NameDialStatus, denialId?: string): void {
    const bytes = encodeNameDialAnswer({ status, denialId });
    this.#turns.turn((nowMs) => {
      this.connection.write(nowMs, bytes); // the first bytes of a fresh send buffer: taken whole
      if (status !== "connected") this.connection.end(nowMs);
    });
  }

  #readable(): void {
    while (!this.#asked && this.#reader.want > 0) {
      const bytes = this.connection.read(this.#turns.nowMs(), this.#reader.want);
      if (bytes === undefined) {
        if (this.connection.remoteEnded) this.#ask(undefined);
        return;
      }
      this.#reader.add(bytes);
    }
    if (!this.#asked) this.#ask(this.#reader.result());
  }

  #ask(request: NameDialRequest | undefined): void {
    if (this.#asked) return;
    this.#asked = true;
    clearTimeout(this.#timer);
    this.#handler.onRequest(request);
  }
}
