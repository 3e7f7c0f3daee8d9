import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { Splitter } from "../../src/wire/split.ts";
import { must, same } from "../fuzz/target.ts";
import { record, scale } from "../proof/form.ts";
import { splitNaively } from "./naive-split.ts";
import { hostileSuper, randomBytesOf, randomSuper } from "./super-packets.ts";

const RUNS = scale(Number(process.env["FC_RUNS"] ?? 2_000), 1_000_000);
const GUARD_BYTES = 64;

/** The pieces, or why there are none; throws when anything but the targets was written, or a byte outside mattered. */
function split(input: Uint8Array, random: SeededRandom): Uint8Array[] | string {
  const shift = random.below(8);
  const gap = random.below(16);
  const result = splitAmid(input, 0x00, shift, gap);
  const again = splitAmid(input, 0xff, shift + random.below(4), gap);
  must(isSame(result, again), "what lies around the packet made a difference");
  return result;
}

function splitAmid(input: Uint8Array, guard: number, shift: number, gap: number): Uint8Array[] | string {
  const splitter = new Splitter();
  const from = GUARD_BYTES + shift;
  const room = from + input.length + GUARD_BYTES;
  const memory = new Uint8Array(room + 2 * input.length + 6_000 + GUARD_BYTES).fill(guard);
  memory.set(input, from);
  const expected = memory.slice();
  const drop = splitter.begin(memory, from, input.length);
  const pieces: Uint8Array[] = [];
  must((drop === undefined) === splitter.pieces > 0, "a drop with pieces, or none without a drop");
  for (let i = 0, to = room; i < splitter.pieces; i++, to += gap) {
    const bytes = splitter.pieceBytes(i);
    if (to + bytes > memory.length) to = room;
    must(splitter.write(i, memory, to) === bytes, "another length than announced");
    pieces.push(memory.slice(to, to + bytes));
    expected.set(pieces[i]!, to);
    to += bytes;
  }
  must(same(memory, expected), "something else was written");
  return drop ?? pieces;
}

function isSame(a: Uint8Array[] | string, b: Uint8Array[] | string): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.length === b.length && a.every((piece, i) => same(piece, b[i]!));
}

function expectLikeTwin(input: Uint8Array, random: SeededRandom): void {
  const result = split(input, random);
  const twin = splitNaively(input);
  if (twin === undefined ? typeof result === "string" : isSame(result, twin)) return;
  expect(result, `split differently: ${Buffer.from(input).toString("base64")}`).toEqual(twin);
}

describe("splitting a super-packet", () => {
  it("gives what the naive splitter gives, for random super-packets", () => {
    const random = new SeededRandom(1);
    for (let run = 0; run < RUNS / 2; run++) expectLikeTwin(randomSuper(random), random);
    record({ what: "super-packets split as the naive splitter does", count: RUNS / 2 });
  }, 300_000);

  it("gives what the naive splitter gives, or refuses as it does, for hostile ones", () => {
    const random = new SeededRandom(2);
    for (let run = 0; run < RUNS / 2; run++) expectLikeTwin(hostileSuper(random), random);
    record({ what: "hostile super-packets split or refused as the naive splitter does", count: RUNS / 2 });
  }, 300_000);
  it("writes nowhere into the packet", () => {
    const memory = new Uint8Array(8_000);
    const input = randomSuper(new SeededRandom(3));
    memory.set(input, 2_000);
    const splitter = new Splitter();
    expect(splitter.begin(memory, 2_000, input.length)).toBeUndefined();
    expect(() => splitter.write(0, memory, 2_010 - splitter.pieceBytes(0) + 1)).toThrow("beside its packet");
    expect(randomBytesOf(new SeededRandom(1), 1)).toHaveLength(1);
  });
});
