// The native provider is chosen only if it works here and now; a provider that errs in any one way is not.
import { expect, test } from "vitest";
import { fromHex } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { Crypto, TransportAead } from "../../src/crypto/provider.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";

/** A right provider, but for one function. */
function broken(overrides: Partial<Crypto>): () => Crypto {
  const good = new PortableCrypto();
  const handler: ProxyHandler<PortableCrypto> = {
    get(target, name) {
      const override: unknown = Reflect.get(overrides, name);
      if (override !== undefined) return override;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  };
  return () => new Proxy(good, handler);
}

test("the native provider is chosen where it works", () => {
  const choice = chooseCrypto({ require: "native" });
  expect(choice.crypto.name).toBe("native");
  expect(choice.reason).toBeUndefined();
});

test("a provider that accepts a flipped tag, errs in a vector or in X25519 is left aside, with the reason", () => {
  const good = new PortableCrypto();
  const trusting = (aead: TransportAead): TransportAead => ({
    seal: (...args) => aead.seal(...args),
    open: (...args) => aead.open(...args) || true,
    destroy: () => aead.destroy(),
  });
  const faults: [RegExp, Partial<Crypto>][] = [
    [/sealing differs from RFC 8439/, { sealWithNonce: (_k, _n, plaintext) => new Uint8Array(plaintext.length + 16) }],
    [/opening differs from RFC 8439/, { openWithNonce: () => undefined }],
    [
      /a flipped tag was accepted$/,
      {
        openWithNonce: (key, nonce, sealed, aad) => {
          const repaired = sealed.slice();
          repaired[sealed.length - 1] = 0x91;
          return good.openWithNonce(key, nonce, repaired, aad);
        },
      },
    ],
    [/X25519 differs/, { dh: () => new Uint8Array(32).fill(1) }],
    [/low-order/, { dh: (a, b) => good.dh(a, b) ?? new Uint8Array(32) }],
    [/tag was accepted in place/, { transportAead: (key) => trusting(good.transportAead(key)) }],
    [/sealing in place differs/, { transportAead: () => good.transportAead(new Uint8Array(32)) }],
  ];
  for (const [reason, fault] of faults) {
    const choice = chooseCrypto({ build: broken(fault) });
    expect(choice.crypto.name).toBe("portable");
    expect(choice.reason).toMatch(reason);
  }
});

test("a required native provider that can't be had is an error with its code, not a slower run", () => {
  const build = (): Crypto => {
    throw new Error("no prebuilt library for this platform");
  };
  expect(chooseCrypto({ build }).reason).toContain("no prebuilt library");
  expect(() => chooseCrypto({ build, require: "native" })).toThrow(
    expect.objectContaining({ code: "NATIVE_UNAVAILABLE" }),
  );
});

test("without the functions below EVP, or with others by their names, EVP itself is taken", () => {
  const asked: boolean[] = [];
  const build = (_arena?: Arena, { evpOnly = false } = {}): Crypto => {
    asked.push(evpOnly);
    if (evpOnly) return createNativeCrypto(undefined, { evpOnly });
    if (asked.length === 1) throw new Error("no Poly1305_Init");
    return broken({ transportAead: () => new PortableCrypto().transportAead(new Uint8Array(32)) })();
  };
  for (let i = 0; i < 2; i++)
    expect(chooseCrypto({ build })).toMatchObject({ crypto: { name: "native" }, reason: undefined });
  expect(asked).toEqual([false, true, false, true]);
});

test("what stands around a packet in the arena stays as it was, sealed or opened, whatever its length", () => {
  const arena = new Arena(262_144);
  const aead = createNativeCrypto(arena).transportAead(fromHex("c0ffee11".repeat(8))!);
  const { bytes } = arena;
  const at = arena.allocateAt(4_096) + 64;
  for (const length of [0, 1, 15, 16, 17, 31, 32, 1_408, 1_420, 1_424]) {
    bytes.fill(0xa5, at - 64, at + length + 128);
    aead.seal(length, 1, bytes, at, length);
    const around = [...bytes.subarray(at - 64, at), ...bytes.subarray(at + length + 16, at + length + 128)];
    expect(
      around.every((byte) => byte === 0xa5),
      `sealed ${length}`,
    ).toBe(true);
    const sealed = bytes.slice(at - 64, at + length + 128);
    expect(aead.open(length, 2, bytes, at, length + 16)).toBe(false);
    expect(bytes.slice(at - 64, at + length + 128), `refused ${length}`).toEqual(sealed);
    expect(aead.open(length, 1, bytes, at, length + 16)).toBe(true);
    expect(bytes.subarray(at, at + length).every((byte) => byte === 0xa5)).toBe(true);
    expect(bytes.slice(at + length, at + length + 128)).toEqual(sealed.slice(64 + length));
  }
});

test("packets inside and outside the arena are sealed alike, and the native key leaves no copy in the arena", () => {
  const arena = new Arena(262_144);
  const crypto = createNativeCrypto(arena);
  const key = fromHex("c0ffee11".repeat(8))!;
  const aead = crypto.transportAead(key);
  const inside = arena.allocate(1600);
  const outside = new Uint8Array(1600);
  for (const buffer of [inside, outside]) {
    buffer.fill(5, 16, 1436);
    aead.seal(7, 0, buffer, 16, 1420);
  }
  expect(inside).toEqual(outside);
  const keyIsInArena = (): boolean => Buffer.from(arena.buffer).includes(Buffer.from(key));
  expect(keyIsInArena()).toBe(false);
  const sealed = crypto.sealWithNonce(key, new Uint8Array(12), new Uint8Array(10), new Uint8Array(0));
  expect(keyIsInArena()).toBe(false);
  crypto.openWithNonce(key, new Uint8Array(12), sealed, new Uint8Array(0));
  expect(keyIsInArena()).toBe(false);
  inside[100]! ^= 1;
  expect(aead.open(7, 0, inside, 16, 1436)).toBe(false);
  expect(aead.open(7, 0, outside, 16, 1436)).toBe(true);
  expect(outside.subarray(16, 1436).every((byte) => byte === 5)).toBe(true);
});
