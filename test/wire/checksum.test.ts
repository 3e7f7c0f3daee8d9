import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromHex } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { checksumOf, foldChecksum, sumBytes, sumPseudoHeader } from "../../src/wire/checksum.ts";

/** RFC 1071 §4.1, word by word. */
function plainChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return ~sum & 0xffff;
}

describe("the Internet checksum", () => {
  it("sums the example of RFC 1071 §3 to ddf2", () => {
    const bytes = fromHex("0001f203f4f5f6f7")!;
    expect(foldChecksum(sumBytes(bytes, 0, 8, 0))).toBe(~0xddf2 & 0xffff);
  });

  it("is 0 over an IPv4 header that carries its own", () => {
    expect(checksumOf(fromHex("45000073000040004011b861c0a80001c0a800c7")!, 0, 20)).toBe(0);
  });

  it("equals the plain loop for any bytes, at any offset and in any two parts", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(7), fc.nat(150), (bytes, offset, half) => {
        const shifted = new Uint8Array(offset + bytes.length);
        shifted.set(bytes, offset);
        expect(checksumOf(shifted, offset, bytes.length)).toBe(plainChecksum(bytes));
        const cut = Math.min(half * 2, bytes.length & ~1);
        const sum = sumBytes(bytes, cut, bytes.length - cut, sumBytes(bytes, 0, cut, 0));
        expect(foldChecksum(sum)).toBe(plainChecksum(bytes));
      }),
    );
  });

  it("equals the plain loop by words too, over alternating buffers and long ranges", () => {
    const random = new SeededRandom(1);
    for (const length of [63, 64, 65, 66, 67, 1380, 1381, 1400, 9000, 65_535]) {
      const buffers = [new Uint8Array(length + 8), new Uint8Array(length + 8), new Uint8Array(length + 8)];
      for (const buffer of buffers) random.fill(buffer);
      for (let at = 0; at < 8; at++) {
        for (const buffer of buffers) {
          const expected = plainChecksum(buffer.subarray(at, at + length));
          expect(checksumOf(buffer, at, length)).toBe(expected);
          expect(checksumOf(buffer.subarray(4), at, length - 4)).toBe(
            plainChecksum(buffer.subarray(at + 4, at + length)),
          );
        }
      }
    }
  });

  it("does not overflow over 64 KiB of ff", () => {
    expect(checksumOf(new Uint8Array(65_535).fill(0xff), 0, 65_535)).toBe(
      plainChecksum(new Uint8Array(65_535).fill(0xff)),
    );
  });

  it("gives one pseudo-header sum for IPv4 in mapped form and in four bytes", () => {
    const mapped = sumPseudoHeader(0, 0, 0xffff, 0xc0a80001, 0, 0, 0xffff, 0xc0a800c7, 6, 20);
    const plain = fromHex("c0a80001c0a800c700060014")!;
    expect(foldChecksum(mapped)).toBe(checksumOf(plain, 0, plain.length));
  });
});
