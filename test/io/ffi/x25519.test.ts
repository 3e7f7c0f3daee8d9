// X25519 through FFI beyond the vectors of test/crypto: what OpenSSL keeps, for how long, and what it leaves behind.
import { expect, test } from "vitest";
import { SeededRandom } from "../../../src/base/random.ts";
import { PortableCrypto } from "../../../src/crypto/portable.ts";
import { Arena } from "../../../src/io/ffi/arena.ts";
import { koffi } from "../../../src/io/ffi/koffi.ts";
import { OpenSslX25519 } from "../../../src/io/ffi/x25519.ts";

const portable = new PortableCrypto();
const random = new SeededRandom(25519);
const KEPT_MAX = 16;

function newKey(): Uint8Array {
  const key = new Uint8Array(32);
  random.fill(key);
  return key;
}

test("as the portable one says, for keys new and kept, by turns; at limit + 1 the one unused the longest goes", () => {
  const x25519 = new OpenSslX25519(new Arena(4_096));
  const keys = Array.from({ length: KEPT_MAX + 1 }, newKey);
  const peer = portable.publicKey(newKey());
  for (let round = 0; round < 2; round++) {
    for (const [i, key] of keys.entries()) {
      expect(x25519.publicKey(key)).toEqual(portable.publicKey(key));
      expect(x25519.dh(key, peer)).toEqual(portable.dh(key, peer));
      expect(x25519.keptKeys).toBe(round === 0 ? Math.min(i + 1, KEPT_MAX) : KEPT_MAX);
    }
  }
});

test("a private key that was overwritten is freed by the next call, whichever that is, and never used again", () => {
  const x25519 = new OpenSslX25519(new Arena(4_096));
  const [stays, wiped, reused] = [newKey(), newKey(), newKey()];
  for (const key of [stays, wiped, reused]) x25519.publicKey(key);
  expect(x25519.keptKeys).toBe(3);
  wiped.fill(0);
  random.fill(reused);
  x25519.publicKey(stays);
  expect(x25519.keptKeys).toBe(1);
  expect(x25519.publicKey(reused)).toEqual(portable.publicKey(reused));
});

test("neither a private key nor a shared secret stays in the arena", () => {
  const arena = new Arena(4_096);
  const x25519 = new OpenSslX25519(arena);
  const key = newKey();
  const shared = x25519.dh(key, portable.publicKey(newKey()))!;
  const last = newKey();
  x25519.publicKey(last); // nothing is written over it afterwards
  const left = Buffer.from(arena.buffer);
  expect(shared.some((byte) => byte !== 0)).toBe(true);
  expect([key, last, shared].map((secret) => left.indexOf(secret))).toEqual([-1, -1, -1]);
});

test("a refused point leaves no error behind for the next user of OpenSSL, and the next result is right", () => {
  const peekError = koffi().load(null).func("ERR_peek_error", "ulong", []) as () => number;
  const x25519 = new OpenSslX25519(new Arena(4_096));
  const key = newKey();
  const peer = portable.publicKey(newKey());
  expect(x25519.dh(key, new Uint8Array(32))).toBeUndefined();
  expect(Number(peekError())).toBe(0);
  expect(x25519.dh(key, peer)).toEqual(portable.dh(key, peer));
});
