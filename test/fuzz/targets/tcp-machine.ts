// TCP as a state machine: the input is a script of segments, legal and not, and of what the user does. The remote end
// is a model that knows what it has sent and offered; RFC 9293 says what may come back.
import { readU16, readU32 } from "../../../src/base/bytes.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import type { TcpConnection, TcpHandler } from "../../../src/netstack/contract.ts";
import { UserspaceStack } from "../../../src/netstack/stack.ts";
import { Connection } from "../../../src/netstack/tcp/connection.ts";
import { TCP_STATE_NAMES } from "../../../src/netstack/tcp/state.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN } from "../../../src/wire/packet.ts";
import { ip, tcp } from "../../wire/packets.ts";
import { repairPacket } from "../packet-maker.ts";
import { type FuzzTarget, must } from "../target.ts";

const LOCAL = "10.7.0.1";
const REMOTE = "10.7.0.2";
const BUFFER_BYTES = 8_192;
const STREAM_MAX_BYTES = 60_000; // of the remote end's
const HOURS_MS = 4 * 3_600_000;

/** RFC 9293 §3.3.2, figure 5; CLOSED is where a reset, an abort or the end leads. */
const NEXT: Readonly<Record<string, readonly string[]>> = {
  CLOSED: ["SYN-SENT", "SYN-RECEIVED"],
  "SYN-SENT": ["SYN-RECEIVED", "ESTABLISHED", "CLOSED"],
  "SYN-RECEIVED": ["ESTABLISHED", "FIN-WAIT-1", "CLOSED"],
  ESTABLISHED: ["FIN-WAIT-1", "CLOSE-WAIT", "CLOSED"],
  "FIN-WAIT-1": ["FIN-WAIT-2", "CLOSING", "TIME-WAIT", "CLOSED"],
  "FIN-WAIT-2": ["TIME-WAIT", "CLOSED"],
  "CLOSE-WAIT": ["LAST-ACK", "CLOSED"],
  CLOSING: ["TIME-WAIT", "CLOSED"],
  "LAST-ACK": ["CLOSED"],
  "TIME-WAIT": ["CLOSED"],
};

const byteAt = (offset: number): number => (offset * 31 + (offset >>> 8)) & 0xff;
const COMMON = [TCP_ACK, TCP_ACK, TCP_ACK | TCP_PSH, TCP_ACK | TCP_FIN, TCP_RST, TCP_RST | TCP_ACK, TCP_SYN];
const FLAGS = [...COMMON, TCP_SYN | TCP_ACK, 0, TCP_FIN, TCP_SYN | TCP_FIN, TCP_SYN | TCP_RST, 0xff];
const LENGTHS = [0, 1, 10, 100, 536, 1_000, 1_380];
const SHIFTS = [0, 0, 0, -1, 1, -100, 100, 1_000, -5_000, 8_191, 8_192, 65_536, 0x7fffffff, -0x80000000];
const WINDOWS = [65_535, 65_535, 8_192, 1_000, 100, 1, 0];
const WAITS_MS = [0, 1, 40, 250, 1_000, 10_000, 61_000, 130_000];

/** Its own stream: byte k is byteAt(k), so that every copy of a byte agrees with every other. */
class Remote {
  /** SYN's sequence number. */
  readonly first: number;
  /** Stream bytes sent at least once, as a mark for each. */
  readonly sent = new Uint8Array(STREAM_MAX_BYTES + 4_096);
  /** Where the stream's next new byte is. */
  next = 0;
  finAt: number | undefined;
  synSent = false;
  /** The right edge of the window ever offered, from the stack's first sequence number. */
  edge = 0;
  /** Of the stack's stream, highest acknowledged by what the stack has sent. */
  stackFirst: number | undefined;
  stackNext = 0;
  #contiguous = 0;

  constructor(first: number) {
    this.first = first;
  }

  /** All bytes from the beginning up to here have been sent. */
  get contiguous(): number {
    const gap = this.sent.indexOf(0, this.#contiguous); // marks are only added
    this.#contiguous = gap < 0 ? this.sent.length : gap;
    return this.#contiguous;
  }
}

/** Steps from here on leave the stack's turn open. */
const TURN_GOES_ON = 128;

class Machine {
  readonly #stack: UserspaceStack;
  readonly #remote: Remote;
  readonly #script: Uint8Array;
  #at = 0;
  #nowMs = 1_000_000;
  #out: Uint8Array[] = [];
  #connection: TcpConnection | undefined;
  #delivered = 0;
  #written = 0;
  #closed = 0;
  #states: string[] = [];
  #edgeTold: number | undefined;
  #fin: number | undefined;
  #reads = true;

  constructor(script: Uint8Array) {
    this.#script = script;
    this.#remote = new Remote([1_000, 0xffffff00, 0x7fffffff][this.#take() % 3]!);
    const seed = this.#take();
    this.#stack = new UserspaceStack({
      random: new SeededRandom(seed),
      isSettled: seed % 2 === 1,
      mtuBytes: 1_420,
      handler: {
        output: (_nowMs, buffer, at, length) => this.#out.push(buffer.slice(at, at + length)),
        tcpOpening: (opening) => {
          if (this.#connection === undefined) this.#adopt(opening.accept(this.#nowMs, this.#handler()));
          else opening.refuse(this.#nowMs);
        },
      },
      buffers: { sendBytes: BUFFER_BYTES * 4, receiveBytes: BUFFER_BYTES },
    });
    this.#stack.setLocalAddresses([ip(LOCAL)]);
  }

  #take(): number {
    return this.#script[this.#at++] ?? 0;
  }

  #handler(): TcpHandler {
    return {
      connected: () => must(this.#closed === 0, "connected after it was closed"),
      readable: () => {
        must(this.#closed === 0, "readable after it was closed");
        if (this.#reads) this.#read(1 << 20);
      },
      writable: () => must(this.#closed === 0, "writable after it was closed"),
      closed: () => must(++this.#closed === 1, "closed twice"),
    };
  }

  /** Every state that it goes through is seen. */
  #adopt(connection: TcpConnection): void {
    must(connection instanceof Connection, "another kind of connection");
    this.#connection = connection;
    let state = connection.state;
    this.#states = [TCP_STATE_NAMES[state]];
    Object.defineProperty(connection, "state", {
      get: () => state,
      set: (next: typeof state) => {
        const [from, to] = [TCP_STATE_NAMES[state], TCP_STATE_NAMES[next]];
        must(from === to || NEXT[from]!.includes(to), `${from} → ${to}`);
        if (from !== to) this.#states.push(to);
        state = next;
      },
    });
  }

  #read(maxBytes: number): void {
    for (;;) {
      const bytes = this.#connection?.read(this.#nowMs, maxBytes);
      if (bytes === undefined) return;
      for (const byte of bytes)
        must(byte === byteAt(this.#delivered++), "a byte that the remote end did not send there");
      must(this.#delivered <= this.#remote.contiguous, "bytes that were never sent");
    }
  }

  /** Everything that the stack has sent since. */
  #check(): void {
    const out = this.#out;
    this.#out = [];
    must(out.length < 256, "one event, hundreds of packets");
    for (const packet of out) {
      if (packet[9] !== 6) continue; // ICMP has a fuzz target of its own
      this.#checkSegment(packet);
    }
    const { counters } = this.#stack;
    must(counters["TCP_RECEIVE_HELD_BYTES"]! <= BUFFER_BYTES + 65_535, "more is held than was offered");
    must(counters["TCP_CONNECTIONS"]! <= 2, "more connections than were opened");
  }

  #checkSegment(packet: Uint8Array): void {
    const remote = this.#remote;
    const flags = packet[33]!;
    const [sequence, acknowledgment, field] = [readU32(packet, 24), readU32(packet, 28), readU16(packet, 34)];
    const data = packet.subarray(20 + (packet[32]! >>> 4) * 4);
    if ((flags & TCP_RST) !== 0) {
      must(data.length === 0, "a reset with data");
      return;
    }
    if ((flags & TCP_SYN) !== 0) {
      remote.stackFirst ??= sequence;
      must(remote.stackFirst === sequence || this.#states.at(-1) === "SYN-RECEIVED", "another initial sequence number");
      remote.stackNext = Math.max(remote.stackNext, 1);
    }
    if ((flags & TCP_ACK) !== 0 && remote.synSent) this.#checkAcknowledgment(acknowledgment, field, flags);
    if (remote.stackFirst === undefined) return;
    const from = (sequence - remote.stackFirst) | 0;
    for (const [index, byte] of data.entries())
      must(byte === byteAt(from - 1 + index), "another byte of our own stream");
    const end = from + data.length + ((flags & TCP_FIN) !== 0 ? 1 : 0);
    if (data.length > 0 || (flags & TCP_FIN) !== 0) {
      must(from - 1 + data.length <= this.#written, "more than was written");
      must(end <= remote.edge + 1, () => `sent up to ${end}, offered was ${remote.edge}`); // a probe is one byte beyond
    }
    if ((flags & TCP_FIN) !== 0) {
      this.#fin ??= end;
      must(this.#fin === end, "two ends of one stream");
    }
    remote.stackNext = Math.max(remote.stackNext, end);
  }

  /** Never of what was not sent; and the right edge of the window never moves back. */
  #checkAcknowledgment(acknowledgment: number, field: number, flags: number): void {
    const remote = this.#remote;
    const offset = (acknowledgment - remote.first - 1) | 0;
    if (offset < 0) return; // of an earlier connection's SYN
    const all = remote.contiguous;
    const isFin = remote.finAt !== undefined && all >= remote.finAt;
    must(offset <= all + (isFin ? 1 : 0), () => `acknowledged ${offset}, sent are ${all}`);
    if ((flags & TCP_SYN) !== 0) return;
    const edge = offset + field; // the remote end never asks for scaling
    must(this.#edgeTold === undefined || edge >= this.#edgeTold || isFin, "the window's edge moves back");
    this.#edgeTold = Math.max(this.#edgeTold ?? 0, edge);
  }

  /** A SYN always has the one initial sequence number: another would begin another stream. */
  #send(flags: number, wanted: number, dataBytes: number, acknowledgment: number, window: number): void {
    const remote = this.#remote;
    const isSyn = (flags & TCP_SYN) !== 0;
    const offset = isSyn ? 0 : wanted;
    const from = Math.max(0, Math.min(offset, STREAM_MAX_BYTES));
    // Data only of the one stream: where the script points elsewhere the segment carries none.
    const bytes = isSyn || offset !== from || from + dataBytes > STREAM_MAX_BYTES ? 0 : dataBytes;
    const past = remote.finAt !== undefined && from + bytes > remote.finAt;
    const data = new Uint8Array(past ? 0 : bytes);
    for (let i = 0; i < data.length; i++) data[i] = byteAt(from + i);
    let kept = flags;
    const end = from + data.length;
    if ((flags & TCP_FIN) !== 0 && !isSyn) {
      if (remote.finAt === undefined && offset === from && end >= remote.next) remote.finAt = end;
      else if (remote.finAt !== end || offset !== from) kept &= ~TCP_FIN;
    } else if (isSyn) kept &= ~TCP_FIN;
    if (data.length > 0) {
      remote.sent.fill(1, from, end);
      remote.next = Math.max(remote.next, end);
    }
    const sequence = (remote.first + (isSyn ? 0 : 1) + offset) >>> 0;
    if ((kept & TCP_ACK) !== 0 && remote.stackFirst !== undefined)
      remote.edge = Math.max(remote.edge, ((acknowledgment - remote.stackFirst) | 0) + window);
    if (isSyn) {
      remote.synSent = true;
      remote.edge = Math.max(remote.edge, 1 + window);
    }
    const ports = { sourcePort: 4_000, destinationPort: 80 };
    const options = isSyn ? Uint8Array.of(2, 4, 2, 24) : new Uint8Array(0); // an MSS of 536
    const segment = tcp(REMOTE, LOCAL, { ...ports, sequence, acknowledgment, window, flags: kept, data, options });
    if (this.#local !== undefined) segment.set([this.#local >>> 8, this.#local & 0xff], 22);
    this.#stack.handlePacket(this.#nowMs, repairPacket(segment), 0, segment.length);
  }

  /** Our port, when we are the ones that connect. */
  #local: number | undefined;

  #connect(): void {
    const connection = this.#stack.connectTcp(
      this.#nowMs,
      ip(LOCAL),
      { address: ip(REMOTE), port: 4_000 },
      this.#handler(),
    );
    must(connection !== undefined, "no room for one connection");
    this.#adopt(connection);
    this.#local = connection.local.port;
  }

  #segment(): void {
    const remote = this.#remote;
    const control = this.#take();
    const flags = FLAGS[control % FLAGS.length]!;
    const shift = SHIFTS[(control >> 4) % SHIFTS.length]!;
    const length = LENGTHS[this.#take() % LENGTHS.length]!;
    const ackShift = SHIFTS[this.#take() % SHIFTS.length]!;
    const window = WINDOWS[this.#take() % WINDOWS.length]!;
    const acknowledgment = ((remote.stackFirst ?? 0) + remote.stackNext + ackShift) >>> 0;
    // An acknowledgment of what was never sent offers no window that counts.
    this.#send(flags, (remote.next + shift) | 0, length, acknowledgment, window);
  }

  /** What an honest end would send next: data in order, everything acknowledged. */
  #honest(): void {
    const remote = this.#remote;
    const length = LENGTHS[this.#take() % LENGTHS.length]!;
    this.#send(TCP_ACK, remote.next, length, ((remote.stackFirst ?? 0) + remote.stackNext) >>> 0, 65_535);
  }

  #handshake(): void {
    const remote = this.#remote;
    if (this.#local !== undefined && remote.stackFirst !== undefined) {
      this.#send(TCP_SYN | TCP_ACK, 0, 0, (remote.stackFirst + 1) >>> 0, 65_535);
      return;
    }
    this.#send(TCP_SYN, 0, 0, 0, 65_535);
    this.#check();
    if (remote.stackFirst !== undefined) this.#send(TCP_ACK, 0, 0, (remote.stackFirst + 1) >>> 0, 65_535);
  }

  #write(): void {
    const bytes = new Uint8Array(LENGTHS[this.#take() % LENGTHS.length]! * 3);
    for (let i = 0; i < bytes.length; i++) bytes[i] = byteAt(this.#written + i);
    this.#written += this.#connection?.write(this.#nowMs, bytes) ?? 0;
  }

  #wait(forMs: number): void {
    const untilMs = this.#nowMs + forMs;
    for (let turns = 0; this.#stack.nextDeadlineMs() <= untilMs; turns++) {
      must(turns < 5_000, "a deadline that stays due");
      this.#nowMs = Math.max(this.#nowMs, this.#stack.nextDeadlineMs());
      this.#stack.handleTimeout(this.#nowMs);
      this.#stack.settle(this.#nowMs);
      this.#check();
    }
    this.#nowMs = untilMs;
  }

  #step(op: number): void {
    switch (op % 12) {
      case 0:
      case 1:
      case 2:
        return this.#segment();
      case 3:
      case 4:
        return this.#honest();
      case 5:
        return this.#handshake();
      case 6:
        return this.#write();
      case 7:
        this.#reads = !this.#reads;
        if (this.#reads) this.#read(1 << 20);
        return;
      case 8:
        return this.#read(1 + this.#take());
      case 9:
        return this.#wait(WAITS_MS[this.#take() % WAITS_MS.length]!);
      case 10:
        this.#connection?.end(this.#nowMs);
        return;
      default:
        if (this.#take() % 8 === 0) this.#connection?.abort(this.#nowMs);
    }
  }

  run(): string {
    if (this.#take() % 2 === 0) this.#connect();
    this.#check();
    while (this.#at < this.#script.length) {
      const op = this.#take();
      this.#step(op);
      if (op < TURN_GOES_ON) this.#stack.settle(this.#nowMs);
      this.#check();
    }
    const reached = this.#states.at(-1) ?? "nothing";
    this.#end();
    return reached;
  }

  /** The remote end is silent from here on: nothing of it stays. */
  #end(): void {
    this.#stack.settle(this.#nowMs);
    this.#reads = true;
    this.#read(1 << 20);
    this.#connection?.end(this.#nowMs);
    this.#wait(HOURS_MS);
    const { counters } = this.#stack;
    for (const name of ["TCP_CONNECTIONS", "TCP_BACKLOG", "TCP_TIME_WAIT", "TCP_SEND_CHUNKS", "DEADLINES"])
      must(counters[name] === 0, () => `${name} is ${counters[name]} after hours of silence`);
    must(this.#connection === undefined || this.#closed === 1, "its user was never told of the end");
  }
}

const OPENED = [0, 1, 1, 5];

export const TCP_TARGETS: readonly FuzzTarget[] = [
  {
    name: "tcp-machine",
    share: 8,
    most: 40_000,
    maxBytes: 400,
    seeds: [
      Uint8Array.of(...OPENED, 3, 3, 6, 3, 3, 2, 10, 3, 0),
      Uint8Array.of(0, 1, 0, 5, 3, 2, 6, 4, 10, 9, 3),
      Uint8Array.of(...OPENED, 0, 3, 1, 0, 0, 10, 9, 1),
      Uint8Array.of(1, 2, 1, 5, 6, 5, 6, 5, 9, 4, 4, 2, 7, 3, 6, 3, 6, 7, 9, 7),
    ],
    make: (random) => {
      const script = new Uint8Array(20 + random.below(160));
      random.fill(script);
      if (random.chance(0.8)) script[3] = 5;
      return script;
    },
    run: (input) => new Machine(input).run(),
    reaches: ["ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "CLOSED"].concat([
      "SYN-SENT",
      "SYN-RECEIVED",
    ]),
  },
];
