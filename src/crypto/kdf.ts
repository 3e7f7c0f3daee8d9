// The key derivation of [WG §5.4]: HKDF (RFC 5869) over HMAC-BLAKE2s with an empty info, one to three outputs.
import type { Crypto } from "./provider.ts";

const ONE = new Uint8Array([1]);
const TWO = new Uint8Array([2]);
const THREE = new Uint8Array([3]);

/** τ1 of KDF_n(key, input): `chainingKey = kdf1(crypto, chainingKey, ephemeralPublicKey)`. */
export function kdf1(crypto: Crypto, key: Uint8Array, input: Uint8Array): Uint8Array {
  const extracted = crypto.hmac(key, input); // τ0 := HMAC(key, input)
  const first = crypto.hmac(extracted, ONE); // τ1 := HMAC(τ0, 0x1)
  extracted.fill(0);
  return first;
}

/** (τ1, τ2) of KDF_n(key, input). */
export function kdf2(crypto: Crypto, key: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array] {
  const extracted = crypto.hmac(key, input);
  const first = crypto.hmac(extracted, ONE);
  const second = crypto.hmac(extracted, first, TWO); // τi := HMAC(τ0, τ(i-1) ‖ i)
  extracted.fill(0);
  return [first, second];
}

/** (τ1, τ2, τ3) of KDF_n(key, input). */
export function kdf3(crypto: Crypto, key: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array, Uint8Array] {
  const extracted = crypto.hmac(key, input);
  const first = crypto.hmac(extracted, ONE);
  const second = crypto.hmac(extracted, first, TWO);
  const third = crypto.hmac(extracted, second, THREE);
  extracted.fill(0);
  return [first, second, third];
}
