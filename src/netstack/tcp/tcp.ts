// TCP of one stack: which connection, opening or listener a segment belongs to, and the bounds on how many there may
// be. RFC 9293 §3.10.7.1 (no connection) and §3.10.7.2 (LISTEN).
import { type Address, type Endpoint, isV4 } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import {
  TCP_BACKLOG_MAX,
  TCP_BACKLOG_PER_REMOTE_MAX,
  TCP_CONNECTIONS_MAX,
  TCP_CONNECTIONS_PER_REMOTE_MAX,
  TCP_MEMORY_CHUNKS_MAX,
  TCP_RECEIVE_BUFFER_BYTES,
  TCP_RECEIVE_BUFFER_MAX_BYTES,
  TCP_RECEIVE_MEMORY_MAX_BYTES,
  TCP_SEND_BUFFER_BYTES,
  TCP_SEND_BUFFER_MAX_BYTES,
  TCP_TIME_WAIT_MAX,
} from "../../base/limits.ts";
import type { Random } from "../../base/random.ts";
import { buildTcpReset } from "../../wire/answer.ts";
import { decodeQuotedPacket, PacketInfo, TCP_ACK, TCP_RST, TCP_SYN } from "../../wire/packet.ts";
import type { TcpConnection, TcpHandler, TcpOpening } from "../contract.ts";
import type { Deadlines } from "../deadlines.ts";
import { EphemeralPorts } from "../ephemeral-ports.ts";
import { ANY_REMOTE, FlowKey, FlowTable } from "../flow-table.ts";
import { HEADROOM_BYTES, type PacketOutput } from "../packet-output.ts";
import type { CongestionName } from "./congestion.ts";
import { Connection } from "./connection.ts";
import type { TcpCounter, TcpHost } from "./host.ts";
import { Opening, type OpeningHost } from "./opening.ts";
import { ReceiveMemory } from "./receiver.ts";
import { RemoteShares } from "./remote-shares.ts";
import { Segment } from "./segment.ts";
import { ChunkPool } from "./send-buffer.ts";

const FREE_CHUNKS_MAX = 256; // 4 MiB kept for the next writer

/** What TCP needs of the stack around it. */
export interface TcpNeighbours {
  readonly output: PacketOutput;
  readonly deadlines: Deadlines;
  readonly random: Random;
  /** `settle` is called at the end of each turn. */
  readonly isSettled: boolean;
  count(what: TcpCounter): void;
  /** Whoever decides about SYNs without a listener; undefined: nobody. */
  opening(): ((opening: TcpOpening) => void) | undefined;
  sendUnreachable(
    nowMs: number,
    packet: Uint8Array,
    offset: number,
    info: PacketInfo,
    code: "host" | "prohibited",
  ): void;
}

export interface TcpSettings {
  /** Of each connection; what is given stays as it is. Without: from base/limits.ts, and they grow as the path asks. */
  readonly buffers?: { readonly sendBytes?: number; readonly receiveBytes?: number } | undefined;
  readonly congestion?: CongestionName | undefined;
}

export class Tcp implements TcpHost, OpeningHost {
  readonly output: PacketOutput;
  readonly deadlines: Deadlines;
  readonly random: Random;
  readonly chunks = new ChunkPool(FREE_CHUNKS_MAX, TCP_MEMORY_CHUNKS_MAX);
  readonly receiveMemory = new ReceiveMemory(TCP_RECEIVE_MEMORY_MAX_BYTES);
  readonly congestion: CongestionName;
  readonly sendBufferBytes: number;
  readonly sendBufferMaxBytes: number;
  readonly receiveBufferBytes: number;
  readonly receiveBufferMaxBytes: number;
  readonly #around: TcpNeighbours;
  readonly #table: FlowTable<Connection | Opening>;
  readonly #listeners: FlowTable<(connection: TcpConnection) => void>;
  /** Half-open, or not yet accepted. */
  readonly #backlog = new RemoteShares(TCP_BACKLOG_MAX, TCP_BACKLOG_PER_REMOTE_MAX);
  /** Opened by the other end: the backlog, and what became of it until TIME-WAIT, which has a bound of its own. */
  readonly #fromRemotes = new RemoteShares(TCP_CONNECTIONS_MAX, TCP_CONNECTIONS_PER_REMOTE_MAX);
  /** In the order in which they began to wait. */
  readonly #waiting = new Set<Connection>();
  readonly #ports: EphemeralPorts;
  readonly #segment: Segment;
  readonly #quoted = new PacketInfo();
  /** Of this turn; undefined where nobody tells that a turn ends. */
  readonly #burst: Set<Connection> | undefined;

  constructor(around: TcpNeighbours, settings: TcpSettings = {}) {
    const { buffers = {}, congestion = "cubic" } = settings;
    this.#around = around;
    this.output = around.output;
    this.#segment = new Segment(around.output.sum);
    this.deadlines = around.deadlines;
    this.random = around.random;
    this.congestion = congestion;
    this.sendBufferBytes = buffers.sendBytes ?? TCP_SEND_BUFFER_BYTES;
    this.sendBufferMaxBytes = buffers.sendBytes ?? TCP_SEND_BUFFER_MAX_BYTES;
    this.receiveBufferBytes = buffers.receiveBytes ?? TCP_RECEIVE_BUFFER_BYTES;
    this.receiveBufferMaxBytes = buffers.receiveBytes ?? TCP_RECEIVE_BUFFER_MAX_BYTES;
    this.#table = new FlowTable(TCP_CONNECTIONS_MAX, around.random);
    this.#listeners = new FlowTable(TCP_CONNECTIONS_MAX, around.random);
    this.#ports = new EphemeralPorts(around.random);
    this.#burst = around.isSettled ? new Set() : undefined;
  }

  get connectionsCount(): number {
    return this.#table.size;
  }

  get backlogCount(): number {
    return this.#backlog.size;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  count(what: TcpCounter): void {
    this.#around.count(what);
  }

  // --- What arrives ------------------------------------------------------------------------------

  /** `isOurs`: the destination is an own or transit address, asked only when nothing is known of the flow. */
  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, info: PacketInfo, isOurs: () => boolean): void {
    const segment = this.#segment;
    if (!segment.read(buffer, offset, info)) {
      this.count("TCP_BAD_CHECKSUM");
      return;
    }
    const known = this.#table.find(
      info.destination0,
      info.destination1,
      info.destination2,
      info.destination3,
      info.source0,
      info.source1,
      info.source2,
      info.source3,
      (info.destinationPort << 16) | info.sourcePort,
    );
    if (known?.handleSegment(nowMs, segment)) return;
    if (info.sourcePort === 0 || info.destinationPort === 0 || !isOurs()) return;
    if ((segment.flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN && this.#handleSyn(nowMs, info)) return;
    this.#refuse(nowMs, buffer, offset, info);
  }

  putOff(connection: Connection): boolean {
    this.#burst?.add(connection);
    return this.#burst !== undefined;
  }

  /** What follows from the segments of this turn. */
  settle(nowMs: number): void {
    const burst = this.#burst;
    if (burst === undefined) return;
    for (const connection of burst) {
      burst.delete(connection);
      connection.finishBurst(nowMs);
    }
  }

  /** False: nobody wants it. */
  #handleSyn(nowMs: number, info: PacketInfo): boolean {
    const local = { address: info.destination, port: info.destinationPort };
    const remote = { address: info.source, port: info.sourcePort };
    const isListening = this.#listeners.get(new FlowKey(local, ANY_REMOTE)) !== undefined;
    const onOpening = this.#around.opening();
    if (!isListening && onOpening === undefined) return false;
    if (!this.#backlog.hasRoom(remote.address)) {
      this.count("TCP_BACKLOG_FULL");
      return true; // said to nobody: the sender tries again
    }
    if (!this.#fromRemotes.hasRoom(remote.address)) {
      this.count("TCP_CONNECTIONS_OF_REMOTE_FULL");
      return true;
    }
    if (!this.#makeRoom()) return true;
    if (isListening) {
      const connection = new Connection(this, local, remote);
      connection.isFromListener = true;
      this.#admit(connection);
      connection.accept(nowMs, this.#segment.sequence, this.#segment.window, this.#segment.options);
      return true;
    }
    const opening = new Opening(this, nowMs, local, remote, this.#segment);
    this.#admit(opening);
    this.deadlines.set(opening, opening.untilMs);
    onOpening!(opening);
    return true;
  }

  /** What the other end opened takes its place. */
  #admit(flow: Connection | Opening): void {
    this.#table.add(flow, flow);
    this.#backlog.add(flow);
    this.#fromRemotes.add(flow);
  }

  #refuse(nowMs: number, buffer: Uint8Array, offset: number, info: PacketInfo): void {
    this.count("TCP_NO_CONNECTION");
    const length = buildTcpReset(this.output.buffer, HEADROOM_BYTES, buffer, offset, info);
    if (length === 0) return;
    this.count("TCP_RESETS_SENT");
    this.output.send(nowMs, length);
  }

  /** An ICMP error that quotes a segment of ours. `sequence`: the quoted one. */
  handleUnreachable(quoted: PacketInfo, sequence: number, prohibited: boolean): void {
    const connection = this.#findQuoted(quoted);
    if (connection instanceof Connection) connection.handleUnreachable(sequence, prohibited);
  }

  handleTooBig(nowMs: number, quoted: PacketInfo, sequence: number, mtuBytes: number): void {
    const connection = this.#findQuoted(quoted);
    if (connection instanceof Connection) connection.handleTooBig(nowMs, sequence, mtuBytes);
  }

  #findQuoted(quoted: PacketInfo): Connection | Opening | undefined {
    return this.#table.find(
      quoted.source0,
      quoted.source1,
      quoted.source2,
      quoted.source3,
      quoted.destination0,
      quoted.destination1,
      quoted.destination2,
      quoted.destination3,
      (quoted.sourcePort << 16) | quoted.destinationPort,
    );
  }

  // --- What the user asks ------------------------------------------------------------------------

  connect(nowMs: number, local: Address, remote: Endpoint, handler: TcpHandler): TcpConnection | undefined {
    assert(isV4(local) === isV4(remote.address), "both ends of a connection are of one family");
    if (!this.#makeRoom()) return undefined;
    const port = this.#ports.pick((candidate) => {
      return this.#table.get(new FlowKey({ address: local, port: candidate }, remote)) === undefined;
    });
    if (port === undefined) return undefined;
    const connection = new Connection(this, { address: local, port }, remote);
    connection.handler = handler;
    this.#table.add(connection, connection);
    connection.open(nowMs);
    return connection;
  }

  /** False when there is no such connection. */
  cut(local: Endpoint, remote: Endpoint): boolean {
    const found = this.#table.get(new FlowKey(local, remote));
    if (!(found instanceof Connection)) return false;
    found.cut();
    return true;
  }

  listen(local: Endpoint, onConnection: (connection: TcpConnection) => void): boolean {
    return this.#listeners.add(new FlowKey(local, ANY_REMOTE), onConnection);
  }

  unlisten(local: Endpoint): void {
    this.#listeners.delete(new FlowKey(local, ANY_REMOTE));
  }

  /** One more place in the table, if need be that of the connection that has waited longest in TIME-WAIT. */
  #makeRoom(): boolean {
    if (this.#table.size < this.#table.capacity) return true;
    if (this.#evictWaiting()) return true;
    this.count("TCP_CONNECTIONS_FULL");
    return false;
  }

  #evictWaiting(): boolean {
    for (const oldest of this.#waiting) {
      this.count("TCP_TIME_WAIT_EVICTED");
      oldest.dropped();
      return true;
    }
    return false;
  }

  // --- For connections ---------------------------------------------------------------------------

  established(nowMs: number, connection: Connection): void {
    this.#backlog.delete(connection);
    if (!connection.isFromListener) return;
    const onConnection = this.#listeners.get(new FlowKey(connection.local, ANY_REMOTE));
    if (onConnection === undefined)
      connection.abort(nowMs); // the listener went away meanwhile
    else onConnection(connection);
  }

  waiting(connection: Connection): void {
    this.#fromRemotes.delete(connection);
    this.#waiting.add(connection);
    if (this.#waiting.size > TCP_TIME_WAIT_MAX) this.#evictWaiting();
  }

  forget(connection: Connection): void {
    this.#waiting.delete(connection);
    this.#backlog.delete(connection);
    this.#fromRemotes.delete(connection);
    this.deadlines.set(connection, Number.POSITIVE_INFINITY);
    if (this.#table.get(connection) === connection) this.#table.delete(connection);
  }

  // --- For openings ------------------------------------------------------------------------------

  acceptOpening(nowMs: number, opening: Opening, handler: TcpHandler): TcpConnection {
    const connection = new Connection(this, opening.local, opening.remote);
    connection.handler = handler;
    if (opening.isGone) {
      connection.abort(nowMs); // tells the handler at once
      return connection;
    }
    this.forgetOpening(opening);
    this.#admit(connection);
    connection.accept(nowMs, opening.sequence, opening.window, opening.options);
    return connection;
  }

  refuseOpening(nowMs: number, opening: Opening): void {
    this.forgetOpening(opening);
    const length = this.#quotes(opening)
      ? buildTcpReset(this.output.buffer, HEADROOM_BYTES, opening.quote, 0, this.#quoted)
      : 0;
    if (length === 0) return;
    this.count("TCP_RESETS_SENT");
    this.output.send(nowMs, length);
  }

  rejectOpening(nowMs: number, opening: Opening, code: "host" | "prohibited"): void {
    this.forgetOpening(opening);
    if (this.#quotes(opening)) this.#around.sendUnreachable(nowMs, opening.quote, 0, this.#quoted, code);
  }

  /** Reads the SYN that was kept. */
  #quotes(opening: Opening): boolean {
    return decodeQuotedPacket(opening.quote, 0, opening.quote.length, this.#quoted) === undefined;
  }

  forgetOpening(opening: Opening): void {
    opening.isGone = true;
    this.#backlog.delete(opening);
    this.#fromRemotes.delete(opening);
    this.deadlines.set(opening, Number.POSITIVE_INFINITY);
    if (this.#table.get(opening) === opening) this.#table.delete(opening);
  }
}
