import { describe, expect, it } from "vitest";
import { readU32 } from "../../src/base/bytes.ts";
import { ANSWER_MAX_BYTES, buildIcmpProhibited, buildTcpReset } from "../../src/wire/answer.ts";
import { checksumOf, foldChecksum, sumBytes, sumPseudoHeader } from "../../src/wire/checksum.ts";
import { IPV4_MORE_FRAGMENTS } from "../../src/wire/ipv4.ts";
import {
  decodePacket,
  decodeQuotedPacket,
  PacketInfo,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from "../../src/wire/packet.ts";
import { icmp, ipv4, type TcpFields, tcp, udp, udpDatagram } from "./packets.ts";

const PAIRS = [
  ["10.1.0.1", "10.1.0.2"],
  ["fd00::1", "fd00::2"],
] as const;

type Builder = typeof buildTcpReset;

function answer(build: Builder, packet: Uint8Array): Uint8Array {
  const info = new PacketInfo();
  expect(decodePacket(packet, 0, packet.length, info)).toBe(undefined);
  const out = new Uint8Array(ANSWER_MAX_BYTES + 64).fill(0xee);
  const length = build(out, 32, packet, 0, info);
  expect(out.subarray(32 + length)).toEqual(new Uint8Array(out.length - 32 - length).fill(0xee));
  return out.slice(32, 32 + length);
}

/** Decodes an answer and checks its transport checksum. */
function read(bytes: Uint8Array): PacketInfo {
  const info = new PacketInfo();
  expect(decodePacket(bytes, 0, bytes.length, info)).toBe(undefined);
  const transportBytes = info.totalBytes - info.transportOffset;
  const { source: s, destination: d, protocol } = info;
  const pseudo =
    protocol === 1 ? 0 : sumPseudoHeader(s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3, protocol, transportBytes);
  expect(foldChecksum(sumBytes(bytes, info.transportOffset, transportBytes, pseudo))).toBe(0);
  if (info.version === 4) expect(checksumOf(bytes, 0, 20)).toBe(0);
  return info;
}

const SEGMENT: TcpFields = { sourcePort: 1000, destinationPort: 80, sequence: 0xffff_fffe, flags: TCP_SYN };

describe.each(PAIRS)("answers from %s", (a, b) => {
  it("reset a SYN with data by acknowledging all of it", () => {
    const bytes = answer(buildTcpReset, tcp(a, b, { ...SEGMENT, flags: TCP_SYN | TCP_FIN, data: new Uint8Array(3) }));
    const info = read(bytes);
    expect(info).toMatchObject({ sourcePort: 80, destinationPort: 1000, tcpFlags: TCP_RST | TCP_ACK });
    expect(info.source).toEqual(decodeOf(tcp(a, b, SEGMENT)).destination);
    expect(readU32(bytes, info.transportOffset + 4)).toBe(0);
    expect(readU32(bytes, info.transportOffset + 8)).toBe(3); // −2 + 3 + SYN + FIN
  });

  it("reset a segment with ACK by taking its acknowledgment as sequence", () => {
    const bytes = answer(buildTcpReset, tcp(a, b, { ...SEGMENT, flags: TCP_ACK, acknowledgment: 0xdead_beef }));
    const info = read(bytes);
    expect(info.tcpFlags).toBe(TCP_RST);
    expect(readU32(bytes, info.transportOffset + 4)).toBe(0xdead_beef);
  });

  it("say administratively prohibited and quote the packet", () => {
    const packet = udp(a, b, 1000, 53, new Uint8Array(64).fill(7));
    const bytes = answer(buildIcmpProhibited, packet);
    const info = read(bytes);
    expect([info.icmpType, info.icmpCode]).toEqual(info.version === 4 ? [3, 13] : [1, 1]);
    const inner = new PacketInfo();
    expect(decodeQuotedPacket(bytes, info.innerOffset, info.totalBytes - info.innerOffset, inner)).toBe(undefined);
    expect(inner).toMatchObject({ sourcePort: 1000, destinationPort: 53 });
    expect(bytes.slice(info.innerOffset)).toEqual(packet);
  });

  it("quote no more than fits into the smallest MTU", () => {
    const bytes = answer(buildIcmpProhibited, udp(a, b, 1, 2, new Uint8Array(1350)));
    expect(bytes.length).toBe(read(bytes).version === 4 ? 576 : 1280);
  });
});

function decodeOf(packet: Uint8Array): PacketInfo {
  const info = new PacketInfo();
  decodePacket(packet, 0, packet.length, info);
  return info;
}

describe("nothing is said", () => {
  const data = new Uint8Array(16);
  const [a, b] = PAIRS[0];
  const [a6, b6] = PAIRS[1];
  it.each<[string, Builder, Uint8Array]>([
    ["to a reset by a reset", buildTcpReset, tcp(a, b, { ...SEGMENT, flags: TCP_RST })],
    ["to a reset by ICMP", buildIcmpProhibited, tcp(a, b, { ...SEGMENT, flags: TCP_RST })],
    ["to UDP by a reset", buildTcpReset, udp(a, b, 1, 2, data)],
    ["to an ICMP error", buildIcmpProhibited, icmp(a, b, 3, 1, 0, udp(b, a, 1, 2, data))],
    ["to an ICMPv6 error", buildIcmpProhibited, icmp(a6, b6, 1, 1, 0, udp(b6, a6, 1, 2, data))],
    ["to an ICMPv6 error of unknown type", buildIcmpProhibited, icmp(a6, b6, 100, 0, 0, data)],
    ["to an ICMPv6 redirect", buildIcmpProhibited, icmp(a6, b6, 137, 0, 0, data)],
    ["to a later fragment", buildIcmpProhibited, ipv4(a, b, data, { flags: 4 })],
    ["to a fragmented segment by a reset", buildTcpReset, firstFragment()],
    ["to multicast", buildIcmpProhibited, udp(a, "224.0.0.251", 1, 2, data)],
    ["to IPv6 multicast", buildIcmpProhibited, udp(a6, "ff02::1", 1, 2, data)],
    ["to broadcast", buildIcmpProhibited, udp(a, "255.255.255.255", 1, 2, data)],
    ["to a segment for multicast", buildTcpReset, tcp(a6, "ff02::1", SEGMENT)],
    ["to the unspecified source", buildIcmpProhibited, udp("0.0.0.0", b, 1, 2, data)],
    ["to the unspecified IPv6 source", buildIcmpProhibited, udp("::", b6, 1, 2, data)],
    ["to a multicast source", buildTcpReset, tcp("224.0.0.1", b, SEGMENT)],
  ])("%s", (_, build, packet) => {
    expect(answer(build, packet)).toHaveLength(0);
  });

  function firstFragment(): Uint8Array {
    const segment = tcp(a, b, { ...SEGMENT, data: new Uint8Array(4) }).slice(20);
    return ipv4(a, b, segment, { flags: IPV4_MORE_FRAGMENTS, protocol: 6 });
  }

  it("but a first fragment of UDP is answered by ICMP", () => {
    const packet = ipv4(a, b, udpDatagram(a, b, 1, 2, data), { flags: IPV4_MORE_FRAGMENTS, protocol: 17 });
    expect(answer(buildIcmpProhibited, packet).length).toBeGreaterThan(0);
  });
});
