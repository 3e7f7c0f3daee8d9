// Several native calls by one: in their order, with all their arguments, from a page that nothing can write to; and the
// cipher that goes by lists beside the one that goes call by call, over packets of every length, true and forged.
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../src/base/random.ts";
import { KEY_BYTES, TAG_BYTES } from "../../../src/crypto/provider.ts";
import { Arena } from "../../../src/io/ffi/arena.ts";
import { CallList, callListBytes, canListCalls } from "../../../src/io/ffi/call-list.ts";
import { CHACHA_POLY_ARENA_BYTES, ChaChaPoly } from "../../../src/io/ffi/chacha20-poly1305.ts";
import { needs } from "../../needs.ts";
import { record, scale } from "../../proof/form.ts";

describe.runIf(needs("linux"))("a list of native calls", () => {
  it("is to be had on 64-bit x86 alone", () => {
    expect(canListCalls()).toBe(process.arch === "x64");
    if (!canListCalls()) expect(() => new CallList(new Arena(4_096), 1)).toThrow("x86");
  });

  it("runs its calls in their order, each with its arguments, again after they changed", () => {
    if (!canListCalls()) return;
    const arena = new Arena(callListBytes(3) + 256);
    const at = arena.allocateAt(64);
    const address = arena.baseAddress + at;
    const list = new CallList(arena, 3);
    list.set(0, "memset", [address, 7, 10]);
    list.set(1, "memcpy", [address + 20, address + 5, 4]);
    list.set(2, "memset", [address + 8, 9, 14]);
    list.run();
    const expected = [7, 7, 7, 7, 7, 7, 7, 7, ...new Array<number>(14).fill(9), 7, 7, 0, 0];
    expect([...arena.bytes.subarray(at, at + 26)]).toEqual(expected);
    list.setArgument(2, 1, 3);
    list.setArgument(2, 2, 1);
    list.run();
    expect([...arena.bytes.subarray(at + 7, at + 11)]).toEqual([7, 3, 7, 9]);
  });

  it("hands over five arguments, of 64 bits", () => {
    if (!canListCalls()) return;
    const arena = new Arena(callListBytes(1) + 256);
    const at = arena.allocateAt(64);
    arena.bytes.set(new TextEncoder().encode("%lx %lx\0"), at);
    const list = new CallList(arena, 1);
    list.set(0, "snprintf", [arena.baseAddress + at + 16, 48, arena.baseAddress + at, 2 ** 52 + 1, 0xfedc_ba98]);
    list.run();
    expect(Buffer.from(arena.bytes.subarray(at + 16, at + 40)).toString()).toBe("10000000000001 fedcba98\0");
  });

  it("knows no function that is not there", () => {
    if (!canListCalls()) return;
    expect(() => new CallList(new Arena(4_096), 1).set(0, "no_such_function", [])).toThrow("no_such_function");
  });

  it("goes by code in a page that nobody can write to", () => {
    if (!canListCalls()) return;
    expect(new CallList(new Arena(4_096), 1)).toBeDefined();
    const start = Buffer.from("f30f1efa53554883", "hex"); // of the code
    const memory = openSync("/proc/self/mem", "r");
    const found = readFileSync("/proc/self/maps", "latin1")
      .split("\n")
      .map((line) => /^([0-9a-f]+)-[0-9a-f]+ (r.x.) 00000000 00:00 0 *$/.exec(line))
      .filter((match) => match !== null)
      .filter(([, at]) => {
        const read = Buffer.alloc(start.length);
        readSync(memory, read, 0, read.length, BigInt(`0x${at}`));
        return read.equals(start);
      });
    closeSync(memory);
    expect(new Set(found.map(([, , protection]) => protection))).toEqual(new Set(["r-xp"])); // one a thread
  });
});

describe.runIf(needs("linux"))("ChaCha20-Poly1305 by lists", () => {
  it("is the same as call by call, and leaves what it refuses as it was", { timeout: 900_000 }, () => {
    const ciphers = [true, false].map((usesLists) => {
      const arena = new Arena(CHACHA_POLY_ARENA_BYTES + 8_192);
      const at = arena.allocateAt(4_096);
      const cipher = new ChaChaPoly(arena, { usesLists });
      expect(cipher.usesLists).toBe(usesLists && canListCalls());
      return { arena, at, cipher };
    });
    const random = new SeededRandom(11);
    const key = new Uint8Array(KEY_BYTES);
    const rounds = scale(20_000, 1_000_000);
    expect(rounds).toBeGreaterThanOrEqual(20_000);
    for (let round = 0; round < rounds; round++) {
      random.fill(key);
      const length = random.below(1_600);
      const packet = new Uint8Array(length);
      random.fill(packet);
      const [low, high] = [random.below(2 ** 32), random.below(2 ** 32)];
      const flipped = random.below(length + TAG_BYTES);
      const shift = 64 + random.below(64);
      const seen = ciphers.map(({ arena, at, cipher }) => {
        const from = at + shift;
        const whole = (): Uint8Array => arena.bytes.slice(at, at + 2_048);
        arena.bytes.fill(0x5a, at, at + 2_048);
        arena.bytes.set(packet, from);
        const aead = cipher.transportAead(key);
        aead.seal(low, high, arena.bytes, from, length);
        const sealed = whole();
        arena.bytes[from + flipped]! ^= 1;
        const forged = whole();
        if (aead.open(low, high, arena.bytes, from, length + TAG_BYTES)) throw new Error(`forged: ${length} bytes`);
        if (Buffer.compare(whole(), forged) !== 0) throw new Error(`changed as it was refused: ${length} bytes`);
        arena.bytes[from + flipped]! ^= 1;
        if (!aead.open(low, high, arena.bytes, from, length + TAG_BYTES)) throw new Error(`refused: ${length} bytes`);
        if (Buffer.compare(arena.bytes.subarray(from, from + length), packet) !== 0) throw new Error(`${length} bytes`);
        return sealed;
      });
      if (Buffer.compare(seen[0]!, seen[1]!) !== 0) throw new Error(`sealed in two ways: ${length} bytes`);
    }
    record({ what: "packets sealed, opened and refused by a list of calls as call by call", count: rounds });
  });
});
