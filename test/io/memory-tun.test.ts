import { describe, expect, it } from "vitest";
import { Arena } from "../../src/io/ffi/arena.ts";
import { VNET_HEADER_BYTES } from "../../src/wire/vnet-header.ts";
import { MemoryTun } from "./memory-tun.ts";
import { FAR_ADDRESS, KERNEL_ADDRESS, type TunWorld, tunContract, udpPacket } from "./tun-contract.ts";

describe.each([true, false])("offloads %s", (offloads) => {
  tunContract("MemoryTun", (): TunWorld => {
    const arena = new Arena(1024 * 1024);
    const device = new MemoryTun(arena, "wb0", { offloads });
    return {
      arena,
      device,
      kernelSends: (payload) => {
        expect(device.kernelSends(udpPacket(KERNEL_ADDRESS, FAR_ADDRESS, payload))).toBe(true);
        expect(device.isReadable).toBe(true);
      },
      kernelReceives: () => device.kernelReceives()?.slice(VNET_HEADER_BYTES + 28),
      setUp: (isUp) => {
        device.isUp = isUp;
      },
      [Symbol.dispose]: () => device.close(),
    };
  });
});

describe("MemoryTun", () => {
  it("holds 500 packets and drops what comes then, and all of them where it is down", () => {
    const device = new MemoryTun(new Arena(65_536), "wb0");
    const packet = udpPacket(KERNEL_ADDRESS, FAR_ADDRESS, new Uint8Array(8));
    const sent = Array.from({ length: 510 }, () => device.kernelSends(packet));
    expect(sent.filter(Boolean)).toHaveLength(500);
    device.read(0, 2000);
    expect(device.kernelSends(packet)).toBe(true);
    device.read(0, 2000);
    device.isUp = false;
    expect(device.kernelSends(packet)).toBe(false);
  });

  it("gives a header as it was sent", () => {
    const arena = new Arena(65_536);
    const device = new MemoryTun(arena, "wb0");
    const header = Uint8Array.of(1, 1, 52, 0, 0x78, 5, 20, 0, 16, 0);
    const packet = udpPacket(KERNEL_ADDRESS, FAR_ADDRESS, new Uint8Array(8));
    device.kernelSends(packet, header);
    expect(device.read(100, 2000)).toBe(10 + packet.length);
    expect(arena.bytes.slice(100, 110)).toEqual(header);
  });
});
