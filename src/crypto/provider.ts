// The one contract of every cryptographic provider: portable (tweetnacl, @stablelib) and native (OpenSSL's EVP by
// FFI and node:crypto, given by constructor). Both run the same vectors. Nothing here throws for bad bytes: undefined
// or false is the answer.

export const KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const HASH_BYTES = 32;
export const MAC_BYTES = 16;
export const SIGNATURE_BYTES = 64;

export interface KeyPair {
  /** 32 bytes: X25519 scalar, or Ed25519 seed. */
  readonly privateKey: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/**
 * One key of ChaCha20-Poly1305 (RFC 8439) in the form that transport data uses: in place, empty AAD, nonce = 32 zero
 * bits ‖ 64-bit LE counter.
 */
export interface TransportAead {
  /**
   * Encrypts `length` bytes at `offset` in place and writes the 16-byte tag behind them; `buffer` must reach that far.
   * The counter is two unsigned 32-bit halves: it passes 2^53.
   */
  seal(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): void;
  /**
   * `length` counts ciphertext and tag. True: the plaintext (length − 16 bytes) stands at `offset`. False: forged; the
   * bytes there are undefined.
   */
  open(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): boolean;
  /** Overwrites the key; any later call is a bug. */
  destroy(): void;
}

export interface Crypto {
  readonly name: "portable" | "native";

  /** X25519 (RFC 7748 §5). */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /** X25519; undefined when the result is all zero (a low-order public key, RFC 7748 §6.1). */
  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined;

  /** BLAKE2s-256 over the concatenation (RFC 7693). */
  hash(...parts: readonly Uint8Array[]): Uint8Array;
  /** Keyed BLAKE2s with 16 bytes of output: [WG §5.4] Mac(key, input). */
  mac(key: Uint8Array, input: Uint8Array): Uint8Array;
  /** HMAC-BLAKE2s-256 (RFC 2104). */
  hmac(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array;

  transportAead(key: Uint8Array): TransportAead;
  /** ChaCha20-Poly1305 (RFC 8439 §2.8) with any 12-byte nonce; ciphertext ‖ tag. */
  sealWithNonce(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array;
  openWithNonce(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined;
  /** ChaCha20-Poly1305 with nonce = 32 zero bits ‖ counter LE (counter < 2^32 here) and AAD; ciphertext ‖ tag. */
  seal(key: Uint8Array, counter: number, plaintext: Uint8Array, aad: Uint8Array): Uint8Array;
  open(key: Uint8Array, counter: number, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined;
  /** XChaCha20-Poly1305, 24-byte nonce: cookie replies. */
  xSeal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array;
  xOpen(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined;

  /** Ed25519 (RFC 8032); the private key is the 32-byte seed. */
  signPublicKey(seed: Uint8Array): Uint8Array;
  sign(seed: Uint8Array, message: Uint8Array): Uint8Array;
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}
