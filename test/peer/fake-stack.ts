// An in-memory twin of the stack for tests of the shells: two ends of a TCP connection with bounded buffers, openings
// that wait to be answered, UDP sockets; no packets. Handlers run inside a turn, as the contract says.
import { type Address, type Endpoint, formatEndpoint } from "../../src/base/address.ts";
import { KIB } from "../../src/base/units.ts";
import type {
  Netstack,
  TcpCloseReason,
  TcpConnection,
  TcpHandler,
  TcpOpening,
  UdpOpening,
  UdpSocket,
} from "../../src/netstack/contract.ts";
import type { Turns } from "../../src/peer/turns.ts";

const IDLE: TcpHandler = { readable: () => undefined, writable: () => undefined, closed: () => undefined };

export class TestTurns implements Turns {
  offsetMs = 0;
  turns = 0;
  #depth = 0;

  get inTurn(): boolean {
    return this.#depth > 0;
  }

  nowMs(): number {
    return performance.timeOrigin + performance.now() + this.offsetMs;
  }

  turn<T>(work: (nowMs: number) => T): T {
    this.#depth++;
    this.turns++;
    try {
      return work(this.nowMs());
    } finally {
      this.#depth--;
    }
  }
}

export class FakeConnection implements TcpConnection {
  readonly local: Endpoint;
  readonly remote: Endpoint;
  handler: TcpHandler;
  peer!: FakeConnection;
  closedBy: TcpCloseReason | undefined;
  readonly #turns: Turns;
  readonly #capacityBytes: number;
  #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  #finReceived = false;
  #finSent = false;
  #blocked = false;

  constructor(turns: Turns, local: Endpoint, remote: Endpoint, handler: TcpHandler, capacityBytes: number) {
    this.#turns = turns;
    this.local = local;
    this.remote = remote;
    this.handler = handler;
    this.#capacityBytes = capacityBytes;
  }

  get readableBytes(): number {
    return this.#inboxBytes;
  }

  get remoteEnded(): boolean {
    return this.#finReceived && this.#inboxBytes === 0;
  }

  get writableBytes(): number {
    return this.#finSent || this.closedBy !== undefined ? 0 : this.#capacityBytes - this.peer.#inboxBytes;
  }

  read(_nowMs: number, maxBytes: number): Uint8Array | undefined {
    const first = this.#inbox[0];
    if (first === undefined) return undefined;
    const taken = first.subarray(0, maxBytes);
    if (taken.length === first.length) this.#inbox.shift();
    else this.#inbox[0] = first.subarray(maxBytes);
    this.#inboxBytes -= taken.length;
    if (this.peer.#blocked) {
      this.peer.#blocked = false;
      this.peer.later((handler) => handler.writable());
    }
    return taken;
  }

  write(_nowMs: number, bytes: Uint8Array): number {
    const count = Math.min(bytes.length, this.writableBytes);
    if (count > 0) {
      this.peer.#inbox.push(bytes.slice(0, count));
      this.peer.#inboxBytes += count;
      this.peer.later((handler) => handler.readable());
    }
    if (count < bytes.length) this.#blocked = true;
    return count;
  }

  end(): void {
    if (this.#finSent || this.closedBy !== undefined) return;
    this.#finSent = true;
    this.peer.#finReceived = true;
    this.peer.later((handler) => handler.readable());
    if (this.#finReceived) {
      this.close("closed");
      this.peer.close("closed");
    }
  }

  abort(): void {
    if (this.closedBy !== undefined) return;
    this.close("aborted");
    this.peer.close("reset");
  }

  close(reason: TcpCloseReason): void {
    if (this.closedBy !== undefined) return;
    this.closedBy = reason;
    this.later((handler) => handler.closed(reason));
  }

  later(call: (handler: TcpHandler) => void): void {
    queueMicrotask(() => this.#turns.turn(() => call(this.handler)));
  }
}

/** Two ends of one established connection. */
export function fakePair(
  turns: Turns,
  client: Endpoint,
  server: Endpoint,
  capacityBytes = 64 * KIB,
): [FakeConnection, FakeConnection] {
  const a = new FakeConnection(turns, client, server, IDLE, capacityBytes);
  const b = new FakeConnection(turns, server, client, IDLE, capacityBytes);
  a.peer = b;
  b.peer = a;
  return [a, b];
}

export type OpeningAnswer = "accepted" | "refused" | "host" | "prohibited" | "port" | "late";

/** What `connectTcp` sends goes to `onTcp` as an opening; what it answers comes back as the contract says. */
export class FakeStack implements Pick<Netstack, "connectTcp" | "bindUdp"> {
  readonly answers: OpeningAnswer[] = [];
  readonly connections: FakeConnection[] = [];
  readonly openings: TcpOpening[] = [];
  onTcp: (opening: TcpOpening) => void = (opening) => opening.refuse(0);
  onUdp: (opening: UdpOpening) => void = (opening) => opening.unreachable(0, "port");
  full = false;
  readonly #turns: Turns;
  readonly #udp = new Map<string, FakeUdpSocket>();
  #port = 40_000;

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  connectTcp(_nowMs: number, local: Address, remote: Endpoint, handler: TcpHandler): TcpConnection | undefined {
    if (this.full) return undefined;
    const source = { address: local, port: this.#port++ };
    const [client, server] = fakePair(this.#turns, source, { address: remote.address, port: remote.port });
    this.connections.push(client, server);
    client.handler = handler;
    let answered = false;
    const answer = (kind: OpeningAnswer): void => {
      if (!answered && client.closedBy !== undefined) this.answers.push("late"); // the opening had gone
      if (answered || client.closedBy !== undefined) return;
      answered = true;
      this.answers.push(kind);
      if (kind === "accepted") client.later((current) => current.connected?.());
      else if (kind === "refused") client.close("refused");
      else client.close(kind === "prohibited" ? "prohibited" : "unreachable");
    };
    const opening: TcpOpening = {
      local: server.local,
      remote: server.remote,
      onGone: undefined,
      accept: (_now, serverHandler) => {
        server.handler = serverHandler;
        answer("accepted");
        return server;
      },
      refuse: () => answer("refused"),
      unreachable: (_now, code) => answer(code),
    };
    this.openings.push(opening);
    const close = client.close.bind(client);
    client.close = (reason) => {
      close(reason);
      if (reason === "aborted" && !answered) opening.onGone?.();
    };
    queueMicrotask(() => this.#turns.turn(() => this.onTcp(opening)));
    return client;
  }

  bindUdp(local: Endpoint): UdpSocket | undefined {
    const at = { address: local.address, port: local.port === 0 ? this.#port++ : local.port };
    const socket = new FakeUdpSocket(at, (remote, bytes) => this.#deliver(at, remote, bytes));
    this.#udp.set(formatEndpoint(at), socket);
    return socket;
  }

  #deliver(from: Endpoint, to: Endpoint, bytes: Uint8Array): void {
    queueMicrotask(() => this.#turns.turn(() => this.#receive(from, to, bytes)));
  }

  #receive(from: Endpoint, to: Endpoint, bytes: Uint8Array): void {
    const tuple = `${formatEndpoint(to)} ${formatEndpoint(from)}`;
    const bound = this.#udp.get(tuple) ?? this.#udp.get(formatEndpoint(to));
    if (bound !== undefined && !bound.closed) {
      bound.onDatagram(from, bytes);
      return;
    }
    this.onUdp({
      local: to,
      remote: from,
      bytes,
      accept: () => {
        const socket = new FakeUdpSocket(to, (remote, answer) => this.#deliver(to, remote, answer));
        this.#udp.set(tuple, socket);
        this.answers.push("accepted");
        return socket;
      },
      unreachable: (_now, code) => this.answers.push(code),
    });
  }
}

export class FakeUdpSocket implements UdpSocket {
  readonly local: Endpoint;
  onDatagram: (remote: Endpoint, bytes: Uint8Array) => void = () => undefined;
  onError: ((remote: Endpoint, reason: "unreachable" | "prohibited") => void) | undefined;
  closed = false;
  readonly #deliver: (remote: Endpoint, bytes: Uint8Array) => void;

  constructor(local: Endpoint, deliver: (remote: Endpoint, bytes: Uint8Array) => void) {
    this.local = local;
    this.#deliver = deliver;
  }

  send(_nowMs: number, remote: Endpoint, bytes: Uint8Array): boolean {
    this.#deliver(remote, bytes.slice());
    return true;
  }

  close(): void {
    this.closed = true;
  }
}
