import { describe, expect, it } from "vitest";
import { writeU16 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { clampMss } from "../../src/wire/mss-clamp.ts";
import { must, same } from "../fuzz/target.ts";
import { naiveTransportChecksum, readNaiveHeaders, viewOf } from "./naive-headers.ts";
import { fixIpv4Checksum, tcp, udp } from "./packets.ts";
import { randomBytesOf, superPacket } from "./super-packets.ts";

const RUNS = Number(process.env["FC_RUNS"] ?? 2_000);
const SYN = 0x02;
const SYN_ACK = 0x12;
const MSS_1460 = [2, 4, 0x05, 0xb4];
const ENDS4 = ["10.7.0.2", "10.7.0.1"] as const;
const ENDS6 = ["fd00::2", "fd00::1"] as const;

const syn = (options: readonly number[], flags = SYN, ends: readonly [string, string] = ENDS4): Uint8Array =>
  tcp(...ends, { sourcePort: 4_000, destinationPort: 80, flags, options: Uint8Array.from(options) });

/** The MSS that is offered, 0 without one; the checksum must be right. */
function mssOf(packet: Uint8Array): number {
  const { transportAt, payloadAt } = readNaiveHeaders(packet)!;
  expect(naiveTransportChecksum(packet, transportAt, 6)).toBe(0);
  let at = transportAt + 20;
  while (at < payloadAt && packet[at] !== 2) at += packet[at] === 1 ? 1 : packet[at + 1]!;
  return at < payloadAt ? viewOf(packet).getUint16(at + 2) : 0;
}

/** In the midst of other bytes, none of which may change. */
function clamp(packet: Uint8Array, maxMss: number, guard = 0xff): boolean {
  const memory = new Uint8Array(packet.length + 64).fill(guard);
  memory.set(packet, 31);
  const isChanged = clampMss(memory, 31, packet.length, maxMss);
  must(
    memory.subarray(0, 31).every((byte) => byte === guard),
    "written before the packet",
  );
  must(
    memory.subarray(31 + packet.length).every((byte) => byte === guard),
    "written behind the packet",
  );
  const after = memory.subarray(31, 31 + packet.length);
  must(isChanged === !same(after, packet), "another answer than what was done");
  packet.set(after);
  return isChanged;
}

describe("clamping the MSS", () => {
  it.each([
    ["SYN, IPv4", syn(MSS_1460)],
    ["SYN-ACK, IPv4", syn(MSS_1460, SYN_ACK)],
    ["SYN, IPv6", syn(MSS_1460, SYN, ENDS6)],
    ["behind other options", syn([3, 3, 7, 1, ...MSS_1460])],
    ["at an odd place", syn([1, ...MSS_1460, 3, 3, 7])],
    ["before the options' end", syn([...MSS_1460, 0, 9, 9, 9])],
    ["with ECN's flags beside", syn(MSS_1460, 0xc2)],
  ])("makes it smaller and keeps the checksum right: %s", (_name, packet) => {
    expect(clamp(packet, 1_380)).toBe(true);
    expect(mssOf(packet)).toBe(1_380);
  });

  it("reads on behind IPv4 options and IPv6 extension headers", () => {
    const options = { payload: new Uint8Array(0), tcpFlags: SYN, tcpOptions: Uint8Array.from(MSS_1460) };
    for (const fields of [
      { between: Uint8Array.of(1, 1, 1, 1) },
      { version: 6 as const, between: new Uint8Array(8) },
    ]) {
      const packet = superPacket({ ...options, ...fields }).slice(10);
      expect(clamp(packet, 1_380)).toBe(true);
      expect(viewOf(packet).getUint16(packet.length - 2)).toBe(1_380);
    }
  });

  it("leaves what is not TCP, also where its IP header would pass for one with an MSS", () => {
    const packet = udp("96.2.0.1", "10.7.0.1", 0x0204, 9_000, new Uint8Array(16)); // 24 bytes, SYN; kind 2, length 4
    expect(clamp(packet, 1_380)).toBe(false);
  });

  it("lowers each of two, so that it doesn't matter which one counts", () => {
    const packet = syn([...MSS_1460, 2, 4, 0x23, 0x28]);
    expect(clamp(packet, 1_380)).toBe(true);
    expect([...packet.slice(40)]).toEqual([2, 4, 0x05, 0x64, 2, 4, 0x05, 0x64]);
    expect(mssOf(packet)).toBe(1_380);
  });

  it("leaves a wrong checksum wrong", () => {
    const packet = syn(MSS_1460);
    packet[36]! ^= 1;
    expect(clamp(packet, 1_380)).toBe(true);
    expect(naiveTransportChecksum(packet, 20, 6)).not.toBe(0);
  });

  const fragment = fixIpv4Checksum(writeFlags(syn(MSS_1460), 0x2000));
  const later = fixIpv4Checksum(writeFlags(syn(MSS_1460), 0x0001));
  const longHeader = syn(MSS_1460);
  longHeader[32] = 0xf0;
  const shortHeader = syn(MSS_1460);
  shortHeader[32] = 0x40;
  it.each([
    ["the same", syn([2, 4, 0x05, 0x64])],
    ["a smaller one", syn([2, 4, 0x02, 0x00])],
    ["none", syn([3, 3, 7, 0])],
    ["none at all", syn([])],
    ["no SYN", syn(MSS_1460, 0x10)],
    ["behind the options' end", syn([0, 1, 1, 1, ...MSS_1460])],
    ["of a wrong length", syn([2, 3, 0xff, 0])],
    ["of a wrong length that goes on", syn([2, 6, 0xff, 0xff, 0, 0, 1, 1])],
    ["beside an option of length 0", syn([...MSS_1460, 3, 0, 0, 0])],
    ["beside an option of length 1", syn([...MSS_1460, 3, 1, 0, 0])],
    ["beside an option that is longer than the header", syn([...MSS_1460, 3, 9, 0, 0])],
    ["beside an option without a length", syn([...MSS_1460, 1, 1, 1, 3])],
    ["half outside of the header", syn([1, 1, 2, 4])],
    ["a first fragment", fragment],
    ["a later fragment", later],
    ["a header longer than the packet", longHeader],
    ["a header shorter than one", shortHeader],
    ["cut in the header", syn(MSS_1460).slice(0, 39)],
    ["cut in the options", syn(MSS_1460).slice(0, 43)],
    ["cut in IPv4", syn(MSS_1460).slice(0, 19)],
    ["UDP", udp(...ENDS4, 4_000, 80, Uint8Array.of(...new Uint8Array(5), 2, ...new Uint8Array(6), ...MSS_1460))],
    ["nothing", new Uint8Array(0)],
    ["no IP", new Uint8Array(60).fill(0x26)],
  ])("leaves as it is: %s", (_name, packet) => {
    const before = packet.slice();
    for (const guard of [0x00, 0x02, 0xff]) expect(clamp(packet, 1_380, guard)).toBe(false);
    expect(packet).toEqual(before);
  });

  it("keeps any checksum right, whatever the option and the limit", () => {
    const random = new SeededRandom(1);
    for (let run = 0; run < RUNS; run++) {
      const options = [...new Uint8Array(random.below(4)).fill(1), 2, 4, random.below(256), random.below(256)];
      while (options.length % 4 !== 0) options.push(1);
      const packet = syn(options, SYN, random.pick([ENDS4, ENDS6]));
      const [before, max] = [mssOf(packet), random.below(65_536)];
      clamp(packet, max);
      must(mssOf(packet) === Math.min(before, max), "another MSS");
    }
  });

  it("never throws or strays for hostile bytes", () => {
    const random = new SeededRandom(2);
    for (let run = 0; run < RUNS; run++) {
      const packet = syn(
        [...MSS_1460, ...randomBytesOf(random, 4 * random.below(8))],
        SYN,
        random.pick([ENDS4, ENDS6]),
      );
      for (let changes = random.below(4); changes > 0; changes--) {
        packet[random.below(packet.length)] = random.pick([0, 1, 2, 4, 0x40, 0xf0, random.below(256)]);
      }
      clamp(packet.slice(0, random.chance(0.2) ? random.below(packet.length) : packet.length), random.below(2_000));
    }
  });
});

function writeFlags(packet: Uint8Array, flags: number): Uint8Array {
  writeU16(packet, 6, flags);
  return packet;
}
