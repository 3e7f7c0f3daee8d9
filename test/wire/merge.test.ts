// Each rule of the merger by itself: two packets that would be one, but for what is said here.
import { describe, expect, it } from "vitest";
import { concatBytes } from "../../src/base/bytes.ts";
import { MERGE_FLOWS_MAX, MERGE_PACKETS_MAX, MERGE_VECTORS_MAX } from "../../src/base/limits.ts";
import { Merger } from "../../src/wire/merge.ts";
import { plainSums, type Sums } from "../../src/wire/sums.ts";
import { naiveTransportChecksum, readNaiveHeaders, viewOf } from "./naive-headers.ts";
import { splitNaively } from "./naive-split.ts";
import { fixIpv4Checksum, icmp } from "./packets.ts";
import { type SuperFields, superPacket } from "./super-packets.ts";

const GSO_SIZE = 100;
const TIMESTAMPS = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2);
const PSH_ACK = 0x18;

/** `count` packets of one stream, the last of `lastBytes` payload. */
function stream(count: number, fields: SuperFields = {}, lastBytes = GSO_SIZE): Uint8Array[] {
  const payload = new Uint8Array((count - 1) * GSO_SIZE + lastBytes).map((_, i) => i * 7);
  return splitNaively(superPacket({ payload, gsoSize: GSO_SIZE, ...fields }))!;
}

/** How many packets each write holds, in order. */
function merge(packets: readonly Uint8Array[], uso = true, sums: Sums = plainSums): number[] {
  const memory = new Uint8Array(packets.reduce((sum, packet) => sum + packet.length + 16, 0));
  const counts: number[] = [];
  const merger = new Merger(memory, { uso, write: (_offsets, _lengths, count) => counts.push(count) }, sums);
  let at = 0;
  for (const packet of packets) {
    memory.set(packet, at + 16);
    merger.add(at + 16, packet.length);
    at += packet.length + 16;
  }
  merger.flush();
  return counts;
}

/** The packet with something changed and its checksums right again. */
function changed(packet: Uint8Array, change?: (view: DataView) => void): Uint8Array {
  const copy = packet.slice();
  const view = viewOf(copy);
  change?.(view);
  const { version, protocol, transportAt } = readNaiveHeaders(copy)!;
  if (version === 4) fixIpv4Checksum(copy);
  const checksumAt = transportAt + (protocol === 6 ? 16 : 6);
  view.setUint16(checksumAt, 0);
  view.setUint16(checksumAt, naiveTransportChecksum(copy, transportAt, protocol));
  return copy;
}

const V4: SuperFields = { version: 4, tcpOptions: TIMESTAMPS };
const V6: SuperFields = { version: 6, tcpOptions: TIMESTAMPS };
const UDP4: SuperFields = { version: 4, protocol: 17 };
const UDP6: SuperFields = { version: 6, protocol: 17 };

describe("packets become one", () => {
  it.each([
    ["TCP over IPv4", V4],
    ["TCP over IPv6", V6],
    ["TCP without options", {}],
    ["TCP whose sequence numbers wrap", { ...V4, sequence: 2 ** 32 - 150 }],
    ["IPv4 ids that wrap", { ...V4, ipId: 65_535, ipFlags: 0 }],
    ["UDP over IPv4", UDP4],
    ["UDP over IPv6", UDP6],
    ["marked traffic", { ...V4, trafficClass: 3 }],
  ])("%s", (_name, fields) => {
    expect(merge(stream(3, fields))).toEqual([3]);
    expect(merge(stream(3, fields, 1)), "a shorter one ends it").toEqual([3]);
  });

  it("IPv4 ids that are all equal, where DF says that they mean nothing", () => {
    const fixed = (flags: number): Uint8Array[] =>
      stream(3, { ...V4, ipFlags: flags }).map((packet) => changed(packet, (view) => view.setUint16(4, 9)));
    expect(merge(fixed(0x4000))).toEqual([3]);
    expect(merge(fixed(0))).toEqual([1, 1, 1]);
  });

  it("PSH ends the item and is kept", () => {
    const packets = [...stream(2, { ...V4, tcpFlags: PSH_ACK }), ...stream(2, { ...V4, sequence: 1_200, ipId: 0 })];
    expect(merge(packets)).toEqual([2, 2]);
    expect(merge(stream(1, { ...V4, tcpFlags: PSH_ACK }).concat(packets.slice(2)))).toEqual([1, 2]);
  });

  it("flows each by themselves, in the order of their first packets", () => {
    const [a, b] = [stream(3, V4), stream(3, { ...V4, sourcePort: 4_001 })];
    expect(merge([a[0]!, b[0]!, b[1]!, a[1]!, a[2]!, b[2]!])).toEqual([3, 3]);
    expect(merge([a[0]!, ...b, a[1]!])).toEqual([2, 3]);
  });
});

const at4 = { transport: 20 };
const at6 = { transport: 40 };

describe("a rule that keeps two packets apart", () => {
  const set8 = (at: number, value: number) => (view: DataView) => view.setUint8(at, value);
  const set16 = (at: number, value: number) => (view: DataView) => view.setUint16(at, value);
  const flip = (at: number) => (view: DataView) => view.setUint8(at, view.getUint8(at) ^ 1);
  it.each<[string, SuperFields, (view: DataView) => void]>([
    ["the source address", V4, flip(15)],
    ["the destination address", V4, flip(19)],
    ["the source address, IPv6", V6, flip(8)],
    ["the destination address, IPv6", V6, flip(39)],
    ["the source port", V4, flip(at4.transport + 1)],
    ["the destination port", V4, flip(at4.transport + 3)],
    ["the source port, IPv6", V6, flip(at6.transport)],
    ["the destination port, UDP", UDP4, flip(at4.transport + 3)],
    ["the type of service", V4, flip(1)],
    ["the traffic class", V6, set8(1, 0x11)],
    ["the traffic class' first half", V6, set8(0, 0x61)],
    ["the flow label", V6, flip(3)],
    ["the TTL", V4, flip(8)],
    ["the hop limit", V6, flip(7)],
    ["DF", V4, set8(6, 0)],
    ["the id", V4, set16(4, 77)],
    ["the id with DF: neither counted nor fixed", { ...UDP4, ipId: 5 }, set16(4, 7)],
    ["the sequence number: a gap", V4, (view) => view.setUint32(at4.transport + 4, 1_101)],
    ["the sequence number: an overlap", V4, (view) => view.setUint32(at4.transport + 4, 1_050)],
    ["the acknowledgment", V4, flip(at4.transport + 11)],
    ["the window", V4, flip(at4.transport + 15)],
    ["the urgent pointer", V4, flip(at4.transport + 19)],
    ["an option", V4, flip(at4.transport + 27)],
    ["an option, IPv6", V6, flip(at6.transport + 31)],
    ["FIN", V4, set8(at4.transport + 13, 0x11)],
    ["SYN", V4, set8(at4.transport + 13, 0x12)],
    ["RST", V4, set8(at4.transport + 13, 0x14)],
    ["URG", V4, set8(at4.transport + 13, 0x30)],
    ["ECE", V4, set8(at4.transport + 13, 0x50)],
    ["CWR", V4, set8(at4.transport + 13, 0x90)],
    ["no ACK", V4, set8(at4.transport + 13, 0x00)],
    ["a reserved bit", V4, set8(at4.transport + 12, 0x81)],
    ["AE", V4, set8(at4.transport + 12, 0x82)],
    ["the data offset", V4, set8(at4.transport + 12, 0x70)],
    ["the reserved bit of IPv4", V4, set8(6, 0xc0)],
    ["more fragments", { ...V4, ipFlags: 0 }, set8(6, 0x20)],
    ["a fragment's offset", { ...V4, ipFlags: 0 }, set8(7, 1)],
    ["IPv6's next header", V6, set8(6, 58)],
    ["another version", V4, set8(0, 0x55)],
  ])("%s", (_name, fields, change) => {
    const [first, second] = stream(2, fields);
    expect(merge([first!, second!])).toEqual([2]);
    expect(merge([first!, safely(second!, change)])).toEqual([1, 1]);
    expect(merge([safely(first!, change), second!])).toEqual([1, 1]);
  });

  it("the header length, with payload that looks like options", () => {
    const first = stream(1, V4)[0]!;
    const second = stream(1, { version: 4, sequence: 1_100, ipId: 0xffff })[0]!;
    expect(merge([first, second])).toEqual([1, 1]);
  });

  it("IPv4 options", () => {
    expect(merge(stream(2, { ...V4, between: Uint8Array.of(1, 1, 1, 0) }))).toEqual([1, 1]);
  });

  it("IPv6 extension headers", () => {
    expect(merge(stream(2, { ...V6, between: new Uint8Array(8) }))).toEqual([1, 1]);
  });

  it("no version of IP that there is", () => {
    const packets = stream(2, V6);
    for (const packet of packets) packet[0] = 0x50;
    expect(merge(packets)).toEqual([1, 1]);
  });

  it("a data offset of less than a header, though all else fits", () => {
    const packets = stream(2, { version: 4 }).map((packet, i) =>
      changed(packet, (view) => view.setUint32(24, 1_000 + i * (GSO_SIZE + 4))),
    );
    for (const packet of packets) {
      packet[32] = 0x40;
      viewOf(packet).setUint16(36, 0);
      viewOf(packet).setUint16(36, naiveTransportChecksum(packet, 20, 6));
    }
    expect(merge(packets)).toEqual([1, 1]);
  });

  it("the version, though all that tells the flow looks the same", () => {
    const [v4] = stream(1, { version: 4 });
    const [first, second] = stream(2, { version: 6 }).map((packet) => {
      const [ports, destination] = [packet.slice(40, 44), v4!.slice(16, 20)];
      packet[9] = 6; // where IPv4 has its protocol
      for (const at of [12, 20]) packet.set(ports, at);
      for (const at of [16, 36]) packet.set(destination, at);
      return changed(packet);
    });
    v4!.set(first!.slice(12, 24), 12); // source, destination and ports
    expect(merge([first!, changed(v4!), second!])).toEqual([2, 1]);
  });

  it("payload longer than the first one's", () => {
    expect(merge([stream(1, UDP4, 99)[0]!, stream(1, { ...UDP4, ipId: 0xffff }, 100)[0]!])).toEqual([1, 1]);
  });

  it("a shorter one before", () => {
    const packets = [...stream(2, UDP4, 99), stream(1, { ...UDP4, ipId: 0 }, 99)[0]!];
    expect(merge(packets)).toEqual([2, 1]);
  });

  it("no payload", () => {
    const empty = (fields: SuperFields): Uint8Array => {
      const packet = stream(1, fields, 1)[0]!.slice(0, -1);
      const isV6 = fields.version === 6;
      return changed(packet, (view) => view.setUint16(isV6 ? 4 : 2, packet.length - (isV6 ? 40 : 0)));
    };
    for (const fields of [V4, V6]) {
      expect(merge([stream(1, fields)[0]!, empty({ ...fields, sequence: 1_100, ipId: 0xffff })])).toEqual([1, 1]);
      expect(merge([empty(fields), empty({ ...fields, ipId: 0xffff })])).toEqual([1, 1]);
    }
  });

  it.each([
    ["TCP over IPv4", V4],
    ["TCP over IPv6", V6],
    ["UDP over IPv4", UDP4],
    ["UDP over IPv6", UDP6],
  ])("a wrong checksum, of the first or the second: %s", (_name, fields) => {
    for (const wrong of [0, 1]) {
      const packets = stream(3, fields);
      packets[wrong]![packets[wrong]!.length - 1]! ^= 1;
      expect(merge(packets)).toEqual(wrong === 0 ? [1, 2] : [1, 1, 1]);
    }
  });

  it("a wrong checksum of IPv4", () => {
    for (const wrong of [0, 1]) {
      const packets = stream(2, V4);
      packets[wrong]![10]! ^= 1;
      expect(merge(packets)).toEqual([1, 1]);
    }
  });

  it("UDP without a checksum, or with one that no segment could have", () => {
    const none = stream(2, UDP4);
    for (const packet of none) viewOf(packet).setUint16(26, 0);
    expect(merge(none)).toEqual([1, 1]);
    const allOnes = stream(2, UDP4);
    for (const packet of allOnes) {
      viewOf(packet).setUint32(26, 0);
      viewOf(packet).setUint16(28, naiveTransportChecksum(packet, 20, 17));
      expect(naiveTransportChecksum(packet, 20, 17)).toBe(0);
    }
    expect(merge(allOnes), "its sum would be right").toEqual([1, 1]);
    for (const packet of allOnes) viewOf(packet).setUint16(26, 0xffff);
    expect(merge(allOnes), "as RFC 768 has it").toEqual([2]);
  });

  it("UDP where the device doesn't take it", () => {
    expect(merge(stream(3, UDP4), false)).toEqual([1, 1, 1]);
    expect(merge(stream(3, UDP6), false)).toEqual([1, 1, 1]);
    expect(merge(stream(3, V4), false)).toEqual([3]);
  });

  it.each([
    ["IPv4's length", V4, 2],
    ["IPv6's length", V6, 4],
    ["UDP's length", UDP4, 24],
    ["IPv4's length of UDP", UDP4, 2],
  ])("another length than there is: %s", (_name, fields, at) => {
    for (const difference of [-1, 1]) {
      const packets = stream(2, fields).map((packet) =>
        changed(packet, (view) => view.setUint16(at, view.getUint16(at) + difference)),
      );
      expect(merge(packets)).toEqual([1, 1]);
    }
  });
});

/** Checksums put right where there is still a transport header to have one. */
function safely(packet: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = packet.slice();
  change(viewOf(copy));
  if (readNaiveHeaders(copy) !== undefined) return changed(packet, change);
  return copy[0]! >> 4 === 4 ? fixIpv4Checksum(copy) : copy;
}

describe("the order within a flow", () => {
  const [first, second, third, fourth] = stream(4, V4);
  const echo = icmp("10.7.0.2", "10.7.0.1", 8, 0, 1, new Uint8Array(8));
  const acknowledgment = changed(first!.slice(0, 52), (view) => view.setUint16(2, 52));
  const later = fixIpv4Checksum(first!.slice(0, 60));
  viewOf(later).setUint16(6, 3);

  it.each([
    ["one that can't join", acknowledgment],
    ["one whose flow can't be told", echo],
    ["a later fragment", fixIpv4Checksum(later)],
    ["nothing that is a packet", Uint8Array.of(1)],
    ["no bytes", new Uint8Array(0)],
    ["IPv4 cut short", first!.slice(0, 21)],
    ["IPv4 cut short behind its ports", first!.slice(0, 27)],
    ["IPv6 cut short", stream(1, V6)[0]!.slice(0, 47)],
  ])("%s is overtaken by nothing of the flow", (_name, between) => {
    expect(merge([first!, second!, between, third!, fourth!])).toEqual([2, 1, 2]);
  });

  it("another flow's packet is no matter", () => {
    expect(merge([first!, second!, stream(1, UDP4)[0]!, third!, fourth!])).toEqual([4, 1]);
  });
});

describe("limits", () => {
  it(`no more than ${MERGE_VECTORS_MAX} packets`, () => {
    expect(merge(stream(MERGE_VECTORS_MAX, V4))).toEqual([MERGE_VECTORS_MAX]);
    expect(merge(stream(MERGE_VECTORS_MAX + 2, V4))).toEqual([MERGE_VECTORS_MAX, 2]);
  });

  it("no more than 65,535 bytes, in either family", () => {
    const gsoSize = 10_000;
    for (const [fields, headerBytes] of [[V4, 52] as const, [V6, 72] as const]) {
      const of = (bytes: number): Uint8Array[] =>
        splitNaively(superPacket({ ...fields, gsoSize, payload: new Uint8Array(10_000) }))!.concat(
          ...[1, 2, 3, 4, 5, 6].map((i) => {
            const payload = new Uint8Array(i === 6 ? bytes - headerBytes - 60_000 : gsoSize);
            const place = { sequence: 1_000 + i * gsoSize, ipId: (0xfffe + i) % 65_536 };
            return splitNaively(superPacket({ ...fields, ...place, gsoSize, payload }))!;
          }),
        );
      expect(merge(of(65_535))).toEqual([7]);
      expect(merge(of(65_536))).toEqual([6, 1]);
    }
  });

  it("a full table is written and begun anew", () => {
    const packet = stream(1, V4)[0]!;
    const counts = merge(Array.from({ length: MERGE_PACKETS_MAX + 1 }, () => packet));
    expect(counts).toEqual(new Array(MERGE_PACKETS_MAX + 1).fill(1));
  });

  it("more flows than places cost merging alone: none is lost, and the newest still merge", () => {
    const flows = Array.from({ length: MERGE_FLOWS_MAX * 2 }, (_, i) => stream(3, { ...V4, sourcePort: 10_000 + i }));
    const counts = merge([0, 1, 2].flatMap((i) => flows.map((packets) => packets[i]!)));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(3 * flows.length);
    const oneByOne = merge(flows.flat());
    expect(oneByOne).toEqual(new Array(flows.length).fill(3));
  });

  it("what was flushed is not waited for", () => {
    const memory = new Uint8Array(1_000);
    const written: number[] = [];
    const merger = new Merger(memory, { uso: true, write: (_offsets, _lengths, count) => written.push(count) });
    const [first, second] = stream(2, V4);
    memory.set(first!, 100);
    memory.set(second!, 500);
    merger.add(100, first!.length);
    merger.flush();
    merger.add(500, second!.length);
    merger.flush();
    merger.flush();
    expect(written).toEqual([1, 1]);
  });

  it("checksums are verified of packets alone that all else lets merge, each once", () => {
    const summed = (packets: readonly Uint8Array[]): number => {
      let count = 0;
      const sum: Sums["sum"] = (bytes, at, length, start) => {
        if (length > 20) count++; // not the IPv4 header's
        return plainSums.sum(bytes, at, length, start);
      };
      merge(packets, false, { ...plainSums, sum });
      return count;
    };
    const acknowledgment = changed(stream(1, V4)[0]!.slice(0, 52), (view) => view.setUint16(2, 52));
    expect(summed(new Array(3).fill(acknowledgment)), "no payload").toBe(0);
    expect(summed(stream(3, { ...V4, tcpFlags: 0x02 })), "SYN").toBe(0);
    expect(summed(stream(3, UDP4)), "UDP to a device that takes none merged").toBe(0);
    expect(summed([1, 2, 3].flatMap((port) => stream(1, { ...V4, sourcePort: port }))), "flows of one packet").toBe(0);
    expect(summed([stream(1, V4)[0]!, stream(1, V4)[0]!]), "the same again").toBe(0);
    expect(summed(stream(4, V4))).toBe(4);
  });

  it("a packet alone goes out as it came, behind a header of zeros", () => {
    const packet = concatBytes(new Uint8Array(10).fill(255), stream(1, V4)[0]!);
    const before = packet.slice();
    const merger = new Merger(packet, {
      uso: true,
      write: (offsets, lengths, count) => expect([offsets[0], lengths[0], count]).toEqual([0, packet.length, 1]),
    });
    merger.add(10, packet.length - 10);
    merger.flush();
    expect(packet).toEqual(concatBytes(new Uint8Array(10), before.slice(10)));
  });
});
