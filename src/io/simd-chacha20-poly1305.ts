// ChaCha20-Poly1305 (RFC 8439) for packets of a few hundred bytes: WebAssembly SIMD over an arena. One call does what
// takes five through FFI, in 3 kB of code that loops; no instruction is wider than 128 bits, for which a core that has
// rested need not power up anything. Long packets are OpenSSL's, whose code for them is wider.
//
// Scratch, of an arena: key 32 · nonce's halves 8 · (24) · key stream of four blocks 256 · Poly1305's r and s 32 · tag
// 16 · a last block with its zeros, or the lengths 16.
import {
  ADD,
  AND,
  BLOCK,
  branch,
  branchIf,
  type Code,
  call,
  constant,
  END,
  FILL,
  get,
  I32,
  I64,
  IF,
  LANES_ADD,
  LANES_SHIFT_LEFT,
  LANES_SHIFT_RIGHT_U,
  LESS_U,
  LOOP,
  load8,
  SELECT,
  SHIFT_RIGHT_U,
  SPLAT,
  SUBTRACT,
  set,
  shuffle,
  store8,
  tee,
  V128,
  VECTOR_OR,
  VECTOR_XOR,
  vector,
  vectorLoad,
  vectorLoadWord,
  vectorStore,
  WIDE_ADD,
  WIDE_AND,
  WIDE_EQUALS_ZERO,
  WIDE_LESS_U,
  WIDE_MULTIPLY,
  WIDE_OR,
  WIDE_SHIFT_LEFT,
  WIDE_SHIFT_RIGHT_U,
  WIDE_XOR,
  WIDEN,
  wasmModule,
  wide,
  wideLoad,
  wideStore,
  XOR,
} from "./wasm-code.ts";
import { type WasmMemory, webAssembly } from "./web-assembly.ts";

export const SIMD_AEAD_KEY_AT = 0;
export const SIMD_AEAD_NONCE_AT = 32;
const STREAM_AT = 64;
const STREAM_BYTES = 256; // four blocks, one in each lane
const CHACHA_BLOCK_BYTES = 64;
export const SIMD_AEAD_POLY_KEY_AT = 320;
export const SIMD_AEAD_TAG_AT = 352;
const LAST_AT = 368;
/** What one `createSimdAead` takes of its arena. */
export const SIMD_AEAD_SCRATCH_BYTES = 384;

const POLY_BLOCK_BYTES = 16;
const DOUBLE_ROUNDS = 10;

const add = (local: number, value: number): Code => [...get(local), ...constant(value), ...ADD, ...set(local)];
const less = (local: number, value: number): Code => [...get(local), ...constant(value), ...SUBTRACT, ...set(local)];

// ── the key stream: (scratch, first block's number)

const SCRATCH = 0;
const COUNTER = 1;
const STATE = 2; // 16 vectors: word i of four blocks
const MIXED = 18;
const ROUNDS = 23;
const KEY_WORD = 4;
const COUNTER_WORD = 12;
const SIGMA = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]; // "expand 32-byte k"

/** Word i of the four states before the rounds (§2.3): constants, key, the block's number, nonce. */
function startWord(i: number): Code {
  if (i < KEY_WORD) return vector([SIGMA[i]!, SIGMA[i]!, SIGMA[i]!, SIGMA[i]!]);
  if (i < COUNTER_WORD) return [...get(SCRATCH), ...vectorLoadWord(SIMD_AEAD_KEY_AT + 4 * (i - KEY_WORD))];
  if (i === COUNTER_WORD) return [...get(COUNTER), ...SPLAT, ...vector([0, 1, 2, 3]), ...LANES_ADD];
  if (i === COUNTER_WORD + 1) return vector([0, 0, 0, 0]);
  return [...get(SCRATCH), ...vectorLoadWord(SIMD_AEAD_NONCE_AT + 4 * (i - COUNTER_WORD - 2))];
}

/** By 16 or 8 bits the bytes of each word change places, by others its bits are shifted both ways. */
const ROTATIONS = {
  16: [2, 3, 0, 1],
  8: [3, 0, 1, 2],
} as const;

function rotated(bits: 16 | 12 | 8 | 7): Code {
  if (bits === 16 || bits === 8) {
    const lanes = [0, 4, 8, 12].flatMap((word) => ROTATIONS[bits].map((byte) => word + byte));
    return [...tee(MIXED), ...get(MIXED), ...shuffle(lanes)];
  }
  return [
    ...[...tee(MIXED), ...constant(bits), ...LANES_SHIFT_LEFT],
    ...[...get(MIXED), ...constant(32 - bits), ...LANES_SHIFT_RIGHT_U, ...VECTOR_OR],
  ];
}

/** §2.1 */
function quarterRound(...words: readonly [number, number, number, number]): Code {
  const [a, b, c, d] = words.map((word) => STATE + word) as [number, number, number, number];
  const half = (left: 16 | 8, right: 12 | 7): Code => [
    ...[...get(a), ...get(b), ...LANES_ADD, ...tee(a), ...get(d), ...VECTOR_XOR, ...rotated(left), ...set(d)],
    ...[...get(c), ...get(d), ...LANES_ADD, ...tee(c), ...get(b), ...VECTOR_XOR, ...rotated(right), ...set(b)],
  ];
  return [...half(16, 12), ...half(8, 7)];
}

const bytesFrom = (starts: readonly number[], count: number): number[] =>
  starts.flatMap((start) => Array.from({ length: count }, (_, i) => start + i));
const LOW_WORDS = shuffle(bytesFrom([0, 16, 4, 20], 4));
const HIGH_WORDS = shuffle(bytesFrom([8, 24, 12, 28], 4));
const LOW_HALVES = shuffle(bytesFrom([0, 16], 8));
const HIGH_HALVES = shuffle(bytesFrom([8, 24], 8));

/** Words 4 × i to 4 × i + 3 of each block, from a vector for each word to a vector for each block. */
function storeWords(i: number): Code {
  const word = (n: number): Code => get(STATE + 4 * i + n);
  const pairs = [
    [...word(0), ...word(1), ...LOW_WORDS],
    [...word(2), ...word(3), ...LOW_WORDS],
    [...word(0), ...word(1), ...HIGH_WORDS],
    [...word(2), ...word(3), ...HIGH_WORDS],
  ];
  const row = (block: number): Code => {
    const from = block < 2 ? 0 : 2;
    const both = [...get(MIXED + 1 + from), ...get(MIXED + 2 + from)];
    const at = STREAM_AT + CHACHA_BLOCK_BYTES * block + 16 * i;
    return [...get(SCRATCH), ...both, ...(block % 2 === 0 ? LOW_HALVES : HIGH_HALVES), ...vectorStore(at)];
  };
  return [
    ...pairs.flatMap((pair, n) => [...pair, ...set(MIXED + 1 + n)]),
    ...[0, 1, 2, 3].flatMap((block) => row(block)),
  ];
}

const WORDS = Array.from({ length: 16 }, (_, i) => i);

const KEY_STREAM: Code = [
  ...WORDS.flatMap((i) => [...startWord(i), ...set(STATE + i)]),
  ...[...constant(DOUBLE_ROUNDS), ...set(ROUNDS), ...LOOP],
  ...[0, 1, 2, 3].flatMap((i) => quarterRound(i, 4 + i, 8 + i, 12 + i)),
  ...[0, 1, 2, 3].flatMap((i) => quarterRound(i, 4 + ((i + 1) & 3), 8 + ((i + 2) & 3), 12 + ((i + 3) & 3))),
  ...[...get(ROUNDS), ...constant(1), ...SUBTRACT, ...tee(ROUNDS), ...branchIf(0), ...END],
  ...WORDS.flatMap((i) => [...startWord(i), ...get(STATE + i), ...LANES_ADD, ...set(STATE + i)]),
  ...[0, 1, 2, 3].flatMap((i) => storeWords(i)),
];

// ── (at, from, length): what lies at `from` is XORed over what lies at `at`

const AT = 0;
const FROM = 1;
const LEFT = 2;

const step = (bytes: number): Code => [...add(AT, bytes), ...add(FROM, bytes), ...less(LEFT, bytes)];

const XOR_OVER: Code = [
  ...[...BLOCK, ...LOOP, ...get(LEFT), ...constant(16), ...LESS_U, ...branchIf(1)],
  ...[...get(AT), ...get(AT), ...vectorLoad(0), ...get(FROM), ...vectorLoad(0), ...VECTOR_XOR, ...vectorStore(0)],
  ...[...step(16), ...branch(0), ...END, ...END],
  ...[...BLOCK, ...LOOP, ...get(LEFT), ...constant(1), ...LESS_U, ...branchIf(1)],
  ...[...get(AT), ...get(AT), ...load8(0), ...get(FROM), ...load8(0), ...XOR, ...store8(0)],
  ...[...step(1), ...branch(0), ...END, ...END],
];

// ── Poly1305 (§2.5) of (scratch, at, length), zeros to 16 bytes and both lengths: the tag, into the scratch.
// Numbers modulo 2^130 − 5 in five limbs of 26 bits: no product of two, nor the sum of five, overflows 64.

const BYTES_AT = 1;
const LENGTH = 2;
const BLOCKS_LEFT = 3;
const PHASE = 4;
const REST = 5;
const H = 6;
const R = 11;
const R5 = 15; // R5 + i for limb i ≥ 1: five times r's
const D = 20;
const LOW = 25;
const HIGH = 26;
const LIMB_BITS = 26;
const LIMB = (1n << 26n) - 1n;
const LIMBS = [0, 1, 2, 3, 4] as const;

const shiftedRight = (value: Code, bits: number): Code => [...value, ...wide(BigInt(bits)), ...WIDE_SHIFT_RIGHT_U];
const shiftedLeft = (value: Code, bits: number): Code => [...value, ...wide(BigInt(bits)), ...WIDE_SHIFT_LEFT];

/** Limb i of the 16 bytes in LOW and HIGH, by its mask; none: all that is left. */
function limb(i: number, mask: bigint | undefined): Code {
  const [low, high] = [get(LOW), get(HIGH)];
  const bits = [
    low,
    shiftedRight(low, 26),
    [...shiftedRight(low, 52), ...shiftedLeft(high, 12), ...WIDE_OR],
    shiftedRight(high, 14),
    shiftedRight(high, 40),
  ][i]!;
  return mask === undefined ? bits : [...bits, ...wide(mask), ...WIDE_AND];
}

const CLAMPED = [0x3ffffffn, 0x3ffff03n, 0x3ffc0ffn, 0x3f03fffn, 0x00fffffn]; // of r, by limbs

/** Of limb `from` in `of`, what is above 26 bits goes to the next; above the last one five times into the first. */
function carry(of: number, from: number): Code {
  const over = shiftedRight(get(of + from), LIMB_BITS);
  const next = of + ((from + 1) % 5);
  const times = from === 4 ? [...wide(5n), ...WIDE_MULTIPLY] : [];
  return [
    ...[...get(next), ...over, ...times, ...WIDE_ADD, ...set(next)],
    ...[...get(of + from), ...wide(LIMB), ...WIDE_AND, ...set(of + from)],
  ];
}

const loadBlock = (local: number, offset: number): Code => [
  ...[...get(local), ...wideLoad(offset), ...set(LOW)],
  ...[...get(local), ...wideLoad(offset + 8), ...set(HIGH)],
];

/** h = (h + block + 2^128) × r */
const ABSORB: Code = [
  ...loadBlock(BYTES_AT, 0),
  ...LIMBS.flatMap((i) => [
    ...[...get(H + i), ...limb(i, i === 4 ? undefined : LIMB), ...WIDE_ADD],
    ...(i === 4 ? [...wide(1n << 24n), ...WIDE_ADD] : []),
    ...set(H + i),
  ]),
  ...LIMBS.flatMap((i) => [
    ...LIMBS.flatMap((j) => {
      const factor = j <= i ? R + i - j : R5 + 5 + i - j;
      return [...get(H + j), ...get(factor), ...WIDE_MULTIPLY, ...(j === 0 ? [] : WIDE_ADD)];
    }),
    ...set(D + i),
  ]),
  ...[0, 1, 2, 3, 4, 0].flatMap((i) => carry(D, i)),
  ...LIMBS.flatMap((i) => [...get(D + i), ...set(H + i)]),
];

const lastBlock: Code = [...get(SCRATCH), ...constant(LAST_AT), ...ADD, ...set(BYTES_AT)];

/** What is left of the bytes, with zeros behind it. */
const TAKE_REST: Code = [
  ...[...get(SCRATCH), ...vector([0, 0, 0, 0]), ...vectorStore(LAST_AT)],
  ...[...BLOCK, ...LOOP, ...get(REST), ...constant(1), ...LESS_U, ...branchIf(1), ...less(REST, 1)],
  ...[...get(SCRATCH), ...get(REST), ...ADD, ...get(BYTES_AT), ...get(REST), ...ADD, ...load8(0), ...store8(LAST_AT)],
  ...[...branch(0), ...END, ...END],
  ...[...lastBlock, ...constant(1), ...set(BLOCKS_LEFT)],
];

/** h modulo 2^130 − 5, plus s. */
const FINISH: Code = [
  ...[1, 2, 3, 4, 0].flatMap((i) => carry(H, i)),
  // d = h + 5 − 2^130: h itself was too large when that is not negative
  ...[...get(H), ...wide(5n), ...WIDE_ADD, ...set(D)],
  ...[1, 2, 3, 4].flatMap((i) => [
    ...[...get(H + i), ...shiftedRight(get(D + i - 1), LIMB_BITS), ...WIDE_ADD, ...set(D + i)],
    ...[...get(D + i - 1), ...wide(LIMB), ...WIDE_AND, ...set(D + i - 1)],
  ]),
  ...[...get(D + 4), ...wide(-(1n << 26n)), ...WIDE_ADD, ...set(D + 4)],
  ...[...shiftedRight(get(D + 4), 63), ...wide(-1n), ...WIDE_ADD, ...set(LOW)], // all ones, or none
  ...LIMBS.flatMap((i) => [
    ...[...get(H + i), ...get(H + i), ...get(D + i), ...WIDE_XOR, ...get(LOW), ...WIDE_AND, ...WIDE_XOR],
    ...set(H + i),
  ]),
  ...[...get(H), ...shiftedLeft(get(H + 1), 26), ...WIDE_OR, ...shiftedLeft(get(H + 2), 52), ...WIDE_OR],
  ...[...get(SCRATCH), ...wideLoad(SIMD_AEAD_POLY_KEY_AT + 16), ...tee(LOW), ...WIDE_ADD, ...set(D)],
  ...[...shiftedRight(get(H + 2), 12), ...shiftedLeft(get(H + 3), 14), ...WIDE_OR],
  ...[
    ...shiftedLeft(get(H + 4), 40),
    ...WIDE_OR,
    ...get(SCRATCH),
    ...wideLoad(SIMD_AEAD_POLY_KEY_AT + 24),
    ...WIDE_ADD,
  ],
  ...[...get(D), ...get(LOW), ...WIDE_LESS_U, ...WIDEN, ...WIDE_ADD, ...set(HIGH)],
  ...[
    ...get(SCRATCH),
    ...get(D),
    ...wideStore(SIMD_AEAD_TAG_AT),
    ...get(SCRATCH),
    ...get(HIGH),
    ...wideStore(SIMD_AEAD_TAG_AT + 8),
  ],
];

const AUTHENTICATE: Code = [
  ...loadBlock(SCRATCH, SIMD_AEAD_POLY_KEY_AT),
  ...LIMBS.flatMap((i) => [...limb(i, CLAMPED[i]), ...set(R + i)]),
  ...[1, 2, 3, 4].flatMap((i) => [...get(R + i), ...wide(5n), ...WIDE_MULTIPLY, ...set(R5 + i)]),
  ...[...get(LENGTH), ...constant(4), ...SHIFT_RIGHT_U, ...set(BLOCKS_LEFT)],
  ...[...get(LENGTH), ...constant(POLY_BLOCK_BYTES - 1), ...AND, ...set(REST)],
  ...LOOP,
  ...[...BLOCK, ...LOOP, ...get(BLOCKS_LEFT), ...constant(1), ...LESS_U, ...branchIf(1)],
  ...[...ABSORB, ...add(BYTES_AT, POLY_BLOCK_BYTES), ...less(BLOCKS_LEFT, 1), ...branch(0), ...END, ...END],
  // then what is left, then the lengths (no additional data), each a turn of the loop of its own
  ...[...get(PHASE), ...constant(1), ...LESS_U, ...IF, ...constant(1), ...set(PHASE)],
  ...[...get(REST), ...IF, ...TAKE_REST, ...END, ...branch(1), ...END],
  ...[...get(PHASE), ...constant(2), ...LESS_U, ...IF, ...constant(2), ...set(PHASE)],
  ...[...get(SCRATCH), ...wide(0n), ...wideStore(LAST_AT)],
  ...[...get(SCRATCH), ...get(LENGTH), ...WIDEN, ...wideStore(LAST_AT + 8)],
  ...[...lastBlock, ...constant(1), ...set(BLOCKS_LEFT), ...branch(1), ...END],
  ...END,
  ...FINISH,
];

// ── whole packets: (scratch, at, length of the plaintext)

const PACKET_AT = 1;
const BYTES = 2;
const NUMBER = 3;
const KEY_STREAM_CALL = 0;
const XOR_CALL = 1;
const AUTHENTICATE_CALL = 2;
/** The first four blocks give Poly1305's key and, without the rest of that block, this much. */
const FIRST_BYTES = STREAM_BYTES - CHACHA_BLOCK_BYTES;

const BEGIN: Code = [
  ...[...get(SCRATCH), ...constant(0), ...call(KEY_STREAM_CALL)],
  ...[0, 16].flatMap((i) => [
    ...[...get(SCRATCH), ...get(SCRATCH), ...vectorLoad(STREAM_AT + i), ...vectorStore(SIMD_AEAD_POLY_KEY_AT + i)],
  ]),
];
const TAG: Code = [...get(SCRATCH), ...get(PACKET_AT), ...get(BYTES), ...call(AUTHENTICATE_CALL)];
const LEFT_BYTES = 4;
const WHERE = 5;

/** `count` bytes of what is left, or all of it, by the key stream from there on. */
const cryptPiece = (streamAt: number, count: number): Code => [
  ...[...get(WHERE), ...get(SCRATCH), ...constant(streamAt), ...ADD],
  ...[...get(LEFT_BYTES), ...constant(count), ...get(LEFT_BYTES), ...constant(count), ...LESS_U, ...SELECT],
  ...[...tee(NUMBER), ...call(XOR_CALL)],
  ...[...get(WHERE), ...get(NUMBER), ...ADD, ...set(WHERE)],
  ...[...get(LEFT_BYTES), ...get(NUMBER), ...SUBTRACT, ...set(LEFT_BYTES)],
];

const BLOCK_NUMBER = 6;
const CRYPT: Code = [
  ...[...get(PACKET_AT), ...set(WHERE), ...get(BYTES), ...set(LEFT_BYTES)],
  ...cryptPiece(STREAM_AT + CHACHA_BLOCK_BYTES, FIRST_BYTES),
  ...[...BLOCK, ...LOOP, ...get(LEFT_BYTES), ...constant(1), ...LESS_U, ...branchIf(1), ...add(BLOCK_NUMBER, 4)],
  ...[...get(SCRATCH), ...get(BLOCK_NUMBER), ...call(KEY_STREAM_CALL), ...cryptPiece(STREAM_AT, STREAM_BYTES)],
  ...[...branch(0), ...END, ...END],
];

const FORGET: Code = [...get(SCRATCH), ...constant(0), ...constant(SIMD_AEAD_SCRATCH_BYTES), ...FILL];

const SEAL: Code = [
  ...[...BEGIN, ...CRYPT, ...TAG],
  ...[...get(PACKET_AT), ...get(BYTES), ...ADD, ...get(SCRATCH), ...vectorLoad(SIMD_AEAD_TAG_AT), ...vectorStore(0)],
  ...FORGET,
];

/** Both halves of the tag by XOR: in the same time for every tag. */
const halfDiffers = (half: 0 | 8): Code => [
  ...[...get(PACKET_AT), ...get(BYTES), ...ADD, ...wideLoad(half)],
  ...[...get(SCRATCH), ...wideLoad(SIMD_AEAD_TAG_AT + half), ...WIDE_XOR],
];
const IS_TRUE = 7;
const OPEN: Code = [
  ...[...BEGIN, ...TAG],
  ...[...halfDiffers(0), ...halfDiffers(8), ...WIDE_OR, ...WIDE_EQUALS_ZERO, ...tee(IS_TRUE)],
  ...[...IF, ...CRYPT, ...END, ...FORGET, ...get(IS_TRUE)],
];

export function simdAeadModule(): Uint8Array {
  return wasmModule([
    { parameters: [I32, I32], locals: [[ROUNDS - STATE, V128] as const, [1, I32] as const], body: KEY_STREAM },
    { parameters: [I32, I32, I32], locals: [], body: XOR_OVER },
    {
      name: "authenticate", // for the test of its edges, which no packet comes to by chance
      parameters: [I32, I32, I32],
      locals: [[H - BLOCKS_LEFT, I32] as const, [HIGH + 1 - H, I64] as const],
      body: AUTHENTICATE,
    },
    { name: "seal", parameters: [I32, I32, I32], locals: [[4, I32]], body: SEAL },
    { name: "open", parameters: [I32, I32, I32], result: I32, locals: [[5, I32]], body: OPEN },
  ]);
}

/** Over packets of one arena; its scratch holds key and nonce before each call, and zeros after it. */
export interface SimdAead {
  /** Encrypts `length` bytes at `at` in place and writes the tag of 16 behind them. */
  seal(scratch: number, at: number, length: number): void;
  /** `length` is the plaintext's; the tag stands behind it. 0: forged, and nothing was written there. */
  open(scratch: number, at: number, length: number): number;
}

/** Undefined where the engine or the processor has no SIMD. */
export function createSimdAead(memory: WasmMemory): SimdAead | undefined {
  try {
    const { exports } = new webAssembly.Instance(new webAssembly.Module(simdAeadModule()), { arena: { memory } });
    return { seal: exports["seal"]!, open: exports["open"]! };
  } catch {
    return undefined; // no SIMD: OpenSSL serves
  }
}
