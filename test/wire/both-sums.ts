// Memory with sums that work on it, plain and SIMD, so that what splits and merges is tried over both. The SIMD ones
// have one memory for all tests: each WebAssembly.Memory takes gigabytes of addresses.
import { createSimdSums } from "../../src/io/simd-sums.ts";
import { webAssembly } from "../../src/io/web-assembly.ts";
import { plainSums, type Sums } from "../../src/wire/sums.ts";
import { must } from "../fuzz/target.ts";

const PAGES = 64;
const memory = new webAssembly.Memory({ initial: PAGES, maximum: PAGES });
const whole = new Uint8Array(memory.buffer);
const simd = createSimdSums(memory, whole);

/** Of any array over that memory: such begin where it begins. */
const simdSums: Sums = {
  sum: (_bytes, at, length, sum) => simd!.sum(whole, at, length, sum),
  copySum: (_bytes, from, to, length, sum) => simd!.copySum(whole, from, to, length, sum),
  copy: (_bytes, from, to, length) => simd!.copy(whole, from, to, length),
};

export interface MemoryAndSums {
  readonly memory: Uint8Array;
  readonly sums: Sums;
}

export const plainMemory = (size: number, fill: number): MemoryAndSums => ({
  memory: new Uint8Array(size).fill(fill),
  sums: plainSums,
});

/** Good until it is asked for again. */
export function simdMemory(size: number, fill: number): MemoryAndSums {
  must(simd !== undefined && size <= whole.length, "SIMD, and room for this test");
  return { memory: whole.subarray(0, size).fill(fill), sums: simdSums };
}
