// One suite for every provider: the RFCs' vectors, then what must be refused (in the manner of Project Wycheproof).
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { concatBytes, fromHex, toHex } from "../../src/base/bytes.ts";
import { isLowOrderPoint } from "../../src/crypto/low-order.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import vectors from "../vectors/crypto.json" with { type: "json" };
import { PROVIDERS } from "./providers.ts";

const hex = (text: string): Uint8Array => fromHex(text)!;
const bytes = (length: number, seed = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 167 + seed) & 255);

// Low-order points in every encoding: those below p, p and p + 1, and each with the ignored top bit set.
const LOW_ORDER = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
].flatMap((text) => {
  const highBit = hex(text);
  highBit[31]! |= 0x80;
  return [hex(text), highBit];
});

describe.each(PROVIDERS)("the %s provider", (_name, crypto) => {
  test.each(vectors.x25519)("X25519: $source", (vector) => {
    expect(toHex(crypto.dh(hex(vector.private), hex(vector.public))!)).toBe(vector.shared);
  });

  test.each(vectors.x25519Public)("X25519 public key: $source", (vector) => {
    expect(toHex(crypto.publicKey(hex(vector.private)))).toBe(vector.public);
  });

  test(`X25519: ${vectors.x25519Iterated.source}`, () => {
    let scalar = hex(vectors.x25519Iterated.start);
    let point = scalar;
    const rounds = crypto.name === "native" ? 1000 : 1; // a second of tweetnacl proves no more than its other vectors
    for (let i = 0; i < rounds; i++) [scalar, point] = [crypto.dh(scalar, point)!, scalar];
    expect(toHex(scalar)).toBe(rounds === 1 ? vectors.x25519Iterated.after1 : vectors.x25519Iterated.after1000);
  });

  test("a low-order point is undefined in every encoding, and known as such without the private key", () => {
    for (const point of LOW_ORDER) {
      expect(crypto.dh(bytes(32), point), toHex(point)).toBeUndefined();
      expect(isLowOrderPoint(point), toHex(point)).toBe(true);
    }
    expect(isLowOrderPoint(crypto.publicKey(bytes(32)))).toBe(false);
    const base = new Uint8Array(32);
    base[0] = 9;
    expect(isLowOrderPoint(base)).toBe(false);
  });

  test("the top bit of a public key is ignored (RFC 7748 §5)", () => {
    const point = crypto.publicKey(bytes(32, 7));
    const highBit = point.slice();
    highBit[31]! |= 0x80;
    expect(crypto.dh(bytes(32), highBit)).toEqual(crypto.dh(bytes(32), point));
  });

  test("a key array that is overwritten is another key", () => {
    const key = bytes(32, 1);
    const first = crypto.publicKey(key);
    const shared = crypto.dh(key, first);
    key.set(bytes(32, 2));
    expect(crypto.publicKey(key)).toEqual(crypto.publicKey(bytes(32, 2)));
    expect(crypto.dh(key, first)).not.toEqual(shared);
    const seed = bytes(32, 3);
    const signature = crypto.sign(seed, bytes(5));
    seed.set(bytes(32, 4));
    expect(crypto.sign(seed, bytes(5))).not.toEqual(signature);
  });

  test(`BLAKE2s: ${vectors.blake2s.source}`, () => {
    expect(toHex(crypto.hash(new TextEncoder().encode("abc")))).toBe(vectors.blake2s.abc);
    expect(toHex(crypto.hash(hex("61"), hex("62"), hex("63")))).toBe(vectors.blake2s.abc);
  });

  test.each(vectors.chacha20poly1305)("ChaCha20-Poly1305: $source", (vector) => {
    const [key, nonce, aad] = [hex(vector.key), hex(vector.nonce), hex(vector.aad)];
    expect(toHex(crypto.sealWithNonce(key, nonce, hex(vector.plaintext), aad))).toBe(vector.sealed);
    expect(toHex(crypto.openWithNonce(key, nonce, hex(vector.sealed), aad)!)).toBe(vector.plaintext);
  });

  test.each(vectors.xchacha20poly1305)("XChaCha20-Poly1305: $source", (vector) => {
    const [key, nonce, aad] = [hex(vector.key), hex(vector.nonce), hex(vector.aad)];
    expect(toHex(crypto.xSeal(key, nonce, hex(vector.plaintext), aad))).toBe(vector.sealed);
    expect(toHex(crypto.xOpen(key, nonce, hex(vector.sealed), aad)!)).toBe(vector.plaintext);
    for (let bit = 0; bit < 8 * hex(vector.sealed).length; bit += 41) {
      const forged = hex(vector.sealed);
      forged[bit >> 3]! ^= 1 << (bit & 7);
      expect(crypto.xOpen(key, nonce, forged, aad)).toBeUndefined();
    }
  });

  test("a counter is the nonce's last eight bytes, little-endian", () => {
    const [key, aad, plaintext] = [bytes(32), bytes(9), bytes(40)];
    const sealed = crypto.seal(key, 0x01020304, plaintext, aad);
    expect(crypto.openWithNonce(key, hex("000000000403020100000000"), sealed, aad)).toEqual(plaintext);
    expect(crypto.open(key, 0x01020304, sealed, aad)).toEqual(plaintext);
  });

  test("sealed bytes that were cut, bent or moved to another nonce or AAD don't open", () => {
    const [key, nonce, aad, plaintext] = [bytes(32), bytes(12), bytes(12, 3), bytes(33)];
    const sealed = crypto.sealWithNonce(key, nonce, plaintext, aad);
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const forged = sealed.slice();
      forged[bit >> 3]! ^= 1 << (bit & 7);
      expect(crypto.openWithNonce(key, nonce, forged, aad)).toBeUndefined();
    }
    for (let length = 0; length < sealed.length; length++) {
      expect(crypto.openWithNonce(key, nonce, sealed.subarray(0, length), aad)).toBeUndefined();
    }
    expect(crypto.openWithNonce(key, nonce, concatBytes(sealed, bytes(1)), aad)).toBeUndefined();
    expect(crypto.openWithNonce(key, nonce, sealed, bytes(12, 4))).toBeUndefined();
    expect(crypto.openWithNonce(key, nonce, sealed, aad.subarray(0, 11))).toBeUndefined();
    expect(crypto.openWithNonce(key, bytes(12, 9), sealed, aad)).toBeUndefined();
    expect(crypto.openWithNonce(bytes(32, 9), nonce, sealed, aad)).toBeUndefined();
    for (const tag of [new Uint8Array(16), new Uint8Array(16).fill(255)]) {
      const forged = sealed.slice();
      forged.set(tag, 33);
      expect(crypto.openWithNonce(key, nonce, forged, aad)).toBeUndefined();
    }
  });

  test("an AEAD of any length agrees with the portable one", () => {
    const reference = new PortableCrypto();
    for (const length of [0, 1, 15, 16, 17, 63, 64, 65, 16_383, 16_384, 16_385, 65_519]) {
      const [key, nonce, aad, plaintext] = [bytes(32), bytes(12), bytes(length % 40, 5), bytes(length, 6)];
      const sealed = crypto.sealWithNonce(key, nonce, plaintext, aad);
      expect(Buffer.compare(sealed, reference.sealWithNonce(key, nonce, plaintext, aad))).toBe(0); // toEqual is slow
      expect(Buffer.compare(crypto.openWithNonce(key, nonce, sealed, aad)!, plaintext)).toBe(0);
    }
  });

  test("a transport AEAD seals in place what the readable form seals, at any offset, length and counter", () => {
    const counter = fc.oneof(fc.constantFrom(0, 1, 0xffffffff, 0x80000000), fc.nat(0xffffffff));
    const shape = [fc.nat(40), fc.nat(1500), counter, counter, fc.nat(255)] as const;
    fc.assert(
      fc.property(...shape, (offset, length, low, high, seed) => {
        const key = bytes(32, seed);
        const nonce = new Uint8Array(12);
        new DataView(nonce.buffer).setUint32(4, low, true);
        new DataView(nonce.buffer).setUint32(8, high, true);
        const plaintext = bytes(length, seed);
        const buffer = new Uint8Array(offset + length + 32).fill(0xee);
        buffer.set(plaintext, offset);
        const aead = crypto.transportAead(key);
        aead.seal(low, high, buffer, offset, length);
        const sealed = crypto.sealWithNonce(key, nonce, plaintext, new Uint8Array(0));
        expect(buffer.subarray(offset, offset + length + 16)).toEqual(sealed);
        expect(buffer.subarray(0, offset).every((byte) => byte === 0xee)).toBe(true);
        expect(buffer.subarray(offset + length + 16).every((byte) => byte === 0xee)).toBe(true);
        const bent = buffer.slice();
        bent[offset + (seed % (length + 16))]! ^= 0x10;
        expect(aead.open(low, high, bent, offset, length + 16)).toBe(false);
        expect(aead.open((low + 1) >>> 0, high, buffer.slice(), offset, length + 16)).toBe(false);
        expect(aead.open(low, high ^ 1, buffer.slice(), offset, length + 16)).toBe(false);
        expect(aead.open(low, high, buffer, offset, length + 16)).toBe(true);
        expect(buffer.subarray(offset, offset + length)).toEqual(plaintext);
        aead.destroy();
      }),
      { numRuns: 40 },
    );
  });

  test("a transport AEAD refuses less than a tag, and any use after it was destroyed", () => {
    const aead = crypto.transportAead(bytes(32));
    expect(aead.open(0, 0, new Uint8Array(15), 0, 15)).toBe(false);
    expect(aead.open(0, 0, new Uint8Array(16), 0, 16)).toBe(false);
    aead.destroy();
    aead.destroy();
    expect(() => aead.seal(0, 0, new Uint8Array(64), 16, 16)).toThrow("assertion failed");
    expect(() => aead.open(0, 0, new Uint8Array(64), 0, 64)).toThrow("assertion failed");
  });

  test.each(vectors.ed25519)("Ed25519: $source", (vector) => {
    const [seed, message] = [hex(vector.seed), hex(vector.message)];
    expect(toHex(crypto.signPublicKey(seed))).toBe(vector.public);
    expect(toHex(crypto.sign(seed, message))).toBe(vector.signature);
    expect(crypto.verify(hex(vector.public), message, hex(vector.signature))).toBe(true);
  });

  test("a bent, short or respelled signature is no signature", () => {
    const seed = bytes(32);
    const message = bytes(20);
    const publicKey = crypto.signPublicKey(seed);
    const signature = crypto.sign(seed, message);
    for (let bit = 0; bit < 512; bit += 41) {
      const forged = signature.slice();
      forged[bit >> 3]! ^= 1 << (bit & 7);
      expect(crypto.verify(publicKey, message, forged)).toBe(false);
    }
    expect(crypto.verify(publicKey, bytes(21), signature)).toBe(false);
    expect(crypto.verify(publicKey, message, signature.subarray(0, 63))).toBe(false);
    expect(crypto.verify(publicKey.subarray(0, 31), message, signature)).toBe(false);
    expect(crypto.verify(bytes(32, 90), message, signature)).toBe(false);
    // S + L is the same scalar spelled differently (RFC 8032 §5.1.7).
    const order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    const respelled = signature.slice();
    let carry = 0;
    for (let i = 0; i < 32; i++) {
      const sum = respelled[32 + i]! + order[i]! + carry;
      respelled[32 + i] = sum;
      carry = sum >> 8;
    }
    expect(crypto.verify(publicKey, message, respelled)).toBe(false);
  });
});
