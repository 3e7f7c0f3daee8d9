// ChaCha20-Poly1305 by the OpenSSL that is linked into the node binary itself: EVP_EncryptInit(3), called through FFI
// with plain addresses.
import { assert } from "../../base/assert.ts";
import { utf8 } from "../../base/bytes.ts";
import { DATAGRAM_MAX_BYTES } from "../../base/limits.ts";
import { KEY_BYTES, TAG_BYTES, type TransportAead } from "../../crypto/provider.ts";
import type { Arena } from "./arena.ts";
import { bindNative as bind, type NativeFunction } from "./koffi.ts";

const NONCE_BYTES = 12;
const GET_TAG = 0x10; // EVP_CTRL_AEAD_GET_TAG
const SET_TAG = 0x11; // EVP_CTRL_AEAD_SET_TAG
const CHUNK_BYTES = 16_384;
const PARAMETER_BYTES = 40;
const PARAMETER_DATA_AT = 16;
const OSSL_PARAM_OCTET_STRING = 5;

interface Evp {
  readonly newContext: NativeFunction;
  readonly freeContext: NativeFunction;
  readonly cipher: number;
  readonly encryptInit: NativeFunction;
  readonly encryptUpdate: NativeFunction;
  readonly encryptFinal: NativeFunction;
  readonly decryptInit: NativeFunction;
  readonly decryptUpdate: NativeFunction;
  readonly decryptFinal: NativeFunction;
  readonly control: NativeFunction;
  /** With parameters: the tag goes the same way as the nonce. */
  readonly decryptInitWith: NativeFunction;
  readonly getParameters: NativeFunction;
}

function loadEvp(): Evp {
  const at = "uintptr_t";
  const cipher = bind("EVP_chacha20_poly1305", at);
  return {
    newContext: bind("EVP_CIPHER_CTX_new", at),
    freeContext: bind("EVP_CIPHER_CTX_free", "void", at),
    cipher: Number(cipher()),
    encryptInit: bind("EVP_EncryptInit_ex", "int", at, at, at, at, at),
    encryptUpdate: bind("EVP_EncryptUpdate", "int", at, at, at, at, "int"),
    encryptFinal: bind("EVP_EncryptFinal_ex", "int", at, at, at),
    decryptInit: bind("EVP_DecryptInit_ex", "int", at, at, at, at, at),
    decryptUpdate: bind("EVP_DecryptUpdate", "int", at, at, at, at, "int"),
    decryptFinal: bind("EVP_DecryptFinal_ex", "int", at, at, at),
    control: bind("EVP_CIPHER_CTX_ctrl", "int", at, "int", "int", at),
    decryptInitWith: bind("EVP_DecryptInit_ex2", "int", at, at, at, at, at),
    getParameters: bind("EVP_CIPHER_CTX_get_params", "int", at, at),
  };
}

/**
 * A native address. It is no small integer of the engine, and a field that only ever holds such numbers gives a copy on
 * the heap whenever it is read; one that began as undefined hands out the one it has.
 */
type HeldAddress = number | undefined;

/** Room in the arena that every call uses and leaves behind without a secret, but for packet bytes. */
class Scratch {
  readonly arena: Arena;
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly tag: Uint8Array;
  /** Packets that do not lie in the arena pass through here. */
  readonly packet: Uint8Array;
  /** The nonce in the arena's words. */
  readonly nonceWord: number;
  /** OSSL_PARAM(3) of the tag alone: its offset in the arena. */
  readonly tagParameter: number;
  #tagParameterAt: HeldAddress;
  #keyAt: HeldAddress;
  #nonceAt: HeldAddress;
  #tagAt: HeldAddress;
  #lengthAt: HeldAddress;
  #packetAt: HeldAddress;

  constructor(arena: Arena) {
    this.arena = arena;
    this.key = arena.allocate(KEY_BYTES);
    this.nonce = arena.allocate(NONCE_BYTES);
    this.tag = arena.allocate(TAG_BYTES);
    this.packet = arena.allocate(Math.max(CHUNK_BYTES, DATAGRAM_MAX_BYTES));
    this.#keyAt = arena.addressOf(this.key);
    this.#nonceAt = arena.addressOf(this.nonce);
    this.#tagAt = arena.addressOf(this.tag);
    this.#lengthAt = arena.addressOf(arena.allocate(8));
    this.#packetAt = arena.addressOf(this.packet);
    this.nonceWord = this.nonce.byteOffset / 4;
    this.tagParameter = allocateTagParameter(arena);
    this.#tagParameterAt = arena.baseAddress + this.tagParameter;
  }

  get keyAt(): number {
    return this.#keyAt as number;
  }

  get nonceAt(): number {
    return this.#nonceAt as number;
  }

  get tagAt(): number {
    return this.#tagAt as number;
  }

  get tagParameterAt(): number {
    return this.#tagParameterAt as number;
  }

  /** Where EVP writes how much it wrote. */
  get lengthAt(): number {
    return this.#lengthAt as number;
  }

  get packetAt(): number {
    return this.#packetAt as number;
  }
}

/** Bytes that `OpenSslAead` and `OpenSslX25519` take from their arena, rounded up. */
export const OPENSSL_ARENA_BYTES = 65_536;

/**
 * OSSL_PARAM: key, type, data, size, returned size; 40 bytes, the last one all zeros. Its data, the tag's place, is set
 * anew for each packet. As a parameter the tag costs a third of what EVP_CIPHER_CTX_ctrl(3) takes to come to the same.
 */
function allocateTagParameter(arena: Arena): number {
  const name = arena.allocateAt(8);
  arena.bytes.set(utf8("tag"), name);
  const at = arena.allocateAt(2 * PARAMETER_BYTES);
  arena.writePointer(at, name);
  arena.words[(at + 8) / 4] = OSSL_PARAM_OCTET_STRING;
  arena.words[(at + 24) / 4] = TAG_BYTES;
  return at;
}

export class OpenSslAead {
  readonly #evp: Evp;
  readonly #scratch: Scratch;
  readonly #sealing: number;
  readonly #opening: number;

  /** Throws when the functions are not there. Packets are sealed and opened in place where they lie in this arena. */
  constructor(arena: Arena) {
    this.#evp = loadEvp();
    this.#scratch = new Scratch(arena);
    this.#sealing = newContext(this.#evp);
    this.#opening = newContext(this.#evp);
  }

  transportAead(key: Uint8Array): TransportAead {
    return new OpenSslTransportAead(this.#evp, this.#scratch, key);
  }

  /** Like `Crypto.sealWithNonce`; any length, in pieces through the arena. */
  sealWithNonce(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): Uint8Array {
    const { keyAt, nonceAt, tag, tagAt, lengthAt } = this.#scratch;
    const evp = this.#evp;
    this.#setKeyAndNonce(key, nonce);
    must(evp.encryptInit(this.#sealing, evp.cipher, 0, keyAt, nonceAt));
    this.#scratch.key.fill(0);
    this.#addData(evp.encryptUpdate, this.#sealing, aad);
    const sealed = new Uint8Array(plaintext.length + TAG_BYTES);
    this.#transform(evp.encryptUpdate, this.#sealing, plaintext, sealed);
    must(evp.encryptFinal(this.#sealing, tagAt, lengthAt));
    must(evp.control(this.#sealing, GET_TAG, TAG_BYTES, tagAt));
    sealed.set(tag, plaintext.length);
    return sealed;
  }

  /** Like `Crypto.openWithNonce`. */
  openWithNonce(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
    if (sealed.length < TAG_BYTES) return undefined;
    const { keyAt, nonceAt, tag, tagAt, lengthAt } = this.#scratch;
    const evp = this.#evp;
    this.#setKeyAndNonce(key, nonce);
    must(evp.decryptInit(this.#opening, evp.cipher, 0, keyAt, nonceAt));
    this.#scratch.key.fill(0);
    const openedBytes = sealed.length - TAG_BYTES;
    tag.set(sealed.subarray(openedBytes));
    must(evp.control(this.#opening, SET_TAG, TAG_BYTES, tagAt));
    this.#addData(evp.decryptUpdate, this.#opening, aad);
    const plaintext = new Uint8Array(openedBytes);
    this.#transform(evp.decryptUpdate, this.#opening, sealed.subarray(0, openedBytes), plaintext);
    if (evp.decryptFinal(this.#opening, tagAt, lengthAt) === 1) return plaintext;
    plaintext.fill(0);
    return undefined;
  }

  #setKeyAndNonce(key: Uint8Array, nonce: Uint8Array): void {
    assert(key.length === KEY_BYTES && nonce.length === NONCE_BYTES, "a key of 32 bytes and a nonce of 12");
    this.#scratch.key.set(key);
    this.#scratch.nonce.set(nonce);
  }

  #addData(update: NativeFunction, context: number, aad: Uint8Array): void {
    const { packet, packetAt, lengthAt } = this.#scratch;
    for (let at = 0; at < aad.length; at += CHUNK_BYTES) {
      const piece = aad.subarray(at, at + CHUNK_BYTES);
      packet.set(piece);
      must(update(context, 0, lengthAt, packetAt, piece.length));
    }
  }

  #transform(update: NativeFunction, context: number, from: Uint8Array, to: Uint8Array): void {
    const { packet, packetAt, lengthAt } = this.#scratch;
    for (let at = 0; at < from.length; at += CHUNK_BYTES) {
      const piece = from.subarray(at, at + CHUNK_BYTES);
      packet.set(piece);
      must(update(context, packetAt, lengthAt, packetAt, piece.length));
      to.set(packet.subarray(0, piece.length), at);
    }
    packet.fill(0, 0, Math.min(from.length, CHUNK_BYTES));
  }
}

/**
 * These calls fail only when memory is exhausted or we called them wrongly: a forged tag shows in decryptFinal alone.
 */
function must(result: number): void {
  assert(result === 1, "OpenSSL did what it was asked");
}

function newContext(evp: Evp): number {
  const context = Number(evp.newContext());
  assert(context !== 0, "OpenSSL has memory for a cipher context");
  return context;
}

/** Where that byte lies in the arena; −1: elsewhere. What fills the arena whole is known without asking its buffer. */
function placeIn(arena: Arena, buffer: Uint8Array, offset: number): number {
  if (buffer === arena.bytes) return offset;
  return arena.holds(buffer) ? buffer.byteOffset + offset : -1;
}

class OpenSslTransportAead implements TransportAead {
  readonly #evp: Evp;
  readonly #scratch: Scratch;
  readonly #key: Uint8Array;
  // One context for each direction in use: the key is set once, only the nonce before each packet.
  #sealing: HeldAddress;
  #opening: HeldAddress;
  #destroyed = false;

  constructor(evp: Evp, scratch: Scratch, key: Uint8Array) {
    assert(key.length === KEY_BYTES, "a key of 32 bytes");
    this.#evp = evp;
    this.#scratch = scratch;
    this.#key = new Uint8Array(key);
  }

  seal(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): void {
    const { nonceAt, tagAt, lengthAt, packet, packetAt, arena, tag, tagParameter, tagParameterAt } = this.#scratch;
    const evp = this.#evp;
    this.#sealing ??= this.#newContext(evp.encryptInit);
    const context = this.#sealing;
    this.#setNonce(counterLow, counterHigh);
    must(evp.encryptInit(context, 0, 0, 0, nonceAt));
    const place = placeIn(arena, buffer, offset);
    if (place >= 0) {
      const at = arena.baseAddress + place;
      if (length > 0) must(evp.encryptUpdate(context, at, lengthAt, at, length));
      must(evp.encryptFinal(context, tagAt, lengthAt));
      arena.writePointer(tagParameter + PARAMETER_DATA_AT, place + length);
      must(evp.getParameters(context, tagParameterAt));
      return;
    }
    assert(length <= packet.length, "a packet fits the arena's scratch");
    packet.set(buffer.subarray(offset, offset + length));
    if (length > 0) must(evp.encryptUpdate(context, packetAt, lengthAt, packetAt, length));
    must(evp.encryptFinal(context, tagAt, lengthAt));
    must(evp.control(context, GET_TAG, TAG_BYTES, tagAt));
    buffer.set(packet.subarray(0, length), offset);
    buffer.set(tag, offset + length);
  }

  open(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): boolean {
    if (length < TAG_BYTES) return false;
    const { nonceAt, tagAt, lengthAt, packet, packetAt, arena, tag, tagParameter, tagParameterAt } = this.#scratch;
    const evp = this.#evp;
    this.#opening ??= this.#newContext(evp.decryptInit);
    const context = this.#opening;
    const openedBytes = length - TAG_BYTES;
    this.#setNonce(counterLow, counterHigh);
    const place = placeIn(arena, buffer, offset);
    if (place >= 0) {
      const at = arena.baseAddress + place;
      arena.writePointer(tagParameter + PARAMETER_DATA_AT, place + openedBytes);
      must(evp.decryptInitWith(context, 0, 0, nonceAt, tagParameterAt));
      if (openedBytes > 0) must(evp.decryptUpdate(context, at, lengthAt, at, openedBytes));
      return evp.decryptFinal(context, tagAt, lengthAt) === 1;
    }
    assert(openedBytes <= packet.length, "a packet fits the arena's scratch");
    must(evp.decryptInit(context, 0, 0, 0, nonceAt));
    packet.set(buffer.subarray(offset, offset + openedBytes));
    tag.set(buffer.subarray(offset + openedBytes, offset + length));
    must(evp.control(context, SET_TAG, TAG_BYTES, tagAt));
    if (openedBytes > 0) must(evp.decryptUpdate(context, packetAt, lengthAt, packetAt, openedBytes));
    if (evp.decryptFinal(context, tagAt, lengthAt) !== 1) return false;
    buffer.set(packet.subarray(0, openedBytes), offset);
    return true;
  }

  /** OpenSSL overwrites its copy of the key as it frees the context. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#key.fill(0);
    if (this.#sealing !== undefined) this.#evp.freeContext(this.#sealing);
    if (this.#opening !== undefined) this.#evp.freeContext(this.#opening);
    this.#sealing = undefined;
    this.#opening = undefined;
  }

  #newContext(init: NativeFunction): number {
    assert(!this.#destroyed, "no use of a destroyed key");
    const { key, keyAt, nonceAt } = this.#scratch;
    const context = newContext(this.#evp);
    key.set(this.#key);
    must(init(context, this.#evp.cipher, 0, keyAt, nonceAt));
    key.fill(0);
    return context;
  }

  #setNonce(counterLow: number, counterHigh: number): void {
    const { arena, nonceWord } = this.#scratch;
    const { words } = arena;
    words[nonceWord] = 0;
    words[nonceWord + 1] = counterLow;
    words[nonceWord + 2] = counterHigh;
  }
}
