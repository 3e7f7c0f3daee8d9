// Fragments to a stack: the input is a script of them, honest, overlapping, tiny, corrupted, out of order and late. A
// naive reassembler, which keeps a map from offset to byte, says what is to be delivered and what is still held.
import { concatBytes, readU16, writeU16 } from "../../../src/base/bytes.ts";
import {
  FRAGMENTS_DATAGRAMS_MAX,
  FRAGMENTS_PER_DATAGRAM_MAX,
  FRAGMENTS_PER_SOURCE_MAX,
  FRAGMENTS_TIMEOUT_MS,
} from "../../../src/base/limits.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import { UserspaceStack } from "../../../src/netstack/stack.ts";
import { writeIpv6FragmentHeader } from "../../../src/wire/ipv6.ts";
import { PROTOCOL_UDP } from "../../../src/wire/packet.ts";
import { ip, ipv4, ipv6, udpDatagram, withChecksum } from "../../wire/packets.ts";
import { type NaivePacket, readNaively } from "../naive-packet.ts";
import { type FuzzTarget, must, same } from "../target.ts";

const LOCALS = { 4: "10.7.0.1", 6: "fd00::a" } as const;
const SOURCES = { 4: ["10.7.0.2", "10.7.0.3", "10.7.0.4"], 6: ["fd00::b", "fd00::c", "fd00::d"] } as const;
const SIZES = [40, 200, 500, 1_200];
const CUTS = [8, 24, 56, 304];
const PLACES = [0, 8, 16, 24, 32, 64, 512, 1_024, 4, 7, 65_512, 65_528];
const LENGTHS = [8, 16, 24, 64, 512, 1, 7, 9, 0, 1_240];
const WAITS_MS = [1, 1_000, 15_000, FRAGMENTS_TIMEOUT_MS - 1, FRAGMENTS_TIMEOUT_MS, 61_000];
const ANY_PROTOCOL = 200;

/** The UDP datagrams that scripts cut up; each source has its own four. */
function wholeOf(version: 4 | 6, source: number, which: number): Uint8Array {
  const data = Uint8Array.from({ length: SIZES[which]! }, (_, i) => (i * 13 + which * 5 + source) & 0xff);
  return udpDatagram(SOURCES[version][source]!, LOCALS[version], 9, 53, data);
}
const WHOLE = ([4, 6] as const).map((version) =>
  [0, 1, 2].map((source) => [0, 1, 2, 3].map((which) => wholeOf(version, source, which))),
);

/** All that is known of one datagram. */
interface Heap {
  readonly source: string;
  readonly sinceMs: number;
  readonly bytes: Map<number, number>;
  readonly lasts: Set<string>;
  pieces: number;
  end: number | undefined;
  head: NaivePacket | undefined;
  isRefused: boolean;
}

type Event = "held" | "delivered" | "undeliverable" | "again" | "passed over" | "dropped" | "no room" | "other packet";
type Refusal = "FRAGMENT_OVERLAP" | "FRAGMENT_INCONSISTENT" | "FRAGMENTS_FULL";

class NaiveReassembler {
  readonly heaps = new Map<string, Heap>();
  readonly delivered: Uint8Array[] = [];
  readonly counts = { FRAGMENT_OVERLAP: 0, FRAGMENT_INCONSISTENT: 0, FRAGMENTS_FULL: 0, FRAGMENTS_TIMED_OUT: 0 };

  expire(nowMs: number): void {
    for (const [key, heap] of this.heaps) {
      if (nowMs - heap.sinceMs < FRAGMENTS_TIMEOUT_MS) continue;
      this.heaps.delete(key);
      if (!heap.isRefused) this.counts.FRAGMENTS_TIMED_OUT++;
    }
  }

  add(nowMs: number, packet: Uint8Array): Event | Refusal {
    const read = readNaively(packet);
    if (read === undefined) return "dropped";
    if (read.fragment === undefined) {
      this.#deliver(read, packet.subarray(read.transportOffset, read.totalBytes));
      return "other packet";
    }
    const source = read.source.join();
    const key = [source, read.version, read.fragment.id, read.version === 4 ? read.protocol : ""].join(" ");
    const heap = this.heaps.get(key) ?? this.#begin(nowMs, key, source);
    if (heap === undefined) {
      this.counts.FRAGMENTS_FULL++;
      return "no room";
    }
    if (heap.isRefused) return "passed over";
    const part = packet.subarray(packet.length - partBytesOf(read, packet));
    const said = put(heap, read, part);
    if (said === "FRAGMENT_OVERLAP" || said === "FRAGMENT_INCONSISTENT" || said === "FRAGMENTS_FULL") {
      heap.isRefused = true;
      this.counts[said]++;
      return said;
    }
    if (heap.head === undefined || heap.bytes.size !== heap.end) return said;
    this.heaps.delete(key);
    const whole = Uint8Array.from({ length: heap.end }, (_, i) => heap.bytes.get(i)!);
    return this.#deliver(heap.head, whole) ? "delivered" : "undeliverable";
  }

  #begin(nowMs: number, key: string, source: string): Heap | undefined {
    const ofSource = [...this.heaps.values()].filter((heap) => heap.source === source).length;
    if (this.heaps.size >= FRAGMENTS_DATAGRAMS_MAX || ofSource >= FRAGMENTS_PER_SOURCE_MAX) return undefined;
    const empty = { bytes: new Map<number, number>(), lasts: new Set<string>(), pieces: 0 };
    const heap: Heap = { source, sinceMs: nowMs, ...empty, end: undefined, head: undefined, isRefused: false };
    this.heaps.set(key, heap);
    return heap;
  }

  /** UDP to port 53 whose length and checksum hold. */
  #deliver(read: NaivePacket, transport: Uint8Array): boolean {
    if (read.protocol !== PROTOCOL_UDP || read.destinationPort !== 53 || transport.length < 8) return false;
    const length = readU16(transport, 4);
    if (length < 8 || length > transport.length) return false;
    const udp = transport.slice(0, length);
    const told = readU16(udp, 6);
    const source = SOURCES[read.version].find((text) => ip(text).w3 === read.source[3])!;
    const right = readU16(withChecksum(source, LOCALS[read.version], PROTOCOL_UDP, udp, 6), 6);
    const isRight = told === right || (right === 0 && told === 0xffff) || (told === 0 && read.version === 4);
    if (isRight) this.delivered.push(udp.slice(8));
    return isRight;
  }
}

function partBytesOf({ version, transportOffset, fragment }: NaivePacket, packet: Uint8Array): number {
  // Our fragments carry no other extension header, and no options.
  return packet.length - (version === 4 ? (fragment!.offsetBytes > 0 ? 20 : transportOffset) : 48);
}

/** RFC 791 and RFC 8200 as a list of what can be wrong with a piece. */
function put(heap: Heap, read: NaivePacket, part: Uint8Array): Event | Refusal {
  const { offsetBytes: from, more } = read.fragment!;
  const to = from + part.length;
  const told = `${from} ${more} ${Buffer.from(part).toString("hex")}`;
  if (heap.lasts.has(told)) return "again";
  if (heap.lasts.has(`${from} ${!more} ${Buffer.from(part).toString("hex")}`)) return "FRAGMENT_INCONSISTENT";
  for (let at = from; at < to; at++) if (heap.bytes.has(at)) return "FRAGMENT_OVERLAP";
  if (!more && heap.end !== undefined) return "FRAGMENT_INCONSISTENT";
  if (!more && [...heap.bytes.keys()].some((at) => at >= to)) return "FRAGMENT_INCONSISTENT";
  if (more && heap.end !== undefined && to > heap.end) return "FRAGMENT_INCONSISTENT";
  if (heap.pieces >= FRAGMENTS_PER_DATAGRAM_MAX) return "FRAGMENTS_FULL";
  heap.lasts.add(told);
  heap.pieces++;
  for (let i = 0; i < part.length; i++) heap.bytes.set(from + i, part[i]!);
  if (!more) heap.end = to;
  if (from === 0) heap.head = read;
  return "held";
}

class Script {
  readonly #bytes: Uint8Array;
  readonly #version: 4 | 6;
  readonly #stack: UserspaceStack;
  readonly #naive = new NaiveReassembler();
  readonly #got: Uint8Array[] = [];
  readonly #events = new Set<string>();
  #at = 0;
  #nowMs = 1_000_000;
  #fresh = 1_000;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#version = this.#take() % 2 === 0 ? 4 : 6;
    const random = new SeededRandom(1);
    this.#stack = new UserspaceStack({ random, mtuBytes: 1_420, handler: { output: () => undefined } });
    const local = ip(LOCALS[this.#version]);
    this.#stack.setLocalAddresses([local]);
    const socket = this.#stack.bindUdp({ address: local, port: 53 })!;
    socket.onDatagram = (_remote, data) => this.#got.push(data.slice());
  }

  #take(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  #send(source: number, id: number, from: number, part: Uint8Array, more: boolean, protocol: number): void {
    const [remote, local] = [SOURCES[this.#version][source]!, LOCALS[this.#version]];
    const header = new Uint8Array(8);
    writeIpv6FragmentHeader(header, 0, protocol, from & ~7, more, id);
    const flags = (more ? 0x2000 : 0) | (from >> 3);
    const packet =
      this.#version === 4
        ? ipv4(remote, local, part, { id, flags, protocol })
        : ipv6(remote, local, 44, concatBytes(header, part));
    if (this.#version === 6 && from % 8 === 7) writeU16(packet, 42, readU16(packet, 42) | 6); // reserved bits
    this.#events.add(this.#naive.add(this.#nowMs, packet));
    this.#stack.handlePacket(this.#nowMs, packet, 0, packet.length);
  }

  /** Piece k of an honest sender, or what a hostile one makes of it. */
  #fragment(isHonest: boolean): void {
    const [choice, place] = [this.#take(), this.#take()];
    const [source, which] = [choice % 3, (choice >> 2) % 4];
    const whole = WHOLE[this.#version === 4 ? 0 : 1]![source]![which]!;
    const cut = CUTS[which]!;
    const pieces = Math.ceil(whole.length / cut);
    const from = isHonest ? (place % pieces) * cut : PLACES[place % PLACES.length]!;
    const length = isHonest ? cut : LENGTHS[this.#take() % LENGTHS.length]!;
    const how = isHonest ? 0 : this.#take();
    const part = new Uint8Array(from < whole.length ? Math.min(length, whole.length - from) : length);
    part.set(whole.subarray(from, from + part.length));
    if ((how & 1) !== 0 && part.length > 0) part[how % part.length]! ^= 1;
    const more = from + part.length < whole.length !== ((how & 2) !== 0);
    this.#send(source, which, from, part, more, (how & 28) === 28 ? ANY_PROTOCOL : PROTOCOL_UDP);
  }

  #step(op: number): void {
    if (op % 8 < 4) return this.#fragment(true);
    if (op % 8 < 6) return this.#fragment(false);
    if (op % 8 === 6) return this.#wait(WAITS_MS[this.#take() % WAITS_MS.length]!);
    const source = this.#take() % 3;
    if (op % 16 === 15) {
      // More pieces than a datagram may have: every other eight bytes.
      for (let i = 1; i <= FRAGMENTS_PER_DATAGRAM_MAX + 1; i++)
        this.#send(source, 500, i * 16, new Uint8Array(8), true, PROTOCOL_UDP);
      return;
    }
    for (let i = 0; i < 12; i++) this.#send(source, this.#fresh++, 8, new Uint8Array(8), true, PROTOCOL_UDP);
  }

  #wait(forMs: number): void {
    this.#nowMs += forMs;
    this.#naive.expire(this.#nowMs);
    this.#stack.handleTimeout(this.#nowMs);
    must(this.#stack.nextDeadlineMs() > this.#nowMs, "a deadline that stays due");
  }

  #check(): void {
    const { heaps, delivered, counts } = this.#naive;
    const { counters } = this.#stack;
    const held = counters["FRAGMENTED_DATAGRAMS"]!;
    must(held === heaps.size, () => `${held} datagrams are held, naively ${heaps.size}`);
    must(held <= FRAGMENTS_DATAGRAMS_MAX, "more datagrams are held than may be");
    for (const [name, count] of Object.entries(counts))
      must((counters[name] ?? 0) === count, () => `${name} ${counters[name]}, naively ${count}`);
    const last = this.#got.length - 1;
    must(this.#got.length === delivered.length, () => `delivered ${last + 1}, naively ${delivered.length}`);
    must(last < 0 || same(this.#got[last]!, delivered[last]!), "other bytes than were sent");
  }

  run(): string {
    for (let steps = 1; this.#at < this.#bytes.length; steps++) {
      this.#step(this.#take());
      if (steps % 8 === 0) this.#check();
    }
    this.#check();
    const timedOut = this.#naive.counts.FRAGMENTS_TIMED_OUT > 0;
    this.#wait(FRAGMENTS_TIMEOUT_MS);
    this.#check();
    const { counters } = this.#stack;
    must(counters["FRAGMENTED_DATAGRAMS"] === 0 && counters["DEADLINES"] === 0, "something is held for ever");
    const rarest = RAREST.find((event) => this.#events.has(event)) ?? "nothing";
    return `${rarest}${timedOut ? ", timed out" : ""}`;
  }
}

const RAREST: readonly (Event | Refusal)[] = [
  "FRAGMENTS_FULL",
  "no room",
  "undeliverable",
  "FRAGMENT_INCONSISTENT",
  "again",
  "delivered",
  "passed over",
  "FRAGMENT_OVERLAP",
  "dropped",
  "other packet",
  "held",
];

/** Whole datagrams in a shuffled order, with an intruder now and then. */
function shuffled(random: SeededRandom): Uint8Array {
  const steps: number[] = [random.below(2)];
  for (let count = 1 + random.below(3); count > 0; count--) {
    const choice = random.below(3) | (random.below(3) << 2);
    const pieces = Math.ceil((SIZES[choice >> 2]! + 8) / CUTS[choice >> 2]!);
    const order = Array.from({ length: pieces }, (_, i) => i);
    for (let i = pieces - 1; i > 0; i--) {
      const other = random.below(i + 1);
      [order[i], order[other]] = [order[other]!, order[i]!];
    }
    for (const piece of order) {
      steps.push(0, choice, piece);
      if (random.chance(0.04)) steps.push(4, choice, random.below(256), random.below(256), random.below(256));
      if (random.chance(0.02)) steps.push(6, random.below(6));
      if (random.chance(0.01)) steps.push(random.pick([7, 7, 15]), random.below(3));
    }
  }
  return Uint8Array.from(steps);
}

export const FRAGMENT_TARGETS: readonly FuzzTarget[] = [
  {
    name: "fragments",
    share: 8,
    most: 30_000,
    maxBytes: 600,
    seeds: [
      Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0, 0, 5),
      Uint8Array.of(1, 0, 4, 3, 0, 4, 2, 0, 4, 1, 0, 4, 0, 0, 4, 4, 0, 4, 5, 0, 4, 6, 0, 4, 7, 0, 4, 8),
      Uint8Array.of(0, 4, 0, 0, 0, 1, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0, 0, 5), // whole, but for its checksum
      Uint8Array.of(0, 15, 0, 7, 1, 7, 1, 7, 2, 7, 0, 7, 0, 6, 4),
      Uint8Array.of(1, 4, 0, 0, 1, 2, 4, 0, 0, 0, 0, 6, 4),
    ],
    make: shuffled,
    run: (input) => new Script(input).run(),
    reaches: ["delivered", "again", "FRAGMENT_INCONSISTENT", "FRAGMENTS_FULL", "no room", "undeliverable"].concat([
      "delivered, timed out",
      "dropped",
    ]),
  },
];
