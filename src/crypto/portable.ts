// The provider that runs anywhere: tweetnacl for X25519 and Ed25519, @stablelib for the rest. About a tenth of the
// native speed.
import { ChaCha20Poly1305 } from "@stablelib/chacha20poly1305";
import { XChaCha20Poly1305 } from "@stablelib/xchacha20poly1305";
import nacl from "tweetnacl";
import { assert } from "../base/assert.ts";
import { isAllZero, writeU32Le } from "../base/bytes.ts";
import { DATAGRAM_MAX_BYTES } from "../base/limits.ts";
import { blake2s, hmacBlake2s, keyedBlake2s } from "./blake2s.ts";
import { type Crypto, KEY_BYTES, SIGNATURE_BYTES, TAG_BYTES, type TransportAead } from "./provider.ts";

// The group order of Ed25519, little-endian (RFC 8032 §5.1).
const ORDER = Uint8Array.from([
  0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 0, 0x10,
]);

/** RFC 8032 §5.1.7 demands S < L, which tweetnacl doesn't check: else a signature has a second spelling. */
function hasCanonicalScalar(signature: Uint8Array): boolean {
  for (let i = 31; i >= 0; i--) {
    const difference = signature[32 + i]! - ORDER[i]!;
    if (difference !== 0) return difference < 0;
  }
  return false;
}

export class PortableCrypto implements Crypto {
  readonly name = "portable";
  readonly #nonce = new Uint8Array(12);
  /** Signing keys in tweetnacl's expanded form, by the identity of the seed's array. */
  readonly #signingKeys = new WeakMap<Uint8Array, nacl.SignKeyPair>();

  publicKey(privateKey: Uint8Array): Uint8Array {
    return nacl.scalarMult.base(privateKey);
  }

  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    const shared = nacl.scalarMult(privateKey, publicKey);
    return isAllZero(shared) ? undefined : shared;
  }

  hash(...parts: readonly Uint8Array[]): Uint8Array {
    return blake2s(...parts);
  }

  mac(key: Uint8Array, input: Uint8Array): Uint8Array {
    return keyedBlake2s(key, input);
  }

  hmac(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
    return hmacBlake2s(key, ...parts);
  }

  transportAead(key: Uint8Array): TransportAead {
    return new PortableTransportAead(key);
  }

  sealWithNonce(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    const aead = new ChaCha20Poly1305(key);
    const sealed = aead.seal(nonce, plaintext, aad);
    aead.clean();
    return sealed;
  }

  openWithNonce(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    const aead = new ChaCha20Poly1305(key);
    const plaintext = aead.open(nonce, sealed, aad);
    aead.clean();
    return plaintext ?? undefined;
  }

  seal(key: Uint8Array, counter: number, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    writeU32Le(this.#nonce, 4, counter);
    return this.sealWithNonce(key, this.#nonce, plaintext, aad);
  }

  open(key: Uint8Array, counter: number, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    writeU32Le(this.#nonce, 4, counter);
    return this.openWithNonce(key, this.#nonce, sealed, aad);
  }

  xSeal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    const aead = new XChaCha20Poly1305(key);
    const sealed = aead.seal(nonce, plaintext, aad);
    aead.clean();
    return sealed;
  }

  xOpen(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    const aead = new XChaCha20Poly1305(key);
    const plaintext = aead.open(nonce, sealed, aad);
    aead.clean();
    return plaintext ?? undefined;
  }

  signPublicKey(seed: Uint8Array): Uint8Array {
    return this.#signingKey(seed).publicKey;
  }

  sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
    return nacl.sign.detached(message, this.#signingKey(seed).secretKey);
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    if (publicKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
    return hasCanonicalScalar(signature) && nacl.sign.detached.verify(message, signature, publicKey);
  }

  #signingKey(seed: Uint8Array): nacl.SignKeyPair {
    let pair = this.#signingKeys.get(seed);
    // The array may have been overwritten since: the first 32 bytes of tweetnacl's secret key are the seed.
    if (pair === undefined || !seed.every((byte, i) => byte === pair!.secretKey[i])) {
      pair = nacl.sign.keyPair.fromSeed(seed);
      this.#signingKeys.set(seed, pair);
    }
    return pair;
  }
}

// @stablelib's source and destination must not overlap: packets go through one buffer of this thread and back.
const scratch = new Uint8Array(DATAGRAM_MAX_BYTES);
const nonce = new Uint8Array(12);

class PortableTransportAead implements TransportAead {
  readonly #aead: ChaCha20Poly1305;
  #destroyed = false;

  constructor(key: Uint8Array) {
    this.#aead = new ChaCha20Poly1305(key);
  }

  seal(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): void {
    assert(!this.#destroyed, "seal with a destroyed key");
    const sealedBytes = length + TAG_BYTES;
    const out = sealedBytes <= scratch.length ? scratch.subarray(0, sealedBytes) : new Uint8Array(sealedBytes);
    writeU32Le(nonce, 4, counterLow);
    writeU32Le(nonce, 8, counterHigh);
    this.#aead.seal(nonce, buffer.subarray(offset, offset + length), undefined, out);
    buffer.set(out, offset);
  }

  open(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): boolean {
    assert(!this.#destroyed, "open with a destroyed key");
    if (length < TAG_BYTES) return false;
    const openedBytes = length - TAG_BYTES;
    const out = openedBytes <= scratch.length ? scratch.subarray(0, openedBytes) : new Uint8Array(openedBytes);
    writeU32Le(nonce, 4, counterLow);
    writeU32Le(nonce, 8, counterHigh);
    if (this.#aead.open(nonce, buffer.subarray(offset, offset + length), undefined, out) === null) return false;
    buffer.set(out, offset);
    return true;
  }

  destroy(): void {
    this.#destroyed = true;
    this.#aead.clean();
  }
}
