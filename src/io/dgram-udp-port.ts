// The outer UDP port by Node's dgram: one socket a family on the same port number, a datagram a call and an event.
// Never throws after it has opened: what can't be sent is counted by errno name ([WG] treats the network as lossy).
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { type Address, type Endpoint, formatAddress, isV4, parseAddress } from "../base/address.ts";
import { ADDRESSES_REMEMBERED_MAX, DATAGRAM_MAX_BYTES } from "../base/limits.ts";
import { errnoOf, isFamilyMissing, portTaken } from "./port-taken.ts";
import type { DatagramReceiver, UdpPort } from "./udp-port.ts";

const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;

/**
 * Every destination is an address already: dgram's own look-up would make each datagram wait for the end of the turn,
 * at a cost of its own.
 */
function noLookup(address: string, family: unknown, callback: (error: null, address: string, family: number) => void) {
  callback(null, address, family === 6 ? 6 : 4);
}

function bind(family: "udp4" | "udp6", port: number, host: string | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: family, ipv6Only: family === "udp6", lookup: noLookup });
    socket.once("error", (error) => {
      socket.close();
      reject(error);
    });
    socket.bind({ port, ...(host === undefined ? {} : { address: host }) }, () => {
      socket.removeAllListeners("error");
      resolve(socket);
    });
  });
}

/** Buffers as large as the kernel lets an unprivileged process have; smaller ones only cost throughput. */
function enlargeBuffers(socket: Socket, counters: Record<string, number>): void {
  for (const set of [
    () => socket.setRecvBufferSize(SOCKET_BUFFER_BYTES),
    () => socket.setSendBufferSize(SOCKET_BUFFER_BYTES),
  ]) {
    try {
      set();
    } catch (error) {
      counters[`buffer-${errnoOf(error)}`] = 1;
    }
  }
}

/** `parseAddress` of texts that repeat; all are forgotten when they are too many. */
export class ParsedAddresses {
  readonly #addresses = new Map<string, Address>();

  get size(): number {
    return this.#addresses.size;
  }

  parse(text: string): Address | undefined {
    const known = this.#addresses.get(text);
    if (known !== undefined) return known;
    const zone = text.indexOf("%"); // link-local sources carry one
    const address = parseAddress(zone < 0 ? text : text.slice(0, zone));
    if (address === undefined) return undefined;
    if (this.#addresses.size >= ADDRESSES_REMEMBERED_MAX) this.#addresses.clear();
    this.#addresses.set(text, address);
    return address;
  }
}

export class DgramUdpPort implements UdpPort {
  readonly kind = "dgram";
  readonly port: number;
  readonly packets = undefined;
  readonly counters: Record<string, number> = {};
  readonly #v4: Socket | undefined;
  readonly #v6: Socket | undefined;
  readonly #receiver: DatagramReceiver;
  readonly #onSent: (error: Error | null) => void;
  readonly #parsed = new ParsedAddresses();
  #closed: Promise<void> | undefined;
  #lastText = "";
  #lastPort = 0;
  #lastEndpoint: Endpoint | undefined;

  private constructor(port: number, v4: Socket | undefined, v6: Socket | undefined, receiver: DatagramReceiver) {
    this.port = port;
    this.#v4 = v4;
    this.#v6 = v6;
    this.#receiver = receiver;
    this.#onSent = (error) => {
      if (error !== null) this.#count(`send-${errnoOf(error)}`);
    };
    for (const socket of [v4, v6]) {
      if (socket === undefined) continue;
      enlargeBuffers(socket, this.counters);
      socket.on("error", (error) => this.#count(`socket-${errnoOf(error)}`));
      socket.on("message", (bytes, info) => this.#onMessage(bytes, info));
    }
  }

  /**
   * Port 0 lets the system choose. A machine without IPv6 (or IPv4) gets the other family alone.
   * @throws WirebadgeError PORT_TAKEN
   */
  static async open(port: number, receiver: DatagramReceiver): Promise<DgramUdpPort> {
    for (let attempt = 0; ; attempt++) {
      let v4: Socket | undefined;
      try {
        v4 = await bind("udp4", port, undefined);
      } catch (error) {
        if (errnoOf(error) !== "EAFNOSUPPORT") throw portTaken(port, error);
      }
      const chosen = v4?.address().port ?? port;
      try {
        const v6 = await bind("udp6", chosen, undefined);
        return new DgramUdpPort(v6.address().port, v4, v6, receiver);
      } catch (error) {
        if (v4 !== undefined && isFamilyMissing(error)) {
          return new DgramUdpPort(chosen, v4, undefined, receiver);
        }
        v4?.close();
        // The number that the system chose for IPv4 may be taken for IPv6: choose again, a bounded number of times.
        if (port !== 0 || attempt === 8) throw portTaken(port, error);
      }
    }
  }

  send(endpoint: Endpoint, buffer: Uint8Array, offset: number, length: number): void {
    if (this.#closed !== undefined) return this.#count("send-EBADF"); // as a descriptor would say, where dgram throws
    const v4 = isV4(endpoint.address);
    const socket = v4 ? this.#v4 : this.#v6;
    if (socket === undefined) {
      this.#count(v4 ? "send-no-ipv4" : "send-no-ipv6");
      return;
    }
    const copy = Buffer.allocUnsafe(length); // libuv may keep it when the socket is full
    copy.set(buffer.subarray(offset, offset + length));
    socket.send(copy, endpoint.port, this.#textOf(endpoint), this.#onSent);
  }

  flush(): void {
    // Nothing waits: each datagram goes by itself.
  }

  unref(): void {
    this.#v4?.unref();
    this.#v6?.unref();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.all(
      [this.#v4, this.#v6].map((socket) =>
        socket === undefined ? undefined : new Promise<void>((resolve) => socket.close(() => resolve())),
      ),
    );
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }

  #onMessage(bytes: Buffer, info: RemoteInfo): void {
    const from = this.#endpointOf(info);
    if (bytes.length > DATAGRAM_MAX_BYTES) this.#count("receive-too-long");
    else if (from !== undefined) this.#receiver.onDatagram(from, bytes, 0, bytes.length);
  }

  #endpointOf(info: RemoteInfo): Endpoint | undefined {
    if (this.#lastEndpoint !== undefined && info.address === this.#lastText && info.port === this.#lastPort) {
      return this.#lastEndpoint;
    }
    const address = this.#parsed.parse(info.address);
    if (address === undefined || info.port === 0) {
      this.#count("receive-bad-source");
      return undefined;
    }
    this.#lastText = info.address;
    this.#lastPort = info.port;
    this.#lastEndpoint = { address, port: info.port };
    return this.#lastEndpoint;
  }

  #sendText = "";
  #sendEndpoint: Endpoint | undefined;

  #textOf(endpoint: Endpoint): string {
    if (this.#sendEndpoint !== endpoint) {
      this.#sendEndpoint = endpoint;
      this.#sendText = formatAddress(endpoint.address);
    }
    return this.#sendText;
  }
}
