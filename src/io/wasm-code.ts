// WebAssembly put together instruction by instruction when a thread starts: nothing generated is to be kept beside its
// source, and no compiler is needed. Codes are those of the WebAssembly 2.0 specification, §5.4.

export type Code = readonly number[];

export const I32 = 0x7f;
export const I64 = 0x7e;
export const V128 = 0x7b;
const NO_RESULT = 0x40;

// ── flow
export const BLOCK: Code = [0x02, NO_RESULT];
export const LOOP: Code = [0x03, NO_RESULT];
export const IF: Code = [0x04, NO_RESULT];
export const END: Code = [0x0b];
export const branch = (depth: number): Code => [0x0c, depth];
export const branchIf = (depth: number): Code => [0x0d, depth];
export const call = (index: number): Code => [0x10, index];
export const SELECT: Code = [0x1b];

// ── locals
export const get = (local: number): Code => [0x20, local];
export const set = (local: number): Code => [0x21, local];
export const tee = (local: number): Code => [0x22, local];

// ── i32
export const LESS_U: Code = [0x49];
export const ADD: Code = [0x6a];
export const SUBTRACT: Code = [0x6b];
export const AND: Code = [0x71];
export const OR: Code = [0x72];
export const XOR: Code = [0x73];
export const SHIFT_LEFT: Code = [0x74];
export const SHIFT_RIGHT_U: Code = [0x76];
/** i32.const of 0 or more. */
export const constant = (value: number): Code => [0x41, ...signed(BigInt(value))];

// ── i64
export const WIDE_EQUALS_ZERO: Code = [0x50];
export const WIDE_LESS_U: Code = [0x54];
export const WIDE_ADD: Code = [0x7c];
export const WIDE_MULTIPLY: Code = [0x7e];
export const WIDE_AND: Code = [0x83];
export const WIDE_OR: Code = [0x84];
export const WIDE_XOR: Code = [0x85];
export const WIDE_SHIFT_LEFT: Code = [0x86];
export const WIDE_SHIFT_RIGHT_U: Code = [0x88];
/** i64.extend_i32_u */
export const WIDEN: Code = [0xad];
/** i64.const */
export const wide = (value: bigint): Code => [0x42, ...signed(value)];

// ── memory: alignment 1, at a given offset
const access = (code: readonly number[], offset: number): Code => [...code, 0, ...unsigned(offset)];
export const load = (offset: number): Code => access([0x28], offset);
export const load8 = (offset: number): Code => access([0x2d], offset);
export const store8 = (offset: number): Code => access([0x3a], offset);
export const wideLoad = (offset: number): Code => access([0x29], offset);
export const wideStore = (offset: number): Code => access([0x37], offset);
export const vectorLoad = (offset: number): Code => access([0xfd, 0x00], offset);
export const vectorStore = (offset: number): Code => access([0xfd, 0x0b], offset);
/** v128.load32_splat: four times the same word. */
export const vectorLoadWord = (offset: number): Code => access([0xfd, 0x09], offset);
/** memory.fill: at, byte, count. */
export const FILL: Code = [0xfc, 0x0b, 0];

// ── i32x4
/** v128.const of four words. */
export const vector = (words: readonly [number, number, number, number]): Code => [
  ...[0xfd, 0x0c],
  ...words.flatMap((word) => [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24]),
];
/** i8x16.shuffle: of the 32 bytes of two vectors, 16. */
export const shuffle = (lanes: readonly number[]): Code => [0xfd, 0x0d, ...lanes];
export const SPLAT: Code = [0xfd, 0x11];
export const laneOf = (lane: number): Code => [0xfd, 0x1b, lane];
export const VECTOR_OR: Code = [0xfd, 0x50];
export const VECTOR_XOR: Code = [0xfd, 0x51];
export const PAIRS_ADD: Code = [0xfd, 0x7f]; // i32x4.extadd_pairwise_i16x8_u
export const LANES_SHIFT_LEFT: Code = [0xfd, 0xab, 0x01];
export const LANES_SHIFT_RIGHT_U: Code = [0xfd, 0xad, 0x01];
export const LANES_ADD: Code = [0xfd, 0xae, 0x01];

export interface WasmFunction {
  /** Exported by this name. */
  readonly name?: string;
  readonly parameters: readonly number[];
  readonly result?: number;
  /** How many of which type, after the parameters. */
  readonly locals: readonly (readonly [count: number, type: number])[];
  readonly body: Code;
}

/** A module of functions over a memory that is imported as `arena.memory`, of a page or more. */
export function wasmModule(functions: readonly WasmFunction[]): Uint8Array {
  const typeOf = ({ parameters, result }: WasmFunction): Code => [
    ...[0x60, parameters.length, ...parameters],
    ...(result === undefined ? [0] : [1, result]),
  ];
  const codeOf = ({ locals, body }: WasmFunction): Code => sized([locals.length, ...locals.flat(), ...body, ...END]);
  const exported = functions.flatMap(({ name }, index) => (name === undefined ? [] : [[...nameOf(name), 0, index]]));
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // magic, version
    ...section(1, [functions.length, ...functions.flatMap(typeOf)]),
    ...section(2, [1, ...nameOf("arena"), ...nameOf("memory"), 2, 0, 1]),
    ...section(3, [functions.length, ...functions.map((_, index) => index)]), // each of its own type
    ...section(7, [exported.length, ...exported.flat()]),
    ...section(10, [functions.length, ...functions.flatMap(codeOf)]),
  ]);
}

const sized = (bytes: Code): Code => [...unsigned(bytes.length), ...bytes];
const section = (id: number, bytes: Code): Code => [id, ...sized(bytes)];
const nameOf = (text: string): Code => sized([...text].map((letter) => letter.charCodeAt(0)));

/** In LEB128. */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** In signed LEB128. */
function signed(value: bigint): Code {
  const low = Number(value & 0x7fn);
  const rest = value >> 7n;
  const isLast = (rest === 0n && low < 0x40) || (rest === -1n && low >= 0x40);
  return isLast ? [low] : [low | 0x80, ...signed(rest)];
}
