// Headers and checksums of one packet, read slowly and plainly: what the twins of the splitter and the merger are made
// of. Nothing here is shared with src/wire.

export interface NaiveHeaders {
  readonly version: 4 | 6;
  readonly protocol: number;
  /** What the IP header says of the whole packet. */
  readonly saidBytes: number;
  readonly transportAt: number;
  readonly payloadAt: number;
  /** IPv4 options or IPv6 extension headers stand in between. */
  readonly isPlain: boolean;
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** RFC 1071 §4.1, word by word. */
export function naiveChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

/** RFC 9293 §3.1, RFC 8200 §8.1. */
export function naivePseudoHeader(packet: Uint8Array, protocol: number, transportBytes: number): number[] {
  const addresses = packet[0]! >> 4 === 4 ? packet.slice(12, 20) : packet.slice(8, 40);
  return [...addresses, 0, protocol, Math.floor(transportBytes / 256), transportBytes % 256];
}

/** Of a packet with everything in its place; 0 when the checksum that it carries is right. */
export function naiveTransportChecksum(packet: Uint8Array, transportAt: number, protocol: number): number {
  const transport = packet.slice(transportAt);
  return naiveChecksum(Uint8Array.of(...naivePseudoHeader(packet, protocol, transport.length), ...transport));
}

/** Undefined: no whole TCP or UDP packet. Options are passed over; fragments and routing headers are refused. */
export function readNaiveHeaders(packet: Uint8Array): NaiveHeaders | undefined {
  const view = viewOf(packet);
  const version = packet.length > 0 ? packet[0]! >> 4 : 0;
  let protocol = -1;
  let transportAt = 0;
  let saidBytes = 0;
  if (version === 4 && packet.length >= 20) {
    transportAt = (packet[0]! % 16) * 4;
    saidBytes = view.getUint16(2);
    const isFragment = view.getUint16(6) % 0x4000 !== 0;
    if (transportAt < 20 || isFragment) return undefined;
    protocol = packet[9]!;
  } else if (version === 6 && packet.length >= 40) {
    saidBytes = 40 + view.getUint16(4);
    protocol = packet[6]!;
    transportAt = 40;
    for (let headers = 0; protocol === 0 || protocol === 60; headers++) {
      if (headers === 8 || transportAt + 8 > packet.length) return undefined;
      protocol = packet[transportAt]!;
      transportAt += (packet[transportAt + 1]! + 1) * 8;
    }
  }
  if (protocol !== 6 && protocol !== 17) return undefined;
  if (transportAt + (protocol === 6 ? 20 : 8) > packet.length) return undefined;
  const headerBytes = protocol === 6 ? (packet[transportAt + 12]! >> 4) * 4 : 8;
  if (headerBytes < (protocol === 6 ? 20 : 8) || transportAt + headerBytes > packet.length) return undefined;
  return {
    version: version as 4 | 6,
    protocol,
    saidBytes,
    transportAt,
    payloadAt: transportAt + headerBytes,
    isPlain: transportAt === (version === 4 ? 20 : 40),
  };
}
