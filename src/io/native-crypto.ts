// Builds the native provider: Ed25519 by node:crypto, X25519 and ChaCha20-Poly1305 by OpenSSL's EVP through FFI. Not
// yet trusted: io/crypto-choice.ts tries it on published vectors first.
import { createPrivateKey, createPublicKey, type KeyObject, sign as nodeSign, verify as nodeVerify } from "node:crypto";
import { assert } from "../base/assert.ts";
import { concatBytes, equalBytes, fromHex } from "../base/bytes.ts";
import { NativeCrypto } from "../crypto/native.ts";
import { KEY_BYTES, SIGNATURE_BYTES } from "../crypto/provider.ts";
import { Arena } from "./ffi/arena.ts";
import { CHACHA_POLY_ARENA_BYTES, ChaChaPoly } from "./ffi/chacha20-poly1305.ts";
import { OPENSSL_ARENA_BYTES, OpenSslAead } from "./ffi/openssl.ts";
import { OpenSslX25519 } from "./ffi/x25519.ts";

// DER around a raw key (RFC 8410 §7, §4): importing it so is the only way into node:crypto.
const ED25519_PRIVATE = fromHex("302e020100300506032b657004220420")!;
const ED25519_PUBLIC = fromHex("302a300506032b6570032100")!;

interface Imported {
  readonly raw: Uint8Array;
  readonly key: KeyObject;
}

/**
 * KeyObjects by the identity of the raw key's array: importing costs as much as a signature. The content is compared
 * too, since an array may be overwritten and used again; an entry goes when its array does.
 */
class KeyCache {
  readonly #prefix: Uint8Array;
  readonly #type: "pkcs8" | "spki";
  readonly #entries = new WeakMap<Uint8Array, Imported>();

  constructor(type: "pkcs8" | "spki", prefix: Uint8Array) {
    this.#type = type;
    this.#prefix = prefix;
  }

  get(raw: Uint8Array): KeyObject {
    assert(raw.length === KEY_BYTES, "a key of 32 bytes");
    const known = this.#entries.get(raw);
    if (known !== undefined && equalBytes(known.raw, raw)) return known.key;
    const der = Buffer.from(concatBytes(this.#prefix, raw));
    const key =
      this.#type === "pkcs8"
        ? createPrivateKey({ key: der, format: "der", type: "pkcs8" })
        : createPublicKey({ key: der, format: "der", type: "spki" });
    der.fill(0);
    this.#entries.set(raw, { raw: new Uint8Array(raw), key });
    return key;
  }
}

function rawPublicKey(privateKey: KeyObject): Uint8Array {
  const der = createPublicKey(privateKey).export({ format: "der", type: "spki" });
  return new Uint8Array(der.subarray(der.length - KEY_BYTES));
}

export interface NativeCryptoOptions {
  /** Transport data by EVP alone, not by what OpenSSL builds it of. */
  readonly evpOnly?: boolean;
}

/** What `createNativeCrypto` takes of its arena. */
export const NATIVE_CRYPTO_ARENA_BYTES = OPENSSL_ARENA_BYTES + CHACHA_POLY_ARENA_BYTES;

/** Throws when the FFI or its functions are missing. Packets in the given arena are sealed and opened in place. */
export function createNativeCrypto(
  arena: Arena = new Arena(NATIVE_CRYPTO_ARENA_BYTES),
  { evpOnly = false }: NativeCryptoOptions = {},
): NativeCrypto {
  const aead = new OpenSslAead(arena);
  const transport = evpOnly ? aead : new ChaChaPoly(arena);
  const x25519 = new OpenSslX25519(arena);
  const signPrivate = new KeyCache("pkcs8", ED25519_PRIVATE);
  const signPublic = new KeyCache("spki", ED25519_PUBLIC);
  return new NativeCrypto({
    publicKey: (privateKey) => x25519.publicKey(privateKey),
    dh: (privateKey, publicKey) => x25519.dh(privateKey, publicKey),
    transportAead: (key) => transport.transportAead(key),
    sealWithNonce: (key, nonce, plaintext, aad) => aead.sealWithNonce(key, nonce, plaintext, aad),
    openWithNonce: (key, nonce, sealed, aad) => aead.openWithNonce(key, nonce, sealed, aad),
    signPublicKey: (seed) => rawPublicKey(signPrivate.get(seed)),
    sign: (seed, message) => new Uint8Array(nodeSign(null, message, signPrivate.get(seed))),
    verify(publicKey, message, signature) {
      if (publicKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
      return nodeVerify(null, message, signPublic.get(publicKey), signature);
    },
  });
}
