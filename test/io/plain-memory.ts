// Memory of a packet loop that no native code is given the address of: where device and sockets are in memory too.
import { assert } from "../../src/base/assert.ts";
import type { PacketMemory } from "../../src/io/data-plane.ts";

const ALIGNMENT_BYTES = 64;

/** Zeroed; room is given from it at multiples of 64 bytes and never taken back. */
export function plainMemory(sizeBytes: number): PacketMemory {
  const bytes = new Uint8Array(sizeBytes);
  let used = ALIGNMENT_BYTES;
  return {
    bytes,
    allocateAt(partBytes) {
      const at = used;
      used += (partBytes + ALIGNMENT_BYTES - 1) & -ALIGNMENT_BYTES;
      assert(used <= sizeBytes, "the memory is large enough for all that is allocated from it");
      return at;
    },
  };
}
