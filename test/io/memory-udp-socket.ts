// The twin of a UDP socket for runs, in memory: sockets that joined one network reach each other at once and in order.
// One contract suite holds both to the same.
import { type Address, type Endpoint, formatAddress, isV4, parseAddress } from "../../src/base/address.ts";
import { assert } from "../../src/base/assert.ts";
import {
  UDP_BUFFER_BYTES,
  UDP_RUN_MAX_BYTES,
  UDP_RUN_SEGMENTS_MAX,
  UDP_RUNS_QUEUED_MAX,
} from "../../src/base/limits.ts";
import type { DatagramSocket, PacketMemory } from "../../src/io/data-plane.ts";
import { EBADF } from "../../src/io/ffi/errno.ts";
import { portTaken } from "../../src/io/port-taken.ts";

const SLOT_BYTES = 65_536;
const RECEIVE_SLOTS = 32;
const DYNAMIC_PORTS_FROM = 49_152; // RFC 6335 §6

interface Message {
  readonly from: Endpoint;
  readonly bytes: Uint8Array;
  readonly segmentBytes: number;
}

interface Run {
  readonly at: number;
  readonly length: number;
  readonly segmentBytes: number;
  readonly to: Endpoint;
}

export interface MemoryUdpOptions {
  readonly family: 4 | 6;
  /** 0: the network chooses. */
  readonly port: number;
  /** Of this socket's machine; loopback by default. */
  readonly address?: Address;
  readonly gso?: boolean;
  readonly gro?: boolean;
  readonly sendSlots?: number;
  readonly receiveSlots?: number;
  /** Of what waits to be received here, and of what a network that stands still takes from here. */
  readonly bufferBytes?: number;
}

const keyOf = ({ address, port }: Endpoint): string => `${formatAddress(address)} ${port}`;

/** `const network = new MemoryUdpNetwork(); const socket = network.open(arena, { family: 4, port: 0 });` */
export class MemoryUdpNetwork {
  readonly #sockets = new Map<string, MemoryUdpSocket>();
  readonly #held: { readonly to: Endpoint; readonly message: Message; readonly socket: MemoryUdpSocket }[] = [];
  #nextPort = DYNAMIC_PORTS_FROM;
  #isStopped = false;

  /** @throws WirebadgeError PORT_TAKEN */
  open(memory: PacketMemory, options: MemoryUdpOptions): MemoryUdpSocket {
    const address = options.address ?? parseAddress(options.family === 4 ? "127.0.0.1" : "::1")!;
    let port = options.port;
    while (port === 0 || (options.port === 0 && this.#sockets.has(keyOf({ address, port })))) port = this.#nextPort++;
    const here = { address, port };
    if (this.#sockets.has(keyOf(here))) {
      throw portTaken(port, Object.assign(new Error("bind: EADDRINUSE"), { code: "EADDRINUSE" }));
    }
    const leave = (): void => void this.#sockets.delete(keyOf(here));
    const socket = new MemoryUdpSocket(
      memory,
      options,
      here,
      (from, to, message) => this.#carry(from, to, message),
      leave,
    );
    this.#sockets.set(keyOf(here), socket);
    return socket;
  }

  /** From now on what is sent stays in the buffers of the senders, as when a link doesn't move. */
  stop(): void {
    this.#isStopped = true;
  }

  go(): void {
    this.#isStopped = false;
    for (const { to, message, socket } of this.#held.splice(0)) {
      socket.heldBytes -= message.bytes.length;
      this.#carry(socket, to, message);
    }
  }

  /** False when the sender's buffer is full. */
  #carry(socket: MemoryUdpSocket, to: Endpoint, message: Message): boolean {
    if (this.#isStopped) {
      if (socket.heldBytes + message.bytes.length > socket.bufferBytes) return false;
      socket.heldBytes += message.bytes.length;
      this.#held.push({ to, message, socket });
      return true;
    }
    this.#sockets.get(keyOf(to))?.arrive(message); // nobody there: lost, and the sender doesn't learn of it
    return true;
  }
}

type Carry = (from: MemoryUdpSocket, to: Endpoint, message: Message) => boolean;

export class MemoryUdpSocket implements DatagramSocket {
  readonly port: number;
  readonly gso: boolean;
  readonly gro: boolean;
  /** May be changed at any time, as SO_SNDBUF and SO_RCVBUF may. */
  bufferBytes: number;
  readonly counters: Record<string, number> = {
    "send-calls": 0,
    "send-runs": 0,
    "receive-calls": 0,
    "receive-messages": 0,
  };
  /** What of this socket's the network holds while it stands still. */
  heldBytes = 0;
  /** The last that `setMark` asked for. */
  mark = 0;
  readonly #memory: PacketMemory;
  readonly #isV4: boolean;
  readonly #here: Endpoint;
  readonly #carry: Carry;
  readonly #leave: () => void;
  readonly #sendSlots: number;
  readonly #receiveSlots: number;
  readonly #slotsAt: number;
  readonly #arrived: Message[] = [];
  #arrivedBytes = 0;
  #slots: readonly Message[] = [];
  #queue: Run[] = [];
  #isOpen = true;

  /** By `MemoryUdpNetwork.open`. */
  constructor(memory: PacketMemory, options: MemoryUdpOptions, here: Endpoint, carry: Carry, leave: () => void) {
    this.#memory = memory;
    this.#isV4 = options.family === 4;
    this.#here = here;
    this.#carry = carry;
    this.#leave = leave;
    this.port = here.port;
    this.gso = options.gso ?? true;
    this.gro = options.gro ?? true;
    this.bufferBytes = options.bufferBytes ?? UDP_BUFFER_BYTES;
    this.#sendSlots = options.sendSlots ?? UDP_RUNS_QUEUED_MAX;
    this.#receiveSlots = options.receiveSlots ?? RECEIVE_SLOTS;
    this.#slotsAt = memory.allocateAt(this.#receiveSlots * SLOT_BYTES);
  }

  /** There is nothing to poll. */
  get fd(): number {
    return -1;
  }

  /** What poll(2) would say. */
  get isReadable(): boolean {
    return this.#arrived.length > 0;
  }

  /** From the network. A run comes whole where the receiver joins what arrives, else in datagrams. */
  arrive(message: Message): void {
    const { from, bytes, segmentBytes } = message;
    if (this.#arrivedBytes + bytes.length > this.bufferBytes) return; // as the kernel does: the last to come is lost
    this.#arrivedBytes += bytes.length;
    if (this.gro || bytes.length <= segmentBytes) {
      this.#arrived.push(message);
      return;
    }
    for (let at = 0; at < bytes.length; at += segmentBytes) {
      const piece = bytes.subarray(at, at + segmentBytes);
      this.#arrived.push({ from, bytes: piece, segmentBytes: piece.length });
    }
  }

  receive(): number {
    if (!this.#isOpen) {
      this.#count("receive-EBADF", 1);
      return -EBADF;
    }
    this.#slots = this.#arrived.splice(0, this.#receiveSlots);
    if (this.#slots.length === 0) return 0;
    for (const [i, { bytes }] of this.#slots.entries()) {
      this.#memory.bytes.set(bytes, this.messageAt(i));
      this.#arrivedBytes -= bytes.length;
    }
    this.#count("receive-calls", 1);
    this.#count("receive-messages", this.#slots.length);
    return this.#slots.length;
  }

  messageAt(i: number): number {
    return this.#slotsAt + i * SLOT_BYTES;
  }

  messageBytes(i: number): number {
    return this.#slots[i]!.bytes.length;
  }

  segmentBytes(i: number): number {
    return Math.min(this.#slots[i]!.segmentBytes, this.#slots[i]!.bytes.length);
  }

  source(i: number): Endpoint {
    return this.#slots[i]!.from;
  }

  push(at: number, length: number, segmentBytes: number, to: Endpoint): void {
    assert(segmentBytes > 0 && length > 0 && length <= UDP_RUN_MAX_BYTES, "a run has 1 to 65,000 bytes");
    assert(length <= segmentBytes * UDP_RUN_SEGMENTS_MAX, "a run has at most 64 segments");
    assert(at >= 0 && at + length <= this.#memory.bytes.length, "a run lies in the arena");
    assert(isV4(to.address) === this.#isV4, "an endpoint of the socket's family");
    const step = this.gso ? length : segmentBytes;
    for (let done = 0; done < length; done += step) {
      this.#queue.push({ at: at + done, length: Math.min(step, length - done), segmentBytes, to });
      if (this.#queue.length === this.#sendSlots) this.flush();
    }
  }

  /** The bytes are read now and not before, as the kernel does. */
  flush(): void {
    if (this.#queue.length === 0) return;
    const runs = this.#queue;
    this.#queue = [];
    this.#count("send-calls", 1);
    this.#count("send-runs", runs.length);
    let isFull = false;
    for (const { at, length, segmentBytes, to } of runs) {
      const lost = Math.ceil(length / segmentBytes);
      if (!this.#isOpen) {
        this.#count("send-EBADF", lost);
        continue;
      }
      const bytes = this.#memory.bytes.slice(at, at + length);
      if (!isFull && this.#carry(this, to, { from: this.#here, bytes, segmentBytes })) continue;
      if (!isFull) this.#count("send-waits", 1);
      isFull = true;
      this.#count("send-EAGAIN", lost);
    }
  }

  setMark(mark: number): void {
    this.flush();
    this.mark = mark;
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#queue = [];
    this.#arrived.length = 0;
    this.#leave();
  }

  #count(name: string, count: number): void {
    this.counters[name] = (this.counters[name] ?? 0) + count;
  }
}
