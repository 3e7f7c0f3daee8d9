// A dgram.Socket on this session's own overlay addresses: one port, both families. Names are looked up by what this
// session knows, at each send; what is denied is the send's error.
import { Buffer } from "node:buffer";
import type { RemoteInfo, Socket } from "node:dgram";
import { EventEmitter } from "node:events";
import type { AddressInfo } from "node:net";
import { type Address, type Endpoint, equalAddress, isV4, parseAddress } from "../base/address.ts";
import { randomU32 } from "../base/random.ts";
import { osRandom } from "../io/os-random.ts";
import type { UdpSocket } from "../netstack/contract.ts";
import { DialError, type DialTarget } from "../peer/overlay.ts";
import { addressInfo, type ProcessHold } from "../peer/overlay-socket.ts";
import type { PeerInside } from "../peer/peer.ts";
import { socketError } from "../peer/socket-error.ts";
import { ConnectError } from "./connect-error.ts";

const EPHEMERAL_FIRST = 49_152; // RFC 6335 §6
const EPHEMERAL_COUNT = 16_384;
const PORT_TRIES_MAX = 64;
const BUFFER_BYTES = 1_048_576; // what is said of buffers that the stack doesn't have: a datagram goes at once

type Bytes = string | NodeJS.ArrayBufferView;
type SendCallback = (error: Error | null, bytes: number) => void;

export interface UdpPlace {
  readonly inside: Pick<PeerInside, "dialer" | "stack" | "turns">;
  readonly hold: ProcessHold;
  readonly identity: string;
  ownAddresses(): readonly Address[];
  /** Of a host as it was asked for. */
  normalize(host: string): string;
}

/** A number, a string or an object, in the orders that dgram takes them. */
type BindArguments = readonly (number | string | { port?: number | undefined } | (() => void) | undefined)[];

/** What is of multicast, broadcast or the host's sockets is refused with ENOTSUP or has no effect. */
export class OverlayUdpSocket extends EventEmitter implements Socket {
  readonly #place: UdpPlace;
  readonly #bound: UdpSocket[] = [];
  #state: "new" | "bound" | "closed" = "new";
  #remote: { readonly target: DialTarget; readonly endpoint: Endpoint } | undefined;
  #wanted = true;
  /** By this session's own filter: it answers within the turn of the send. */
  #bounced = false;
  #holds = false;

  constructor(place: UdpPlace) {
    super();
    this.#place = place;
  }

  /** At every own address; another than those can't be bound. "listening" follows. */
  bind(...args: BindArguments): this {
    const callback = args.find((arg) => typeof arg === "function");
    if (callback !== undefined) this.once("listening", callback);
    const [first] = args;
    const port = typeof first === "object" ? first.port : typeof first === "function" ? 0 : Number(first ?? 0);
    if (this.#state !== "new") throw socketError("ERR_SOCKET_ALREADY_BOUND", "the socket is bound already", "bind");
    try {
      this.#bind(port ?? 0);
    } catch (error) {
      process.nextTick(() => this.emit("error", error));
      return this;
    }
    process.nextTick(() => this.#state === "bound" && this.emit("listening"));
    return this;
  }

  /** As `bind`, done when it returns. */
  bindSync(options: { readonly port?: number | undefined } = {}): AddressInfo {
    this.#bind(options.port ?? 0);
    return this.address();
  }

  address(): AddressInfo {
    const [socket] = this.#bound;
    if (socket === undefined) throw socketError("EBADF", "the socket is not bound", "getsockname");
    return addressInfo(socket.local);
  }

  /** Datagrams of others are then not heard. "connect" or "error" follows. */
  connect(port: number, address?: string | (() => void), callback?: () => void): void {
    const done = typeof address === "function" ? address : callback;
    const host = typeof address === "string" ? address : "";
    if (this.#remote !== undefined) throw socketError("ERR_SOCKET_DGRAM_IS_CONNECTED", "already connected", "connect");
    if (done !== undefined) this.once("connect", done);
    process.nextTick(() => {
      try {
        this.connectSync(port, host);
        this.emit("connect");
      } catch (error) {
        this.emit("error", error);
      }
    });
  }

  /** @throws ConnectError */
  connectSync(port: number, address = ""): void {
    this.#checkOpen();
    if (this.#state === "new") this.#bind(0);
    const target = { host: address, port };
    this.#remote = { target, endpoint: this.#find(target) };
  }

  disconnect(): void {
    if (this.#remote === undefined) throw socketError("ERR_SOCKET_DGRAM_NOT_CONNECTED", "not connected", "disconnect");
    this.#remote = undefined;
  }

  remoteAddress(): AddressInfo {
    if (this.#remote === undefined) throw socketError("ERR_SOCKET_DGRAM_NOT_CONNECTED", "not connected", "getpeername");
    return addressInfo(this.#remote.endpoint);
  }

  /** `send(msg[, offset, length][, port][, address][, callback])`, as dgram takes it. */
  send(message: Bytes | readonly Bytes[], ...rest: readonly unknown[]): void {
    this.#checkOpen();
    const callback = rest.find((arg) => typeof arg === "function") as SendCallback | undefined;
    const args = rest.filter((arg) => typeof arg !== "function");
    let bytes = toBytes(message);
    // An offset and a length come before a port: of a connected socket two numbers, else three with a port.
    const numbers = args.filter((arg) => typeof arg === "number").length;
    if (numbers >= (this.#remote === undefined ? 3 : 2)) {
      const [offset, length] = args.splice(0, 2) as [number, number];
      if (offset + length > bytes.length) throw new RangeError("offset and length lie outside of the message");
      bytes = bytes.subarray(offset, offset + length);
    }
    const [port, address] = args as [number | undefined, string | undefined];
    if (this.#state === "new") this.#bind(0);
    this.#sendNow(bytes, port, address, callback);
  }

  close(callback?: () => void): this {
    if (callback !== undefined) this.once("close", callback);
    this.#checkOpen();
    this.#state = "closed";
    for (const socket of this.#bound.splice(0)) this.#place.inside.turns.turn(() => socket.close());
    this.#setHold();
    process.nextTick(() => this.emit("close"));
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === "closed") return Promise.resolve();
    return new Promise((resolve) => this.close(() => resolve()));
  }

  ref(): this {
    this.#wanted = true;
    this.#setHold();
    return this;
  }

  unref(): this {
    this.#wanted = false;
    this.#setHold();
    return this;
  }

  getSendQueueSize(): number {
    return 0;
  }

  getSendQueueCount(): number {
    return 0;
  }

  getRecvBufferSize(): number {
    return BUFFER_BYTES;
  }

  getSendBufferSize(): number {
    return BUFFER_BYTES;
  }

  setRecvBufferSize(): void {
    // The stack has none: a datagram is an event at once.
  }

  setSendBufferSize(): void {
    // As above.
  }

  setTTL(ttl: number): number {
    return ttl; // no router counts within the overlay
  }

  setMulticastTTL(ttl: number): number {
    return ttl;
  }

  setMulticastLoopback(flag: boolean): boolean {
    return flag;
  }

  setBroadcast(flag: boolean): void {
    if (flag) throw unsupported("setBroadcast");
  }

  setMulticastInterface(): void {
    throw unsupported("setMulticastInterface");
  }

  addMembership(): void {
    throw unsupported("addMembership");
  }

  dropMembership(): void {
    throw unsupported("dropMembership");
  }

  addSourceSpecificMembership(): void {
    throw unsupported("addSourceSpecificMembership");
  }

  dropSourceSpecificMembership(): void {
    throw unsupported("dropSourceSpecificMembership");
  }

  #sendNow(bytes: Buffer, port: number | undefined, address: string | undefined, callback?: SendCallback): void {
    try {
      const target = this.#remote?.target ?? { host: address ?? "", port: port ?? 0 };
      const remote = this.#remote?.endpoint ?? this.#endpointOf(target);
      const from = this.#bound.find(({ local }) => isV4(local.address) === isV4(remote.address));
      if (from === undefined) throw socketError("ENETUNREACH", "no own address of that family", "send");
      this.#bounced = false;
      if (!this.#place.inside.turns.turn((nowMs) => from.send(nowMs, remote, bytes)))
        throw socketError("EMSGSIZE", `a datagram of ${bytes.length} bytes is too large`, "send");
      if (this.#bounced) this.#find(target); // says why
      if (callback !== undefined) process.nextTick(callback, null, bytes.length);
    } catch (error) {
      // As dgram: to the callback, else an event.
      if (callback !== undefined) process.nextTick(callback, error as Error, 0);
      else process.nextTick(() => this.emit("error", error));
    }
  }

  /** An address is not judged ahead: an answer needs no grant, and the filter knows what is one. */
  #endpointOf(asked: DialTarget): Endpoint {
    const address = parseAddress(this.#place.normalize(asked.host));
    return address === undefined ? this.#find(asked) : { address, port: asked.port };
  }

  #find(asked: DialTarget): Endpoint {
    const { inside, identity, normalize } = this.#place;
    const target = { host: normalize(asked.host), port: asked.port };
    try {
      return inside.dialer.findUdp(target);
    } catch (error) {
      throw error instanceof DialError ? new ConnectError(error, target, identity, "udp") : error;
    }
  }

  #bind(port: number): void {
    if (port !== 0) {
      if (!this.#bindAll(port)) throw socketError("EADDRINUSE", `overlay UDP port ${port} is in use`, "bind");
      return;
    }
    for (let tries = 0; tries < PORT_TRIES_MAX; tries++) {
      if (this.#bindAll(EPHEMERAL_FIRST + (randomU32(osRandom) % EPHEMERAL_COUNT))) return;
    }
    throw socketError("EADDRINUSE", "no overlay UDP port is free", "bind");
  }

  #bindAll(port: number): boolean {
    const { inside, ownAddresses } = this.#place;
    for (const address of ownAddresses()) {
      const socket = inside.stack.bindUdp({ address, port });
      if (socket === undefined) {
        for (const taken of this.#bound.splice(0)) taken.close();
        return false;
      }
      this.#bound.push(socket);
      socket.onDatagram = (remote, bytes) => this.#onDatagram(remote, bytes);
      socket.onError = (remote, reason) => this.#onError(remote, reason);
    }
    this.#state = "bound";
    this.#setHold();
    return this.#bound.length > 0;
  }

  /** Inside a turn: the program hears of it after that. */
  #onDatagram(remote: Endpoint, bytes: Uint8Array): void {
    const from = this.#remote?.endpoint;
    if (from !== undefined && (from.port !== remote.port || !equalAddress(from.address, remote.address))) return;
    const copy = Buffer.from(bytes); // valid during the call only
    const { address, family, port } = addressInfo(remote);
    const info: RemoteInfo = { address, family: family === "IPv6" ? "IPv6" : "IPv4", port, size: copy.length };
    process.nextTick(() => this.#state === "bound" && this.emit("message", copy, info));
  }

  /** As a kernel tells it: of a connected socket alone. */
  #onError(remote: Endpoint, reason: "unreachable" | "prohibited"): void {
    this.#bounced = true;
    if (this.#remote === undefined || remote.port !== this.#remote.endpoint.port) return;
    const error =
      reason === "prohibited"
        ? socketError("EACCES", "the policy prohibits it", "recvmsg")
        : socketError("ECONNREFUSED", "nobody takes datagrams there", "recvmsg");
    process.nextTick(() => this.#state === "bound" && this.emit("error", error));
  }

  #checkOpen(): void {
    if (this.#state === "closed") throw socketError("ERR_SOCKET_DGRAM_NOT_RUNNING", "the socket is closed", "send");
  }

  #setHold(): void {
    const holds = this.#wanted && this.#state === "bound";
    if (holds === this.#holds) return;
    this.#holds = holds;
    if (holds) this.#place.hold.hold();
    else this.#place.hold.release();
  }
}

function unsupported(method: string): Error {
  return socketError("ENOTSUP", `an overlay has no multicast and no broadcast (${method})`, "setsockopt");
}

function toBytes(message: Bytes | readonly Bytes[]): Buffer {
  if (Array.isArray(message)) return Buffer.concat((message as readonly Bytes[]).map(toBytes));
  if (typeof message === "string") return Buffer.from(message);
  const { buffer, byteOffset, byteLength } = message as NodeJS.ArrayBufferView;
  return Buffer.from(buffer, byteOffset, byteLength);
}
