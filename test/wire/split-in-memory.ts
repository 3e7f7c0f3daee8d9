// A run of the splitter amid other bytes: of what lies around the packet nothing may matter and nothing may change, nor
// may it matter what sums.
import { Splitter } from "../../src/wire/split.ts";
import { must, same } from "../fuzz/target.ts";
import { type MemoryAndSums, plainMemory, simdMemory } from "./both-sums.ts";
import { splitNaively } from "./naive-split.ts";

const GUARD_BYTES = 64;

/** Places of the packet and its pieces: bytes off a word's boundary, and between pieces. */
export interface Places {
  readonly shift: number;
  readonly gap: number;
}

/** The pieces, or why there are none. */
export function splitInMemory(input: Uint8Array, { shift, gap }: Places): Uint8Array[] | string {
  const result = splitAmid(input, (size) => plainMemory(size, 0x00), shift, gap);
  const again = splitAmid(input, (size) => simdMemory(size, 0xff), shift + 1, gap);
  must(areSame(result, again), "what lies around the packet, or what sums, made a difference");
  return result;
}

function splitAmid(
  input: Uint8Array,
  memoryOf: (size: number) => MemoryAndSums,
  shift: number,
  gap: number,
): Uint8Array[] | string {
  const from = GUARD_BYTES + shift;
  const room = from + input.length + GUARD_BYTES;
  const { memory, sums } = memoryOf(room + 2 * input.length + 6_000 + GUARD_BYTES);
  const splitter = new Splitter(sums);
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

function areSame(a: Uint8Array[] | string, b: Uint8Array[] | string): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.length === b.length && a.every((piece, i) => same(piece, b[i]!));
}

/** The same as the naive splitter's, or refused by both. */
export function splitLikeTwin(input: Uint8Array, places: Places): Uint8Array[] | string {
  const result = splitInMemory(input, places);
  const twin = splitNaively(input);
  must(
    twin === undefined ? typeof result === "string" : areSame(result, twin),
    () => `split differently: ${Buffer.from(input).toString("base64")}`,
  );
  return result;
}
