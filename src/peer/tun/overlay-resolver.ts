// The resolver of `up --tun`: answers this host's questions about names of its network (overlay-names.ts) at an address
// that no session ever has, by UDP and by TCP (RFC 7766), over the userspace stack. Asks nobody else, and answers
// nobody else: what a packet of another peer says here is dropped.
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import { type Address, type Endpoint, equalAddress, formatAddress, parseAddress } from "../../base/address.ts";
import { concatBytes, readU16, writeU16 } from "../../base/bytes.ts";
import { WirebadgeError } from "../../base/errors.ts";
import {
  RESOLVER_CLIENT_IDLE_MS,
  RESOLVER_CLIENTS_MAX,
  RESOLVER_QUERIES_PER_TURN_MAX,
  RESOLVER_QUERY_MAX_BYTES,
} from "../../base/limits.ts";
import type { NetmapView } from "../../control/netmap.ts";
import type { Netstack, TcpConnection, TcpHandler, UdpSocket } from "../../netstack/contract.ts";
import { DNS_PORT } from "../../wire/dns.ts";
import { DNS_SERVER_FAILURE, datagramRoom, decodeDnsQuery, emptyReply, encodeDnsReply } from "../../wire/dns-query.ts";
import type { Turns } from "../turns.ts";
import { OverlayNames } from "./overlay-names.ts";

const LENGTH_BYTES = 2; // before each message on TCP (RFC 1035 §4.2.2)
const MESSAGE_MAX_BYTES = 65_535;
const NOTHING = new Uint8Array(0);

export interface OverlayResolverOptions {
  /** Of its local addresses those given here. */
  readonly stack: Pick<Netstack, "bindUdp" | "listenTcp" | "unlistenTcp">;
  readonly turns: Turns;
  /** This peer's own; asked at each question. */
  readonly netmap: () => NetmapView | undefined;
  /** `resolverAddressesOf(view)` */
  readonly addresses: readonly Address[];
  readonly idleMs?: number;
}

export class OverlayResolver {
  /** "answered", and the reasons for which a question, a connection or a reply was dropped. */
  readonly counters: Record<string, number> = {};
  readonly #options: OverlayResolverOptions;
  readonly #sockets: UdpSocket[] = [];
  readonly #listening: Endpoint[] = [];
  /** In the order of their last whole question. */
  readonly #clients = new Set<TcpClient>();
  #names: { readonly of: NetmapView; readonly names: OverlayNames; readonly own: readonly Address[] } | undefined;

  private constructor(options: OverlayResolverOptions) {
    this.#options = options;
  }

  /** @throws CONFLICT when port 53 of one of the addresses is taken in the stack */
  static open(options: OverlayResolverOptions): OverlayResolver {
    const resolver = new OverlayResolver(options);
    for (const address of options.addresses) {
      const local = { address, port: DNS_PORT };
      const socket = options.stack.bindUdp(local);
      const listens = options.stack.listenTcp(local, (connection) => resolver.#connection(connection));
      if (listens) resolver.#listening.push(local);
      if (socket !== undefined) {
        socket.onDatagram = (remote, bytes) => resolver.#datagram(socket, remote, bytes);
        resolver.#sockets.push(socket);
      }
      if (socket === undefined || !listens) {
        resolver.close();
        throw new WirebadgeError("CONFLICT", `port ${DNS_PORT} of ${formatAddress(address)} is taken`);
      }
    }
    return resolver;
  }

  close(): void {
    for (const local of this.#listening.splice(0)) this.#options.stack.unlistenTcp(local);
    for (const socket of this.#sockets.splice(0)) socket.close();
    this.#options.turns.turn((nowMs) => {
      for (const client of [...this.#clients]) client.abort(nowMs);
    });
  }

  /** Made anew for each netmap that is asked about. */
  #known(): { readonly names: OverlayNames; readonly own: readonly Address[] } | undefined {
    const view = this.#options.netmap();
    if (view === undefined) return undefined;
    if (this.#names?.of !== view) {
      const own = view.self.addresses.map(parseAddress).filter((address) => address !== undefined);
      this.#names = { of: view, names: new OverlayNames(view), own };
    }
    return this.#names;
  }

  /** This host has this peer's own addresses; whoever else asks has come over the network. */
  #isOwn(remote: Address): boolean {
    const own = this.#known()?.own;
    if (own === undefined || own.some((address) => equalAddress(address, remote))) return true;
    this.#count("foreign");
    return false;
  }

  #datagram(socket: UdpSocket, remote: Endpoint, bytes: Uint8Array): void {
    if (!this.#isOwn(remote.address)) return;
    const reply = this.#reply(bytes, undefined);
    if (reply === undefined) return;
    const sent = this.#options.turns.turn((nowMs) => socket.send(nowMs, remote, reply));
    if (!sent) this.#count("unsent");
  }

  /** `room` of a datagram follows from the question. Undefined: not to be answered. */
  #reply(bytes: Uint8Array, room: number | undefined): Uint8Array | undefined {
    if (bytes.length > RESOLVER_QUERY_MAX_BYTES) {
      this.#count("too-long");
      return undefined;
    }
    const decoded = decodeDnsQuery(bytes);
    if (decoded.kind === "dropped") {
      this.#count(decoded.drop);
      return undefined;
    }
    if (decoded.kind === "failed") {
      this.#count(`failed-${decoded.code}`);
      return decoded.reply;
    }
    const { query } = decoded;
    this.#count("answered");
    const reply = this.#known()?.names.answer(query) ?? emptyReply(DNS_SERVER_FAILURE);
    return encodeDnsReply(query, reply, room ?? datagramRoom(query));
  }

  #connection(connection: TcpConnection): void {
    if (!this.#isOwn(connection.remote.address)) {
      this.#options.turns.turn((nowMs) => connection.abort(nowMs));
      return;
    }
    if (this.#clients.size >= RESOLVER_CLIENTS_MAX) {
      const [oldest] = this.#clients;
      this.#count("client-gave-way");
      this.#options.turns.turn((nowMs) => oldest!.abort(nowMs));
    }
    const client = new TcpClient(connection, this.#options.turns, this.#options.idleMs ?? RESOLVER_CLIENT_IDLE_MS, {
      reply: (bytes) => this.#reply(bytes, MESSAGE_MAX_BYTES),
      asked: (one) => {
        this.#clients.delete(one);
        this.#clients.add(one);
      },
      gone: (one) => this.#clients.delete(one),
      count: (name) => this.#count(name),
    });
    this.#clients.add(client);
    client.readable();
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }
}

interface Asked {
  reply(bytes: Uint8Array): Uint8Array | undefined;
  asked(client: TcpClient): void;
  gone(client: TcpClient): void;
  count(name: string): void;
}

/** One connection: question after question, each answered before the next is read. */
class TcpClient implements TcpHandler {
  readonly #connection: TcpConnection;
  readonly #turns: Turns;
  readonly #asked: Asked;
  readonly #idleMs: number;
  #timer: NodeJS.Timeout;
  #gone = false;
  #answered = 0;
  #waits = false;
  /** Of a question that is not whole yet; at most LENGTH_BYTES + RESOLVER_QUERY_MAX_BYTES. */
  #input: Uint8Array = NOTHING;
  /** Of one reply, not taken by the stack yet. */
  #output: Uint8Array = NOTHING;

  constructor(connection: TcpConnection, turns: Turns, idleMs: number, asked: Asked) {
    this.#connection = connection;
    this.#turns = turns;
    this.#asked = asked;
    this.#idleMs = idleMs;
    connection.handler = this;
    this.#timer = setTimeout(() => this.#silent(), idleMs);
  }

  readable(): void {
    this.#turns.turn((nowMs) => this.#work(nowMs));
  }

  writable(): void {
    this.readable();
  }

  closed(): void {
    this.#gone = true;
    clearTimeout(this.#timer);
    this.#asked.gone(this);
  }

  abort(nowMs: number): void {
    if (!this.#gone) this.#connection.abort(nowMs);
  }

  #silent(): void {
    this.#asked.count("client-silent");
    this.#turns.turn((nowMs) => this.abort(nowMs));
  }

  #work(nowMs: number): void {
    while (!this.#gone && !this.#waits) {
      if (this.#output.length > 0) this.#output = this.#output.subarray(this.#connection.write(nowMs, this.#output));
      if (this.#output.length > 0) return; // until writable()
      const bytes = this.#nextQuestion(nowMs);
      if (bytes === undefined) return;
      if (this.#answered++ === RESOLVER_QUERIES_PER_TURN_MAX) return this.#later(bytes);
      const reply = this.#asked.reply(bytes);
      if (reply === undefined) return this.abort(nowMs); // what follows is no better
      this.#asked.asked(this);
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#silent(), this.#idleMs);
      this.#output = framed(reply);
    }
  }

  /** Undefined: none is whole, or none will come. */
  #nextQuestion(nowMs: number): Uint8Array | undefined {
    for (;;) {
      const length = this.#input.length < LENGTH_BYTES ? 0 : readU16(this.#input, 0);
      if (length > RESOLVER_QUERY_MAX_BYTES) {
        this.#asked.count("too-long");
        this.abort(nowMs);
        return undefined;
      }
      const missing = LENGTH_BYTES + length - this.#input.length;
      if (this.#input.length >= LENGTH_BYTES && missing === 0) {
        const question = this.#input.subarray(LENGTH_BYTES);
        this.#input = NOTHING;
        return question;
      }
      const chunk = this.#connection.read(nowMs, missing);
      if (chunk === undefined) {
        if (this.#connection.remoteEnded) this.#connection.end(nowMs);
        return undefined;
      }
      this.#input = concatBytes(this.#input, chunk);
    }
  }

  /** The rest of a flood waits for its own turn, in the stack's bounded buffer. */
  #later(question: Uint8Array): void {
    this.#input = framed(question);
    this.#waits = true;
    setImmediate(() => {
      this.#waits = false;
      this.#answered = 0;
      this.readable();
    });
  }
}

function framed(message: Uint8Array): Uint8Array {
  const out = new Uint8Array(LENGTH_BYTES + message.length);
  writeU16(out, 0, message.length);
  out.set(message, LENGTH_BYTES);
  return out;
}
