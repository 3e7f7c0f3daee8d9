import { describe, expect, it } from "vitest";
import { concatBytes } from "../../src/base/bytes.ts";
import { SPLIT_PIECES_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { SPLIT_DROPS, type SplitDrop, Splitter } from "../../src/wire/split.ts";
import { naiveChecksum, naivePseudoHeader, viewOf } from "./naive-headers.ts";
import { splitNaively } from "./naive-split.ts";
import { type Places, splitInMemory } from "./split-in-memory.ts";
import { ECN, randomBytesOf, type SuperFields, superPacket, TCP4, TCP6, vnetHeader } from "./super-packets.ts";

const placesOf = (random: SeededRandom): Places => ({ shift: random.below(8), gap: random.below(16) });
const split = (input: Uint8Array, random: SeededRandom): Uint8Array[] | string =>
  splitInMemory(input, placesOf(random));

describe("the pieces", () => {
  const random = new SeededRandom(3);
  const pieces = (fields: SuperFields): Uint8Array[] => split(superPacket(fields), random) as Uint8Array[];
  const flags = (fields: SuperFields): number[] => pieces(fields).map((piece) => piece[33]!);

  it("are as long as the step says, the last shorter", () => {
    expect(pieces({ gsoSize: 1_000, payload: new Uint8Array(2_001) }).map((piece) => piece.length)).toEqual([
      1_040, 1_040, 41,
    ]);
    expect(pieces({ gsoSize: 1_000, payload: new Uint8Array(2_000) })).toHaveLength(2);
    expect(pieces({ gsoSize: 1_000, payload: new Uint8Array(1) }), "less than one step").toHaveLength(1);
    expect(pieces({ gsoSize: 60_000, payload: new Uint8Array(65_495) }), "all that fits into IPv4").toHaveLength(2);
  });

  it("count ids and sequence numbers, beyond their ends too", () => {
    const made = pieces({ gsoSize: 1_000, sequence: 2 ** 32 - 1_500, ipId: 0xfffe }).map(viewOf);
    expect(made.map((view) => view.getUint16(4))).toEqual([0xfffe, 0xffff, 0]);
    expect(made.map((view) => view.getUint32(24))).toEqual([2 ** 32 - 1_500, 2 ** 32 - 500, 500]);
  });

  it("say FIN and PSH in the last alone, CWR in the first alone, ECE and the others in each", () => {
    expect(flags({ tcpFlags: 0x19 })).toEqual([0x10, 0x10, 0x19]);
    expect(flags({ tcpFlags: 0xd0, gsoType: TCP4 | ECN })).toEqual([0xd0, 0x50, 0x50]);
    expect(flags({ tcpFlags: 0xd9, gsoSize: 5_000 })).toEqual([0xd9]);
  });

  it("have a UDP checksum of ffff where it would be 0", () => {
    const payload = new Uint8Array(4);
    const [piece] = pieces({ protocol: 17, payload });
    viewOf(payload).setUint16(0, viewOf(piece!).getUint16(26)); // then all words add up to ffff
    expect(viewOf(pieces({ protocol: 17, payload })[0]!).getUint16(26)).toBe(0xffff);
  });

  it("are the packet itself where nothing is to be done", () => {
    const packet = randomBytesOf(random, 100);
    expect(split(concatBytes(new Uint8Array(10), packet), random)).toEqual([packet]);
    expect(split(concatBytes(vnetHeader(2, 0, 9, 9, 9, 9), packet), random)).toEqual([packet]);
  });

  it("are the packet with its checksum completed where that was left open, wherever it is", () => {
    const whole = pieces({ gsoSize: 5_000 })[0]!;
    const open = whole.slice();
    const pseudo = Uint8Array.from(naivePseudoHeader(whole, 6, whole.length - 20));
    viewOf(open).setUint16(36, 0xffff - naiveChecksum(pseudo));
    expect(split(concatBytes(vnetHeader(1, 0, 0, 0, 20, 16), open), random)).toEqual([whole]);
    const inside = concatBytes(new Uint8Array(33), open);
    expect(split(concatBytes(vnetHeader(1, 0, 0, 0, 53, 16), inside), random)).toEqual([
      concatBytes(new Uint8Array(33), whole),
    ]);
  });
});

describe("what is refused", () => {
  const right = { between: new Uint8Array(0) };
  const changed = (fields: SuperFields, at: number, value: number): Uint8Array => {
    const input = superPacket(fields);
    viewOf(input).setUint16(at, value);
    return input;
  };
  const cut = (fields: SuperFields, length: number): Uint8Array => {
    const input = superPacket(fields).slice(0, length);
    const isV6 = fields.version === 6;
    if (length > 16) viewOf(input).setUint16(isV6 ? 14 : 12, length - (isV6 ? 50 : 10)); // what IP says of it
    return input;
  };
  const V6 = { version: 6 as const };
  const UDP = { protocol: 17 as const };
  const behind = new Uint8Array(16);
  const refused: readonly [string, SplitDrop, Uint8Array][] = [
    ["nothing", "VNET_TRUNCATED", new Uint8Array(0)],
    ["half a vnet header", "VNET_TRUNCATED", new Uint8Array(9)],
    ["a vnet header alone", "VNET_TRUNCATED", vnetHeader(1, 1, 40, 1_000, 20, 16)],
    ["a whole packet's checksum behind its end", "VNET_CHECKSUM_PLACE", whole(100, 83, 16)],
    ["a whole packet's checksum far behind its end", "VNET_CHECKSUM_PLACE", whole(100, 0xffff, 0xffff)],
    ["another start of the checksum", "VNET_CHECKSUM_PLACE", changed(right, 6, 22 << 8)],
    ["another place of the checksum", "VNET_CHECKSUM_PLACE", changed(right, 8, 6 << 8)],
    ["another place of UDP's checksum", "VNET_CHECKSUM_PLACE", changed(UDP, 8, 16 << 8)],
    ["an unknown kind", "GSO_TYPE", superPacket({ gsoType: 2 })],
    ["UDP in fragments", "GSO_TYPE", superPacket({ ...UDP, gsoType: 3 })],
    ["UDP with ECN", "GSO_TYPE", superPacket({ ...UDP, gsoType: 5 | ECN })],
    ["ECN alone", "GSO_TYPE", superPacket({ gsoType: ECN })],
    ["TCPv6 that is IPv4", "GSO_VERSION", superPacket({ gsoType: TCP6 })],
    ["TCPv4 that is IPv6", "GSO_VERSION", superPacket({ ...V6, gsoType: TCP4 })],
    ["no checksum to make, and none found right", "GSO_UNCHECKED", superPacket({ vnetFlags: 0 })],
    ["no checksum, but unknown flags", "GSO_UNCHECKED", superPacket({ vnetFlags: 0xfc })],
    ["steps of 0 bytes", "GSO_SIZE_ZERO", superPacket({ gsoSize: 0 })],
    ["IPv4 that says less", "GSO_LENGTH", changed(right, 12, 3_039)],
    ["IPv4 that says more", "GSO_LENGTH", changed(right, 12, 3_041)],
    ["IPv6 that says less", "GSO_LENGTH", changed(V6, 14, 3_019)],
    ["IPv6 that says more", "GSO_LENGTH", changed(V6, 14, 3_021)],
    ["UDP that says less", "GSO_LENGTH", changed(UDP, 34, 3_007)],
    ["UDP that says more", "GSO_LENGTH", changed(UDP, 34, 3_009)],
    ["TCP that is UDP", "GSO_TRANSPORT", superPacket({ ...UDP, gsoType: TCP4 })],
    ["UDP that is TCP", "GSO_TRANSPORT", superPacket({ gsoType: 5 })],
    ["UDP of no IP", "GSO_TRANSPORT", concatBytes(vnetHeader(1, 5, 28, 8, 20, 6), new Uint8Array(60))],
    ["a first fragment", "GSO_TRANSPORT", superPacket({ ipFlags: 0x2000 })],
    ["a later fragment", "GSO_TRANSPORT", superPacket({ ipFlags: 0x0001 })],
    ["IPv4 cut short", "GSO_TRANSPORT", cut(right, 29)],
    ["IPv4 options cut short", "GSO_TRANSPORT", cut({ between: new Uint8Array(20) }, 49)],
    ["an IPv4 header length below 20", "GSO_TRANSPORT", changed(right, 10, 0x4400)],
    ["IPv6 cut short", "GSO_TRANSPORT", cut(V6, 49)],
    ["an extension header cut short", "GSO_TRANSPORT", cut({ ...V6, between: behind }, 57)],
    ["an extension header that is longer", "GSO_TRANSPORT", changed({ ...V6, between: behind }, 50, 0x06ff)],
    ["a routing header", "GSO_TRANSPORT", changed({ ...V6, between: behind }, 16, (43 << 8) | 64)],
    ["a TCP header cut short", "GSO_TRANSPORT", cut(right, 49)],
    ["TCP options cut short", "GSO_TRANSPORT", cut({ tcpOptions: new Uint8Array(8) }, 57)],
    ["a data offset below 20 bytes", "GSO_TRANSPORT", changed(right, 42, 0x4010)],
    ["a UDP header cut short", "GSO_TRANSPORT", cut(UDP, 37)],
    ["TCP without payload", "GSO_EMPTY", superPacket({ payload: new Uint8Array(0) })],
    ["UDP without payload", "GSO_EMPTY", superPacket({ ...UDP, payload: new Uint8Array(0) })],
    ["a piece too many", "GSO_TOO_MANY_PIECES", superPacket({ gsoSize: 1, payload: new Uint8Array(8_193) })],
  ];
  it.each(refused)("%s: %s", (_name, drop, input) => {
    expect(split(input, new SeededRandom(4))).toBe(drop);
    expect(splitNaively(input)).toBeUndefined();
  });

  it("each reason has its case, and the most pieces are made", () => {
    expect(new Set(refused.map(([, drop]) => drop))).toEqual(new Set(SPLIT_DROPS));
    const splitter = new Splitter();
    const most = superPacket({ gsoSize: 1, payload: new Uint8Array(SPLIT_PIECES_MAX) });
    expect(splitter.begin(most, 0, most.length)).toBeUndefined();
    expect(splitter.pieces).toBe(SPLIT_PIECES_MAX);
  });

  it("IPv6 with more extension headers than anybody needs", () => {
    const chain = (headers: number): Uint8Array => {
      const between = new Uint8Array(8 * headers);
      const input = superPacket({ ...V6, between });
      for (let i = 0; i < headers; i++) input.set([i === headers - 1 ? 6 : 60, 0], 50 + 8 * i);
      return input;
    };
    expect(split(chain(8), new SeededRandom(4))).toEqual(splitNaively(chain(8)));
    expect(split(chain(9), new SeededRandom(4))).toBe("GSO_TRANSPORT");
  });

  it("a piece that would be written into its own packet, or that there is not: the program is wrong", () => {
    const memory = new Uint8Array(8_000);
    const input = superPacket();
    memory.set(input, 2_000);
    const splitter = new Splitter();
    expect(() => splitter.write(0, memory, 0)).toThrow("that was begun");
    expect(splitter.begin(memory, 2_000, input.length)).toBeUndefined();
    const [from, end] = [2_010, 2_000 + input.length];
    const bytes = splitter.pieceBytes(0);
    for (const to of [from - bytes, end]) expect(splitter.write(0, memory, to)).toBe(bytes);
    for (const to of [from - bytes + 1, from, end - 1]) {
      expect(() => splitter.write(0, memory, to)).toThrow("beside its packet");
    }
    for (const i of [-1, 3]) expect(() => splitter.write(i, memory, 6_000)).toThrow("that was begun");
    expect(() => splitter.write(0, memory.slice(), 6_000)).toThrow("that was begun");
  });
});

function whole(packetBytes: number, start: number, offset: number): Uint8Array {
  return concatBytes(vnetHeader(1, 0, 0, 0, start, offset), new Uint8Array(packetBytes).fill(0x45));
}
