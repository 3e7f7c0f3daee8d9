// One IP header of either family for packets that this program makes: RFC 791, RFC 8200. Hop limit 64, flow label 0;
// IPv4 packets are atomic (DF, id 0: RFC 6864 §4.1 leaves the id of such packets free, and a constant tells nobody how
// many were sent).
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, writeIpv4Header } from "./ipv4.ts";
import { IPV6_HEADER_BYTES, writeIpv6Header } from "./ipv6.ts";

export const HOP_LIMIT = 64;

export function ipHeaderBytes(version: 4 | 6): number {
  return version === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
}

/** Addresses are four words each, IPv4 in mapped form. */
export function writeIpHeader(
  buffer: Uint8Array,
  offset: number,
  version: 4 | 6,
  payloadBytes: number,
  protocol: number,
  source0: number,
  source1: number,
  source2: number,
  source3: number,
  destination0: number,
  destination1: number,
  destination2: number,
  destination3: number,
): void {
  if (version === 4) {
    const totalBytes = IPV4_HEADER_BYTES + payloadBytes;
    writeIpv4Header(buffer, offset, totalBytes, 0, IPV4_DONT_FRAGMENT, HOP_LIMIT, protocol, source3, destination3);
    return;
  }
  writeIpv6Header(
    buffer,
    offset,
    payloadBytes,
    HOP_LIMIT,
    protocol,
    source0,
    source1,
    source2,
    source3,
    destination0,
    destination1,
    destination2,
    destination3,
  );
}
