// The compression function of BLAKE2s (RFC 7693 §3.2), with its sixteen words in local variables: under a flood of
// handshake messages each costs two blocks, whatever it is. The readable twin is @stablelib's; a test keeps the two
// equal.

export const BLOCK_BYTES = 64;

/** The state words of one hash; the caller's to keep, copy and overwrite. */
export type Blake2sState = Int32Array;

// biome-ignore format: ten permutations, a line each
const SIGMA = Uint8Array.of(
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
  14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3,
  11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4,
  7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8,
  9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13,
  2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9,
  12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11,
  13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10,
  6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5,
  10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0,
);

const IV = Int32Array.of(
  0x6a09e667,
  0xbb67ae85,
  0x3c6ef372,
  0xa54ff53a,
  0x510e527f,
  0x9b05688c,
  0x1f83d9ab,
  0x5be0cd19,
);

const m = new Int32Array(16);

/** RFC 7693 §2.8: the state for a digest of this length, under a key of this length. */
export function initialState(digestBytes: number, keyBytes: number): Blake2sState {
  const state = new Int32Array(IV);
  state[0]! ^= 0x01010000 | (keyBytes << 8) | digestBytes;
  return state;
}

function rotate(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

/** `length` of the block's bytes stand at `offset`, what lacks is zero; `total` counts all bytes up to their end. */
export function compress(
  h: Blake2sState,
  bytes: Uint8Array,
  offset: number,
  length: number,
  total: number,
  isLast: boolean,
): void {
  loadWords(bytes, offset, length);
  let [v0, v1, v2, v3] = [h[0]!, h[1]!, h[2]!, h[3]!];
  let [v4, v5, v6, v7] = [h[4]!, h[5]!, h[6]!, h[7]!];
  let [v8, v9, v10, v11] = [IV[0]!, IV[1]!, IV[2]!, IV[3]!];
  let [v12, v13, v14, v15] = [IV[4]! ^ total, IV[5]!, isLast ? ~IV[6]! : IV[6]!, IV[7]!];
  for (let r = 0; r < 160; r += 16) {
    v0 = (v0 + v4 + m[SIGMA[r]!]!) | 0;
    v12 = rotate(v12 ^ v0, 16);
    v8 = (v8 + v12) | 0;
    v4 = rotate(v4 ^ v8, 12);
    v0 = (v0 + v4 + m[SIGMA[r + 1]!]!) | 0;
    v12 = rotate(v12 ^ v0, 8);
    v8 = (v8 + v12) | 0;
    v4 = rotate(v4 ^ v8, 7);
    v1 = (v1 + v5 + m[SIGMA[r + 2]!]!) | 0;
    v13 = rotate(v13 ^ v1, 16);
    v9 = (v9 + v13) | 0;
    v5 = rotate(v5 ^ v9, 12);
    v1 = (v1 + v5 + m[SIGMA[r + 3]!]!) | 0;
    v13 = rotate(v13 ^ v1, 8);
    v9 = (v9 + v13) | 0;
    v5 = rotate(v5 ^ v9, 7);
    v2 = (v2 + v6 + m[SIGMA[r + 4]!]!) | 0;
    v14 = rotate(v14 ^ v2, 16);
    v10 = (v10 + v14) | 0;
    v6 = rotate(v6 ^ v10, 12);
    v2 = (v2 + v6 + m[SIGMA[r + 5]!]!) | 0;
    v14 = rotate(v14 ^ v2, 8);
    v10 = (v10 + v14) | 0;
    v6 = rotate(v6 ^ v10, 7);
    v3 = (v3 + v7 + m[SIGMA[r + 6]!]!) | 0;
    v15 = rotate(v15 ^ v3, 16);
    v11 = (v11 + v15) | 0;
    v7 = rotate(v7 ^ v11, 12);
    v3 = (v3 + v7 + m[SIGMA[r + 7]!]!) | 0;
    v15 = rotate(v15 ^ v3, 8);
    v11 = (v11 + v15) | 0;
    v7 = rotate(v7 ^ v11, 7);
    v0 = (v0 + v5 + m[SIGMA[r + 8]!]!) | 0;
    v15 = rotate(v15 ^ v0, 16);
    v10 = (v10 + v15) | 0;
    v5 = rotate(v5 ^ v10, 12);
    v0 = (v0 + v5 + m[SIGMA[r + 9]!]!) | 0;
    v15 = rotate(v15 ^ v0, 8);
    v10 = (v10 + v15) | 0;
    v5 = rotate(v5 ^ v10, 7);
    v1 = (v1 + v6 + m[SIGMA[r + 10]!]!) | 0;
    v12 = rotate(v12 ^ v1, 16);
    v11 = (v11 + v12) | 0;
    v6 = rotate(v6 ^ v11, 12);
    v1 = (v1 + v6 + m[SIGMA[r + 11]!]!) | 0;
    v12 = rotate(v12 ^ v1, 8);
    v11 = (v11 + v12) | 0;
    v6 = rotate(v6 ^ v11, 7);
    v2 = (v2 + v7 + m[SIGMA[r + 12]!]!) | 0;
    v13 = rotate(v13 ^ v2, 16);
    v8 = (v8 + v13) | 0;
    v7 = rotate(v7 ^ v8, 12);
    v2 = (v2 + v7 + m[SIGMA[r + 13]!]!) | 0;
    v13 = rotate(v13 ^ v2, 8);
    v8 = (v8 + v13) | 0;
    v7 = rotate(v7 ^ v8, 7);
    v3 = (v3 + v4 + m[SIGMA[r + 14]!]!) | 0;
    v14 = rotate(v14 ^ v3, 16);
    v9 = (v9 + v14) | 0;
    v4 = rotate(v4 ^ v9, 12);
    v3 = (v3 + v4 + m[SIGMA[r + 15]!]!) | 0;
    v14 = rotate(v14 ^ v3, 8);
    v9 = (v9 + v14) | 0;
    v4 = rotate(v4 ^ v9, 7);
  }
  h[0]! ^= v0 ^ v8;
  h[1]! ^= v1 ^ v9;
  h[2]! ^= v2 ^ v10;
  h[3]! ^= v3 ^ v11;
  h[4]! ^= v4 ^ v12;
  h[5]! ^= v5 ^ v13;
  h[6]! ^= v6 ^ v14;
  h[7]! ^= v7 ^ v15;
}

function loadWords(bytes: Uint8Array, offset: number, length: number): void {
  const words = length >>> 2;
  let at = offset;
  for (let i = 0; i < words; i++, at += 4) {
    m[i] = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
  }
  if (words === 16) return;
  m.fill(0, words);
  for (let i = 0; i < (length & 3); i++) m[words]! |= bytes[at + i]! << (8 * i);
}

/** What was hashed last may have been a key. */
export function forgetLastBlock(): void {
  m.fill(0);
}

/** The digest's bytes, little-endian. */
export function digestOf(h: Blake2sState, digestBytes: number): Uint8Array {
  const out = new Uint8Array(digestBytes);
  for (let i = 0; i < digestBytes; i++) out[i] = h[i >>> 2]! >>> (8 * (i & 3));
  return out;
}
