// Packets between the data thread and the userspace stack: all of them, in order, as many as fit.
import { expect, test } from "vitest";
import { PACKET_MAX_BYTES } from "../../src/base/limits.ts";
import { eachPacket, PacketBatch } from "../../src/peer/packet-batch.ts";

function packetsOf(bytes: Uint8Array): Uint8Array[] {
  const packets: Uint8Array[] = [];
  eachPacket(bytes, (offset, length) => packets.push(bytes.slice(offset, offset + length)));
  return packets;
}

test("gives back what was added, in order, and then begins anew", () => {
  const batch = new PacketBatch();
  expect(batch.take()).toBeUndefined();
  const given = [1, 60, PACKET_MAX_BYTES].map((length) => new Uint8Array(length).fill(length));
  for (const packet of given) expect(batch.add(packet, 0, packet.length)).toBe(true);
  const taken = batch.take();
  expect(taken?.count).toBe(3);
  expect(packetsOf(taken!.bytes)).toEqual(given);
  expect(batch.take()).toBeUndefined();
  batch.add(Uint8Array.of(7, 8, 9), 1, 2);
  expect(packetsOf(batch.take()!.bytes)).toEqual([Uint8Array.of(8, 9)]);
  expect(packetsOf(taken!.bytes)).toEqual(given); // a buffer of its own
});

test("takes what fits, and refuses the next; a packet of no possible size is our own bug", () => {
  const batch = new PacketBatch();
  const packet = new Uint8Array(PACKET_MAX_BYTES);
  let count = 0;
  while (batch.add(packet, 0, packet.length)) count++;
  expect(count).toBe(Math.floor(65_536 / (PACKET_MAX_BYTES + 2)));
  expect(batch.take()?.count).toBe(count);
  expect(() => batch.add(new Uint8Array(PACKET_MAX_BYTES + 1), 0, PACKET_MAX_BYTES + 1)).toThrow();
});
