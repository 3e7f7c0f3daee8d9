// BLAKE2s (RFC 7693) in the three forms that WireGuard uses [WG §5.4]: Hash, Mac and the HMAC under the key derivation.
// Both providers share it: no native hash offers the keyed form, and through FFI the unkeyed one is no faster.
import { BLAKE2s } from "@stablelib/blake2s";

const BLOCK_BYTES = 64;
const INNER_PAD = 0x36; // RFC 2104 §2
const OUTER_PAD = 0x5c;

/** BLAKE2s-256 over the concatenation of the parts: 32 bytes. */
export function blake2s(...parts: readonly Uint8Array[]): Uint8Array {
  const state = new BLAKE2s(32);
  for (const part of parts) state.update(part);
  return state.digest();
}

/** BLAKE2s-128 keyed with up to 32 bytes: 16 bytes, [WG §5.4] Mac(key, input). */
export function keyedBlake2s(key: Uint8Array, input: Uint8Array): Uint8Array {
  const state = new BLAKE2s(16, { key });
  const out = state.update(input).digest();
  state.clean();
  return out;
}

/** HMAC-BLAKE2s-256 (RFC 2104) : 32 bytes; a key longer than a block is hashed first. */
export function hmacBlake2s(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  block.set(key.length > BLOCK_BYTES ? blake2s(key) : key);
  for (let i = 0; i < BLOCK_BYTES; i++) block[i]! ^= INNER_PAD;
  const inner = new BLAKE2s(32).update(block);
  for (const part of parts) inner.update(part);
  const innerHash = inner.digest();
  for (let i = 0; i < BLOCK_BYTES; i++) block[i]! ^= INNER_PAD ^ OUTER_PAD;
  const outer = new BLAKE2s(32).update(block).update(innerHash);
  const out = outer.digest();
  inner.clean();
  outer.clean();
  block.fill(0);
  innerHash.fill(0);
  return out;
}
