// Memory of a packet loop in tests: plain, as large as a loop with its twins of device and sockets needs.
import type { PacketMemory } from "../../src/io/data-plane.ts";

export function loopMemory(): PacketMemory {
  const bytes = new Uint8Array(8 << 20);
  let used = 64;
  return {
    bytes,
    allocateAt(sizeBytes) {
      const at = used;
      used += (sizeBytes + 63) & -64;
      if (used > bytes.length) throw new Error("a larger memory");
      return at;
    },
  };
}
