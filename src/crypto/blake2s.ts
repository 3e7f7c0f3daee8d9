// BLAKE2s (RFC 7693) in the three forms that WireGuard uses [WG §5.4]: Hash, Mac and the HMAC under the key derivation.
// Both providers share it: no native hash offers the keyed form, and through FFI the unkeyed one is no faster.
import { assert } from "../base/assert.ts";
import { BLOCK_BYTES, type Blake2sState, compress, digestOf, forgetLastBlock, initialState } from "./blake2s-block.ts";

const HASH_BYTES = 32;
const MAC_BYTES = 16;
const INNER_PAD = 0x36; // RFC 2104 §2
const OUTER_PAD = 0x5c;
const NOTHING = new Uint8Array(0);

// What lies between two parts that don't end with a block.
const partial = new Uint8Array(BLOCK_BYTES);

/** Goes on from `total` hashed bytes, a whole number of blocks, of which the last is still to be compressed. */
function finish(state: Blake2sState, last: Uint8Array, total: number, parts: readonly Uint8Array[]): void {
  let block = last; // full, or empty at the very beginning: a block is compressed once it is known not to be the last
  let at = 0;
  let filled = last.length;
  let counted = total;
  for (const part of parts) {
    for (let from = 0; from < part.length; ) {
      if (filled === BLOCK_BYTES) {
        compress(state, block, at, BLOCK_BYTES, counted, false);
        filled = 0;
      }
      const take = Math.min(BLOCK_BYTES - filled, part.length - from);
      if (take === BLOCK_BYTES) {
        block = part; // where it is, without a copy
        at = from;
      } else {
        partial.set(part.subarray(from, from + take), filled);
        block = partial;
        at = 0;
      }
      filled += take;
      counted += take;
      from += take;
    }
  }
  compress(state, block, at, filled, counted, true);
}

/** BLAKE2s-256 over the concatenation of the parts: 32 bytes. */
export function blake2s(...parts: readonly Uint8Array[]): Uint8Array {
  const state = initialState(HASH_BYTES, 0);
  finish(state, NOTHING, 0, parts);
  return digestOf(state, HASH_BYTES);
}

/** BLAKE2s-128 keyed with up to 32 bytes: 16 bytes, [WG §5.4] Mac(key, input). */
export function keyedBlake2s(key: Uint8Array, input: Uint8Array): Uint8Array {
  assert(key.length <= HASH_BYTES, "a key of at most 32 bytes");
  const state = initialState(MAC_BYTES, key.length);
  if (key.length === 0) finish(state, NOTHING, 0, [input]);
  else {
    const block = new Uint8Array(BLOCK_BYTES);
    block.set(key);
    finish(state, block, BLOCK_BYTES, [input]);
    block.fill(0);
  }
  partial.fill(0);
  forgetLastBlock();
  return digestOf(state, MAC_BYTES);
}

/** HMAC-BLAKE2s-256 (RFC 2104) : 32 bytes; a key longer than a block is hashed first. */
export function hmacBlake2s(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  block.set(key.length > BLOCK_BYTES ? blake2s(key) : key);
  for (let i = 0; i < BLOCK_BYTES; i++) block[i]! ^= INNER_PAD;
  const inner = initialState(HASH_BYTES, 0);
  finish(inner, block, BLOCK_BYTES, parts);
  const innerHash = digestOf(inner, HASH_BYTES);
  for (let i = 0; i < BLOCK_BYTES; i++) block[i]! ^= INNER_PAD ^ OUTER_PAD;
  const outer = initialState(HASH_BYTES, 0);
  finish(outer, block, BLOCK_BYTES, [innerHash]);
  for (const bytes of [block, innerHash, partial]) bytes.fill(0);
  inner.fill(0);
  forgetLastBlock();
  return digestOf(outer, HASH_BYTES);
}

/** Mac(key, ·) of one key, for many inputs: the key's own block is compressed once. */
export class Blake2sMac {
  readonly #keyed: Blake2sState;
  readonly #state: Blake2sState;

  constructor(key: Uint8Array) {
    assert(key.length > 0 && key.length <= HASH_BYTES, "a key of 1 to 32 bytes");
    const block = new Uint8Array(BLOCK_BYTES);
    block.set(key);
    this.#keyed = initialState(MAC_BYTES, key.length);
    this.#state = new Int32Array(this.#keyed.length);
    compress(this.#keyed, block, 0, BLOCK_BYTES, BLOCK_BYTES, false);
    block.fill(0);
  }

  /** Of at least one byte. */
  of(bytes: Uint8Array, offset: number, length: number): Uint8Array {
    assert(length > 0, "an empty input would make the key's block the last");
    const state = this.#state;
    state.set(this.#keyed);
    let total = BLOCK_BYTES;
    for (let done = 0; done < length; ) {
      const take = Math.min(BLOCK_BYTES, length - done);
      total += take;
      compress(state, bytes, offset + done, take, total, done + take === length);
      done += take;
    }
    return digestOf(state, MAC_BYTES);
  }
}
