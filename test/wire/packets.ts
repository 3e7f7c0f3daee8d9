// Builders of packets for tests: right by default, each field open to be made wrong.
import { type Address, parseAddress } from "../../src/base/address.ts";
import { concatBytes, writeU16, writeU32 } from "../../src/base/bytes.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../../src/wire/checksum.ts";
import { IPV4_DONT_FRAGMENT, writeIpv4Header } from "../../src/wire/ipv4.ts";
import { writeIpv6Header } from "../../src/wire/ipv6.ts";
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from "../../src/wire/packet.ts";

export function ip(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`bad address ${text}`);
  return address;
}

export interface Ipv4Fields {
  id?: number;
  flags?: number;
  protocol?: number;
  options?: Uint8Array;
}

export function ipv4(source: string, destination: string, payload: Uint8Array, fields: Ipv4Fields = {}): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const headerBytes = 20 + options.length;
  const packet = new Uint8Array(headerBytes + payload.length);
  writeIpv4Header(
    packet,
    0,
    packet.length,
    fields.id ?? 0,
    fields.flags ?? IPV4_DONT_FRAGMENT,
    64,
    fields.protocol ?? PROTOCOL_UDP,
    ip(source).w3,
    ip(destination).w3,
  );
  packet[0] = 0x40 | (headerBytes / 4);
  packet.set(options, 20);
  packet.set(payload, headerBytes);
  return fixIpv4Checksum(packet);
}

export function fixIpv4Checksum(packet: Uint8Array): Uint8Array {
  writeU16(packet, 10, 0);
  writeU16(packet, 10, foldChecksum(sumBytes(packet, 0, (packet[0]! & 15) * 4, 0)));
  return packet;
}

export function ipv6(source: string, destination: string, nextHeader: number, payload: Uint8Array): Uint8Array {
  const packet = new Uint8Array(40 + payload.length);
  const s = ip(source);
  const d = ip(destination);
  writeIpv6Header(packet, 0, payload.length, 64, nextHeader, s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3);
  packet.set(payload, 40);
  return packet;
}

/** Either family by its addresses. */
export function packet(source: string, destination: string, protocol: number, payload: Uint8Array): Uint8Array {
  return source.includes(":")
    ? ipv6(source, destination, protocol, payload)
    : ipv4(source, destination, payload, { protocol });
}

/** Of a transport header and payload; at is the checksum field's place. */
export function withChecksum(
  source: string,
  destination: string,
  protocol: number,
  transport: Uint8Array,
  at: number,
): Uint8Array {
  writeU16(transport, at, 0);
  const s = ip(source);
  const d = ip(destination);
  const pseudo =
    protocol === PROTOCOL_ICMP
      ? 0
      : sumPseudoHeader(s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3, protocol, transport.length);
  writeU16(transport, at, foldChecksum(sumBytes(transport, 0, transport.length, pseudo)));
  return transport;
}

export interface TcpFields {
  sourcePort: number;
  destinationPort: number;
  sequence?: number;
  acknowledgment?: number;
  flags: number;
  window?: number;
  options?: Uint8Array;
  data?: Uint8Array;
}

export function tcp(source: string, destination: string, fields: TcpFields): Uint8Array {
  const options = fields.options ?? new Uint8Array(0);
  const header = new Uint8Array(20);
  writeU16(header, 0, fields.sourcePort);
  writeU16(header, 2, fields.destinationPort);
  writeU32(header, 4, fields.sequence ?? 0);
  writeU32(header, 8, fields.acknowledgment ?? 0);
  header[12] = (20 + options.length) << 2;
  header[13] = fields.flags;
  writeU16(header, 14, fields.window ?? 65_535);
  const segment = concatBytes(header, options, fields.data ?? new Uint8Array(0));
  return packet(source, destination, PROTOCOL_TCP, withChecksum(source, destination, PROTOCOL_TCP, segment, 16));
}

export function udpDatagram(
  source: string,
  destination: string,
  sourcePort: number,
  destinationPort: number,
  data: Uint8Array,
): Uint8Array {
  const header = new Uint8Array(8);
  writeU16(header, 0, sourcePort);
  writeU16(header, 2, destinationPort);
  writeU16(header, 4, 8 + data.length);
  return withChecksum(source, destination, PROTOCOL_UDP, concatBytes(header, data), 6);
}

export function udp(
  source: string,
  destination: string,
  sourcePort: number,
  destinationPort: number,
  data: Uint8Array,
): Uint8Array {
  const datagram = udpDatagram(source, destination, sourcePort, destinationPort, data);
  return packet(source, destination, PROTOCOL_UDP, datagram);
}

export function icmp(
  source: string,
  destination: string,
  type: number,
  code: number,
  word: number,
  body: Uint8Array,
): Uint8Array {
  const message = new Uint8Array(8 + body.length);
  message[0] = type;
  message[1] = code;
  writeU32(message, 4, word);
  message.set(body, 8);
  const protocol = source.includes(":") ? 58 : PROTOCOL_ICMP;
  return packet(source, destination, protocol, withChecksum(source, destination, protocol, message, 2));
}
