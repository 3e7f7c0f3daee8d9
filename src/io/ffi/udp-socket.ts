// A UDP socket for runs of datagrams (Linux, udp(7) UDP_SEGMENT and UDP_GRO): one system call sends or receives many
// times 64 KiB, where each datagram by itself would cost microseconds. One family, non-blocking; all it writes and
// reads lies in the caller's arena. Never throws once it is open: what can't be sent is counted by errno's name ([WG]
// treats the network as lossy).
import { type Endpoint, isV4, makeAddress, makeV4 } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { readU16, readU32, writeU32 } from "../../base/bytes.ts";
import {
  UDP_NARROW_RUNS,
  UDP_RUN_MAX_BYTES,
  UDP_RUN_SEGMENTS_MAX,
  UDP_RUNS_QUEUED_MAX,
  UDP_SEND_WAIT_MAX_MS,
} from "../../base/limits.ts";
import type { DatagramSocket } from "../data-plane.ts";
import type { Arena } from "./arena.ts";
import { EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, errnoName, lastErrno } from "./errno.ts";
import { NarrowPaths } from "./narrow-paths.ts";
import { POLLOUT } from "./poller.ts";
import {
  NAME_BYTES,
  NAME_ROOM,
  type OpenedUdp,
  openUdp,
  openUdpPair,
  SOL_UDP,
  setMark,
  UDP_GRO,
  UDP_SEGMENT,
  type UdpLibc,
  type UdpSocketOptions,
  udpLibc,
  V4_NAME_BYTES,
  writeFamilyAndPort,
} from "./udp-open.ts";

const MSG_DONTWAIT = 0x40;

const SLOT_BYTES = 65_536; // nothing is longer, joined or not
const RECEIVE_SLOTS = 32;
const LONG_RECEIVE_SLOTS = 8; // of long runs: half a megabyte at the most before the device has its turn
const LONG_RECEIVE_BYTES = 1 << 17; // of one call: the next one's runs are taken for long

// struct mmsghdr (64-bit): name @0, namelen @8, iov @16, iovlen @24, control @32, controllen @40, flags @48,
// msg_len @56
const HEADER_BYTES = 64;
const HEADER_WORDS = HEADER_BYTES / 4;
const NAME_LENGTH_WORD = 2;
const CONTROL_LENGTH_WORD = 10;
const MESSAGE_LENGTH_WORD = 14;
const VECTOR_BYTES = 16; // struct iovec: base @0, len @8
// struct cmsghdr: len u64 @0, level i32 @8, type i32 @12, then the value: u16 for UDP_SEGMENT, i32 for UDP_GRO
const CONTROL_BYTES = 24;
const SEGMENT_CONTROL_LENGTH = 18;
const GRO_CONTROL_LENGTH = 20;
const CONTROL_WORDS = CONTROL_BYTES / 4;

const KNOWN_SENDERS = 256; // a power of two

/** What one socket takes of its arena. */
export function udpSocketArenaBytes(sendSlots = UDP_RUNS_QUEUED_MAX, receiveSlots = RECEIVE_SLOTS): number {
  const rows = sendSlots + UDP_RUN_SEGMENTS_MAX + receiveSlots;
  return receiveSlots * SLOT_BYTES + rows * (HEADER_BYTES + VECTOR_BYTES + NAME_ROOM + CONTROL_BYTES) + 16 * 64;
}

/** One array of mmsghdr, each with its vector, name and control message, all in the arena. */
interface Table {
  readonly address: number;
  readonly headerWord: number;
  readonly vectorWord: number;
  readonly namesAt: number;
  readonly controlWord: number;
}

function makeTable(arena: Arena, rows: number): Table {
  const headersAt = arena.allocateAt(rows * HEADER_BYTES);
  const vectorsAt = arena.allocateAt(rows * VECTOR_BYTES);
  const namesAt = arena.allocateAt(rows * NAME_ROOM);
  const controlsAt = arena.allocateAt(rows * CONTROL_BYTES);
  for (let i = 0; i < rows; i++) {
    const at = headersAt + i * HEADER_BYTES;
    arena.writePointer(at, namesAt + i * NAME_ROOM);
    arena.writePointer(at + 16, vectorsAt + i * VECTOR_BYTES);
    arena.words[(at + 24) >>> 2] = 1;
    arena.writePointer(at + 32, controlsAt + i * CONTROL_BYTES);
  }
  const address = arena.baseAddress + headersAt;
  return { address, headerWord: headersAt / 4, vectorWord: vectorsAt / 4, namesAt, controlWord: controlsAt / 4 };
}

export interface UdpPair {
  readonly port: number;
  readonly v4: UdpSocket | undefined;
  readonly v6: UdpSocket | undefined;
}

export class UdpSocket implements DatagramSocket {
  readonly port: number;
  readonly gro: boolean;
  readonly counters: Record<string, number> = {
    "send-calls": 0,
    "send-runs": 0,
    "receive-calls": 0,
    "receive-messages": 0,
  };
  readonly #libc: UdpLibc;
  readonly #arena: Arena;
  readonly #words: Uint32Array;
  readonly #isV4: boolean;
  readonly #scratchAt: number;
  #fd: number;
  #gso: boolean;

  // Sending: rows [0, sendSlots) hold the queue, the rest the datagrams of one run that is sent one by one.
  readonly #sendSlots: number;
  readonly #sendWaitMs: number;
  readonly #sendTable: Table;
  readonly #runAt: Float64Array;
  readonly #runBytes: Int32Array;
  /** 0: one datagram. */
  readonly #runSegment: Int32Array;
  readonly #runTo: (Endpoint | undefined)[];
  readonly #narrow = new NarrowPaths(UDP_NARROW_RUNS);
  #queued = 0;
  #waitLeftMs = 0;

  readonly #receiveSlots: number;
  readonly #receiveTable: Table;
  readonly #slotsAt: number;
  /** From the first on: what the last call may have written to. */
  #writtenSlots: number;
  #receivesLong = false;
  readonly #messageBytes: Int32Array;
  readonly #segmentBytes: Int32Array;
  readonly #senders: (Endpoint | undefined)[] = new Array<Endpoint | undefined>(KNOWN_SENDERS).fill(undefined);

  private constructor(functions: UdpLibc, arena: Arena, options: UdpSocketOptions, opened: OpenedUdp) {
    this.#libc = functions;
    this.#arena = arena;
    this.#words = arena.words;
    this.#isV4 = options.family === 4;
    this.#fd = opened.fd;
    this.port = opened.port;
    this.#gso = opened.gso;
    this.gro = opened.gro;
    for (const name of opened.refused) this.counters[name] = 1;
    this.#scratchAt = arena.scratchAt;

    this.#sendSlots = options.sendSlots ?? UDP_RUNS_QUEUED_MAX;
    this.#sendWaitMs = options.sendWaitMs ?? UDP_SEND_WAIT_MAX_MS;
    const rows = this.#sendSlots + UDP_RUN_SEGMENTS_MAX;
    this.#sendTable = makeTable(arena, rows);
    this.#runAt = new Float64Array(rows);
    this.#runBytes = new Int32Array(rows);
    this.#runSegment = new Int32Array(rows);
    this.#runTo = new Array<Endpoint | undefined>(rows).fill(undefined);
    for (let i = 0; i < rows; i++) {
      const control = this.#sendTable.controlWord + i * CONTROL_WORDS;
      this.#words[control] = SEGMENT_CONTROL_LENGTH;
      this.#words[control + 2] = SOL_UDP;
      this.#words[control + 3] = UDP_SEGMENT;
    }

    this.#receiveSlots = options.receiveSlots ?? RECEIVE_SLOTS;
    this.#writtenSlots = this.#receiveSlots;
    this.#receiveTable = makeTable(arena, this.#receiveSlots);
    this.#slotsAt = arena.allocateAt(this.#receiveSlots * SLOT_BYTES);
    this.#messageBytes = new Int32Array(this.#receiveSlots);
    this.#segmentBytes = new Int32Array(this.#receiveSlots);
    for (let i = 0; i < this.#receiveSlots; i++) {
      const vector = this.#receiveTable.vectorWord + i * (VECTOR_BYTES / 4);
      arena.writePointer(vector * 4, this.#slotsAt + i * SLOT_BYTES);
      this.#words[vector + 2] = SLOT_BYTES;
    }
  }

  /**
   * Takes `udpSocketArenaBytes()` of the arena, for good. The error's cause has the errno's name as its `code`.
   * @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE
   */
  static open(arena: Arena, options: UdpSocketOptions): UdpSocket {
    const functions = udpLibc();
    return new UdpSocket(functions, arena, options, openUdp(functions, arena, options));
  }

  /**
   * Both families on one port number, as WireGuard has one listen port; a machine without one of them gets the other.
   * @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE
   */
  static openPair(arena: Arena, options: Omit<UdpSocketOptions, "family">): UdpPair {
    const functions = udpLibc();
    const { v4, v6 } = openUdpPair(functions, arena, options);
    const make = (family: 4 | 6, opened: OpenedUdp | undefined): UdpSocket | undefined =>
      opened === undefined ? undefined : new UdpSocket(functions, arena, { ...options, family }, opened);
    return { port: (v4 ?? v6)?.port ?? 0, v4: make(4, v4), v6: make(6, v6) };
  }

  /** The same socket in another thread's arena: one of them closes it. */
  static adopt(arena: Arena, family: 4 | 6, opened: OpenedUdp): UdpSocket {
    return new UdpSocket(udpLibc(), arena, { family, port: opened.port }, opened);
  }

  get fd(): number {
    return this.#fd;
  }

  /** What another thread is to be told of it. */
  get opened(): OpenedUdp {
    return { fd: this.#fd, port: this.port, gso: this.#gso, gro: this.gro, refused: [] };
  }

  get gso(): boolean {
    return this.#gso;
  }

  receive(): number {
    const words = this.#words;
    const { address, headerWord } = this.#receiveTable;
    for (let i = 0, at = headerWord; i < this.#writtenSlots; i++, at += HEADER_WORDS) {
      words[at + NAME_LENGTH_WORD] = NAME_BYTES; // the kernel has written over both
      words[at + CONTROL_LENGTH_WORD] = CONTROL_BYTES;
    }
    this.#writtenSlots = this.#receiveSlots;
    const asked = this.#receivesLong ? Math.min(LONG_RECEIVE_SLOTS, this.#receiveSlots) : this.#receiveSlots;
    const count = this.#libc.recvmmsg(this.#fd, address, asked, MSG_DONTWAIT, 0);
    if (count < 0) {
      const errno = lastErrno();
      if (errno === EAGAIN || errno === EINTR) return 0;
      this.#count(`receive-${errnoName(errno)}`, 1);
      return -errno;
    }
    this.counters["receive-calls"]! += 1;
    this.counters["receive-messages"]! += count;
    this.#writtenSlots = Math.min(count + 1, this.#receiveSlots); // one more than it says: none is worth a doubt
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      this.#readHeader(i);
      bytes += this.#messageBytes[i]!;
    }
    this.#receivesLong = bytes >= LONG_RECEIVE_BYTES;
    return count;
  }

  messageAt(i: number): number {
    return this.#slotsAt + i * SLOT_BYTES;
  }

  messageBytes(i: number): number {
    return this.#messageBytes[i]!;
  }

  segmentBytes(i: number): number {
    return this.#segmentBytes[i]!;
  }

  source(i: number): Endpoint {
    const { bytes } = this.#arena;
    const at = this.#receiveTable.namesAt + i * NAME_ROOM;
    const port = readU16(bytes, at + 2);
    const w3 = readU32(bytes, at + (this.#isV4 ? 4 : 20));
    const w2 = this.#isV4 ? 0xffff : readU32(bytes, at + 16);
    const w1 = this.#isV4 ? 0 : readU32(bytes, at + 12);
    const w0 = this.#isV4 ? 0 : readU32(bytes, at + 8);
    const row = (w3 ^ (w3 >>> 8) ^ (w3 >>> 16) ^ w1 ^ port ^ (port >>> 8)) & (KNOWN_SENDERS - 1);
    const known = this.#senders[row];
    if (known !== undefined && known.port === port && known.address.w3 === w3) {
      if (known.address.w2 === w2 && known.address.w1 === w1 && known.address.w0 === w0) return known;
    }
    const made = { address: this.#isV4 ? makeV4(w3) : makeAddress(w0, w1, w2, w3), port };
    this.#senders[row] = made;
    return made;
  }

  push(at: number, length: number, segmentBytes: number, to: Endpoint): void {
    assert(segmentBytes > 0 && length > 0 && length <= UDP_RUN_MAX_BYTES, "a run has 1 to 65,000 bytes");
    assert(length <= segmentBytes * UDP_RUN_SEGMENTS_MAX, "a run has at most 64 segments");
    assert(at >= 0 && at + length <= this.#arena.bytes.length, "a run lies in the arena");
    assert(isV4(to.address) === this.#isV4, "an endpoint of the socket's family");
    if (length <= segmentBytes) this.#enqueue(at, length, 0, to);
    else if (this.#gso && !this.#narrow.has(to)) this.#enqueue(at, length, segmentBytes, to);
    else {
      for (let done = 0; done < length; done += segmentBytes) {
        this.#enqueue(at + done, Math.min(segmentBytes, length - done), 0, to);
      }
    }
  }

  flush(): void {
    const rows = this.#queued;
    if (rows === 0) return;
    this.#queued = 0;
    this.#waitLeftMs = this.#sendWaitMs;
    this.counters["send-runs"]! += rows;
    this.#send(0, rows);
  }

  /** @throws WirebadgeError NATIVE_UNAVAILABLE without the right to */
  setMark(mark: number): void {
    this.flush(); // what is queued goes as it was meant to
    setMark(this.#libc, this.#arena, this.#fd, mark);
  }

  close(): void {
    if (this.#fd >= 0) this.#libc.close(this.#fd);
    this.#fd = -1; // the number is another's as soon as something is opened
    this.#queued = 0;
  }

  /** The length, the segment size that GRO tells, and whether anybody could be answered at the source. */
  #readHeader(i: number): void {
    const words = this.#words;
    const { headerWord, controlWord, namesAt } = this.#receiveTable;
    const header = headerWord + i * HEADER_WORDS;
    const length = words[header + MESSAGE_LENGTH_WORD]!;
    const control = controlWord + i * CONTROL_WORDS;
    let segment = length;
    if (words[header + CONTROL_LENGTH_WORD]! >= GRO_CONTROL_LENGTH && words[control] === GRO_CONTROL_LENGTH) {
      const told = words[control + 4]!;
      if (words[control + 2] === SOL_UDP && words[control + 3] === UDP_GRO && told > 0 && told < length) segment = told;
    }
    const { bytes } = this.#arena;
    const name = namesAt + i * NAME_ROOM;
    // A mapped source in an IPv6 packet would have its answer sent by IPv4, to somebody else.
    const isBad =
      readU16(bytes, name + 2) === 0 ||
      (!this.#isV4 && words[name / 4 + 2] === 0 && words[name / 4 + 3] === 0 && readU32(bytes, name + 16) === 0xffff);
    if (isBad) this.#count("receive-bad-source", segment === 0 ? 1 : Math.ceil(length / segment));
    this.#messageBytes[i] = isBad ? 0 : length;
    this.#segmentBytes[i] = isBad ? 0 : segment;
  }

  #enqueue(at: number, length: number, segmentBytes: number, to: Endpoint): void {
    if (this.#queued === this.#sendSlots) this.flush();
    const row = this.#queued++;
    this.#writeRow(row, at, length, segmentBytes);
    if (this.#runTo[row] !== to) {
      this.#runTo[row] = to;
      this.#writeName(row, to);
    }
    if (this.#queued === this.#sendSlots) this.flush();
  }

  #writeRow(row: number, at: number, length: number, segmentBytes: number): void {
    const words = this.#words;
    const { headerWord, vectorWord, controlWord } = this.#sendTable;
    this.#runAt[row] = at;
    this.#runBytes[row] = length;
    this.#runSegment[row] = segmentBytes;
    const vector = vectorWord + row * (VECTOR_BYTES / 4);
    this.#arena.writePointer(vector * 4, at);
    words[vector + 2] = length;
    words[headerWord + row * HEADER_WORDS + CONTROL_LENGTH_WORD] = segmentBytes === 0 ? 0 : CONTROL_BYTES;
    words[controlWord + row * CONTROL_WORDS + 4] = segmentBytes;
  }

  #writeName(row: number, { address, port }: Endpoint): void {
    const { headerWord, namesAt } = this.#sendTable;
    const at = namesAt + row * NAME_ROOM;
    writeFamilyAndPort(this.#arena, at, this.#isV4, port);
    if (this.#isV4) writeU32(this.#arena.bytes, at + 4, address.w3);
    else {
      writeU32(this.#arena.bytes, at + 8, address.w0);
      writeU32(this.#arena.bytes, at + 12, address.w1);
      writeU32(this.#arena.bytes, at + 16, address.w2);
      writeU32(this.#arena.bytes, at + 20, address.w3);
    }
    this.#words[headerWord + row * HEADER_WORDS + NAME_LENGTH_WORD] = this.#isV4 ? V4_NAME_BYTES : NAME_BYTES;
  }

  /** Gives how many of the rows went out. */
  #send(from: number, to: number): number {
    const begin = this.#sendTable.address;
    let sent = 0;
    while (from < to) {
      const count = this.#libc.sendmmsg(this.#fd, begin + from * HEADER_BYTES, to - from, MSG_DONTWAIT);
      this.counters["send-calls"]! += 1;
      if (count > 0) {
        sent += count;
        from += count;
        continue;
      }
      const errno = lastErrno(); // of the first row: the call stops at a failure and tells of it when asked again
      if (errno === EINTR) continue;
      if (errno === EAGAIN || errno === ENOBUFS) {
        if (this.#waitForRoom(errno)) continue;
        for (; from < to; from++) this.#count(`send-${errnoName(errno)}`, this.#datagramsOf(from));
        break;
      }
      const isRefusedRun = errno === EMSGSIZE || errno === EIO || errno === EINVAL;
      if (isRefusedRun && this.#runSegment[from] !== 0) this.#sendOneByOne(from, errno);
      else this.#count(`send-${errnoName(errno)}`, this.#datagramsOf(from));
      from++;
    }
    return sent;
  }

  /**
   * A run that the kernel refused: too wide for this path (EMSGSIZE; single datagrams are fragmented), or for a device
   * that can't do checksums (EIO, EINVAL). Only if its datagrams get through by themselves was it the run's fault: an
   * endpoint that nothing can be sent to must not slow down all the others.
   */
  #sendOneByOne(row: number, errno: number): void {
    const words = this.#words;
    const { headerWord, namesAt } = this.#sendTable;
    const segment = this.#runSegment[row]!;
    const bytes = this.#runBytes[row]!;
    const to = this.#runTo[row]!;
    let single = this.#sendSlots;
    for (let done = 0; done < bytes; done += segment, single++) {
      this.#writeRow(single, this.#runAt[row]! + done, Math.min(segment, bytes - done), 0);
      this.#arena.writePointer((headerWord + single * HEADER_WORDS) * 4, namesAt + row * NAME_ROOM);
      words[headerWord + single * HEADER_WORDS + NAME_LENGTH_WORD] = this.#isV4 ? V4_NAME_BYTES : NAME_BYTES;
    }
    if (this.#send(this.#sendSlots, single) === 0) return;
    this.#count(`gso-${errnoName(errno)}`, 1);
    if (errno === EMSGSIZE) this.#narrow.add(to);
    else this.#gso = false;
  }

  #datagramsOf(row: number): number {
    const segment = this.#runSegment[row]!;
    return segment === 0 ? 1 : Math.ceil(this.#runBytes[row]! / segment);
  }

  /** False when this flush has waited long enough. */
  #waitForRoom(errno: number): boolean {
    if (this.#waitLeftMs <= 0) return false;
    this.#count("send-waits", 1);
    const word = this.#scratchAt / 4;
    this.#words[word] = this.#fd;
    // ENOBUFS is not the socket's own buffer, so the socket may well be writable: then only time helps.
    this.#words[word + 1] = errno === EAGAIN ? POLLOUT : 0;
    const begunMs = performance.now();
    const timeoutMs = errno === EAGAIN ? Math.ceil(this.#waitLeftMs) : 1;
    const ready = this.#libc.poll(this.#arena.baseAddress + this.#scratchAt, 1, timeoutMs);
    this.#waitLeftMs -= performance.now() - begunMs;
    return ready > 0 || this.#waitLeftMs > 0;
  }

  #count(name: string, count: number): void {
    this.counters[name] = (this.counters[name] ?? 0) + count;
  }
}
