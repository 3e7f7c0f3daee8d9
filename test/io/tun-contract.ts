// What every PacketDevice does: held to the kernel's (test/interop/tun-device.test.ts) and to its twin in memory.
import { describe, expect, it } from "vitest";
import { writeU16 } from "../../src/base/bytes.ts";
import type { PacketDevice } from "../../src/io/data-plane.ts";
import type { Arena } from "../../src/io/ffi/arena.ts";
import { sumBytes, sumPseudoHeader } from "../../src/wire/checksum.ts";
import { decodePacket, PacketInfo, PROTOCOL_UDP } from "../../src/wire/packet.ts";
import { writeUdpHeader } from "../../src/wire/udp.ts";
import { VNET_HEADER_BYTES } from "../../src/wire/vnet-header.ts";
import { ip, ipv4, withChecksum } from "../wire/packets.ts";

/** The kernel has the first address and sends to the second, which is routed to the device; UDP port 7000 at both. */
export const KERNEL_ADDRESS = "10.77.0.1";
export const FAR_ADDRESS = "10.77.0.2";
export const UDP_PORT = 7000;
const HEADERS_BYTES = 28; // IPv4 and UDP

export interface TunWorld extends Disposable {
  readonly arena: Arena;
  readonly device: PacketDevice;
  /** A program on the kernel's side sends this. */
  kernelSends(payload: Uint8Array): void;
  /** What a program on the kernel's side has received. */
  kernelReceives(): Uint8Array | undefined;
  setUp(isUp: boolean): void;
}

/** A UDP packet as it is on a wire. */
export function udpPacket(source: string, destination: string, payload: Uint8Array): Uint8Array {
  const udp = new Uint8Array(8 + payload.length);
  writeUdpHeader(udp, 0, UDP_PORT, UDP_PORT, udp.length);
  udp.set(payload, 8);
  return ipv4(source, destination, withChecksum(source, destination, PROTOCOL_UDP, udp, 6));
}

const counting = (length: number, from: number): Uint8Array => Uint8Array.from({ length }, (_, i) => from + 3 * i);

export function tunContract(name: string, makeWorld: () => TunWorld): void {
  describe(name, () => {
    /** Of the program's packet, past whatever else a kernel sends to a new link. */
    function readUdp({ arena, device }: TunWorld, at: number, capacity = 70_000): number {
      for (const endMs = performance.now() + 2_000; performance.now() < endMs; ) {
        const bytes = device.read(at, capacity);
        expect(bytes).toBeGreaterThanOrEqual(0);
        if (bytes > 0 && arena.bytes[at + VNET_HEADER_BYTES]! >>> 4 === 4) return bytes;
      }
      throw new Error("nothing came");
    }

    function waitForKernel(world: TunWorld): Uint8Array {
      for (const endMs = performance.now() + 2_000; performance.now() < endMs; ) {
        const got = world.kernelReceives();
        if (got !== undefined) return got;
      }
      throw new Error("nothing came");
    }

    function drain({ device }: TunWorld, at: number): void {
      while (device.read(at, 70_000) > 0);
    }

    it("reads a packet behind its header of 10 bytes, where it was told to, and then nothing", () => {
      using world = makeWorld();
      const { arena, device } = world;
      const at = arena.allocateAt(70_000) + 3; // no alignment is asked for
      drain(world, at);
      expect(device.read(at, 70_000)).toBe(0);
      const payload = counting(1000, 5);
      arena.bytes.fill(0xee, at, at + 2000);
      world.kernelSends(payload);
      const bytes = readUdp(world, at);
      expect(bytes).toBe(VNET_HEADER_BYTES + HEADERS_BYTES + 1000);
      const info = new PacketInfo();
      expect(decodePacket(arena.bytes, at + VNET_HEADER_BYTES, bytes - VNET_HEADER_BYTES, info)).toBeUndefined();
      const body = at + VNET_HEADER_BYTES + HEADERS_BYTES;
      expect(Buffer.compare(arena.bytes.subarray(body, body + 1000), payload)).toBe(0);
      expect(arena.bytes[at - 1]).toBe(0);
      expect(arena.bytes[at + bytes]).toBe(0xee);
      const [flags, gsoType] = [arena.bytes[at]!, arena.bytes[at + 1]!];
      expect(gsoType).toBe(0);
      const udpAt = at + VNET_HEADER_BYTES + 20;
      const [k, f] = [ip(KERNEL_ADDRESS), ip(FAR_ADDRESS)];
      const words = [k.w0, k.w1, k.w2, k.w3, f.w0, f.w1, f.w2, f.w3] as const;
      const sum = sumBytes(arena.bytes, udpAt, 1008, sumPseudoHeader(...words, PROTOCOL_UDP, 1008));
      if (flags === 0) {
        expect(sum % 0xffff).toBe(0); // complete
      } else {
        expect(device.offloads.tso).toBe(true); // else nobody may leave the checksum to us
        expect([...arena.bytes.subarray(at, at + 10)]).toEqual([1, 0, 0, 0, 0, 0, 20, 0, 6, 0]);
      }
      drain(world, at);
      expect(device.read(at, 70_000)).toBe(0);
    });

    it("writes a packet: whole, and gathered from several places", () => {
      using world = makeWorld();
      const { arena, device } = world;
      const at = arena.allocateAt(4000);
      const frame = (payload: Uint8Array): Uint8Array => {
        const packet = udpPacket(FAR_ADDRESS, KERNEL_ADDRESS, payload);
        const whole = new Uint8Array(VNET_HEADER_BYTES + packet.length);
        whole.set(packet, VNET_HEADER_BYTES);
        return whole;
      };
      const first = frame(counting(900, 1));
      arena.bytes.set(first, at + 1);
      expect(device.write(at + 1, first.length)).toBe(first.length);
      expect(waitForKernel(world)).toEqual(counting(900, 1));

      const second = frame(counting(901, 2));
      const pieces = [VNET_HEADER_BYTES + 30, 1, 500, second.length - VNET_HEADER_BYTES - 531];
      const offsets = new Int32Array(64);
      const lengths = new Int32Array(64).fill(9999); // beyond the count: not looked at
      let done = 0;
      let to = at + 2000; // places that lie apart, the last of them first
      for (const [i, length] of pieces.entries()) {
        arena.bytes.set(second.subarray(done, done + length), to);
        offsets[i] = to;
        lengths[i] = length;
        done += length;
        to -= 700;
        if (to < at) to = at + 3000;
      }
      expect(device.writev(offsets, lengths, pieces.length)).toBe(second.length);
      expect(waitForKernel(world)).toEqual(counting(901, 2));

      const third = frame(counting(3, 3));
      arena.bytes.set(third, at);
      offsets[0] = at;
      lengths[0] = third.length;
      expect(device.writev(offsets, lengths, 1)).toBe(third.length);
      expect(waitForKernel(world)).toEqual(counting(3, 3));
      expect(world.kernelReceives()).toBeUndefined();
    });

    it("takes a checksum that the kernel is to finish", () => {
      using world = makeWorld();
      if (!world.device.offloads.tso) return;
      const { arena, device } = world;
      const at = arena.allocateAt(4000);
      const packet = udpPacket(FAR_ADDRESS, KERNEL_ADDRESS, counting(800, 9));
      const [k, f] = [ip(KERNEL_ADDRESS), ip(FAR_ADDRESS)];
      const words = [f.w0, f.w1, f.w2, f.w3, k.w0, k.w1, k.w2, k.w3] as const;
      writeU16(packet, 26, sumPseudoHeader(...words, PROTOCOL_UDP, 808) % 0xffff);
      arena.bytes.set([1, 0, 0, 0, 0, 0, 20, 0, 6, 0], at);
      arena.bytes.set(packet, at + VNET_HEADER_BYTES);
      expect(device.write(at, VNET_HEADER_BYTES + packet.length)).toBe(VNET_HEADER_BYTES + packet.length);
      expect(waitForKernel(world)).toEqual(counting(800, 9));
    });

    it("cuts off what is longer than the room for it", () => {
      using world = makeWorld();
      const { arena } = world;
      const at = arena.allocateAt(70_000);
      drain(world, at);
      arena.bytes.fill(0xee, at, at + 2000);
      world.kernelSends(counting(1000, 7));
      expect(readUdp(world, at, 100)).toBe(100);
      expect(arena.bytes[at + 100]).toBe(0xee);
      drain(world, at);
    });

    it("says by name why a packet was not taken: no IP packet EINVAL, a device that is down EIO", () => {
      using world = makeWorld();
      const { arena, device } = world;
      const at = arena.allocateAt(200);
      arena.bytes.fill(0x11, at + VNET_HEADER_BYTES, at + 100);
      expect(device.write(at, 100)).toBe(-22);
      const good = udpPacket(FAR_ADDRESS, KERNEL_ADDRESS, counting(60, 1));
      arena.bytes.set(good, at + VNET_HEADER_BYTES);
      world.setUp(false);
      expect(device.write(at, VNET_HEADER_BYTES + good.length)).toBe(-5);
      world.setUp(true);
      expect(device.write(at, VNET_HEADER_BYTES + good.length)).toBe(VNET_HEADER_BYTES + good.length);
      expect(waitForKernel(world)).toEqual(counting(60, 1));
    });

    it("refuses pieces that no kernel would take: that is our own bug", () => {
      using world = makeWorld();
      const [offsets, lengths] = [new Int32Array(65), new Int32Array(65).fill(20)];
      expect(() => world.device.writev(offsets, lengths, 65)).toThrow("assertion");
      expect(() => world.device.writev(offsets, lengths, 0)).toThrow("assertion");
      lengths[0] = 9;
      expect(() => world.device.writev(offsets, lengths, 2)).toThrow("assertion");
    });

    it("tells that it is closed", () => {
      using world = makeWorld();
      const { arena, device } = world;
      const at = arena.allocateAt(200);
      device.close();
      device.close();
      expect(device.fd).toBe(-1);
      expect(device.read(at, 200)).toBe(-9);
      expect(device.write(at, 100)).toBe(-9);
      expect(device.writev(Int32Array.of(at), Int32Array.of(100), 1)).toBe(-9);
    });
  });
}
