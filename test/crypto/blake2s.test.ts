// RFC 7693 appendix E checks every length and both forms at once; HMAC and KDF against node:crypto, which has the
// unkeyed hash.
import { createHmac, hkdfSync } from "node:crypto";
import { BLAKE2s } from "@stablelib/blake2s";
import { expect, test } from "vitest";
import { concatBytes, toHex } from "../../src/base/bytes.ts";
import { Blake2sMac, blake2s, hmacBlake2s, keyedBlake2s } from "../../src/crypto/blake2s.ts";
import { kdf1, kdf2, kdf3 } from "../../src/crypto/kdf.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import vectors from "../vectors/crypto.json" with { type: "json" };

const bytes = (length: number, seed = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 167 + seed) & 255);

/** RFC 7693 appendix E: `selftest_seq`. */
function sequence(length: number, seed: number): Uint8Array {
  const out = new Uint8Array(length);
  let a = Math.imul(0xdead4bad, seed) >>> 0;
  let b = 1;
  for (let i = 0; i < length; i++) {
    const t = (a + b) >>> 0;
    a = b;
    b = t;
    out[i] = t >>> 24;
  }
  return out;
}

test("BLAKE2s passes the self-test of RFC 7693 appendix E", () => {
  const sum = new BLAKE2s(32);
  const digests = (outBytes: number, input: Uint8Array, key?: Uint8Array): Uint8Array => {
    if (outBytes === 32 && key === undefined) return blake2s(input);
    if (outBytes === 16 && key?.length === 16) return keyedBlake2s(key, input);
    return new BLAKE2s(outBytes, key === undefined ? {} : { key }).update(input).digest();
  };
  for (const outBytes of [16, 20, 28, 32]) {
    for (const inBytes of [0, 3, 64, 65, 255, 1024]) {
      const input = sequence(inBytes, inBytes);
      sum.update(digests(outBytes, input));
      sum.update(digests(outBytes, input, sequence(outBytes, outBytes)));
    }
  }
  expect(toHex(sum.digest())).toBe(vectors.blake2s.selfTest);
});

test("HMAC-BLAKE2s agrees with node:crypto for keys shorter than, as long as and longer than a block", () => {
  for (const keyBytes of [0, 1, 32, 63, 64, 65, 200]) {
    const expected = createHmac("blake2s256", bytes(keyBytes)).update(bytes(50, 3)).digest("hex");
    expect(toHex(hmacBlake2s(bytes(keyBytes), bytes(20, 3), bytes(50, 3).subarray(20)))).toBe(expected);
  }
});

test("KDF1 to KDF3 are HKDF with an empty info", () => {
  const crypto = new PortableCrypto();
  const [key, input] = [bytes(32, 5), bytes(32, 6)];
  const expected = toHex(new Uint8Array(hkdfSync("blake2s256", input, key, new Uint8Array(0), 96)));
  expect(toHex(kdf1(crypto, key, input))).toBe(expected.slice(0, 64));
  expect(toHex(concatBytes(...kdf2(crypto, key, input)))).toBe(expected.slice(0, 128));
  expect(toHex(concatBytes(...kdf3(crypto, key, input)))).toBe(expected);
});

test("every form agrees with @stablelib's at every length, however the input is cut into parts", () => {
  for (let length = 0; length <= 260; length++) {
    const input = bytes(length, length);
    const expected = toHex(new BLAKE2s(32).update(input).digest());
    expect(toHex(blake2s(input))).toBe(expected);
    for (const cut of [0, 1, 63, 64, 65, length >> 1]) {
      expect(toHex(blake2s(input.subarray(0, cut), new Uint8Array(0), input.subarray(cut)))).toBe(expected);
    }
    for (const keyBytes of [1, 16, 32]) {
      const key = bytes(keyBytes, 9);
      const mac = toHex(new BLAKE2s(16, { key }).update(input).digest());
      expect(toHex(keyedBlake2s(key, input))).toBe(mac);
      if (length > 0) expect(toHex(new Blake2sMac(key).of(bytes(length + 7, length - 5 * 167), 5, length))).toBe(mac);
    }
  }
});

test("a Mac kept for its key gives the same each time, and takes no empty input", () => {
  const mac = new Blake2sMac(bytes(32));
  const first = toHex(mac.of(bytes(148), 0, 116));
  expect(toHex(mac.of(bytes(92), 0, 60))).toBe(toHex(keyedBlake2s(bytes(32), bytes(60))));
  expect(toHex(mac.of(bytes(148), 0, 116))).toBe(first);
  expect(() => mac.of(bytes(1), 0, 0)).toThrow(/empty/);
});
