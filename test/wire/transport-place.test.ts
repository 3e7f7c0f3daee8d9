import { describe, expect, it } from "vitest";
import { writeU16 } from "../../src/base/bytes.ts";
import { IPV6_EXTENSION_HEADERS_MAX } from "../../src/wire/ipv6.ts";
import { transportPlace } from "../../src/wire/transport-place.ts";
import { superPacket } from "./super-packets.ts";

const TCP = 6;
const UDP = 17;
const packetOf = (fields: Parameters<typeof superPacket>[0]): Uint8Array => superPacket(fields).slice(10);

/** The place, whatever lies around the packet. */
function placeIn(packet: Uint8Array, protocol: number, length = packet.length): number {
  const places = [0x00, 0x06, 0x45, 0xff].map((guard) => {
    const memory = new Uint8Array(packet.length + 600).fill(guard);
    memory.set(packet.subarray(0, length), 5);
    return transportPlace(memory, 5, length, protocol);
  });
  expect(new Set(places).size).toBe(1);
  return places[0]!;
}

describe("the transport header's place", () => {
  const v4 = packetOf({ payload: new Uint8Array(8) });
  const v4Options = packetOf({ payload: new Uint8Array(8), between: new Uint8Array(40) });
  const v6 = packetOf({ version: 6, payload: new Uint8Array(8) });
  const v6Options = packetOf({ version: 6, payload: new Uint8Array(8), between: new Uint8Array(24) });

  it.each([
    ["IPv4", v4, 20],
    ["IPv4 with options", v4Options, 60],
    ["IPv6", v6, 40],
    ["IPv6 with options", v6Options, 64],
  ])("%s", (_name, packet, place) => {
    expect(placeIn(packet, TCP)).toBe(place);
    expect(placeIn(packet, UDP)).toBe(0);
    for (let length = 0; length < packet.length; length++) {
      expect(placeIn(packet, TCP, length), `cut after ${length}`).toBe(length < place ? 0 : place);
    }
  });

  it("behind so many IPv6 extension headers, and none behind one more", () => {
    const behind = (count: number): number => {
      const packet = new Uint8Array(40 + 8 * count + 20);
      packet[0] = 0x60;
      packet[6] = count === 0 ? TCP : 60; // destination options, of 8 bytes each
      for (let i = 0; i < count; i++) packet[40 + 8 * i] = i === count - 1 ? TCP : 60;
      return placeIn(packet, TCP);
    };
    expect(behind(IPV6_EXTENSION_HEADERS_MAX)).toBe(40 + 8 * IPV6_EXTENSION_HEADERS_MAX);
    expect(behind(IPV6_EXTENSION_HEADERS_MAX + 1)).toBe(0);
  });

  const made = (packet: Uint8Array, change: (copy: Uint8Array) => void): Uint8Array => {
    const copy = packet.slice();
    change(copy);
    return copy;
  };
  it.each([
    ["no version", made(v4, (copy) => copy.fill(0x55, 0, 1))],
    ["a header of 16 bytes", made(v4, (copy) => copy.fill(0x44, 0, 1))],
    ["no header", made(v4, (copy) => copy.fill(0x40, 0, 1))],
    ["a first fragment", made(v4, (copy) => writeU16(copy, 6, 0x2000))],
    ["a later fragment", made(v4, (copy) => writeU16(copy, 6, 0x0001))],
    ["a late fragment", made(v4, (copy) => writeU16(copy, 6, 0x1000))],
    ["a routing header", made(v6Options, (copy) => copy.fill(43, 6, 7))],
    ["a fragment header", made(v6Options, (copy) => copy.fill(44, 6, 7))],
    ["an authentication header", made(v6Options, (copy) => copy.fill(51, 6, 7))],
    ["an extension header that is longer than all", made(v6Options, (copy) => copy.fill(255, 41, 42))],
  ])("none in %s", (_name, packet) => expect(placeIn(packet, TCP)).toBe(0));
});
