// What the shells (gateway, SOCKS5, forwards, SDK) see of the userspace TCP/IP stack. Everything runs inside a turn:
// methods that can send take nowMs and may call the stack's output before they return. Handlers are called inside a
// turn too and must not throw.
import type { Address, Endpoint, Prefix } from "../base/address.ts";

export type TcpCloseReason =
  | "closed" // both directions ended in order
  | "reset" // RST from the remote end
  | "refused" // RST in answer to our SYN
  | "timeout" // retransmissions exhausted (RFC 9293 §3.8.3, R2)
  | "unreachable" // ICMP unreachable in answer to our SYN
  | "prohibited" // ICMP administratively prohibited in answer to our SYN, or cut by our own filter
  | "aborted"; // by ourselves

export interface TcpHandler {
  /** SYN-SENT → ESTABLISHED. Not called for accepted connections. */
  connected?(): void;
  /** New bytes can be read, or the remote end sent FIN (`remoteEnded`). */
  readable(): void;
  /** Room in the send buffer after a write that took less than it was given. */
  writable(): void;
  /** The connection is gone; called exactly once. */
  closed(reason: TcpCloseReason): void;
}

export interface TcpConnection {
  readonly local: Endpoint;
  readonly remote: Endpoint;
  handler: TcpHandler;
  /** Bytes that `read` would give now. */
  readonly readableBytes: number;
  /** The remote end sent FIN and every byte before it has been read. */
  readonly remoteEnded: boolean;
  /** Bytes that `write` would take now. */
  readonly writableBytes: number;
  /** Takes up to `maxBytes` in order; the array is the caller's. Undefined when there is nothing. Opens the window. */
  read(nowMs: number, maxBytes: number): Uint8Array | undefined;
  /** Copies what fits into the send buffer; returns how many bytes were taken. */
  write(nowMs: number, bytes: Uint8Array): number;
  /** FIN after what is buffered; reading goes on. */
  end(nowMs: number): void;
  /** RST now. */
  abort(nowMs: number): void;
}

/** A SYN that nobody has answered yet. Retransmissions of it join; the stack forgets it when the sender gives up. */
export interface TcpOpening {
  /** Its destination: an own address or, on a gateway, an address of a route or service. */
  readonly local: Endpoint;
  readonly remote: Endpoint;
  /** SYN-ACK now; the connection reads and writes as soon as the handshake ends. */
  accept(nowMs: number, handler: TcpHandler): TcpConnection;
  /** RST. */
  refuse(nowMs: number): void;
  /** ICMP(v6) destination unreachable: "host" or "prohibited". */
  unreachable(nowMs: number, code: "host" | "prohibited"): void;
  /** Set by whoever holds it; called when the sender gave up (RST) or the stack forgot it. */
  onGone: (() => void) | undefined;
}

export interface UdpSocket {
  readonly local: Endpoint;
  /** Called for each datagram; the bytes are valid during the call only. */
  onDatagram: (remote: Endpoint, bytes: Uint8Array) => void;
  /** ICMP port or host unreachable for what this socket sent. */
  onError: ((remote: Endpoint, reason: "unreachable" | "prohibited") => void) | undefined;
  /** False when it can't be sent (too large even for fragmentation). */
  send(nowMs: number, remote: Endpoint, bytes: Uint8Array): boolean;
  close(): void;
}

/** The first datagram of a UDP flow to an address of a route or service, where no socket is bound. */
export interface UdpOpening {
  readonly local: Endpoint;
  readonly remote: Endpoint;
  /** Valid during the call only. */
  readonly bytes: Uint8Array;
  /** A socket for this 4-tuple only; `bytes` is not delivered to it again. */
  accept(): UdpSocket;
  /** ICMP(v6) unreachable. */
  unreachable(nowMs: number, code: "port" | "host" | "prohibited"): void;
}

export interface NetstackHandler {
  /**
   * One IP packet to send; the bytes are valid during the call only. 32 bytes of room lie before `offset` and behind
   * the packet.
   */
  output(nowMs: number, buffer: Uint8Array, offset: number, length: number): void;
  /** A SYN to a local or transit address without a listener. Unset: RST. */
  tcpOpening?(opening: TcpOpening): void;
  /** Unset: port unreachable. */
  udpOpening?(opening: UdpOpening): void;
}

export interface Netstack {
  /** Own addresses: echo is answered, listeners and bound sockets live here. */
  setLocalAddresses(addresses: readonly Address[]): void;
  /** Destinations that this stack also ends flows for (gateway routes and services). Echo to them is not answered. */
  setTransit(prefixes: readonly Prefix[]): void;
  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, length: number): void;
  /**
   * At the end of a turn: what was put off in it. (A stack that is not made with `isSettled` puts nothing off.) It may
   * send, and call readers.
   */
  settle(nowMs: number): void;
  handleTimeout(nowMs: number): void;
  /** Infinity when nothing is due. */
  nextDeadlineMs(): number;

  /** Port 0 picks one. Undefined when the connection table is full. The source address is chosen by the caller. */
  connectTcp(nowMs: number, local: Address, remote: Endpoint, handler: TcpHandler): TcpConnection | undefined;
  /** The filter ended this flow: its connection closes as "prohibited", silently. False when there is none. */
  cutTcp(local: Endpoint, remote: Endpoint): boolean;
  /** `onConnection` is called once the handshake has ended; set its handler there. False when taken. */
  listenTcp(local: Endpoint, onConnection: (connection: TcpConnection) => void): boolean;
  unlistenTcp(local: Endpoint): void;
  /** Port 0 picks one. Undefined when taken or full. */
  bindUdp(local: Endpoint): UdpSocket | undefined;
  /**
   * Resolves nothing: sends one echo request; `onReply` gets the round-trip time in ms, once. Returns a function that
   * gives up.
   */
  ping(nowMs: number, local: Address, remote: Address, onReply: (rttMs: number) => void): () => void;
  readonly counters: Readonly<Record<string, number>>;
}
