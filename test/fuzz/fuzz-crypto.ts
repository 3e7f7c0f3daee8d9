// A provider for fuzzing alone: the contract's shape, one key agreement that both ends compute alike, and tags that
// anybody could forge, but no flipped bit does. A thousand times as fast as the real ones, whose own vectors are
// elsewhere: what is fuzzed is what stands around them.
import { concatBytes, isAllZero, readU32Le, writeU32Le } from "../../src/base/bytes.ts";
import type { Crypto, TransportAead } from "../../src/crypto/provider.ts";

const NOTHING = new Uint8Array(0);

/** FNV-1a in four lanes, spread over `length` bytes. */
function digest(length: number, label: number, ...parts: readonly Uint8Array[]): Uint8Array {
  let [a, b, c, d] = [0x811c9dc5 ^ label, 0x01000193, 0x9e3779b9, 0x243f6a88];
  for (const part of parts) {
    a = Math.imul(a ^ part.length, 0x85ebca6b);
    for (let i = 0; i < part.length; i++) {
      const byte = part[i]!;
      a = Math.imul(a ^ byte, 0x01000193);
      b = (Math.imul(b, 31) + byte) | 0;
      c = Math.imul(c ^ a, 0xc2b2ae35) + b;
      d = (d ^ c) + Math.imul(a, 5);
    }
  }
  const out = new Uint8Array(length);
  for (let at = 0; at + 4 <= length; at += 4) {
    a = Math.imul(a ^ (a >>> 15) ^ b, 0x2c1b3c6d);
    b = Math.imul(b ^ (b >>> 13) ^ c, 0x297a2d39);
    c = (c ^ d) + at;
    d = Math.imul(d ^ (d >>> 16) ^ a, 0x45d9f3b);
    writeU32Le(out, at, a ^ d);
  }
  return out;
}

function counterBytes(low: number, high: number): Uint8Array {
  const bytes = new Uint8Array(8);
  writeU32Le(bytes, 0, low);
  writeU32Le(bytes, 4, high);
  return bytes;
}

const BASE = 5;
const MODULUS = 65_521; // of a toy Diffie–Hellman: commutative, which is all that is asked of it

function power(base: number, exponent: number): number {
  let [out, square, left] = [1, base % MODULUS, exponent];
  for (; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) out = (out * square) % MODULUS;
    square = (square * square) % MODULUS;
  }
  return out;
}

const secretOf = (privateKey: Uint8Array): number => (readU32Le(privateKey, 0) % (MODULUS - 1)) + 1;

function keyOf(value: number): Uint8Array {
  const bytes = new Uint8Array(32).fill(0x5a);
  writeU32Le(bytes, 0, value);
  return bytes;
}

class FuzzAead implements TransportAead {
  readonly #key: Uint8Array;

  constructor(key: Uint8Array) {
    this.#key = key.slice();
  }

  seal(low: number, high: number, buffer: Uint8Array, offset: number, length: number): void {
    const text = buffer.subarray(offset, offset + length);
    buffer.set(digest(16, 1, this.#key, counterBytes(low, high), text), offset + length);
  }

  open(low: number, high: number, buffer: Uint8Array, offset: number, length: number): boolean {
    if (length < 16) return false;
    const text = buffer.subarray(offset, offset + length - 16);
    const tag = digest(16, 1, this.#key, counterBytes(low, high), text);
    return Buffer.compare(tag, buffer.subarray(offset + length - 16, offset + length)) === 0;
  }

  destroy(): void {
    this.#key.fill(0);
  }
}

export class FuzzCrypto implements Crypto {
  readonly name = "portable";

  publicKey(privateKey: Uint8Array): Uint8Array {
    return keyOf(power(BASE, secretOf(privateKey)));
  }

  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    if (isAllZero(publicKey)) return undefined;
    const [shared, rest] = [power(readU32Le(publicKey, 0), secretOf(privateKey)), publicKey.subarray(4)];
    return digest(32, 2, keyOf(shared), rest.every((byte) => byte === 0x5a) ? NOTHING : rest);
  }

  hash(...parts: readonly Uint8Array[]): Uint8Array {
    return digest(32, 3, concatBytes(...parts));
  }

  mac(key: Uint8Array, input: Uint8Array): Uint8Array {
    return digest(16, 4, key, input);
  }

  hmac(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
    return digest(32, 5, key, concatBytes(...parts));
  }

  transportAead(key: Uint8Array): TransportAead {
    return new FuzzAead(key);
  }

  sealWithNonce(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    return concatBytes(plaintext, digest(16, 6, key, nonce, plaintext, aad));
  }

  openWithNonce(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    if (sealed.length < 16) return undefined;
    const plaintext = sealed.slice(0, -16);
    const tag = digest(16, 6, key, nonce, plaintext, aad);
    return Buffer.compare(tag, sealed.subarray(-16)) === 0 ? plaintext : undefined;
  }

  seal(key: Uint8Array, counter: number, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    return this.sealWithNonce(key, counterBytes(counter, 0), plaintext, aad);
  }

  open(key: Uint8Array, counter: number, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    return this.openWithNonce(key, counterBytes(counter, 0), sealed, aad);
  }

  xSeal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    return this.sealWithNonce(key, nonce, plaintext, aad);
  }

  xOpen(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    return this.openWithNonce(key, nonce, sealed, aad);
  }

  signPublicKey(seed: Uint8Array): Uint8Array {
    return digest(32, 7, seed);
  }

  sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
    return digest(64, 8, this.signPublicKey(seed), message);
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    return Buffer.compare(digest(64, 8, publicKey, message), signature) === 0;
  }
}
