// ChaCha20-Poly1305 (RFC 8439 §2.8) for transport data from the two functions that OpenSSL itself builds it of, which
// the node binary exports: ChaCha20_ctr32 and Poly1305_*. On packets of an MTU they take half the time of EVP, whose
// layers cost as much as the cipher. They are no public interface of OpenSSL, so that io/crypto-choice.ts tries them
// against the portable provider and does without them where they are not there or not the same. Packets of up to 192
// bytes take longer to come there than to be sealed: WebAssembly's SIMD does those (io/simd-chacha20-poly1305.ts). The
// calls of a longer one go by one list where there can be such (call-list.ts).
import { assert } from "../../base/assert.ts";
import { DATAGRAM_MAX_BYTES } from "../../base/limits.ts";
import { KEY_BYTES, TAG_BYTES, type TransportAead } from "../../crypto/provider.ts";
import {
  createSimdAead,
  SIMD_AEAD_KEY_AT,
  SIMD_AEAD_NONCE_AT,
  SIMD_AEAD_SCRATCH_BYTES,
  type SimdAead,
} from "../simd-chacha20-poly1305.ts";
import type { Arena } from "./arena.ts";
import { CallList, callListBytes, canListCalls } from "./call-list.ts";
import { bindNative as bind, type NativeFunction } from "./koffi.ts";

const BLOCK_BYTES = 64; // of ChaCha20
const COUNTER_BYTES = 16;
const POLY_BLOCK_BYTES = 16;
const POLY_CONTEXT_MAX_BYTES = 512; // 248 in OpenSSL 3.5
const KEY_WORDS = KEY_BYTES / 4;
/** What one round of SIMD's key stream is enough for: sealed in half of the time, and from here on in the same. */
const SIMD_MAX_BYTES = 192;

/** As in openssl.ts: a field of this type holds the number's box, which goes to each call as it is. */
type HeldAddress = number | undefined;

interface Primitives {
  /** out, in, bytes, key, block counter and nonce: four words. */
  readonly chacha: NativeFunction;
  readonly init: NativeFunction;
  readonly update: NativeFunction;
  readonly final: NativeFunction;
}

/** Throws when they are not there. */
function loadPrimitives(): Primitives {
  const at = "uintptr_t";
  const size = Number(bind("Poly1305_ctx_size", "size_t")());
  if (!(size > 0 && size <= POLY_CONTEXT_MAX_BYTES)) throw new Error(`a Poly1305 context of ${size} bytes`);
  return {
    chacha: bind("ChaCha20_ctr32", "void", at, at, "size_t", at, at),
    init: bind("Poly1305_Init", "void", at, at),
    update: bind("Poly1305_Update", "void", at, at, "size_t"),
    final: bind("Poly1305_Final", "void", at, at),
  };
}

// The calls of a list, in their order.
const CIPHER = 0;
const INIT = 1;
const UPDATE = 2;
const FINAL = 3;
/** To open alone: a forged packet is put back after it. */
const DECIPHER = 4;
const SEAL_CALLS = 4;
const OPEN_CALLS = 5;

/** What `ChaChaPoly` takes of its arena, rounded up. */
export const CHACHA_POLY_ARENA_BYTES =
  4_096 + SIMD_AEAD_SCRATCH_BYTES + DATAGRAM_MAX_BYTES + 2 * callListBytes(OPEN_CALLS);

export interface ChaChaPolyOptions {
  readonly usesSimd?: boolean;
  readonly usesLists?: boolean;
}

export class ChaChaPoly {
  readonly #primitives: Primitives;
  readonly #arena: Arena;
  /** For short packets; undefined where there is none. */
  readonly #simd: SimdAead | undefined;
  readonly #simdAt: number;
  readonly #keyAt: number;
  readonly #counterAt: number;
  readonly #zerosAt: number;
  readonly #polyKeyAt: number;
  readonly #beforeAt: number;
  readonly #contextAt: number;
  readonly #tagAt: number;
  /** Packets that do not lie in the arena pass through here. */
  readonly #packetAt: number;
  /** What stood behind a packet, where its lengths go for a moment. */
  readonly #behindAt: number;
  #key: HeldAddress;
  #counter: HeldAddress;
  #zeros: HeldAddress;
  #polyKey: HeldAddress;
  #context: HeldAddress;
  #tag: HeldAddress;
  #sealing: CallList | undefined;
  #opening: CallList | undefined;

  /** Throws when the functions are not there. Packets are sealed and opened in place where they lie in this arena. */
  constructor(arena: Arena, { usesSimd = true, usesLists = canListCalls() }: ChaChaPolyOptions = {}) {
    this.#primitives = loadPrimitives();
    this.#arena = arena;
    this.#simd = usesSimd ? createSimdAead(arena.memory) : undefined;
    this.#simdAt = arena.allocateAt(SIMD_AEAD_SCRATCH_BYTES);
    this.#keyAt = arena.allocateAt(KEY_BYTES);
    this.#counterAt = arena.allocateAt(2 * COUNTER_BYTES);
    this.#zerosAt = arena.allocateAt(BLOCK_BYTES);
    this.#polyKeyAt = arena.allocateAt(BLOCK_BYTES);
    this.#beforeAt = arena.allocateAt(BLOCK_BYTES);
    this.#behindAt = arena.allocateAt(2 * POLY_BLOCK_BYTES);
    this.#contextAt = arena.allocateAt(POLY_CONTEXT_MAX_BYTES);
    this.#tagAt = arena.allocateAt(TAG_BYTES);
    this.#packetAt = arena.allocateAt(BLOCK_BYTES + DATAGRAM_MAX_BYTES + 3 * POLY_BLOCK_BYTES) + BLOCK_BYTES;
    this.#key = arena.baseAddress + this.#keyAt;
    this.#counter = arena.baseAddress + this.#counterAt;
    this.#zeros = arena.baseAddress + this.#zerosAt;
    this.#polyKey = arena.baseAddress + this.#polyKeyAt;
    this.#context = arena.baseAddress + this.#contextAt;
    this.#tag = arena.baseAddress + this.#tagAt;
    if (usesLists) this.#makeLists();
  }

  #makeLists(): void {
    try {
      const [sealing, opening] = [this.#listOf(SEAL_CALLS, 0), this.#listOf(OPEN_CALLS, this.#polyKey!)];
      opening.setArgument(CIPHER, 0, this.#polyKey!);
      opening.setArgument(CIPHER, 1, this.#zeros!);
      opening.setArgument(CIPHER, 2, BLOCK_BYTES);
      opening.set(DECIPHER, "ChaCha20_ctr32", [0, 0, 0, this.#key!, this.#counter! + COUNTER_BYTES]);
      [this.#sealing, this.#opening] = [sealing, opening];
    } catch {
      this.#sealing = undefined; // the system allows no such page: each call by itself does as well
    }
  }

  /** The key stream, and Poly1305 with the key at `polyKey`; what changes is the caller's to set. */
  #listOf(calls: number, polyKey: number): CallList {
    const list = new CallList(this.#arena, calls);
    list.set(CIPHER, "ChaCha20_ctr32", [0, 0, 0, this.#key!, this.#counter!]);
    list.set(INIT, "Poly1305_Init", [this.#context!, polyKey]);
    list.set(UPDATE, "Poly1305_Update", [this.#context!, 0, 0]);
    list.set(FINAL, "Poly1305_Final", [this.#context!, this.#tag!]);
    return list;
  }

  /** Whether a packet's calls go by one. */
  get usesLists(): boolean {
    return this.#sealing !== undefined;
  }

  transportAead(key: Uint8Array): TransportAead {
    return new ChaChaPolyTransport(this, key);
  }

  /** By the contract of TransportAead. */
  seal(key: Uint32Array, low: number, high: number, buffer: Uint8Array, offset: number, length: number): void {
    const { bytes } = this.#arena;
    const at = this.#placeOf(buffer, offset, length);
    if (length <= SIMD_MAX_BYTES && this.#simd !== undefined) {
      this.#beginSimd(key, low, high);
      this.#simd.seal(this.#simdAt, at, length);
    } else this.#sealLong(key, low, high, at, length);
    if (at === this.#packetAt) buffer.set(bytes.subarray(at, at + length + TAG_BYTES), offset);
  }

  #sealLong(key: Uint32Array, low: number, high: number, at: number, length: number): void {
    this.#setKeyAndNonce(key, low, high);
    // The key stream's first block is the key of Poly1305 (RFC 8439 §2.6): 64 zeros before the packet, which stand
    // there for as long as it takes, make one call of two.
    const before = at - BLOCK_BYTES;
    this.#move(before, this.#beforeAt, BLOCK_BYTES);
    this.#move(this.#zerosAt, before, BLOCK_BYTES);
    const authenticatedBytes = this.#putLengths(at, length);
    const { baseAddress } = this.#arena;
    const list = this.#sealing;
    if (list === undefined) {
      this.#crypt(before, BLOCK_BYTES + length);
      this.#authenticate(at, authenticatedBytes, baseAddress + before);
    } else {
      list.setArgument(CIPHER, 0, baseAddress + before);
      list.setArgument(CIPHER, 1, baseAddress + before);
      list.setArgument(CIPHER, 2, BLOCK_BYTES + length);
      list.setArgument(INIT, 1, baseAddress + before);
      list.setArgument(UPDATE, 1, baseAddress + at);
      list.setArgument(UPDATE, 2, authenticatedBytes);
      list.run();
    }
    this.#takeLengths(at, length, authenticatedBytes);
    this.#forgetKey();
    this.#move(this.#beforeAt, before, BLOCK_BYTES);
    this.#move(this.#tagAt, at + length, TAG_BYTES);
  }

  /** By the contract of TransportAead. */
  open(key: Uint32Array, low: number, high: number, buffer: Uint8Array, offset: number, length: number): boolean {
    if (length < TAG_BYTES) return false;
    const { bytes } = this.#arena;
    const openedBytes = length - TAG_BYTES;
    const at = this.#placeOf(buffer, offset, length);
    let isTrue: boolean;
    if (openedBytes <= SIMD_MAX_BYTES && this.#simd !== undefined) {
      this.#beginSimd(key, low, high);
      isTrue = this.#simd.open(this.#simdAt, at, openedBytes) === 1;
    } else isTrue = this.#openLong(key, low, high, at, openedBytes);
    if (isTrue && at === this.#packetAt) buffer.set(bytes.subarray(at, at + openedBytes), offset);
    return isTrue;
  }

  #openLong(key: Uint32Array, low: number, high: number, at: number, openedBytes: number): boolean {
    this.#setKeyAndNonce(key, low, high);
    const { baseAddress, words } = this.#arena;
    const authenticatedBytes = this.#putLengths(at, openedBytes);
    const list = this.#opening;
    if (list === undefined) {
      this.#primitives.chacha(this.#polyKey!, this.#zeros!, BLOCK_BYTES, this.#key!, this.#counter!);
      this.#authenticate(at, authenticatedBytes, this.#polyKey!);
    } else {
      const counterWord = (this.#counterAt + COUNTER_BYTES) >>> 2;
      words[counterWord] = 1; // the block behind the key's
      words[counterWord + 1] = 0;
      words[counterWord + 2] = low;
      words[counterWord + 3] = high;
      list.setArgument(UPDATE, 1, baseAddress + at);
      list.setArgument(UPDATE, 2, authenticatedBytes);
      list.setArgument(DECIPHER, 0, baseAddress + at);
      list.setArgument(DECIPHER, 1, baseAddress + at);
      list.setArgument(DECIPHER, 2, openedBytes);
      list.run();
    }
    this.#takeLengths(at, openedBytes, authenticatedBytes);
    const isTrue = this.#isTag(at + openedBytes);
    // by itself only what is true is deciphered; by the list all is, and twice is not at all
    if (isTrue === (list === undefined)) {
      words[this.#counterAt >>> 2] = 1;
      this.#crypt(at, openedBytes);
    }
    this.#forgetKey();
    this.#move(this.#zerosAt, this.#polyKeyAt, BLOCK_BYTES);
    return isTrue;
  }

  /** Where it lies in the arena; what lies elsewhere, or at its very beginning, is copied there first. */
  #placeOf(buffer: Uint8Array, offset: number, length: number): number {
    const { bytes } = this.#arena;
    // without asking for its buffer, which is slow
    const at = buffer === bytes ? offset : this.#arena.holds(buffer) ? buffer.byteOffset + offset : 0;
    if (at >= BLOCK_BYTES) return at;
    assert(length <= DATAGRAM_MAX_BYTES, "a packet fits the arena's scratch");
    bytes.set(buffer.subarray(offset, offset + length), this.#packetAt);
    return this.#packetAt;
  }

  /** After each packet: no key stays here. (Poly1305_Final wipes its context.) */
  #forgetKey(): void {
    const { words } = this.#arena;
    const keyWord = this.#keyAt >>> 2;
    for (let i = 0; i < KEY_WORDS; i++) words[keyWord + i] = 0;
  }

  /** A few bytes, none of them in both places. copyWithin() takes longer to begin than this to end. */
  #move(from: number, to: number, count: number): void {
    if (((from | to | count) & 3) === 0) {
      const { words } = this.#arena;
      const fromWord = from >>> 2;
      const toWord = to >>> 2;
      for (let i = 0; i < count >>> 2; i++) words[toWord + i] = words[fromWord + i]!;
      return;
    }
    const { bytes } = this.#arena;
    for (let i = 0; i < count; i++) bytes[to + i] = bytes[from + i]!;
  }

  /** The call itself forgets them. */
  #beginSimd(key: Uint32Array, low: number, high: number): void {
    const { words } = this.#arena;
    const keyWord = (this.#simdAt + SIMD_AEAD_KEY_AT) >>> 2;
    for (let i = 0; i < KEY_WORDS; i++) words[keyWord + i] = key[i]!;
    const nonceWord = (this.#simdAt + SIMD_AEAD_NONCE_AT) >>> 2;
    words[nonceWord] = low;
    words[nonceWord + 1] = high;
  }

  /** RFC 8439 §2.8: the nonce is 32 zero bits ‖ counter; before it the number of the first block. */
  #setKeyAndNonce(key: Uint32Array, low: number, high: number): void {
    const { words } = this.#arena;
    const keyWord = this.#keyAt >>> 2;
    for (let i = 0; i < KEY_WORDS; i++) words[keyWord + i] = key[i]!;
    const word = this.#counterAt >>> 2;
    words[word] = 0;
    words[word + 1] = 0;
    words[word + 2] = low;
    words[word + 3] = high;
  }

  #crypt(at: number, length: number): void {
    if (length === 0) return;
    const address = this.#arena.baseAddress + at;
    this.#primitives.chacha(address, address, length, this.#key!, this.#counter!);
  }

  /**
   * Zeros up to 16 bytes and both lengths (RFC 8439 §2.8.1, no additional data) behind the ciphertext for as long as it
   * takes: one update for all. Returns how many bytes that then authenticates.
   */
  #putLengths(at: number, length: number): number {
    const { bytes } = this.#arena;
    const end = at + length;
    const lengths = at + ((length + POLY_BLOCK_BYTES - 1) & -POLY_BLOCK_BYTES);
    const total = lengths + POLY_BLOCK_BYTES - end;
    assert(end + total <= bytes.length, "there is room behind a packet for its lengths");
    this.#move(end, this.#behindAt, total);
    this.#move(this.#zerosAt, end, total);
    bytes[lengths + 8] = length;
    bytes[lengths + 9] = length >>> 8;
    bytes[lengths + 10] = length >>> 16;
    return length + total;
  }

  #takeLengths(at: number, length: number, authenticatedBytes: number): void {
    this.#move(this.#behindAt, at + length, authenticatedBytes - length);
  }

  /** Into the scratch. */
  #authenticate(at: number, authenticatedBytes: number, polyKey: number): void {
    const { init, update, final } = this.#primitives;
    init(this.#context!, polyKey);
    update(this.#context!, this.#arena.baseAddress + at, authenticatedBytes);
    final(this.#context!, this.#tag!);
  }

  /** In the same time for every tag. */
  #isTag(at: number): boolean {
    const { bytes } = this.#arena;
    let difference = 0;
    for (let i = 0; i < TAG_BYTES; i++) difference |= bytes[this.#tagAt + i]! ^ bytes[at + i]!;
    return difference === 0;
  }
}

class ChaChaPolyTransport implements TransportAead {
  readonly #shared: ChaChaPoly;
  readonly #key = new Uint32Array(KEY_WORDS);
  #destroyed = false;

  constructor(shared: ChaChaPoly, key: Uint8Array) {
    assert(key.length === KEY_BYTES, "a key of 32 bytes");
    this.#shared = shared;
    new Uint8Array(this.#key.buffer).set(key);
  }

  seal(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): void {
    assert(!this.#destroyed, "no use of a destroyed key");
    this.#shared.seal(this.#key, counterLow, counterHigh, buffer, offset, length);
  }

  open(counterLow: number, counterHigh: number, buffer: Uint8Array, offset: number, length: number): boolean {
    assert(!this.#destroyed, "no use of a destroyed key");
    return this.#shared.open(this.#key, counterLow, counterHigh, buffer, offset, length);
  }

  destroy(): void {
    this.#destroyed = true;
    this.#key.fill(0);
  }
}
