// The packet path of an established tunnel makes no garbage: what a packet leaves on the heap, measured between two
// looks at how full the heap is, over both engines' work for it.
import { getHeapStatistics } from "node:v8";
import { describe, expect, test } from "vitest";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { Crypto } from "../../src/crypto/provider.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { NATIVE_CRYPTO_ARENA_BYTES } from "../../src/io/native-crypto.ts";
import { EnginePair } from "./engine-pair.ts";

const PACKET_BYTES = 1_420;
const BATCH_PACKETS = 1_000;
const BATCHES_MAX = 100; // until the compiler has done with the code, which on a busy machine takes a while
const BATCHES_ALIKE = 3;
const HEAP_NUMBER_BYTES = 16;
/** Far below the smallest object for each packet. */
const NONE_BYTES = 4;

/**
 * Bytes of garbage for each packet, as the worst of the last few batches has it: of the first few below `enoughBytes`,
 * or of the last of many.
 */
function garbagePerPacket(pair: EnginePair, enoughBytes: number, batchesMax = BATCHES_MAX): number {
  pair.write(PACKET_BYTES);
  const found: number[] = [];
  const latest = (): number => Math.max(...found.slice(-BATCHES_ALIKE));
  while (found.length < batchesMax && (found.length < BATCHES_ALIKE || latest() >= enoughBytes)) {
    const before = getHeapStatistics().used_heap_size;
    for (let i = 0; i < BATCH_PACKETS; i++) {
      if ((i & 31) === 0) pair.nowMs += 0.05;
      pair.send(PACKET_BYTES);
    }
    const bytes = (getHeapStatistics().used_heap_size - before) / BATCH_PACKETS;
    found.push(bytes < 0 ? Number.POSITIVE_INFINITY : bytes); // the collector came in between
  }
  expect(pair.delivered).toBe(found.length * BATCH_PACKETS);
  return latest();
}

/** All but the cipher, whose every call is measured elsewhere. */
function withoutCipher(): Crypto {
  const crypto = new PortableCrypto();
  crypto.transportAead = () => ({ seal: () => undefined, open: () => true, destroy: () => undefined });
  return crypto;
}

const memory = (): Uint8Array => new Uint8Array(4_096);

describe("garbage of the steady packet path", () => {
  test.each(["badge", "wg"] as const)("none in the engines, %s mode", (mode) => {
    const bytes = garbagePerPacket(new EnginePair({ crypto: withoutCipher(), memory: memory(), mode }), NONE_BYTES);
    expect(bytes).toBeLessThan(NONE_BYTES);
  });

  test("one small object for each packet would be seen", () => {
    const kept: object[] = [];
    const onPacket = (): void => {
      kept[0] = { size: kept.length };
    };
    const pair = new EnginePair({ crypto: withoutCipher(), memory: memory(), mode: "badge", onPacket });
    const bytes = garbagePerPacket(pair, NONE_BYTES, 20);
    expect(bytes).toBeGreaterThan(HEAP_NUMBER_BYTES);
  });

  test("the native cipher leaves a few computed addresses, for a seal and an open together, no more", () => {
    const arena = new Arena(NATIVE_CRYPTO_ARENA_BYTES + 4_096);
    const { crypto, reason } = chooseCrypto({ arena });
    if (reason !== undefined) return; // no FFI here: the portable cipher is no fast path
    const pair = new EnginePair({ crypto, memory: arena.allocate(4_096), mode: "badge" });
    // Five as it is; each address that is read from a field of numbers would be one more.
    const mostBytes = 6 * HEAP_NUMBER_BYTES + NONE_BYTES;
    expect(garbagePerPacket(pair, mostBytes)).toBeLessThan(mostBytes);
  });
});
