// X25519 by the OpenSSL that is linked into the node binary itself: EVP_PKEY_derive(3) on raw keys, called through FFI
// with plain addresses. By node:crypto each key passes through DER, which costs more than the curve operation.
import { assert } from "../../base/assert.ts";
import { equalBytes, writeU32Le } from "../../base/bytes.ts";
import { KEY_BYTES } from "../../crypto/provider.ts";
import type { Arena } from "./arena.ts";
import { bindNative as bind, type NativeFunction } from "./koffi.ts";

const NID_X25519 = 1_034;
/** A new one computes its public key, as much work as a Diffie–Hellman; an ephemeral one is used three times. */
const PRIVATE_KEYS_KEPT = 16;

interface Evp {
  readonly newPrivate: NativeFunction;
  readonly newPublic: NativeFunction;
  readonly getPublic: NativeFunction;
  readonly free: NativeFunction;
  readonly newContext: NativeFunction;
  readonly freeContext: NativeFunction;
  readonly deriveInit: NativeFunction;
  readonly derivePeer: NativeFunction;
  readonly derive: NativeFunction;
  readonly clearErrors: NativeFunction;
}

function loadEvp(): Evp {
  const at = "uintptr_t";
  return {
    newPrivate: bind("EVP_PKEY_new_raw_private_key", at, "int", at, at, "size_t"),
    newPublic: bind("EVP_PKEY_new_raw_public_key", at, "int", at, at, "size_t"),
    getPublic: bind("EVP_PKEY_get_raw_public_key", "int", at, at, at),
    free: bind("EVP_PKEY_free", "void", at),
    newContext: bind("EVP_PKEY_CTX_new", at, at, at),
    freeContext: bind("EVP_PKEY_CTX_free", "void", at),
    deriveInit: bind("EVP_PKEY_derive_init", "int", at),
    derivePeer: bind("EVP_PKEY_derive_set_peer_ex", "int", at, at, "int"),
    derive: bind("EVP_PKEY_derive", "int", at, at, at),
    clearErrors: bind("ERR_clear_error", "void"),
  };
}

interface Kept {
  /** The array that it was imported from: whoever owns it overwrites it when the key is done with. */
  readonly owner: Uint8Array;
  readonly raw: Uint8Array;
  readonly handle: number;
}

export class OpenSslX25519 {
  readonly #evp: Evp;
  readonly #arena: Arena;
  readonly #input: Uint8Array;
  readonly #output: Uint8Array;
  readonly #length: Uint8Array;
  /** Last used last. */
  #kept: Kept[] = [];

  /** Throws when the functions are not there. */
  constructor(arena: Arena) {
    this.#evp = loadEvp();
    this.#arena = arena;
    this.#input = arena.allocate(KEY_BYTES);
    this.#output = arena.allocate(KEY_BYTES);
    this.#length = arena.allocate(8);
  }

  /** Private keys that OpenSSL holds a copy of now. */
  get keptKeys(): number {
    return this.#kept.length;
  }

  publicKey(privateKey: Uint8Array): Uint8Array {
    const handle = this.#privateKey(privateKey);
    const result = this.#evp.getPublic(handle, this.#arena.addressOf(this.#output), this.#lengthOfKey());
    assert(result === 1, "OpenSSL tells the public key of a private one");
    return new Uint8Array(this.#output);
  }

  /** Undefined when the result is all zeros: the one thing that OpenSSL refuses, of two keys of 32 bytes. */
  dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
    const evp = this.#evp;
    const own = this.#privateKey(privateKey);
    const peer = this.#import(evp.newPublic, publicKey);
    const context = Number(evp.newContext(own, 0));
    assert(context !== 0, "OpenSSL has memory for a key's context");
    assert(evp.deriveInit(context) === 1 && evp.derivePeer(context, peer, 0) === 1, "OpenSSL takes both keys");
    const result = evp.derive(context, this.#arena.addressOf(this.#output), this.#lengthOfKey());
    evp.freeContext(context);
    evp.free(peer);
    if (result === 1) {
      const shared = new Uint8Array(this.#output);
      this.#output.fill(0);
      return shared;
    }
    this.#output.fill(0);
    evp.clearErrors(); // of this thread: TLS would take it for its own
    return undefined;
  }

  /** By the array's identity and its content: an array may be overwritten and used again. */
  #privateKey(raw: Uint8Array): number {
    this.#freeOverwritten();
    const at = this.#kept.findIndex(({ owner }) => owner === raw);
    const [known] = at === -1 ? [] : this.#kept.splice(at, 1);
    const kept = known ?? { owner: raw, raw: new Uint8Array(raw), handle: this.#import(this.#evp.newPrivate, raw) };
    this.#kept.push(kept);
    if (this.#kept.length > PRIVATE_KEYS_KEPT) this.#free(this.#kept.shift()!);
    return kept.handle;
  }

  #freeOverwritten(): void {
    if (this.#kept.every(({ owner, raw }) => equalBytes(owner, raw))) return;
    const overwritten = this.#kept.filter(({ owner, raw }) => !equalBytes(owner, raw));
    this.#kept = this.#kept.filter((kept) => !overwritten.includes(kept));
    for (const kept of overwritten) this.#free(kept);
  }

  /** OpenSSL overwrites its copy of a private key as it frees it. */
  #free({ raw, handle }: Kept): void {
    raw.fill(0);
    this.#evp.free(handle);
  }

  #import(make: NativeFunction, raw: Uint8Array): number {
    assert(raw.length === KEY_BYTES, "a key of 32 bytes");
    this.#input.set(raw);
    const handle = Number(make(NID_X25519, 0, this.#arena.addressOf(this.#input), KEY_BYTES));
    this.#input.fill(0);
    assert(handle !== 0, "OpenSSL takes any 32 bytes for a key");
    return handle;
  }

  #lengthOfKey(): number {
    writeU32Le(this.#length, 0, KEY_BYTES);
    writeU32Le(this.#length, 4, 0);
    return this.#arena.addressOf(this.#length);
  }
}
