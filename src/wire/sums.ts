// How the splitter and the merger sum payloads: in plain TypeScript anywhere, or by what a thread has that is faster
// (io/simd-sums.ts).
import { sumBytes } from "./checksum.ts";

export interface Sums {
  /** As sumBytes(). */
  sum(bytes: Uint8Array, at: number, length: number, sum: number): number;
  /** The same, while the bytes at `from` are copied to `to`; the two ranges don't overlap. */
  copySum(bytes: Uint8Array, from: number, to: number, length: number, sum: number): number;
  /** Of a few dozen bytes: the call costs more than they do. */
  copy(bytes: Uint8Array, from: number, to: number, length: number): void;
}

export const plainSums: Sums = {
  sum: sumBytes,
  copySum: (bytes, from, to, length, sum) => {
    bytes.copyWithin(to, from, from + length);
    return sumBytes(bytes, to, length, sum);
  },
  copy: (bytes, from, to, length) => {
    bytes.copyWithin(to, from, from + length);
  },
};
