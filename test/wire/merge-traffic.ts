// What the merger is tried with, and what must hold whatever it is: random traffic of a few flows; a run of the merger
// over packets in memory; the packets that the kernel would make again of what was written.
import { concatBytes } from "../../src/base/bytes.ts";
import type { SeededRandom } from "../../src/base/random.ts";
import { Merger } from "../../src/wire/merge.ts";
import { must, same } from "../fuzz/target.ts";
import { type MemoryAndSums, plainMemory, simdMemory } from "./both-sums.ts";
import { naiveChecksum, readNaiveHeaders, viewOf } from "./naive-headers.ts";
import { flowOf } from "./naive-merge.ts";
import { splitNaively } from "./naive-split.ts";
import { icmp } from "./packets.ts";
import { randomBytesOf, superPacket } from "./super-packets.ts";

const ROOM_BYTES = 16;

/**
 * What the merger writes for these packets, whatever sums; throws when it writes anywhere but into heads and the room
 * before them.
 */
export function mergeInMemory(packets: readonly Uint8Array[], uso = true, guard = 0x00, shift = 0): Uint8Array[] {
  const writes = mergeAmid(packets, (size) => plainMemory(size, guard), uso, shift);
  const again = mergeAmid(packets, (size) => simdMemory(size, guard ^ 0xff), uso, shift + 1);
  must(
    writes.length === again.length && writes.every((write, i) => same(write, again[i]!)),
    "the sums made a difference",
  );
  return writes;
}

function mergeAmid(
  packets: readonly Uint8Array[],
  memoryOf: (size: number) => MemoryAndSums,
  uso: boolean,
  shift: number,
): Uint8Array[] {
  const total = packets.reduce((sum, packet) => sum + packet.length + ROOM_BYTES, 0);
  const { memory, sums } = memoryOf(shift + total + ROOM_BYTES);
  const writes: Uint8Array[] = [];
  const write = (offsets: Int32Array, lengths: Int32Array, count: number): void => {
    const parts = Array.from({ length: count }, (_, i) => memory.slice(offsets[i], offsets[i]! + lengths[i]!));
    writes.push(concatBytes(...parts));
  };
  const merger = new Merger(memory, { uso, write }, sums);
  const places: number[] = [];
  let at = shift + ROOM_BYTES;
  for (const packet of packets) {
    memory.set(packet, at);
    places.push(at);
    at += packet.length + ROOM_BYTES;
  }
  const before = memory.slice();
  for (const [i, place] of places.entries()) merger.add(place, packets[i]!.length);
  must(writes.length === 0, "written before flush");
  merger.flush();
  merger.flush();
  for (const [i, place] of places.entries()) {
    const payloadAt = readNaiveHeaders(packets[i]!)?.payloadAt ?? 0;
    const [from, to] = [place - 10, place + payloadAt];
    before.set(memory.slice(from, to), from);
  }
  must(same(memory, before), "written beyond the headers");
  return writes;
}

/** Ids of IPv4 packets that may not be fragmented mean nothing (RFC 6864 §4.1): such are compared without. */
function withoutId(packet: Uint8Array): Uint8Array {
  if (packet[0]! >> 4 !== 4 || packet[6] !== 0x40 || naiveChecksum(packet.slice(0, 20)) !== 0) return packet;
  const copy = packet.slice();
  viewOf(copy).setUint16(4, 0);
  viewOf(copy).setUint16(10, 0);
  return copy;
}

/** Split again, each flow's packets are those that came in, in their order. */
export function mustGiveBack(packets: readonly Uint8Array[], writes: readonly Uint8Array[]): void {
  const back = writes.flatMap((write) => (write[1] === 0 ? [write.slice(10)] : (splitNaively(write) ?? [])));
  must(back.length === packets.length, "packets lost or made");
  const byFlow = (list: readonly Uint8Array[]): Map<string, string[]> => {
    const flows = new Map<string, string[]>();
    for (const packet of list) {
      const flow = flowOf(packet) ?? "none";
      flows.set(flow, [...(flows.get(flow) ?? []), Buffer.from(withoutId(packet)).toString("base64")]);
    }
    return flows;
  };
  const [came, went] = [byFlow(packets), byFlow(back)];
  for (const [flow, list] of came) must(list.join() === went.get(flow)?.join(), "a flow's packets differ");
}

/** Packets of up to four flows, mixed: streams with gaps, repeats, wrong bytes and others between them. */
export function randomTraffic(random: SeededRandom): Uint8Array[] {
  const streams = Array.from({ length: 1 + random.below(4) }, (_, i) => randomStream(random, i));
  const mixed: Uint8Array[] = [];
  while (streams.some((stream) => stream.length > 0)) {
    const stream = random.pick(streams);
    for (let burst = 1 + random.below(6); burst > 0 && stream.length > 0; burst--) mixed.push(stream.shift()!);
    if (random.chance(0.03)) mixed.push(icmp("10.7.0.2", "10.7.0.1", 8, 0, random.u32(), new Uint8Array(8)));
  }
  return mixed;
}

function randomStream(random: SeededRandom, index: number): Uint8Array[] {
  const gsoSize = random.pick([1, 8, 100, random.chance(0.02) ? 1_400 : 30]);
  const segments = random.pick([1, 2, 5, random.chance(0.1) ? 70 : 10]);
  const protocol = random.pick([6, 6, 17] as const);
  const payload = randomBytesOf(random, Math.max(1, Math.min(60_000, gsoSize * segments) - random.below(gsoSize)));
  const input = superPacket({
    version: random.pick([4, 6] as const),
    protocol,
    payload,
    gsoSize,
    sourcePort: 4_000 + index,
    tcpFlags: random.pick([0x10, 0x10, 0x18, 0x11]),
    tcpOptions: protocol === 6 && random.chance(0.5) ? randomBytesOf(random, 12) : new Uint8Array(0),
    sequence: random.chance(0.3) ? 2 ** 32 - 1 - random.below(200) : random.u32(),
    ipId: random.below(65_536),
    ipFlags: random.pick([0, 0x4000]),
  });
  const packets = splitNaively(input)!;
  if (random.chance(0.2)) for (const packet of packets) fixId(packet);
  for (let faults = random.chance(0.6) ? random.below(4) : 0; faults > 0; faults--) {
    const at = random.below(packets.length);
    const packet = packets[at]!;
    const fault = random.fraction();
    if (fault < 0.2) packets.splice(at, 1);
    else if (fault < 0.35) packets.splice(random.below(packets.length), 0, packet.slice());
    else if (fault < 0.4) packets[at] = packet.slice(0, random.below(packet.length) + 1);
    else changeByte(random, packet);
    if (packets.length === 0) break;
  }
  return packets;
}

function fixId(packet: Uint8Array): void {
  if (packet[0]! >> 4 !== 4) return;
  viewOf(packet).setUint16(4, 7);
  repair(packet);
}

/** Checksums put right, so that what differs is nothing else. */
function repair(packet: Uint8Array): Uint8Array {
  const headers = readNaiveHeaders(packet);
  if (headers === undefined) return packet;
  const input = concatBytes(new Uint8Array(10), packet);
  const { version, protocol, transportAt, payloadAt } = headers;
  const size = packet.length - payloadAt;
  if (size === 0) return packet;
  input.set([2, protocol === 17 ? 5 : version === 4 ? 1 : 4]);
  viewOf(input).setUint16(4, size, true);
  viewOf(input).setUint16(6, transportAt, true);
  packet.set(splitNaively(input)?.[0] ?? packet);
  return packet;
}

function changeByte(random: SeededRandom, packet: Uint8Array): void {
  const at = random.below(Math.min(packet.length, 64));
  packet[at]! ^= 1 << random.below(8);
  if (random.chance(0.7)) repair(packet);
}
