// A network that this process has joined: the peer of `wirebadge up` without its entry points, and Node's own kinds of
// sockets on it.
import type { Socket as DatagramSocket } from "node:dgram";
import { EventEmitter } from "node:events";
import type { Agent as HttpAgent } from "node:http";
import type { Agent as HttpsAgent } from "node:https";
import type { Server, Socket } from "node:net";
import type { Dispatcher } from "undici";
import { formatAddress } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import type { Can, Denial, Status, Whois } from "../peer/local-api-schema.ts";
import { DialError, type DialTarget } from "../peer/overlay.ts";
import { type DetachedTcp, OverlaySocket, StreamEnd } from "../peer/overlay-socket.ts";
import type { PeerInside, RunningPeer } from "../peer/peer.ts";
import { ConnectError } from "./connect-error.ts";
import type { LoopHold } from "./loop-hold.ts";
import { OverlayHosts } from "./overlay-hosts.ts";
import { makeDispatcher, OverlayHttpAgent, OverlayHttpsAgent } from "./overlay-http.ts";
import { makeLookup, type OverlayLookup } from "./overlay-lookup.ts";
import { type ConnectionTaker, type ListenOptions, OverlayServer } from "./overlay-server.ts";
import { OverlayUdpSocket } from "./overlay-udp-socket.ts";

export interface NetworkEvents {
  /** Something that this session asked for, or was asked for, was denied. */
  denial: [denial: Denial];
  /** The network as this session may know it has changed: peers, services or rules. */
  change: [change: NetworkChange];
  /** To the coordinator. Without it known peers stay reachable until leases end. */
  connected: [];
  disconnected: [];
  /** The session was ended by the network; "close" follows. */
  revoked: [error: WirebadgeError];
  /** With an error when it ended by itself. */
  close: [error: Error | undefined];
}

export interface NetworkChange {
  readonly policyVersion: number;
  readonly epoch: number;
  readonly revision: number;
}

export interface ConnectOptions {
  /** A service, a node, a name behind a `host:` route, an address; `service:NAME` and `node:NAME` mean that alone. */
  readonly host: string;
  /** May be left out for a service that has one port. */
  readonly port?: number | undefined;
  /** Ends the connection whenever it comes, also an open one. */
  readonly signal?: AbortSignal | undefined;
  /** Ms without traffic until "timeout", as of net.Socket: it ends nothing by itself. */
  readonly timeout?: number | undefined;
  readonly allowHalfOpen?: boolean | undefined;
}

/** What a process has of a network; made by `join`. */
export class Network extends EventEmitter<NetworkEvents> {
  readonly #peer: RunningPeer;
  readonly #inside: PeerInside;
  readonly #hold: LoopHold;
  readonly #sockets = new Set<Socket>();
  readonly #servers = new Set<OverlayServer>();
  readonly #datagrams = new Set<OverlayUdpSocket>();
  readonly #callers = new WeakMap<object, Whois>();
  /** @internal */
  readonly hosts: OverlayHosts;
  /**
   * As dns.lookup, of services and nodes. A name behind a `host:` route has no address here: its gateway resolves it.
   * @example net.lookup("staging", { all: true }, (error, addresses) => …)
   */
  readonly lookup: OverlayLookup;
  #dispatcher: Dispatcher | undefined;
  #httpAgent: HttpAgent | undefined;
  #httpsAgent: HttpsAgent | undefined;
  #closing: Promise<void> | undefined;

  constructor(peer: RunningPeer, hold: LoopHold) {
    super();
    this.#peer = peer;
    this.#inside = peer.inside;
    this.#hold = hold;
    this.hosts = new OverlayHosts(() => peer.inside.views.netmap());
    this.lookup = makeLookup(this.hosts);
    void peer.stopped.then((error) => this.#ended(error));
  }

  /** "agent:coder" */
  get identity(): string {
    return this.#peer.identity;
  }

  /** `s_…` */
  get session(): string {
    return this.#peer.session;
  }

  /** On the overlay: IPv6 first, then IPv4 if it has one. */
  get addresses(): readonly string[] {
    return this.#peer.addresses;
  }

  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** Everything that `wirebadge status` shows. Times are ms of Unix time. */
  status(): Promise<Status> {
    return Promise.resolve(this.#inside.host.status());
  }

  /**
   * Would that be allowed now, and by which rule; what would allow it.
   * @example net.can("service:staging-db"), net.can("10.20.0.5 tcp:5432"), net.can("node:gw-1 icmp")
   * @throws WirebadgeError USAGE when it names no single destination
   */
  can(destination: string): Can {
    return this.#inside.host.can(destination);
  }

  /** Those that this session was told of, newest last. */
  denials(): readonly Denial[] {
    return this.#inside.host.denials().denials;
  }

  /**
   * Who is at the other end: of a socket that a server of this network accepted, of an overlay address or `IP:PORT`.
   * Undefined when nobody known here is: a socket from elsewhere has no identity.
   * @example createServer((request, response) => response.end(`hello ${net.whois(request.socket)?.identity}`))
   */
  whois(of: Pick<Socket, "remoteAddress"> | string): Whois | undefined {
    if (typeof of !== "string") return this.#callers.get(of) ?? this.#callers.get(Reflect.get(of, "_parent") ?? of);
    try {
      return this.#inside.host.whois(of);
    } catch (error) {
      if (error instanceof WirebadgeError && error.code === "NOT_FOUND") return undefined;
      throw error;
    }
  }

  /**
   * As net.connect, over the network: the socket is given at once, "connect" or "error" follows. The error is a
   * ConnectError, with `code`, and of a denial `denialId`, `rule` and `hint`.
   * @example const socket = net.connect({ host: "staging-db", port: 5432 });
   */
  connect(options: ConnectOptions, onConnect?: () => void): Socket;
  connect(port: number, host: string, onConnect?: () => void): Socket;
  connect(first: ConnectOptions | number, second?: string | (() => void), third?: () => void): Socket {
    const options = typeof first === "number" ? { port: first, host: String(second) } : first;
    const onConnect = typeof second === "function" ? second : third;
    const asked = targetOf(options);
    const target = { host: this.hosts.normalize(asked.host), port: asked.port };
    const { turns } = this.#inside;
    const { signal, allowHalfOpen = false, timeout = 0 } = options;
    const socket = new OverlaySocket({
      turns,
      hold: this.#hold,
      allowHalfOpen,
      ...(signal === undefined ? {} : { signal }),
    });
    if (onConnect !== undefined) socket.once("connect", onConnect);
    if (timeout > 0) socket.setTimeout(timeout);
    this.dialInto(socket, target, (tcp) => socket.attach(tcp));
    return socket;
  }

  /**
   * As `new net.Socket()`: for a library that makes the socket first and calls its connect(port, host) itself.
   * @example new pg.Client({ host: "staging-db", stream: () => net.socket() })
   */
  socket(options: Pick<ConnectOptions, "allowHalfOpen" | "signal"> = {}): Socket {
    const { allowHalfOpen = false, signal } = options;
    return new OverlaySocket({
      turns: this.#inside.turns,
      hold: this.#hold,
      allowHalfOpen,
      ...(signal === undefined ? {} : { signal }),
      dial: (socket, host, port) => {
        const target = { host: this.hosts.normalize(host), port };
        this.dialInto(socket, target, (tcp) => socket.attach(tcp));
      },
    });
  }

  /**
   * As net.Server, on this session's own addresses: it listens at once, "listening" or "error" follows. Who may connect
   * is the policy's to say.
   * @example net.listen(80, http.createServer((request, response) => response.end("hello")))
   */
  listen(options: ListenOptions | number, taker?: ConnectionTaker): Server {
    this.#checkOpen();
    const server = new OverlayServer(
      { inside: this.#inside, hold: this.#hold, accepted: (socket) => this.#accepted(socket) },
      typeof options === "number" ? { port: options } : options,
      taker,
    );
    this.#servers.add(server);
    server.once("close", () => this.#servers.delete(server));
    return server;
  }

  /**
   * As dgram.createSocket, on this session's own addresses, of both families.
   * @example net.udp().send("question", 53, "resolver", (error) => …)
   */
  udp(): DatagramSocket {
    this.#checkOpen();
    const socket = new OverlayUdpSocket({
      inside: this.#inside,
      hold: this.#hold,
      identity: this.identity,
      ownAddresses: () => this.#inside.views.ownAddresses(),
      normalize: (host) => this.hosts.normalize(host),
    });
    this.#datagrams.add(socket);
    socket.once("close", () => this.#datagrams.delete(socket));
    return socket;
  }

  /**
   * As the global fetch, over the network; its requests share connections. A connection that could not be had is the
   * error's `cause`, as there: a ConnectError.
   * @example const response = await net.fetch("http://staging/");
   */
  readonly fetch: typeof globalThis.fetch = async (input, init) =>
    await globalThis.fetch(input, { ...init, dispatcher: this.dispatcher } as unknown as RequestInit);

  /** For whatever takes an undici Dispatcher: `fetch(url, { dispatcher: net.dispatcher })`. */
  get dispatcher(): Dispatcher {
    this.#checkOpen();
    this.#dispatcher ??= makeDispatcher((options) => this.connect(options));
    return this.#dispatcher;
  }

  /**
   * For node:http and what stands on it; keeps connections.
   * @example axios.create({ httpAgent: net.httpAgent, httpsAgent: net.httpsAgent, proxy: false })
   */
  get httpAgent(): HttpAgent {
    this.#httpAgent ??= new OverlayHttpAgent((options) => this.connect(options), { keepAlive: true });
    return this.#httpAgent;
  }

  /** For node:https; certificates are checked against the name that was asked for. */
  get httpsAgent(): HttpsAgent {
    this.#httpsAgent ??= new OverlayHttpsAgent((options) => this.connect(options), { keepAlive: true });
    return this.#httpsAgent;
  }

  /** Ends every socket and server of it and then the session, as far as that is not kept. Safe to call again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal For a socket that somebody else has made: it is given the connection, or destroyed with the reason. */
  dialInto(socket: Socket, target: DialTarget, attach: (tcp: DetachedTcp) => void): void {
    if (this.isClosed) {
      process.nextTick(() => socket.destroy(leftError()));
      return;
    }
    this.#keep(socket);
    const controller = new AbortController();
    const giveUp = (): void => controller.abort();
    socket.once("close", giveUp);
    this.#inside.dialer.dialTcp(target, controller.signal).then(
      (tcp) => {
        socket.off("close", giveUp);
        attach(tcp);
      },
      (error: unknown) => {
        const told = error instanceof DialError ? new ConnectError(error, target, this.identity) : error;
        socket.destroy(told as Error);
      },
    );
  }

  /** @internal */
  makeEnd(socket: Socket): StreamEnd {
    return new StreamEnd(socket, this.#inside.turns, this.#hold);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #accepted(socket: OverlaySocket): boolean {
    const caller = this.whois(formatAddress(socket.remoteEndpoint.address));
    if (caller === undefined) return false;
    this.#callers.set(socket, caller);
    this.#keep(socket);
    return true;
  }

  #checkOpen(): void {
    if (this.isClosed) throw leftError();
  }

  async #close(): Promise<void> {
    this.#httpAgent?.destroy();
    this.#httpsAgent?.destroy();
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
    for (const socket of this.#datagrams) void socket[Symbol.asyncDispose]();
    this.#hold.hold(); // until it is done
    try {
      await this.#peer.stop();
    } finally {
      this.#hold.release();
    }
  }

  /** By itself or by `close`. */
  #ended(error: Error | undefined): void {
    if (error instanceof WirebadgeError && error.code === "SESSION_REVOKED") this.emit("revoked", error);
    void this.close().finally(() => this.emit("close", error));
  }
}

function leftError(): WirebadgeError {
  return new WirebadgeError("PEER_NOT_RUNNING", "this network was left, or has ended", { hint: "join() again" });
}

/** @throws WirebadgeError USAGE */
function targetOf({ host, port = 0 }: ConnectOptions): DialTarget {
  if (typeof host !== "string" || host === "") {
    throw new WirebadgeError("USAGE", "connect() was given no host", {
      hint: 'connect({ host: "staging", port: 80 })',
    });
  }
  const number = Number(port);
  if (!Number.isInteger(number) || number < 0 || number > 65_535) {
    throw new WirebadgeError("USAGE", `${String(port)} is no port`, { hint: "0 to 65535" });
  }
  return { host, port: number };
}
