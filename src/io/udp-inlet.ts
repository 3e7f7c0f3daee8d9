// What comes in at one dgram socket. Sparse datagrams come by dgram's event, each with a Buffer, a text and an object
// of its own. Where many come the socket stops listening and what waits is read by recvmmsg(2) (ffi/udp-drain.ts), a
// batch a round of the event loop, until nothing waits: timers and other sockets have their turn between two batches,
// and datagrams leave less garbage.
import type { RemoteInfo, Socket } from "node:dgram";
import type { Endpoint } from "../base/address.ts";
import { DATAGRAM_MAX_BYTES } from "../base/limits.ts";
import type { UdpDrain } from "./ffi/udp-drain.ts";

/** So many behind the first: more will come. */
const DENSE = 8;
/** How many of dgram's own datagrams, after one with none behind it, before the next look. */
const SPARSE_SKIP = 3;
/** So many rounds with nothing to read, some 10 µs each, before dgram listens again: to change over costs as much. */
const EMPTY_ROUNDS_MAX = 4;

/** Of a dgram socket, which has no public name for it. */
interface UdpHandle {
  readonly fd: number;
  recvStart(): number;
  recvStop(): number;
}

function isUdpHandle(handle: unknown): handle is UdpHandle {
  if (typeof handle !== "object" || handle === null || !("fd" in handle && "recvStart" in handle)) return false;
  const { fd, recvStart } = handle;
  if (!("recvStop" in handle) || typeof handle.recvStop !== "function" || typeof recvStart !== "function") return false;
  return typeof fd === "number" && fd >= 0;
}

/**
 * Undefined where it can't be found. A socket made elsewhere and given to dgram would need the whole of `bind` again.
 */
function handleOf(socket: Socket): UdpHandle | undefined {
  for (const symbol of Object.getOwnPropertySymbols(socket)) {
    const state: unknown = Reflect.get(socket, symbol);
    if (typeof state !== "object" || state === null || !("handle" in state)) continue;
    if (isUdpHandle(state.handle)) return state.handle;
  }
  return undefined;
}

export interface InletParts {
  readonly socket: Socket;
  /** Undefined: by dgram's events alone. */
  readonly drain: UdpDrain | undefined;
  readonly handler: (from: Endpoint, bytes: Uint8Array) => void;
  /** Undefined for a source that is none. */
  readonly endpointOf: (info: RemoteInfo) => Endpoint | undefined;
  readonly count: (name: "receive-drained" | "receive-too-long", count: number) => void;
}

export class UdpInlet {
  readonly #parts: InletParts;
  readonly #handle: UdpHandle | undefined;
  #skip = 0;
  #emptyRounds = 0;
  #isClosed = false;

  constructor(parts: InletParts) {
    this.#parts = parts;
    this.#handle = parts.drain === undefined ? undefined : handleOf(parts.socket);
    parts.socket.on("message", (bytes, info) => this.#onMessage(bytes, info));
  }

  close(): void {
    this.#isClosed = true;
  }

  #onMessage(bytes: Buffer, info: RemoteInfo): void {
    const { handler, endpointOf, count } = this.#parts;
    const from = endpointOf(info);
    if (bytes.length > DATAGRAM_MAX_BYTES) count("receive-too-long", 1);
    else if (from !== undefined) handler(from, bytes);
    if (this.#handle === undefined || this.#isClosed || this.#skip-- > 0) return;
    const read = this.#read();
    this.#skip = read > 0 ? 0 : SPARSE_SKIP;
    if (read < DENSE || this.#isClosed) return;
    this.#handle.recvStop();
    this.#emptyRounds = 0;
    setImmediate(this.#goOn);
  }

  readonly #goOn = (): void => {
    if (this.#isClosed) return;
    this.#emptyRounds = this.#read() > 0 ? 0 : this.#emptyRounds + 1;
    if (this.#emptyRounds < EMPTY_ROUNDS_MAX) setImmediate(this.#goOn);
    else this.#handle?.recvStart();
  };

  /** One batch; how many they were, too long ones among them. */
  #read(): number {
    const { drain, handler, count } = this.#parts;
    const read = drain!.read(this.#handle!.fd, handler);
    if (read > 0) count("receive-drained", read);
    if (drain!.tooLong > 0) count("receive-too-long", drain!.tooLong);
    drain!.tooLong = 0;
    return read;
  }
}
