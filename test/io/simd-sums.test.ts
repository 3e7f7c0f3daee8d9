// The SIMD sums do what the plain ones do, at any place and length; of memory that is not theirs they are plain.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { createSimdSums, sumModule } from "../../src/io/simd-sums.ts";
import { webAssembly } from "../../src/io/web-assembly.ts";
import { foldChecksum } from "../../src/wire/checksum.ts";
import { plainSums, type Sums } from "../../src/wire/sums.ts";
import { same } from "../fuzz/target.ts";
import { record, scale } from "../proof/form.ts";

const RUNS = scale(Number(process.env["FC_RUNS"] ?? 2_000), 1_000_000);
const PAGES = 4;
const LENGTH_MAX = 65_535;
const SIMD_SUM_MAX = 2 ** 18;

const memory = new webAssembly.Memory({ initial: PAGES, maximum: PAGES });
const bytes = new Uint8Array(memory.buffer);
const simd = createSimdSums(memory, bytes) as Sums;

describe("the SIMD sums", () => {
  it("are there: this engine has SIMD", () => expect(simd).toBeDefined());

  it("equal the plain sums at any place, of any length and of any bytes, copied or not", { timeout: 600_000 }, () => {
    const random = new SeededRandom(1);
    random.fill(bytes);
    for (let run = 0; run < RUNS; run++) {
      const length = random.below(random.pick([4, 70, 300, 1_500, 1_500, run % 50 === 0 ? LENGTH_MAX + 1 : 3_000]));
      const from = random.below(64);
      const to = from + length + 1 + random.below(64);
      const start = random.chance(0.2) ? 2 ** 32 - 1 - random.below(3) : random.u32();
      const fill = random.fraction();
      if (fill < 0.1) bytes.fill(0xff, from, from + length);
      else if (fill < 0.15) bytes.fill(0, from, from + length);
      else if (fill < 0.3) random.fill(bytes.subarray(from, from + length));
      const expected = foldChecksum(plainSums.sum(bytes, from, length, start));
      const [before, after] = [bytes[to - 1], bytes[to + length]];
      const sums = [simd.sum(bytes, from, length, start), simd.copySum(bytes, from, to, length, start)];
      const isCopied = same(bytes.subarray(to, to + length), bytes.subarray(from, from + length));
      const isAlone = bytes[to - 1] === before && bytes[to + length] === after;
      if (sums.some((sum) => foldChecksum(sum) !== expected || sum < 0 || sum >= SIMD_SUM_MAX) || !isCopied || !isAlone)
        expect.fail(`${length} bytes at ${from}, copied to ${to}, after ${start}: ${sums.join()}`);
    }
    record({ what: "ranges summed and copied by SIMD as by the plain loop", count: RUNS });
  });

  it("have each bit of each byte of a range at its place, and none beside it", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), fc.nat(20), fc.nat(199), fc.nat(7), (length, at, place, bit) => {
        bytes
          .fill(0, 0, 512)
          .fill(0xff, 0, at)
          .fill(0xff, at + length, 512);
        const index = place % length;
        bytes[at + index] = 1 << bit;
        expect(simd.sum(bytes, at, length, 0)).toBe((1 << bit) << (index % 2 === 0 ? 8 : 0));
      }),
    );
  });

  it.each([65_534, 65_535, 65_536])("do not overflow over %i bytes of ff, after a sum as high as can be", (length) => {
    bytes.fill(0xff);
    const expected = foldChecksum(plainSums.sum(bytes, 1, length, 0xffff_ffff));
    expect(foldChecksum(simd.sum(bytes, 1, length, 0xffff_ffff))).toBe(expected);
    expect(foldChecksum(simd.copySum(bytes, 1, 70_001, length, 0xffff_ffff))).toBe(expected);
  });

  it("reach to the memory's last byte, and no further", () => {
    bytes.fill(1, bytes.length - 100);
    for (let length = 0; length < 100; length++)
      expect(simd.sum(bytes, bytes.length - length, length, 0), `${length}`).toBe(
        (length >>> 1) * 0x0101 + (length % 2) * 0x0100,
      );
    expect(() => simd.sum(bytes, bytes.length - 99, 100, 0)).toThrow("out of bounds");
  });

  it("are plain over other memory, of the same length too", () => {
    const other = new Uint8Array(bytes.length);
    new SeededRandom(2).fill(other);
    const kept = bytes.slice();
    expect(simd.sum(other, 3, 1_001, 5)).toBe(plainSums.sum(other, 3, 1_001, 5));
    expect(simd.copySum(other, 3, 5_000, 1_001, 5)).toBe(plainSums.sum(other, 5_000, 1_001, 5));
    expect(same(other.subarray(3, 1_004), other.subarray(5_000, 6_001))).toBe(true);
    simd.copy(other, 3, 7_000, 41);
    expect(same(other.subarray(3, 44), other.subarray(7_000, 7_041))).toBe(true);
    expect(same(bytes, kept)).toBe(true);
  });

  it("are not there where the engine can't compile them", () => {
    const unknown = sumModule();
    unknown[unknown.lastIndexOf(0xfd) + 1] = 0xff; // an instruction of no engine
    expect(createSimdSums(memory, bytes, unknown)).toBeUndefined();
  });

  it("are a small module, the same each time", () => {
    expect(sumModule().length).toBeLessThan(1_200);
    expect(same(sumModule(), sumModule())).toBe(true);
  });
});
