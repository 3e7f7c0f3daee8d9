import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatAddress } from "../../src/base/address.ts";
import { concatBytes, writeU16, writeU32 } from "../../src/base/bytes.ts";
import {
  decodePacket,
  decodeQuotedPacket,
  PACKET_DROPS,
  PacketInfo,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_SYN,
} from "../../src/wire/packet.ts";
import { fixIpv4Checksum, icmp, ipv4, ipv6, packet, tcp, udp, udpDatagram } from "./packets.ts";

const A4 = "10.1.0.1";
const B4 = "10.1.0.2";
const A6 = "fd00::1";
const B6 = "fd00::2";

function decode(bytes: Uint8Array): string | PacketInfo {
  const shifted = concatBytes(new Uint8Array(3), bytes, new Uint8Array(5)); // an offset, and room behind
  const info = new PacketInfo();
  return decodePacket(shifted, 3, bytes.length, info) ?? info;
}

function change(bytes: Uint8Array, edit: (bytes: Uint8Array) => void): Uint8Array {
  const copy = bytes.slice();
  edit(copy);
  return copy;
}

function fragment6(next: number, flags: number, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = next;
  writeU16(header, 2, flags);
  writeU32(header, 4, 0xabcd);
  return ipv6(A6, B6, 44, concatBytes(header, payload));
}

/** Extension headers of 8 bytes each, in order, before a UDP datagram. */
function chain6(...headers: number[]): Uint8Array {
  const all = [...headers, PROTOCOL_UDP];
  const parts = headers.map((_, i) => Uint8Array.of(all[i + 1]!, 0, 1, 4, 0, 0, 0, 0));
  return ipv6(A6, B6, all[0]!, concatBytes(...parts, udpDatagram(A6, B6, 1, 2, new Uint8Array(8))));
}

const SYN4 = tcp(A4, B4, { sourcePort: 1000, destinationPort: 80, flags: TCP_SYN });
const UDP4 = udp(A4, B4, 1000, 53, new Uint8Array(32));
const UDP6 = udp(A6, B6, 1000, 53, new Uint8Array(32));
const MORE = 0x2000;

describe("decodePacket", () => {
  it.each([
    ["TCP over IPv4", SYN4, PROTOCOL_TCP, 1000, 80],
    ["UDP over IPv4", UDP4, PROTOCOL_UDP, 1000, 53],
    ["UDP over IPv6", UDP6, PROTOCOL_UDP, 1000, 53],
    ["ICMPv6 echo, its identifier in both ports", icmp(A6, B6, 128, 0, 0x77_0001, new Uint8Array(8)), 58, 0x77, 0x77],
    ["ICMP echo reply", icmp(A4, B4, 0, 0, 0x77_0001, new Uint8Array(8)), 1, 0x77, 0x77],
    ["a protocol it doesn't know", packet(A6, B6, 132, new Uint8Array(4)), 132, 0, 0],
    ["six extension headers", chain6(0, 60, 43, 60, 60, 60), PROTOCOL_UDP, 1, 2],
    ["an atomic fragment", fragment6(17, 0, udpDatagram(A6, B6, 7, 8, new Uint8Array(3))), PROTOCOL_UDP, 7, 8],
  ])("reads %s", (_, bytes, protocol, sourcePort, destinationPort) => {
    expect(decode(bytes)).toMatchObject({ protocol, sourcePort, destinationPort, isFragment: false });
  });

  it("gives addresses in mapped form for IPv4 and whole for IPv6", () => {
    const v4 = decode(SYN4) as PacketInfo;
    expect([formatAddress(v4.source), formatAddress(v4.destination), v4.tcpFlags]).toEqual([A4, B4, TCP_SYN]);
    const v6 = decode(UDP6) as PacketInfo;
    expect([formatAddress(v6.source), formatAddress(v6.destination)]).toEqual([A6, B6]);
  });

  it("ignores padding behind the total length", () => {
    const padded = concatBytes(UDP4, new Uint8Array(4));
    expect(decode(padded)).toMatchObject({ totalBytes: UDP4.length });
  });

  it("points at the packet that an ICMP error quotes", () => {
    for (const [error, quoted] of [
      [icmp(B4, A4, 3, 13, 0, UDP4), UDP4],
      [icmp(B6, A6, 1, 1, 0, UDP6), UDP6],
    ] as const) {
      const info = decode(error) as PacketInfo;
      const inner = new PacketInfo();
      expect(info.innerOffset).toBe(error.length - quoted.length);
      expect(decodeQuotedPacket(error, info.innerOffset, info.totalBytes - info.innerOffset, inner)).toBe(undefined);
      expect(inner).toMatchObject({ sourcePort: 1000, destinationPort: 53 });
    }
  });

  it("reads a quote that was cut 8 bytes into TCP", () => {
    const inner = new PacketInfo();
    expect(decodeQuotedPacket(SYN4, 0, 28, inner)).toBe(undefined);
    expect(inner).toMatchObject({ sourcePort: 1000, destinationPort: 80, tcpFlags: 0, totalBytes: 28 });
  });

  it("reads no ports from a quoted later fragment; drops a malformed, foreign or short quote", () => {
    const quote = (bytes: Uint8Array): string | PacketInfo => {
      const inner = new PacketInfo();
      return decodeQuotedPacket(bytes, 0, bytes.length, inner) ?? inner;
    };
    expect(quote(ipv4(A4, B4, new Uint8Array(16).fill(9), { flags: 3, id: 9 }))).toMatchObject({
      isLaterFragment: true,
      sourcePort: 0,
      destinationPort: 0,
    });
    expect(quote(SYN4.slice(0, 27))).toBe("TRUNCATED_QUOTE");
    expect(quote(SYN4.slice(0, 19))).toBe("TRUNCATED");
    expect(quote(new Uint8Array(40).fill(0x50))).toBe("BAD_VERSION");
    expect(quote(ipv4(A4, B4, new Uint8Array(8), { protocol: PROTOCOL_ICMPV6 }))).toBe("ICMP_OF_OTHER_FAMILY");
    expect(quote(ipv6(A6, B6, 1, new Uint8Array(8)))).toBe("ICMP_OF_OTHER_FAMILY");
  });

  it("takes an ICMP error whose quote was cut 8 bytes behind the header", () => {
    expect(decode(icmp(B4, A4, 3, 1, 0, UDP4.slice(0, 28)))).toMatchObject({ innerOffset: 28 });
    expect(decode(icmp(B6, A6, 1, 0, 0, UDP6.slice(0, 48)))).toMatchObject({ innerOffset: 48 });
  });

  it("reads an error about a packet that has fewer than 64 bits behind its header", () => {
    const info = new PacketInfo();
    for (const [quote, error] of [
      [ipv4(A4, B4, Uint8Array.of(7), { protocol: 132 }), (body: Uint8Array) => icmp(B4, A4, 3, 13, 0, body)],
      [ipv6(A6, B6, 59, new Uint8Array(0)), (body: Uint8Array) => icmp(B6, A6, 1, 1, 0, body)],
    ] as const) {
      const packet = error(quote);
      expect(decodePacket(packet, 0, packet.length, info)).toBeUndefined();
      const { innerOffset, totalBytes } = info;
      expect(decodeQuotedPacket(packet, innerOffset, totalBytes - innerOffset, info)).toBeUndefined();
      expect(info.totalBytes).toBe(quote.length);
    }
  });

  it("marks fragments, and reads no ports from a later one", () => {
    const first = ipv4(A4, B4, udpDatagram(A4, B4, 5, 6, new Uint8Array(16)), { flags: MORE, id: 9 });
    expect(decode(first)).toMatchObject({ isFragment: true, isLaterFragment: false, sourcePort: 5, fragmentId: 9 });
    const later = ipv4(A4, B4, new Uint8Array(16).fill(9), { flags: 3, id: 9 });
    expect(decode(later)).toMatchObject({
      isFragment: true,
      isLaterFragment: true,
      sourcePort: 0,
      fragmentOffsetBytes: 24,
    });
    expect(decode(fragment6(17, 25, new Uint8Array(16)))).toMatchObject({
      isLaterFragment: true,
      hasMoreFragments: true,
      fragmentOffsetBytes: 24,
      fragmentId: 0xabcd,
      sourcePort: 0,
    });
  });

  it.each<[string, string, Uint8Array]>([
    ["nothing", "TRUNCATED", new Uint8Array(0)],
    ["19 bytes of IPv4", "TRUNCATED", SYN4.slice(0, 19)],
    ["39 bytes of IPv6", "TRUNCATED", UDP6.slice(0, 39)],
    ["an IPv4 packet that lost its last byte", "TRUNCATED", SYN4.slice(0, -1)],
    ["an IPv6 packet that lost its last byte", "TRUNCATED", UDP6.slice(0, -1)],
    ["version 5", "BAD_VERSION", change(SYN4, (b) => (b[0] = 0x55))],
    ["an IPv4 header of 16 bytes", "BAD_HEADER_LENGTH", change(SYN4, (b) => (b[0] = 0x44))],
    ["a total length inside the header", "BAD_TOTAL_LENGTH", change(SYN4, (b) => writeU16(b, 2, 19))],
    ["a flipped bit in the IPv4 header", "BAD_HEADER_CHECKSUM", change(SYN4, (b) => (b[8]! ^= 1))],
    [
      "an option that runs out",
      "BAD_HEADER_OPTION",
      ipv4(A4, B4, new Uint8Array(8), { options: Uint8Array.of(7, 9, 0, 0) }),
    ],
    [
      "an option of length 0",
      "BAD_HEADER_OPTION",
      ipv4(A4, B4, new Uint8Array(8), { options: Uint8Array.of(7, 0, 0, 0) }),
    ],
    [
      "a loose source route",
      "SOURCE_ROUTED",
      ipv4(A4, B4, new Uint8Array(8), { options: Uint8Array.of(1, 131, 3, 4) }),
    ],
    [
      "a strict source route",
      "SOURCE_ROUTED",
      ipv4(A4, B4, new Uint8Array(8), { options: Uint8Array.of(137, 3, 4, 0) }),
    ],
    ["routing header type 0", "SOURCE_ROUTED", change(chain6(43), (b) => (b[42] = 0))],
    ["a mapped source", "MAPPED_ADDRESS", ipv6("::ffff:10.0.0.1", B6, 17, UDP6.slice(40))],
    ["a mapped destination", "MAPPED_ADDRESS", ipv6(A6, "::ffff:10.0.0.1", 17, UDP6.slice(40))],
    ["hop-by-hop options in second place", "BAD_EXTENSION_HEADER", chain6(60, 0)],
    ["an extension header that runs out", "BAD_EXTENSION_HEADER", change(chain6(60), (b) => (b[41] = 9))],
    [
      "two fragment headers",
      "BAD_EXTENSION_HEADER",
      fragment6(44, 1, concatBytes(Uint8Array.of(17, 0, 0, 1, 0, 0, 0, 1), new Uint8Array(16))),
    ],
    ["nine extension headers", "TOO_MANY_EXTENSION_HEADERS", chain6(0, 60, 60, 60, 60, 60, 60, 60, 60)],
    ["a middle fragment of 9 bytes", "BAD_FRAGMENT", ipv4(A4, B4, new Uint8Array(9), { flags: MORE | 9 })],
    ["a fragment of 0 bytes", "BAD_FRAGMENT", ipv4(A4, B4, new Uint8Array(0), { flags: 9 })],
    ["a fragment that ends beyond 64 KiB", "BAD_FRAGMENT", ipv4(A4, B4, new Uint8Array(40), { flags: 0x1fff })],
    ["an IPv6 fragment that ends beyond 64 KiB", "BAD_FRAGMENT", fragment6(17, 0xfff8, new Uint8Array(40))],
    [
      "a first fragment with half a TCP header",
      "FIRST_FRAGMENT_TOO_SMALL",
      ipv4(A4, B4, SYN4.slice(20, 36), { flags: MORE, protocol: 6 }),
    ],
    [
      "a first fragment without its UDP header",
      "FIRST_FRAGMENT_TOO_SMALL",
      fragment6(60, 1, Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0)),
    ],
    [
      "a first fragment whose header chain runs out",
      "FIRST_FRAGMENT_TOO_SMALL",
      fragment6(60, 1, Uint8Array.of(17, 4, 1, 4, 0, 0, 0, 0)),
    ],
    [
      "a later fragment inside the TCP header",
      "FRAGMENT_IN_HEADER",
      ipv4(A4, B4, new Uint8Array(16), { flags: 1, protocol: 6 }),
    ],
    ["a TCP header cut short", "TRUNCATED_TRANSPORT", ipv4(A4, B4, SYN4.slice(20, 39), { protocol: 6 })],
    ["a TCP header of 16 bytes", "BAD_TRANSPORT_HEADER", change(SYN4, (b) => (b[32] = 0x40))],
    ["TCP options beyond the packet", "TRUNCATED_TRANSPORT", change(SYN4, (b) => (b[32] = 0x60))],
    ["a UDP length of 7", "BAD_TRANSPORT_HEADER", change(UDP6, (b) => writeU16(b, 44, 7))],
    ["a UDP length beyond the packet", "TRUNCATED_TRANSPORT", change(UDP6, (b) => writeU16(b, 44, 41))],
    ["ICMPv6 inside IPv4", "ICMP_OF_OTHER_FAMILY", ipv4(A4, B4, new Uint8Array(8), { protocol: PROTOCOL_ICMPV6 })],
    ["ICMP inside IPv6", "ICMP_OF_OTHER_FAMILY", ipv6(A6, B6, 1, new Uint8Array(8))],
    ["an ICMP error that quotes 27 bytes", "TRUNCATED_QUOTE", icmp(B4, A4, 3, 1, 0, UDP4.slice(0, 27))],
    ["an ICMP error that quotes nothing", "TRUNCATED_QUOTE", icmp(B4, A4, 3, 1, 0, new Uint8Array(0))],
    [
      "an ICMP error that quotes 19 bytes which say that they are all",
      "TRUNCATED_QUOTE",
      icmp(
        B4,
        A4,
        3,
        1,
        0,
        change(UDP4.slice(0, 19), (b) => writeU16(b, 2, 19)),
      ),
    ],
    ["an ICMPv6 error that quotes 47 bytes", "TRUNCATED_QUOTE", icmp(B6, A6, 1, 0, 0, UDP6.slice(0, 47))],
  ])("drops %s as %s", (_, drop, bytes) => {
    expect(decode(bytes)).toBe(drop);
  });

  it("never reads or points outside the packet, whatever the bytes", () => {
    const seeds = [SYN4, UDP4, UDP6, chain6(0, 60, 43), fragment6(17, 1, UDP6.slice(40)), icmp(B6, A6, 1, 1, 0, UDP6)];
    const mutated = fc
      .tuple(
        fc.constantFrom(...seeds),
        fc.array(fc.tuple(fc.nat(79), fc.nat(255)), { maxLength: 4 }),
        fc.nat(90),
        fc.boolean(),
      )
      .map(([seed, edits, cut, fix]) => {
        const bytes = seed.slice(0, Math.max(1, seed.length - (cut > 60 ? cut - 60 : 0)));
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        if (fix && bytes[0]! >>> 4 === 4 && (bytes[0]! & 15) * 4 <= bytes.length && bytes.length >= 20)
          fixIpv4Checksum(bytes);
        return bytes;
      });
    const info = new PacketInfo();
    fc.assert(
      fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 120 })), (bytes) => {
        const drop = decodePacket(bytes, 0, bytes.length, info);
        if (drop !== undefined) {
          expect(PACKET_DROPS).toContain(drop);
          return;
        }
        expect(info.totalBytes).toBeLessThanOrEqual(bytes.length);
        expect(info.transportOffset).toBeLessThanOrEqual(info.totalBytes);
        expect(info.innerOffset).toBeLessThan(info.totalBytes);
        const copy = new PacketInfo(); // the same answer when poison follows the packet
        const poisoned = concatBytes(bytes, new Uint8Array(64).fill(0xff));
        expect(decodePacket(poisoned, 0, bytes.length, copy)).toBe(undefined);
        expect(copy).toEqual(info);
        if (info.innerOffset > 0) decodeQuotedPacket(bytes, info.innerOffset, info.totalBytes - info.innerOffset, copy);
      }),
      { numRuns: 2000 },
    );
  });

  it("reads flags of a segment", () => {
    expect(decode(tcp(A6, B6, { sourcePort: 1, destinationPort: 2, flags: TCP_SYN | TCP_ACK }))).toMatchObject({
      tcpFlags: TCP_SYN | TCP_ACK,
    });
  });
});
