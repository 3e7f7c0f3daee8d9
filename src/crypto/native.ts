// The fast provider: what the operating system's libraries do better comes in by the constructor (io/native-crypto.ts);
// BLAKE2s and XChaCha20-Poly1305 (cookies only) are those of the portable one, since no library at hand is faster or
// has them.
import { writeU32Le } from "../base/bytes.ts";
import { blake2s, hmacBlake2s, keyedBlake2s } from "./blake2s.ts";
import { PortableCrypto } from "./portable.ts";
import type { Crypto, TransportAead } from "./provider.ts";

/** Each with the meaning it has in `Crypto`. */
export type NativeFunctions = Pick<
  Crypto,
  "publicKey" | "dh" | "transportAead" | "sealWithNonce" | "openWithNonce" | "signPublicKey" | "sign" | "verify"
>;

export class NativeCrypto implements Crypto {
  readonly name = "native";
  readonly #functions: NativeFunctions;
  readonly #portable = new PortableCrypto();
  readonly #nonce = new Uint8Array(12);

  constructor(functions: NativeFunctions) {
    this.#functions = functions;
  }

  publicKey(privateKey: Uint8Array): Uint8Array {
    return this.#functions.publicKey(privateKey);
  }

  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    return this.#functions.dh(privateKey, publicKey);
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
    return this.#functions.transportAead(key);
  }

  sealWithNonce(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    return this.#functions.sealWithNonce(key, nonce, plaintext, aad);
  }

  openWithNonce(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    return this.#functions.openWithNonce(key, nonce, sealed, aad);
  }

  seal(key: Uint8Array, counter: number, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    writeU32Le(this.#nonce, 4, counter);
    return this.#functions.sealWithNonce(key, this.#nonce, plaintext, aad);
  }

  open(key: Uint8Array, counter: number, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    writeU32Le(this.#nonce, 4, counter);
    return this.#functions.openWithNonce(key, this.#nonce, sealed, aad);
  }

  xSeal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    return this.#portable.xSeal(key, nonce, plaintext, aad);
  }

  xOpen(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    return this.#portable.xOpen(key, nonce, sealed, aad);
  }

  signPublicKey(seed: Uint8Array): Uint8Array {
    return this.#functions.signPublicKey(seed);
  }

  sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
    return this.#functions.sign(seed, message);
  }

  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    return this.#functions.verify(publicKey, message, signature);
  }
}
