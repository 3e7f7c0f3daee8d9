// Internet checksums 16 bytes at a time: WebAssembly SIMD over an arena, which is a WebAssembly.Memory already.
// WebAssembly is little-endian everywhere: words are summed with their bytes swapped, and the sum is swapped at the end
// (RFC 1071 §2 B). Loads need no alignment.
import { plainSums, type Sums } from "../wire/sums.ts";
import {
  ADD,
  AND,
  BLOCK,
  branch,
  branchIf,
  type Code,
  constant,
  END,
  get,
  I32,
  IF,
  LANES_ADD,
  LESS_U,
  LOOP,
  laneOf,
  OR,
  PAIRS_ADD,
  SHIFT_LEFT,
  SHIFT_RIGHT_U,
  SUBTRACT,
  set,
  tee,
  V128,
  wasmModule,
} from "./wasm-code.ts";
import { type WasmMemory, webAssembly } from "./web-assembly.ts";

// One access of so many bytes: how it loads and stores, and what it is a load of. Alignment is 1, offsets are given.
const ACCESSES = {
  16: { isVector: true, load: [0xfd, 0x00], store: [0xfd, 0x0b], lane: [] }, // v128.load, v128.store
  8: { isVector: true, load: [0xfd, 0x5d], store: [0xfd, 0x5b], lane: [0] }, // v128.load64_zero, v128.store64_lane
  4: { isVector: true, load: [0xfd, 0x5c], store: [0xfd, 0x5a], lane: [0] }, // v128.load32_zero, v128.store32_lane
  2: { isVector: false, load: [0x2f], store: [0x3b], lane: [] }, // i32.load16_u, i32.store16
  1: { isVector: false, load: [0x2d], store: [0x3a], lane: [] }, // i32.load8_u, i32.store8
} as const;

// Locals: the parameters, then those of the body.
const AT = 0;
const LENGTH = 1; // what is left of it
const SUM = 2;
const TO = 3;
const TOTAL = 4; // of swapped words
const WORD = 5;
const LANES = 6; // four accumulators, one for each load of a round: none waits for the other
const VECTOR = 10;
const ROUND_BYTES = 64;

/** Adds `size` bytes at AT + offset to the total, and copies them. */
function take(size: keyof typeof ACCESSES, offset: number, copies: boolean): Code {
  const { isVector, load, store, lane } = ACCESSES[size];
  const value = isVector ? VECTOR : WORD;
  const into = isVector ? LANES + ((offset >>> 4) & 3) : TOTAL;
  const add = isVector ? [...PAIRS_ADD, ...get(into), ...LANES_ADD] : [...get(into), ...ADD];
  const copy = copies ? [...get(TO), ...get(value), ...store, 0, offset, ...lane] : [];
  return [...get(AT), ...load, 0, offset, ...tee(value), ...add, ...set(into), ...copy];
}

const move = (local: number, bytes: number): Code => [...get(local), ...constant(bytes), ...ADD, ...set(local)];

/** Past what was taken. */
const advance = (bytes: number, copies: boolean): Code => [...move(AT, bytes), ...(copies ? move(TO, bytes) : [])];

/** The rest of a round, below 64 bytes, by the bits of its length. */
function takeRest(size: 32 | 16 | 8 | 4 | 2 | 1, copies: boolean): Code {
  const taken = size === 32 ? [...take(16, 0, copies), ...take(16, 16, copies)] : take(size, 0, copies);
  const further = size === 1 ? [] : advance(size, copies);
  return [...get(LENGTH), ...constant(size), ...AND, ...IF, ...taken, ...further, ...END];
}

/** (x >>> 16) + (x & 0xffff) */
const fold = (local: number): Code => [
  ...[...get(local), ...constant(16), ...SHIFT_RIGHT_U],
  ...[...get(local), ...constant(0xffff), ...AND, ...ADD],
];

/** 65,535 bytes of ff in all are 2^31 and a little: no lane overflows, nor does their total. */
function bodyOf(copies: boolean): Code {
  const round = [0, 16, 32, 48].flatMap((offset) => take(16, offset, copies));
  return [
    ...[...BLOCK, ...LOOP],
    ...[...get(LENGTH), ...constant(ROUND_BYTES), ...LESS_U, ...branchIf(1)],
    ...[...round, ...advance(ROUND_BYTES, copies)],
    ...[...get(LENGTH), ...constant(ROUND_BYTES), ...SUBTRACT, ...set(LENGTH)],
    ...[...branch(0), ...END, ...END],
    ...([32, 16, 8, 4, 2, 1] as const).flatMap((size) => takeRest(size, copies)),
    ...[1, 2, 3].flatMap((i) => [...get(LANES), ...get(LANES + i), ...LANES_ADD, ...set(LANES)]),
    ...[0, 1, 2, 3].flatMap((lane) => [...get(LANES), ...laneOf(lane), ...get(TOTAL), ...ADD, ...set(TOTAL)]),
    ...[...fold(TOTAL), ...set(TOTAL), ...fold(TOTAL), ...set(TOTAL)],
    ...[...get(TOTAL), ...constant(0xff), ...AND, ...constant(8), ...SHIFT_LEFT],
    ...[...get(TOTAL), ...constant(8), ...SHIFT_RIGHT_U, ...OR],
    ...[...fold(SUM), ...ADD],
  ];
}

/** Both functions take (at, length, sum, to), so that one body serves; sum() has no use for the last. */
export function sumModule(): Uint8Array {
  const parameters = [I32, I32, I32, I32];
  const locals = [[2, I32] as const, [5, V128] as const];
  return wasmModule([
    { name: "sum", parameters, result: I32, locals, body: bodyOf(false) },
    { name: "copySum", parameters, result: I32, locals, body: bodyOf(true) },
  ]);
}

/**
 * Sums over an arena's memory, whose view as a whole `bytes` is; of any other array they are plain. Undefined where the
 * engine or the processor has no SIMD. Sums stay below 2^18.
 */
export function createSimdSums(memory: WasmMemory, bytes: Uint8Array, module = sumModule()): Sums | undefined {
  let exports: Readonly<Record<string, (...numbers: number[]) => number>>;
  try {
    ({ exports } = new webAssembly.Instance(new webAssembly.Module(module), { arena: { memory } }));
  } catch {
    return undefined; // no SIMD: the plain sums serve
  }
  const sum = exports["sum"]!;
  const copySum = exports["copySum"]!;
  return {
    sum: (of, at, length, start) => (of === bytes ? sum(at, length, start, 0) : plainSums.sum(of, at, length, start)),
    copySum: (of, from, to, length, start) =>
      of === bytes ? copySum(from, length, start, to) : plainSums.copySum(of, from, to, length, start),
    copy: (of, from, to, length) => {
      if (of === bytes) copySum(from, length, 0, to);
      else plainSums.copy(of, from, to, length);
    },
  };
}
