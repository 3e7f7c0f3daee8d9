// One connection attempt through the stack: the TCP handshake and, for a `host:` route, the name-dial exchange after
// it. Settles once.
import { clearTimeout, setTimeout } from "node:timers";
import { type Address, equalAddress } from "../base/address.ts";
import type { Netstack, TcpCloseReason, TcpConnection } from "../netstack/contract.ts";
import { isUnicast } from "../wire/answer.ts";
import { PROTOCOL_TCP } from "../wire/packet.ts";
import { encodeNameDialRequest, NameDialAnswerReader } from "./name-dial.ts";
import { type DialDenial, DialError, type DialFailure, type DialTarget, type OverlayView } from "./overlay.ts";
import { HeldTcp } from "./overlay-socket.ts";
import type { Turns } from "./turns.ts";

/**
 * How long an "administratively prohibited" waits for the peer link's word on it, so that the error can name the
 * denial.
 */
const DENIAL_NOTICE_MAX_MS = 100;

/** Where to connect; with `name` the far end is a gateway that is asked to dial it. */
export interface DialRoute {
  readonly address: Address;
  readonly port: number;
  readonly name: string | undefined;
}

export interface DialAttemptOptions {
  readonly view: Pick<OverlayView, "onDenial" | "localAddressFor">;
  readonly stack: Pick<Netstack, "connectTcp">;
  readonly turns: Turns;
  readonly target: DialTarget;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

const CLOSE_FAILURES: Readonly<Record<TcpCloseReason, DialFailure>> = {
  closed: "refused",
  reset: "refused",
  refused: "refused",
  timeout: "timeout",
  unreachable: "unreachable",
  prohibited: "denied",
  aborted: "aborted",
};

class DialAttempt {
  readonly #options: DialAttemptOptions;
  readonly #route: DialRoute;
  readonly #resolve: (tcp: HeldTcp) => void;
  readonly #reject: (error: DialError) => void;
  readonly #answer = new NameDialAnswerReader();
  #connection: TcpConnection | undefined;
  #settled = false;
  #denial: DialDenial | undefined;
  #timer: NodeJS.Timeout | undefined;
  #noticeTimer: NodeJS.Timeout | undefined;
  #unlisten: () => void = () => undefined;
  readonly #onAbort = (): void => this.#fail("aborted");

  constructor(
    options: DialAttemptOptions,
    route: DialRoute,
    resolve: (tcp: HeldTcp) => void,
    reject: (error: DialError) => void,
  ) {
    this.#options = options;
    this.#route = route;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  start(): void {
    const { signal, view, turns, stack } = this.#options;
    const { address } = this.#route;
    const local = view.localAddressFor(address);
    if (signal?.aborted === true) {
      this.#fail("aborted");
      return;
    }
    // Nobody answers a SYN to a group, to everybody or to no address at all: said now, not waited for.
    if (local === undefined || !isUnicast(address.w0, address.w1, address.w2, address.w3)) {
      this.#fail("unreachable");
      return;
    }
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#timer = setTimeout(() => this.#fail("timeout"), this.#options.timeoutMs);
    this.#unlisten = view.onDenial((notice) => {
      if (notice.protocol !== PROTOCOL_TCP || notice.destinationPort !== this.#route.port) return;
      if (!equalAddress(notice.destination, this.#route.address)) return;
      this.#denial = { denialId: notice.id, reason: notice.reason, ruleId: notice.ruleId };
      this.#fail("denied");
    });
    turns.turn((nowMs) => {
      const connection = stack.connectTcp(nowMs, local, this.#route, {
        connected: () => this.#connected(),
        readable: () => this.#readable(),
        writable: () => undefined,
        closed: (reason) => this.#closed(reason),
      });
      if (connection === undefined)
        this.#fail("unreachable"); // the connection table is full
      else if (this.#settled) connection.abort(nowMs);
      else this.#connection = connection;
    });
  }

  #connected(): void {
    const { turns } = this.#options;
    const { name } = this.#route;
    if (name === undefined) {
      this.#succeed();
      return;
    }
    // A fresh send buffer takes these few bytes whole.
    const request = encodeNameDialRequest({ name, port: this.#options.target.port });
    turns.turn((nowMs) => this.#connection?.write(nowMs, request));
  }

  #readable(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#route.name === undefined || this.#settled) return;
    while (this.#answer.want > 0) {
      const bytes = this.#options.turns.turn((nowMs) => connection.read(nowMs, this.#answer.want));
      if (bytes === undefined) {
        if (connection.remoteEnded) this.#fail("unreachable"); // ended in the middle of its answer
        return;
      }
      this.#answer.add(bytes);
    }
    const answer = this.#answer.result();
    if (answer === undefined || answer.status === "bad-request") {
      this.#fail("unreachable");
      return;
    }
    if (answer.status === "connected") {
      this.#succeed();
      return;
    }
    if (answer.status === "denied") this.#denial = { denialId: answer.denialId };
    this.#fail(answer.status);
  }

  #closed(reason: TcpCloseReason): void {
    this.#connection = undefined;
    const waits = reason === "prohibited" && !this.#settled && this.#denial === undefined;
    if (waits) this.#noticeTimer = setTimeout(() => this.#fail("denied"), DENIAL_NOTICE_MAX_MS);
    else this.#fail(CLOSE_FAILURES[reason]);
  }

  #succeed(): void {
    const connection = this.#connection;
    if (this.#settled || connection === undefined) return;
    this.#cleanUp();
    this.#resolve(new HeldTcp(connection));
  }

  #fail(kind: DialFailure): void {
    if (this.#settled) return;
    this.#cleanUp();
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection !== undefined) this.#options.turns.turn((nowMs) => connection.abort(nowMs));
    this.#reject(
      new DialError(kind, this.#options.target, kind === "denied" ? { reason: "NO_GRANT", ...this.#denial } : {}),
    );
  }

  #cleanUp(): void {
    this.#settled = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#noticeTimer);
    this.#unlisten();
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
  }
}

/** Resolves once the far end answered (for a name: once the gateway has dialled it). @throws DialError */
export function attemptDial(options: DialAttemptOptions, route: DialRoute): Promise<HeldTcp> {
  return new Promise((resolve, reject) => new DialAttempt(options, route, resolve, reject).start());
}
