// The SIMD cipher does what the portable one does, at any place and length, touches nothing beside a packet and keeps
// no key; Poly1305 at the edges of its field, by whole numbers.
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { KEY_BYTES, TAG_BYTES } from "../../src/crypto/provider.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { CHACHA_POLY_ARENA_BYTES, ChaChaPoly } from "../../src/io/ffi/chacha20-poly1305.ts";
import {
  createSimdAead,
  SIMD_AEAD_KEY_AT,
  SIMD_AEAD_NONCE_AT,
  SIMD_AEAD_POLY_KEY_AT,
  SIMD_AEAD_SCRATCH_BYTES,
  SIMD_AEAD_TAG_AT,
  type SimdAead,
  simdAeadModule,
} from "../../src/io/simd-chacha20-poly1305.ts";
import { webAssembly } from "../../src/io/web-assembly.ts";
import { same } from "../fuzz/target.ts";
import { record, scale } from "../proof/form.ts";

const RUNS = scale(Number(process.env["FC_RUNS"] ?? 2_000), 1_000_000);
const LENGTH_MAX = 1_000; // four turns of its loop
const SCRATCH = 64;
const PACKETS_AT = 1_024;

const memory = new webAssembly.Memory({ initial: 1, maximum: 1 });
const bytes = new Uint8Array(memory.buffer);
const words = new Uint32Array(memory.buffer);
const simd = createSimdAead(memory) as SimdAead;

function begin(key: Uint8Array, low: number, high: number): void {
  bytes.set(key, SCRATCH + SIMD_AEAD_KEY_AT);
  words[(SCRATCH + SIMD_AEAD_NONCE_AT) / 4] = low;
  words[(SCRATCH + SIMD_AEAD_NONCE_AT) / 4 + 1] = high;
}

const isForgotten = (): boolean =>
  bytes.subarray(SCRATCH, SCRATCH + SIMD_AEAD_SCRATCH_BYTES).every((byte) => byte === 0);

describe("ChaCha20-Poly1305 by SIMD", () => {
  it("is there: this engine has SIMD", () => expect(simd).toBeDefined());

  it("seals and opens as the portable one, at any place and length; refuses any flipped bit, untouched", {
    timeout: 600_000,
  }, () => {
    const random = new SeededRandom(5);
    const portable = new PortableCrypto();
    const key = new Uint8Array(KEY_BYTES);
    for (let run = 0; run < RUNS; run++) {
      random.fill(key);
      const length = random.below(random.pick([2, 70, 200, 200, run % 8 === 0 ? LENGTH_MAX : 300]));
      const at = PACKETS_AT + random.below(64);
      const [low, high] = [random.u32(), random.u32()];
      const plaintext = new Uint8Array(length);
      if (random.chance(0.1)) plaintext.fill(0xff);
      else random.fill(plaintext);
      const expected = new Uint8Array(length + TAG_BYTES);
      expected.set(plaintext);
      portable.transportAead(key).seal(low, high, expected, 0, length);
      const end = at + length + TAG_BYTES;
      const place = (content: Uint8Array): void => void bytes.fill(0xa5, at - 1, end + 1).set(content, at);
      const isAlone = (): boolean => bytes[at - 1] === 0xa5 && bytes[end] === 0xa5 && isForgotten();

      place(plaintext);
      begin(key, low, high);
      simd.seal(SCRATCH, at, length);
      const what = `${length} bytes at ${at}, run ${run}`;
      if (!same(bytes.subarray(at, end), expected) || !isAlone()) expect.fail(`sealed otherwise: ${what}`);
      begin(key, low, high);
      const opened = simd.open(SCRATCH, at, length);
      if (opened !== 1 || !same(bytes.subarray(at, at + length), plaintext) || !isAlone())
        expect.fail(`opened otherwise: ${what}`);

      const forged = expected.slice();
      forged[random.below(forged.length)]! ^= 1 << random.below(8);
      place(forged);
      begin(key, low, high);
      if (simd.open(SCRATCH, at, length) !== 0 || !same(bytes.subarray(at, end), forged) || !isAlone())
        expect.fail(`a flipped bit: ${what}`);
    }
    record({ what: "packets sealed, opened and refused by SIMD as by the portable cipher", count: RUNS });
  });

  it("computes Poly1305 at the edges of its field", () => {
    const { exports } = new webAssembly.Instance(new webAssembly.Module(simdAeadModule()), { arena: { memory } });
    const prime = 2n ** 130n - 5n;
    const number = (from: Uint8Array): bigint => from.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
    const put = (value: bigint, at: number): void => {
      for (let i = 0; i < 16; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n);
    };
    const clamp = 0x0ffffffc0ffffffc0ffffffc0fffffffn;
    const all = 2n ** 128n - 1n;
    const lengths = 32n << 64n; // of two blocks
    for (const r of [0n, 1n, 2n, 4n, clamp, all]) {
      for (const s of [0n, 1n, all]) {
        // with r = 1 the sum itself, in steps over 2^130 − 5
        for (let step = -8n; step <= 8n; step++) {
          const blocks = [2n ** 128n - 5n + step - lengths, 0n].map((block) => block & all);
          for (const [i, block] of [[0, blocks[0]!] as const, [1, blocks[1]!] as const])
            put(block, PACKETS_AT + 16 * i);
          put(r, SCRATCH + SIMD_AEAD_POLY_KEY_AT);
          put(s, SCRATCH + SIMD_AEAD_POLY_KEY_AT + 16);
          exports["authenticate"]!(SCRATCH, PACKETS_AT, 32);
          let sum = 0n;
          for (const block of [...blocks, lengths]) sum = ((sum + block + 2n ** 128n) * (r & clamp)) % prime;
          const tag = bytes.subarray(SCRATCH + SIMD_AEAD_TAG_AT, SCRATCH + SIMD_AEAD_TAG_AT + 16);
          expect(number(tag), `r ${r}, s ${s}, step ${step}`).toBe((sum + s) & all);
        }
      }
    }
  });

  it("is left out without SIMD: OpenSSL does the short packets too", () => {
    const cipher = (usesSimd: boolean): ChaChaPoly => new ChaChaPoly(new Arena(CHACHA_POLY_ARENA_BYTES), { usesSimd });
    const [withIt, without] = [cipher(true), cipher(false)];
    const key = new Uint8Array(KEY_BYTES).fill(3);
    for (const length of [0, 1, 64, 191, 192, 193, 500]) {
      const sealed = [withIt, without].map((one) => {
        const buffer = new Uint8Array(length + TAG_BYTES).fill(9);
        one.transportAead(key).seal(1, 2, buffer, 0, length);
        return buffer;
      });
      expect(sealed[0]).toEqual(sealed[1]);
      expect(withIt.transportAead(key).open(1, 2, sealed[1]!, 0, length + TAG_BYTES)).toBe(true);
      expect(without.transportAead(key).open(1, 2, sealed[0]!, 0, length + TAG_BYTES)).toBe(true);
      expect(sealed[0]).toEqual(sealed[1]);
    }
  });
});
