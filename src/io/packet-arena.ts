// The memory in which a rootless peer's packets lie: its crypto seals and opens them in place, its UDP port sends from
// it and reads into it, and its userspace stack makes them in it and sums them by SIMD.
import { PACKET_MAX_BYTES } from "../base/limits.ts";
import { HEADROOM_BYTES, type StackMemory } from "../netstack/packet-output.ts";
import { plainSums } from "../wire/sums.ts";
import { Arena } from "./ffi/arena.ts";
import { NATIVE_CRYPTO_ARENA_BYTES } from "./native-crypto.ts";
import { NATIVE_UDP_PORT_ARENA_BYTES } from "./native-udp-port.ts";
import { createSimdSums } from "./simd-sums.ts";

const STACK_BYTES = PACKET_MAX_BYTES + 2 * HEADROOM_BYTES;

export interface PacketArena {
  readonly arena: Arena;
  readonly stack: StackMemory;
}

/** For one peer. Undefined where native calls can't be had: then crypto, port and stack do without. */
export function openPacketArena(): PacketArena | undefined {
  try {
    // The crypto may be built twice: see crypto-choice.ts.
    const arena = new Arena(2 * NATIVE_CRYPTO_ARENA_BYTES + NATIVE_UDP_PORT_ARENA_BYTES + STACK_BYTES + 64);
    return { arena, stack: stackMemory(arena) };
  } catch {
    return undefined; // no FFI here
  }
}

function stackMemory(arena: Arena): StackMemory {
  const { bytes } = arena;
  const buffer = arena.allocate(STACK_BYTES);
  const at = buffer.byteOffset;
  const { sum } = createSimdSums(arena.memory, bytes) ?? plainSums;
  return {
    buffer,
    sum: (of, from, length, start) =>
      of === buffer ? sum(bytes, at + from, length, start) : sum(of, from, length, start),
  };
}
