// Packets of every shape for fuzzing, most of them right: both families, options, chains of extension headers,
// fragments, packets in packets, ICMP errors with what they are about. And the repair of lengths and checksums.
import { type Address, addressToBytes, isV4 } from "../../src/base/address.ts";
import { concatBytes, writeU16, writeU32 } from "../../src/base/bytes.ts";
import type { SeededRandom } from "../../src/base/random.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../../src/wire/checksum.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { ip } from "../wire/packets.ts";
import { readNaively } from "./naive-packet.ts";

export interface Ends {
  readonly source: Address;
  readonly destination: Address;
}

const V4: Ends = { source: ip("10.7.0.2"), destination: ip("10.7.0.1") };
const V6: Ends = { source: ip("fd00::b"), destination: ip("fd00::a") };
const FLAGS = [TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_ACK | TCP_PSH, TCP_FIN | TCP_ACK, TCP_RST, TCP_RST | TCP_ACK];
const PORTS = [0, 1, 22, 53, 80, 443, 5432, 51_820, 51_821, 51_822, 65_535];

function bytes(random: SeededRandom, length: number): Uint8Array {
  const out = new Uint8Array(length);
  random.fill(out);
  return out;
}

export interface TransportChoice {
  readonly protocol: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly flags?: number;
  /** ICMP */
  readonly type?: number;
  readonly body?: Uint8Array;
}

/** Header and payload; checksum 0 until the packet is repaired. */
export function transportOf(random: SeededRandom, choice: TransportChoice): Uint8Array {
  const body = choice.body ?? bytes(random, random.pick([0, 0, 1, 4, 8, 40]));
  const { protocol, sourcePort = random.pick(PORTS), destinationPort = random.pick(PORTS) } = choice;
  if (protocol === 6) {
    const options = random.chance(0.3) ? random.pick(OPTIONS) : new Uint8Array(0);
    const header = new Uint8Array(20 + options.length);
    writeU16(header, 0, sourcePort);
    writeU16(header, 2, destinationPort);
    writeU32(header, 4, random.u32());
    writeU32(header, 8, random.u32());
    header[12] = header.length << 2;
    header[13] = choice.flags ?? random.pick(FLAGS);
    writeU16(header, 14, random.below(65_536));
    header.set(options, 20);
    return concatBytes(header, body);
  }
  if (protocol === 17) {
    const header = new Uint8Array(8);
    writeU16(header, 0, sourcePort);
    writeU16(header, 2, destinationPort);
    writeU16(header, 4, 8 + body.length);
    return concatBytes(header, body);
  }
  if (protocol === 1 || protocol === 58) {
    const header = new Uint8Array(8);
    header[0] =
      choice.type ?? random.pick(protocol === 1 ? [0, 8, 3, 4, 5, 11, 12, 13, 42] : [128, 129, 1, 2, 3, 4, 135, 137]);
    header[1] = random.below(16);
    writeU16(header, 4, sourcePort);
    writeU16(header, 6, random.below(1_500));
    return concatBytes(header, body);
  }
  return body;
}

const OPTIONS = [
  Uint8Array.of(2, 4, 5, 0xb4),
  Uint8Array.of(2, 4, 5, 0xb4, 1, 3, 3, 7),
  Uint8Array.of(1, 1, 1, 0),
  Uint8Array.of(3, 3, 255, 0),
  Uint8Array.of(2, 0, 0, 0),
  Uint8Array.of(8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1),
  Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8),
  Uint8Array.of(2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7),
  Uint8Array.of(1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9),
  Uint8Array.of(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 1, 1, 0, 0, 2, 2),
  Uint8Array.of(1, 1, 5, 34, ...new Uint8Array(32)),
  Uint8Array.of(5, 11, 0, 0, 0, 1, 0, 0, 0, 9, 0, 1),
];

export interface FragmentChoice {
  readonly id: number;
  readonly offsetBytes: number;
  readonly more: boolean;
}

/** One IPv4 packet around the payload; options are a multiple of 4 bytes. */
export function v4Packet(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  options: Uint8Array = new Uint8Array(0),
  fragment: FragmentChoice = { id: 0, offsetBytes: 0, more: false },
): Uint8Array {
  const header = new Uint8Array(20 + options.length);
  header[0] = 0x40 | (header.length / 4);
  writeU16(header, 2, header.length + payload.length);
  writeU16(header, 4, fragment.id);
  writeU16(header, 6, (fragment.more ? 0x2000 : 0) | (fragment.offsetBytes >>> 3));
  header[8] = 64;
  header[9] = protocol;
  header.set(addressToBytes(ends.source), 12);
  header.set(addressToBytes(ends.destination), 16);
  header.set(options, 20);
  writeU16(header, 10, foldChecksum(sumBytes(header, 0, header.length, 0)));
  return concatBytes(header, payload);
}

export interface ExtensionHeader {
  readonly type: number;
  /** Without its "next header" byte. */
  readonly rest: Uint8Array;
}

export function v6Packet(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  chain: readonly ExtensionHeader[] = [],
): Uint8Array {
  const parts = chain.map(({ rest }, index) => concatBytes(Uint8Array.of(chain[index + 1]?.type ?? protocol), rest));
  const body = concatBytes(...parts, payload);
  const header = new Uint8Array(40);
  header[0] = 0x60;
  writeU16(header, 4, body.length);
  header[6] = chain[0]?.type ?? protocol;
  header[7] = 64;
  header.set(addressToBytes(ends.source), 8);
  header.set(addressToBytes(ends.destination), 24);
  return concatBytes(header, body);
}

export function fragmentHeader({ id, offsetBytes, more }: FragmentChoice): ExtensionHeader {
  const rest = new Uint8Array(7);
  writeU16(rest, 1, offsetBytes | (more ? 1 : 0));
  writeU32(rest, 3, id);
  return { type: 44, rest };
}

/** `inside` fills options: bytes that look like a transport header to a careless reader. */
export function optionsHeader(type: 0 | 60, inside: Uint8Array = new Uint8Array(4)): ExtensionHeader {
  const total = Math.ceil((2 + 2 + inside.length) / 8) * 8;
  const rest = new Uint8Array(total - 1);
  rest[0] = total / 8 - 1;
  rest[1] = 1; // PadN
  rest[2] = total - 4;
  rest.set(inside, 3);
  return { type, rest };
}

export function routingHeader(routingType: number): ExtensionHeader {
  return { type: 43, rest: Uint8Array.of(2, routingType, 0, ...new Uint8Array(20)) };
}

export function authenticationHeader(): ExtensionHeader {
  return { type: 51, rest: Uint8Array.of(4, ...new Uint8Array(22)) };
}

export function randomChain(random: SeededRandom, inside: Uint8Array): ExtensionHeader[] {
  const chain: ExtensionHeader[] = [];
  if (random.chance(0.4)) chain.push(optionsHeader(0, inside));
  while (random.chance(0.5) && chain.length < 9) {
    const made = [optionsHeader(60, inside), routingHeader(random.pick([2, 3, 4])), authenticationHeader()];
    chain.push(random.pick(made));
  }
  if (random.chance(0.05)) chain.push(routingHeader(0));
  if (random.chance(0.05)) chain.push(optionsHeader(0));
  return chain;
}

/** Anything: the general generator of the packet targets. */
export function randomPacket(random: SeededRandom, version: 4 | 6 = random.pick([4, 6]), depth = 0): Uint8Array {
  const ends = version === 4 ? V4 : V6;
  const icmp = version === 4 ? 1 : 58;
  const protocol = random.pick([6, 6, 17, 17, icmp, icmp, icmp, 4, 41, 59, 132, 1, 58]);
  const isInner = (protocol === icmp && random.chance(0.6)) || protocol === 4 || protocol === 41;
  let body = bytes(random, random.pick([0, 1, 8, 20, 64]));
  if (isInner && depth < 2) {
    const innerVersion = protocol === 4 ? 4 : protocol === 41 ? 6 : version;
    const inner = randomPacket(random, innerVersion, depth + 1);
    body = random.chance(0.3) ? inner.slice(0, random.below(inner.length + 1)) : inner;
  }
  const transport = transportOf(random, { protocol, body });
  const isFragment = random.chance(0.2);
  const offsetBytes = random.pick([0, 0, 8, 16, 24, 1_480, 65_528]);
  const fragment = { id: random.below(4), offsetBytes, more: random.chance(0.6) };
  const payload = isFragment && fragment.more ? transport.slice(0, transport.length & ~7) : transport;
  let packet: Uint8Array;
  if (version === 4) {
    const options = random.chance(0.2) ? random.pick(V4_OPTIONS) : new Uint8Array(0);
    packet = v4Packet(ends, protocol, payload, options, isFragment ? fragment : undefined);
  } else {
    const chain = random.chance(0.5) ? randomChain(random, transportOf(random, { protocol: 6 }).slice(0, 20)) : [];
    if (isFragment || random.chance(0.05))
      chain.push(fragmentHeader(isFragment ? fragment : { id: 1, offsetBytes: 0, more: false }));
    packet = v6Packet(ends, protocol, payload, chain);
  }
  return depth === 0 ? repairPacket(packet) : packet;
}

const V4_OPTIONS = [
  Uint8Array.of(1, 1, 1, 0),
  Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0),
  Uint8Array.of(131, 7, 4, 10, 7, 0, 9, 0),
  Uint8Array.of(137, 3, 4, 0),
  Uint8Array.of(68, 0, 0, 0),
];

/** Total length, header checksum and, where the transport header can be found, its checksum. */
export function repairPacket(packet: Uint8Array): Uint8Array {
  const out = packet.slice();
  if (out.length < 20) return out;
  const version = out[0]! >>> 4;
  if (version === 4) {
    const headerBytes = (out[0]! & 15) * 4;
    if (headerBytes < 20 || headerBytes > out.length) return out;
    writeU16(out, 2, Math.min(out.length, 65_535));
    writeU16(out, 10, 0);
    writeU16(out, 10, foldChecksum(sumBytes(out, 0, headerBytes, 0)));
  } else if (version === 6 && out.length >= 40) writeU16(out, 4, Math.min(out.length - 40, 65_535));
  repairTransport(out);
  return out;
}

function repairTransport(packet: Uint8Array): void {
  const read = readNaively(packet);
  if (read === undefined || read.fragment !== undefined) return;
  const { version, protocol, transportOffset: at, totalBytes } = read;
  const length = totalBytes - at;
  if (protocol === 17) writeU16(packet, at + 4, length);
  const field = protocol === 6 ? 16 : protocol === 17 ? 6 : protocol === 1 || protocol === 58 ? 2 : -1;
  if (field < 0) return;
  writeU16(packet, at + field, 0);
  const isPlain = version === 4 && protocol === 1;
  const [s0, s1, s2, s3] = read.source as [number, number, number, number];
  const [d0, d1, d2, d3] = read.destination as [number, number, number, number];
  const pseudo = isPlain ? 0 : sumPseudoHeader(s0, s1, s2, s3, d0, d1, d2, d3, protocol, length);
  const sum = foldChecksum(sumBytes(packet, at, length, pseudo));
  writeU16(packet, at + field, protocol === 17 && sum === 0 ? 0xffff : sum);
}

export function isV4Ends(ends: Ends): boolean {
  return isV4(ends.source);
}
