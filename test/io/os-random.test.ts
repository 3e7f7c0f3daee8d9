import { expect, test } from "vitest";
import { toHex } from "../../src/base/bytes.ts";
import { randomBytes } from "../../src/base/random.ts";
import { osRandom } from "../../src/io/os-random.ts";

test("no bytes are given out twice, whatever the lengths asked for", () => {
  const seen = new Set<string>();
  let count = 0;
  for (let round = 0; round < 300; round++) {
    for (const length of [16, 32, 33, 1_000, 32]) {
      seen.add(toHex(randomBytes(osRandom, length)).slice(0, 32));
      count++;
    }
  }
  expect(seen.size).toBe(count);
});

test("every byte of what was asked for is filled", () => {
  const any = new Uint8Array(32);
  for (let round = 0; round < 200; round++) {
    for (const [i, byte] of randomBytes(osRandom, 32).entries()) any[i]! |= byte;
  }
  expect([...any].every((byte) => byte === 255)).toBe(true);
});
