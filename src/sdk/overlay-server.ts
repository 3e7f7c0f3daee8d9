// A net.Server on this session's own overlay addresses. The policy says who may connect: what reaches it has passed the
// filter, and `whois` of the socket says who it is.
import { Server, type Socket } from "node:net";
import type { Address } from "../base/address.ts";
import { randomU32 } from "../base/random.ts";
import { osRandom } from "../io/os-random.ts";
import { addressInfo, HeldTcp, OverlaySocket, type ProcessHold } from "../peer/overlay-socket.ts";
import type { PeerInside } from "../peer/peer.ts";
import { socketError } from "../peer/socket-error.ts";

const EPHEMERAL_FIRST = 49_152; // RFC 6335 §6
const EPHEMERAL_COUNT = 16_384;
const PORT_TRIES_MAX = 64;

/** A function, or a server of any kind that takes sockets by its "connection" event: `http.createServer(app)`. */
export type ConnectionTaker = ((socket: Socket) => void) | { emit(event: "connection", socket: Socket): boolean };

export interface ListenOptions {
  /** 0, or none, picks one. */
  readonly port?: number | undefined;
  readonly allowHalfOpen?: boolean | undefined;
  readonly pauseOnConnect?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ServerPlace {
  readonly inside: Pick<PeerInside, "stack" | "turns" | "views">;
  readonly hold: ProcessHold;
  /** Every socket, before anybody hears of it. False: nobody knows the caller, and it is reset. */
  accepted(socket: OverlaySocket): boolean;
}

/** What net.Server asks of its handle. */
interface ServerHandle {
  close(): void;
  ref(): void;
  unref(): void;
  getsockname(out: Record<string, unknown>): number;
}

interface ServerInside {
  _handle: ServerHandle | null;
  _connections: number;
  _unref: boolean;
}

export class OverlayServer extends Server {
  readonly #place: ServerPlace;
  readonly #allowHalfOpen: boolean;
  readonly #pauseOnConnect: boolean;
  readonly #listening = new Set<Address>();
  #port = 0;

  constructor(place: ServerPlace, options: ListenOptions, taker: ConnectionTaker | undefined) {
    const { allowHalfOpen = false, pauseOnConnect = false } = options;
    super({ allowHalfOpen, pauseOnConnect });
    this.#place = place;
    this.#allowHalfOpen = allowHalfOpen;
    this.#pauseOnConnect = pauseOnConnect;
    if (typeof taker === "function") this.on("connection", taker);
    else if (taker !== undefined) this.on("connection", (socket: Socket) => void taker.emit("connection", socket));
    process.nextTick(() => this.#open(options));
  }

  /** It listens already: whoever wants another port opens another server. */
  override listen(): this {
    throw socketError("ERR_SERVER_ALREADY_LISTEN", "the server listens already", "listen");
  }

  get #inside(): ServerInside {
    return this as unknown as ServerInside;
  }

  #open({ port = 0, signal }: ListenOptions): void {
    if (signal?.aborted === true) return;
    if (!this.#bind(port)) {
      this.emit("error", socketError("EADDRINUSE", `overlay port ${port} is in use`, "listen"));
      return;
    }
    signal?.addEventListener("abort", () => this.close(), { once: true });
    this.#inside._handle = this.#makeHandle();
    this.emit("listening");
  }

  #bind(port: number): boolean {
    if (port !== 0) return this.#bindAll(port);
    for (let tries = 0; tries < PORT_TRIES_MAX; tries++) {
      if (this.#bindAll(EPHEMERAL_FIRST + (randomU32(osRandom) % EPHEMERAL_COUNT))) return true;
    }
    return false;
  }

  /** On every own address, or on none. */
  #bindAll(port: number): boolean {
    const { inside } = this.#place;
    for (const address of inside.views.ownAddresses()) {
      const bound = inside.stack.listenTcp({ address, port }, (connection) =>
        this.#onConnection(new HeldTcp(connection)),
      );
      if (!bound) {
        this.#unbind(port);
        return false;
      }
      this.#listening.add(address);
    }
    this.#port = port;
    return this.#listening.size > 0;
  }

  #unbind(port: number): void {
    for (const address of this.#listening) this.#place.inside.stack.unlistenTcp({ address, port });
    this.#listening.clear();
  }

  /** Inside a turn: the program hears of it after that. */
  #onConnection(tcp: HeldTcp): void {
    process.nextTick(() => this.#accept(tcp));
  }

  #accept(tcp: HeldTcp): void {
    const { inside, hold } = this.#place;
    const { turns } = inside;
    const isFull = this.maxConnections !== undefined && this.#inside._connections >= this.maxConnections;
    if (isFull || this.#inside._handle === null) {
      new OverlaySocket({ turns, tcp }).destroy(); // as close(2) would
      if (isFull) this.emit("drop", dropInfo(tcp));
      return;
    }
    const socket = new OverlaySocket({ turns, hold, tcp, allowHalfOpen: this.#allowHalfOpen });
    if (!this.#place.accepted(socket)) {
      socket.resetAndDestroy();
      return;
    }
    this.#inside._connections++;
    Object.assign(socket, { server: this, _server: this });
    if (this.#pauseOnConnect) socket.pause();
    else socket.read(0);
    this.emit("connection", socket);
  }

  #makeHandle(): ServerHandle {
    const { hold, inside } = this.#place;
    const [address] = inside.views.ownAddresses();
    let holds = false;
    const setHold = (wanted: boolean): void => {
      if (wanted === holds) return;
      holds = wanted;
      if (wanted) hold.hold();
      else hold.release();
    };
    setHold(!this.#inside._unref);
    return {
      close: () => {
        setHold(false);
        this.#unbind(this.#port);
      },
      ref: () => setHold(true),
      unref: () => setHold(false),
      getsockname: (out) => {
        if (address !== undefined) Object.assign(out, addressInfo({ address, port: this.#port }));
        return 0;
      },
    };
  }
}

function dropInfo({ connection }: HeldTcp) {
  const [local, remote] = [addressInfo(connection.local), addressInfo(connection.remote)];
  return {
    localAddress: local.address,
    localPort: local.port,
    localFamily: local.family,
    remoteAddress: remote.address,
    remotePort: remote.port,
    remoteFamily: remote.family,
  };
}
