// Super-packets for tests, as a TUN device with offloads gives them: right by default, each field open to be made
// wrong; and random ones, harmless and hostile.
import { concatBytes, writeU16, writeU32 } from "../../src/base/bytes.ts";
import type { SeededRandom } from "../../src/base/random.ts";
import { viewOf } from "./naive-headers.ts";
import { fixIpv4Checksum, ip } from "./packets.ts";

export const TCP4 = 1;
export const TCP6 = 4;
export const UDP4 = 5;
export const ECN = 0x80;

export interface SuperFields {
  version?: 4 | 6;
  protocol?: 6 | 17;
  payload?: Uint8Array;
  gsoSize?: number;
  gsoType?: number;
  vnetFlags?: number;
  /** IPv4 options or one IPv6 hop-by-hop header, a multiple of 4 or 8 bytes. */
  between?: Uint8Array;
  tcpOptions?: Uint8Array;
  tcpFlags?: number;
  sequence?: number;
  acknowledgment?: number;
  window?: number;
  sourcePort?: number;
  ipId?: number;
  ipFlags?: number;
  trafficClass?: number;
  hopLimit?: number;
}

export function vnetHeader(
  flags: number,
  type: number,
  headerBytes: number,
  size: number,
  start: number,
  offset: number,
): Uint8Array {
  const header = new Uint8Array(10);
  const view = viewOf(header);
  view.setUint8(0, flags);
  view.setUint8(1, type);
  view.setUint16(2, headerBytes, true);
  view.setUint16(4, size, true);
  view.setUint16(6, start, true);
  view.setUint16(8, offset, true);
  return header;
}

/** A vnet header and its packet; the transport checksum field is 0: what the kernel writes there is not looked at. */
export function superPacket(fields: SuperFields = {}): Uint8Array {
  const { version = 4, protocol = 6, payload = new Uint8Array(3_000), between = new Uint8Array(0) } = fields;
  const transport = transportHeader(protocol, payload.length, fields);
  const network = networkHeader(version, protocol, between, transport.length + payload.length, fields);
  const kind = protocol === 17 ? UDP4 : version === 4 ? TCP4 : TCP6;
  const vnet = vnetHeader(
    fields.vnetFlags ?? 1,
    fields.gsoType ?? kind,
    network.length + transport.length,
    fields.gsoSize ?? 1_000,
    network.length,
    protocol === 6 ? 16 : 6,
  );
  return concatBytes(vnet, network, transport, payload);
}

function transportHeader(protocol: 6 | 17, payloadBytes: number, fields: SuperFields): Uint8Array {
  const options = fields.tcpOptions ?? new Uint8Array(0);
  const header = new Uint8Array(protocol === 6 ? 20 + options.length : 8);
  writeU16(header, 0, fields.sourcePort ?? 4_000);
  writeU16(header, 2, 5_432);
  if (protocol === 17) {
    writeU16(header, 4, 8 + payloadBytes);
    return header;
  }
  writeU32(header, 4, fields.sequence ?? 1_000);
  writeU32(header, 8, fields.acknowledgment ?? 77);
  header[12] = header.length << 2;
  header[13] = fields.tcpFlags ?? 0x10;
  writeU16(header, 14, fields.window ?? 512);
  header.set(options, 20);
  return header;
}

function networkHeader(
  version: 4 | 6,
  protocol: number,
  between: Uint8Array,
  transportBytes: number,
  fields: SuperFields,
): Uint8Array {
  const fixedBytes = version === 4 ? 20 : 40;
  const header = new Uint8Array(fixedBytes + between.length);
  if (version === 4) {
    header[0] = 0x40 | (header.length / 4);
    header[1] = fields.trafficClass ?? 0;
    writeU16(header, 2, header.length + transportBytes);
    writeU16(header, 4, fields.ipId ?? 0xfffe);
    writeU16(header, 6, fields.ipFlags ?? 0x4000);
    header[8] = fields.hopLimit ?? 64;
    header[9] = protocol;
    writeU32(header, 12, ip("10.7.0.2").w3);
    writeU32(header, 16, ip("10.7.0.1").w3);
    header.set(between, 20);
    return fixIpv4Checksum(header);
  }
  writeU32(header, 0, 0x60000000 | ((fields.trafficClass ?? 0) << 20) | 0x12345);
  writeU16(header, 4, between.length + transportBytes);
  header[6] = between.length > 0 ? 0 : protocol;
  header[7] = fields.hopLimit ?? 64;
  const [source, destination] = [ip("fd00::2"), ip("fd00::1")];
  for (const [at, { w0, w1, w2, w3 }] of [[8, source] as const, [24, destination] as const]) {
    for (const [i, word] of [w0, w1, w2, w3].entries()) writeU32(header, at + 4 * i, word);
  }
  header.set(between, 40);
  if (between.length > 0) header.set([protocol, between.length / 8 - 1], 40);
  return header;
}

export function randomBytesOf(random: SeededRandom, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  random.fill(bytes);
  return bytes;
}

const TIMESTAMPS = [1, 1, 8, 10];

/** Of every kind and mostly small, so that many can be tried. */
export function randomSuper(random: SeededRandom): Uint8Array {
  const version = random.pick([4, 6] as const);
  const protocol = random.pick([6, 6, 17] as const);
  const optionWords = random.chance(0.2) ? random.below(11) : 0;
  const between = version === 4 ? optionWords * 4 : optionWords * 8;
  const isTcp = protocol === 6;
  const payloadBytes = 1 + random.below(random.pick([1, 40, 200, 200, random.chance(0.1) ? 4_000 : 80]));
  return superPacket({
    version,
    protocol,
    payload: randomBytesOf(random, payloadBytes),
    gsoSize: Math.max(1, random.chance(0.1) ? random.below(65_536) : Math.floor(payloadBytes / (1 + random.below(6)))),
    gsoType: isTcp ? (version === 4 ? TCP4 : TCP6) | (random.chance(0.2) ? ECN : 0) : UDP4,
    vnetFlags: random.pick([1, 1, 1, 2, 3]),
    between: version === 4 ? ipv4Options(random, between) : new Uint8Array(between),
    tcpOptions: isTcp && random.chance(0.5) ? Uint8Array.of(...TIMESTAMPS, ...randomBytesOf(random, 8)) : undefined!,
    tcpFlags: random.below(256),
    sequence: random.chance(0.3) ? 2 ** 32 - 1 - random.below(2_000) : random.u32(),
    acknowledgment: random.u32(),
    window: random.below(65_536),
    ipId: random.below(65_536),
    ipFlags: random.pick([0, 0x4000]),
    trafficClass: random.below(256),
    hopLimit: random.below(256),
  });
}

function ipv4Options(random: SeededRandom, length: number): Uint8Array {
  return random.chance(0.5) ? new Uint8Array(length).fill(1) : randomBytesOf(random, length);
}

/** A right one with a few bytes of its headers changed, or cut, or grown. */
export function hostileSuper(random: SeededRandom): Uint8Array {
  const input = randomSuper(random);
  for (let changes = random.below(4); changes >= 0; changes--) {
    const at = random.below(Math.min(input.length, random.pick([10, 30, 100])));
    input[at] = random.pick([
      0,
      1,
      4,
      5,
      6,
      16,
      17,
      44,
      60,
      255,
      random.below(256),
      input[at]! ^ (1 << random.below(8)),
    ]);
  }
  if (random.chance(0.7)) return input;
  const length = random.below(random.pick([12, 80, input.length + 20]));
  return concatBytes(input, randomBytesOf(random, 20)).slice(0, length);
}
