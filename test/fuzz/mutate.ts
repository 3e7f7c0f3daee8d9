// Byte-level mutation: what a format's own generator would never write. Deterministic by its SeededRandom.
import { concatBytes } from "../../src/base/bytes.ts";
import type { SeededRandom } from "../../src/base/random.ts";
import { bytesOf } from "./target.ts";

const EDGES = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 19, 20, 21, 31, 32, 39, 40, 63, 64, 127, 128, 192, 253, 254, 255];
const WIDE_EDGES = [
  0, 1, 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xfff8, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
];

function writeInteger(bytes: Uint8Array, at: number, size: number, value: number, little: boolean): void {
  for (let i = 0; i < size; i++) {
    const place = little ? i : size - 1 - i;
    bytes[at + place] = i < 4 ? value >>> (8 * i) : 0;
  }
}

function cut(input: Uint8Array, random: SeededRandom): Uint8Array {
  const from = random.below(input.length + 1);
  const length = 1 + random.below(random.chance(0.8) ? 8 : input.length + 1);
  return concatBytes(input.subarray(0, from), input.subarray(from + length));
}

function insert(input: Uint8Array, random: SeededRandom, what: Uint8Array): Uint8Array {
  const at = random.below(input.length + 1);
  return concatBytes(input.subarray(0, at), what, input.subarray(at));
}

function overwrite(input: Uint8Array, random: SeededRandom, what: Uint8Array): Uint8Array {
  const at = random.below(input.length + 1);
  return concatBytes(input.subarray(0, at), what, input.subarray(at + what.length));
}

function piece(input: Uint8Array, random: SeededRandom): Uint8Array {
  const from = random.below(input.length + 1);
  return input.subarray(from, from + 1 + random.below(random.chance(0.7) ? 16 : input.length + 1));
}

function noise(random: SeededRandom): Uint8Array {
  const bytes = new Uint8Array(1 + random.below(random.chance(0.9) ? 8 : 64));
  if (random.chance(0.3)) bytes.fill(random.pick(EDGES));
  else random.fill(bytes);
  return bytes;
}

function repeated(part: Uint8Array, times: number): Uint8Array {
  const out = new Uint8Array(part.length * times);
  for (let i = 0; i < times; i++) out.set(part, i * part.length);
  return out;
}

/** One change. `pool` is what to splice with. */
function once(
  input: Uint8Array,
  random: SeededRandom,
  pool: readonly Uint8Array[],
  words: readonly string[],
): Uint8Array {
  const bytes = input.slice();
  const at = random.below(bytes.length);
  switch (random.below(words.length > 0 ? 14 : 12)) {
    case 0:
    case 1:
      if (bytes.length > 0) bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 2:
      if (bytes.length > 0) bytes[at] = random.pick(EDGES);
      return bytes;
    case 3:
      if (bytes.length > 0) bytes[at]! += random.below(2) * 2 - 1;
      return bytes;
    case 4: {
      const size = random.pick([2, 2, 4, 6, 8]);
      if (bytes.length >= size)
        writeInteger(bytes, random.below(bytes.length - size + 1), size, random.pick(WIDE_EDGES), random.chance(0.2));
      return bytes;
    }
    case 5:
      return bytes.slice(0, random.below(bytes.length + 1));
    case 6:
      return cut(bytes, random);
    case 7:
      return insert(bytes, random, noise(random));
    case 8:
      return insert(bytes, random, piece(bytes, random));
    case 9:
      return insert(bytes, random, repeated(piece(bytes, random).slice(0, 8), 1 + random.below(64)));
    case 10: {
      const other = random.pick(pool);
      return concatBytes(bytes.subarray(0, at), other.subarray(random.below(other.length + 1)));
    }
    case 11:
      return overwrite(bytes, random, piece(random.pick(pool), random));
    case 12:
      return insert(bytes, random, bytesOf(random.pick(words)));
    default:
      return overwrite(bytes, random, bytesOf(random.pick(words)));
  }
}

/** One to a few changes, most often one. */
export function mutate(
  input: Uint8Array,
  random: SeededRandom,
  pool: readonly Uint8Array[],
  words: readonly string[],
  maxBytes: number,
): Uint8Array {
  let out = input;
  for (let count = 1 + (random.chance(0.5) ? 0 : random.below(4)); count > 0; count--)
    out = once(out, random, pool, words);
  return out.length > maxBytes ? out.slice(0, maxBytes) : out;
}

/** A JSON value with one change in its tree: keys gone, doubled or odd, values of another kind or at an edge. */
export function mutateJson(value: unknown, random: SeededRandom): unknown {
  if (random.chance(0.15)) return oddValue(random);
  if (Array.isArray(value)) {
    if (value.length === 0 || random.chance(0.2)) return [...value, oddValue(random)];
    const at = random.below(value.length);
    if (random.chance(0.15)) return value.toSpliced(at, 1);
    if (random.chance(0.15)) return [...value, value[at] as unknown];
    return value.with(at, mutateJson(value[at], random));
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    if (entries.length === 0 || random.chance(0.15)) entries.push([random.pick(ODD_KEYS), oddValue(random)]);
    else {
      const at = random.below(entries.length);
      const [key, inner] = entries[at]!;
      if (random.chance(0.15)) entries.splice(at, 1);
      else if (random.chance(0.1)) entries[at] = [random.pick(ODD_KEYS), inner];
      else entries[at] = [key, mutateJson(inner, random)];
    }
    return Object.fromEntries(entries);
  }
  if (typeof value === "string" && random.chance(0.6)) return mutateText(value, random);
  if (typeof value === "number" && random.chance(0.6)) return value + random.pick([-1, 1, 0.5, 2 ** 32, -(2 ** 53)]);
  return oddValue(random);
}

const ODD_KEYS = [
  "",
  "__proto__",
  "constructor",
  "toString",
  "length",
  "type",
  "a/b",
  "0",
  "\u0000",
  "é",
  "x".repeat(300),
];
const ODD_NUMBERS = [0, -0, -1, 1, 0.5, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e21, 1e308, -1e308, 5e-324];

function oddValue(random: SeededRandom): unknown {
  switch (random.below(8)) {
    case 0:
      return null;
    case 1:
      return random.chance(0.5);
    case 2:
      return random.pick(ODD_NUMBERS);
    case 3:
      return random.pick([
        "",
        " ",
        "*",
        "a",
        "\u0000",
        "\ud800",
        "é",
        "💥",
        "__proto__",
        "x".repeat(1_000),
        "-1",
        "1e3",
      ]);
    case 4:
      return [];
    case 5:
      return {};
    case 6:
      return [[[{}]]];
    default:
      return Array.from({ length: random.below(300) }, () => "a");
  }
}

export function mutateText(text: string, random: SeededRandom): string {
  const at = random.below(text.length + 1);
  const odd = [
    ".",
    ":",
    "/",
    "-",
    ",",
    "*",
    " ",
    "0",
    "9",
    "a",
    "Z",
    "_",
    "é",
    "\u0000",
    "\u2028",
    "\r",
    '"',
    "=",
    "#",
  ];
  switch (random.below(5)) {
    case 0:
      return text.slice(0, at) + random.pick(odd) + text.slice(at);
    case 1:
      return text.slice(0, at) + text.slice(at + 1);
    case 2:
      return text.slice(0, at) + random.pick(odd) + text.slice(at + 1);
    case 3:
      return text + text.slice(at);
    default:
      return text.slice(0, at);
  }
}
