// Datagrams on their way out, put together into runs: equal ones that lie back to back, to one endpoint, which a socket
// sends by one call (UDP_SEGMENT). Whoever makes a packet asks where it is to stand so that its datagram follows the
// last one; any other datagram is copied aside.
import { type Endpoint, equalEndpoint, isV4 } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { DATAGRAM_MAX_BYTES, UDP_RUN_MAX_BYTES, UDP_RUN_SEGMENTS_MAX } from "../base/limits.ts";
import { DATA_HEADER_BYTES } from "../wire/wireguard.ts";
import type { DatagramSocket, PacketMemory } from "./data-plane.ts";

const SIDE_BYTES = 1 << 17; // datagrams that come from elsewhere than the memory
const ROOM_BYTES = 64; // around a packet or datagram: headers before, padding and tag behind

export interface RunCounters {
  datagramsOut: number;
  runsOut: number;
  /** Datagrams to a family that there is no socket for; of a run, one. */
  noFamily: number;
}

export interface DatagramRunsParts {
  /** The arena that the sockets use too. */
  readonly memory: PacketMemory;
  readonly v4: DatagramSocket | undefined;
  readonly v6: DatagramSocket | undefined;
  readonly counters: RunCounters;
  /** Of packets that wait to be sent. */
  readonly sendBytes: number;
  /** So much room at least lies behind each place that is given: all that is made before the next is asked for. */
  readonly reserveBytes: number;
}

export class DatagramRuns {
  readonly bytes: Uint8Array;
  readonly #parts: DatagramRunsParts;
  readonly #sendStart: number;
  readonly #sendEnd: number;
  readonly #sideStart: number;
  /** Where the next packet to be sealed is put. */
  #sendAt: number;
  #sideAt: number;
  // The run that grows.
  #runAt = 0;
  #runEnd = 0;
  #runSegmentBytes = 0;
  #runSegments = 0;
  #runTo: Endpoint | undefined;
  #unflushedBytes = 0;
  /** What packets were last put from, and where that lies in `bytes`; −1: elsewhere. */
  #source: Uint8Array | undefined;
  #sourceAt = -1;

  constructor(parts: DatagramRunsParts) {
    this.#parts = parts;
    this.bytes = parts.memory.bytes;
    this.#sendStart = parts.memory.allocateAt(parts.sendBytes + ROOM_BYTES);
    this.#sendEnd = this.#sendStart + parts.sendBytes;
    this.#sideStart = parts.memory.allocateAt(SIDE_BYTES + ROOM_BYTES);
    this.#sendAt = this.#sendStart;
    this.#sideAt = this.#sideStart;
  }

  /** What it takes of the memory. */
  static arenaBytes(sendBytes: number): number {
    return sendBytes + SIDE_BYTES + 4 * ROOM_BYTES;
  }

  /** What was given to `send` since the last `flush`. */
  get unflushedBytes(): number {
    return this.#unflushedBytes;
  }

  /**
   * Where in `bytes` the next packet is to stand so that its datagram follows the last one. May flush: nothing is
   * overwritten that waits.
   */
  placeForPacket(): number {
    if (this.#sendAt > this.#sendEnd - this.#parts.reserveBytes) this.flush();
    return this.#sendAt + DATA_HEADER_BYTES;
  }

  /** The same of a packet that has been made elsewhere: copied there. */
  putPacket(buffer: Uint8Array, offset: number, length: number): number {
    assert(length + DATA_HEADER_BYTES + ROOM_BYTES <= this.#parts.reserveBytes, "a packet fits its place");
    const at = this.placeForPacket();
    if (buffer !== this.#source) {
      this.#source = buffer;
      this.#sourceAt = buffer.buffer === this.bytes.buffer ? buffer.byteOffset : -1;
    }
    const from = this.#sourceAt + offset;
    if (this.#sourceAt >= 0) this.bytes.copyWithin(at, from, from + length);
    else this.bytes.set(buffer.subarray(offset, offset + length), at);
    return at;
  }

  /**
   * A datagram that lies where the next was to be put stays there, until `flush`; any other (a handshake, a packet that
   * had waited) is copied aside: another may be in the making there.
   */
  send(to: Endpoint, buffer: Uint8Array, offset: number, length: number): void {
    let at = offset;
    if (buffer !== this.bytes || offset < this.#sendStart || offset >= this.#sendEnd) {
      at = this.#copyAside(buffer, offset, length);
    } else if (offset === this.#sendAt) this.#sendAt += length;
    this.#parts.counters.datagramsOut++;
    this.#unflushedBytes += length;
    if (at === this.#runEnd && this.#fitsRun(to, length)) {
      this.#runEnd += length;
      this.#runSegments++;
      if (length < this.#runSegmentBytes) this.#closeRun(); // only the last may be shorter
      return;
    }
    this.#closeRun();
    this.#runAt = at;
    this.#runEnd = at + length;
    this.#runSegmentBytes = length;
    this.#runSegments = 1;
    this.#runTo = to;
  }

  /** Everything goes out, or is counted as lost by its socket. */
  flush(): void {
    this.#flushSockets();
    this.#sendAt = this.#sendStart;
    this.#sideAt = this.#sideStart;
    this.#unflushedBytes = 0;
  }

  #flushSockets(): void {
    this.#closeRun();
    this.#parts.v4?.flush();
    this.#parts.v6?.flush();
  }

  #fitsRun(to: Endpoint, length: number): boolean {
    const known = this.#runTo;
    return (
      known !== undefined &&
      (known === to || equalEndpoint(known, to)) &&
      length <= this.#runSegmentBytes &&
      this.#runSegments < UDP_RUN_SEGMENTS_MAX &&
      this.#runEnd + length - this.#runAt <= UDP_RUN_MAX_BYTES
    );
  }

  #closeRun(): void {
    const to = this.#runTo;
    if (to === undefined) return;
    this.#runTo = undefined;
    const socket = isV4(to.address) ? this.#parts.v4 : this.#parts.v6;
    if (socket === undefined) {
      this.#parts.counters.noFamily++;
      return;
    }
    this.#parts.counters.runsOut++;
    socket.push(this.#runAt, this.#runEnd - this.#runAt, this.#runSegmentBytes, to);
  }

  /** What was pushed is sent first when there is no more room: nothing is overwritten that waits. */
  #copyAside(buffer: Uint8Array, offset: number, length: number): number {
    assert(length <= DATAGRAM_MAX_BYTES, "a datagram of a known size");
    if (this.#sideAt + length > this.#sideStart + SIDE_BYTES) {
      this.#flushSockets();
      this.#sideAt = this.#sideStart;
    }
    const at = this.#sideAt;
    this.bytes.set(buffer.subarray(offset, offset + length), at);
    this.#sideAt += length;
    return at;
  }
}
