// The host's own network as the gateway uses it: real sockets by address only, names by the system's resolver, own
// interfaces.
import { createSocket, type Socket as DgramSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { createConnection, type Socket } from "node:net";
import { nextTick } from "node:process";
import {
  type Address,
  type Endpoint,
  formatAddress,
  isV4,
  type Prefix,
  parseAddress,
  parsePrefix,
} from "../base/address.ts";
import { DIAL_ADDRESSES_MAX } from "../base/limits.ts";
import { KIB } from "../base/units.ts";
import { broadcastOf } from "./dial-rules.ts";
import { listInterfaces } from "./interfaces.ts";
import type { LocalSocket } from "./pipe-sockets.ts";

const READ_BUFFER_BYTES = 64 * KIB;

export interface RealUdp {
  readonly local: Endpoint;
  /** Counted and dropped when it can't be sent. */
  send(bytes: Uint8Array): void;
  close(): void;
}

export interface RealUdpHandler {
  onDatagram(bytes: Uint8Array): void;
  /** The far end's ICMP, or the host's own refusal; the socket stays open. */
  onError(code: string): void;
}

export interface OwnInterfaces {
  readonly addresses: readonly Address[];
  readonly broadcasts: readonly Address[];
}

/** Everything a gateway does outside the overlay; tests give their own. Rejections are Errors with an errno `code`. */
export interface RealNetwork {
  /** `onLocal` is called as soon as the source is known, before the far end can have answered. */
  connectTcp(to: Endpoint, onLocal: (local: Endpoint) => void, signal: AbortSignal): Promise<LocalSocket>;
  /** Takes datagrams from `to` alone. */
  openUdp(to: Endpoint, handler: RealUdpHandler): Promise<RealUdp>;
  /** Every address, in the system's order; empty when there is none. */
  resolve(name: string): Promise<readonly Address[]>;
  /** Undefined: the system doesn't say, and nothing may be dialled. */
  ownInterfaces(): OwnInterfaces | undefined;
  /**
   * Prefixes that this host routes into the overlay, besides the overlay's own: dialled for somebody else they would be
   * reached by this peer's badge and not by his.
   */
  intoOverlay?(): readonly Prefix[];
}

export function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "UNKNOWN";
}

function endpointOf(address: string | undefined, port: number | undefined): Endpoint | undefined {
  const parsed = address === undefined ? undefined : parseAddress(address);
  return parsed === undefined || port === undefined || port === 0 ? undefined : { address: parsed, port };
}

/**
 * A socket that is being connected, reading into one buffer (see LocalSocket) and paused until somebody takes its
 * bytes.
 */
export function connectLocal(to: { host: string; port: number } | { path: string }): LocalSocket {
  const reader: { onBytes: ((bytes: Uint8Array) => boolean) | undefined } = { onBytes: undefined };
  const buffer = new Uint8Array(READ_BUFFER_BYTES);
  const socket: Socket = createConnection({
    ...to,
    allowHalfOpen: true,
    noDelay: true,
    autoSelectFamily: false,
    onread: {
      buffer,
      callback: (count: number, bytes: Uint8Array) => reader.onBytes?.(bytes.subarray(0, count)) ?? false,
    },
  });
  return { socket, reader };
}

/** Waits for 'connect'; on failure or abort the socket is gone. */
export function whenConnected(local: LocalSocket, signal: AbortSignal): Promise<LocalSocket> {
  const { socket } = local;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      socket.destroy();
      reject(Object.assign(new Error("aborted"), { code: "ABORT_ERR" }));
    };
    const onError = (error: Error): void => {
      signal.removeEventListener("abort", onAbort);
      reject(error);
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", onError);
    socket.once("connect", () => {
      signal.removeEventListener("abort", onAbort);
      socket.removeListener("error", onError);
      // Until the pipe listens; an error in between is seen by it as a destroyed socket.
      socket.on("error", () => undefined);
      resolve(local);
    });
  });
}

function bindConnected(to: Endpoint, handler: RealUdpHandler): Promise<RealUdp> {
  const socket: DgramSocket = createSocket({ type: isV4(to.address) ? "udp4" : "udp6" });
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => {
      socket.close();
      reject(error);
    };
    socket.once("error", onError);
    socket.connect(to.port, formatAddress(to.address), () => {
      const { address, port } = socket.address();
      const local = endpointOf(address, port);
      if (local === undefined) return onError(new Error("a UDP socket without an address"));
      socket.removeListener("error", onError);
      socket.on("error", (error) => handler.onError(errnoOf(error)));
      socket.on("message", (bytes) => handler.onDatagram(bytes));
      resolve({
        local,
        send: (bytes) => socket.send(bytes, (error) => (error === null ? undefined : handler.onError(errnoOf(error)))),
        close: () => socket.close(),
      });
    });
  });
}

function ownInterfaces(): OwnInterfaces | undefined {
  const rows = listInterfaces();
  if (rows === undefined) return undefined;
  const addresses: Address[] = [];
  const broadcasts: Address[] = [];
  for (const row of rows) {
    const address = parseAddress(row.address);
    if (address !== undefined) addresses.push(address);
    const prefix = row.cidr === null ? undefined : parsePrefix(row.cidr);
    const broadcast = prefix === undefined ? undefined : broadcastOf(prefix);
    if (broadcast !== undefined) broadcasts.push(broadcast);
  }
  return { addresses, broadcasts };
}

async function resolveName(name: string): Promise<readonly Address[]> {
  try {
    const rows = await lookup(name, { all: true, order: "verbatim" });
    const addresses = rows.map((row) => parseAddress(row.address)).filter((address) => address !== undefined);
    return addresses.slice(0, DIAL_ADDRESSES_MAX);
  } catch (error) {
    if (["ENOTFOUND", "ENODATA", "EAI_AGAIN", "EAI_NODATA", "EAI_NONAME"].includes(errnoOf(error))) return [];
    throw error;
  }
}

export const hostNetwork: RealNetwork = {
  connectTcp(to, onLocal, signal) {
    const local = connectLocal({ host: formatAddress(to.address), port: to.port });
    local.socket.once("connectionAttempt", () => {
      // connect(2) runs right after this event; it has chosen the source when the next tick comes.
      nextTick(() => {
        const source = endpointOf(local.socket.localAddress, local.socket.localPort);
        if (source !== undefined) onLocal(source);
      });
    });
    return whenConnected(local, signal);
  },
  openUdp: bindConnected,
  resolve: resolveName,
  ownInterfaces,
};
