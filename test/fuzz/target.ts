// What can be fuzzed: one target for each decoder or state machine. An input is bytes; the same bytes do the same
// thing, so that a failing input is its own report.
import type { SeededRandom } from "../../src/base/random.ts";

export interface FuzzTarget {
  readonly name: string;
  /** How many inputs it gets, against the others: cheap targets get more. */
  readonly share: number;
  /** Dear ones: no more than these of a run of millions. */
  readonly most?: number;
  readonly maxBytes: number;
  /** Of CPU that 64 KiB of input may take, where 100 would be no more than a small margin. */
  readonly slowMs?: number;
  /** Valid examples: where mutation begins. */
  readonly seeds: readonly Uint8Array[];
  /** A fresh input that knows the format. */
  make?(random: SeededRandom): Uint8Array;
  /** Lengths and checksums put right, so that a mutated input gets past them. */
  repair?(input: Uint8Array): Uint8Array;
  /** Spliced into inputs. */
  readonly words?: readonly string[];
  /** Repetitive inputs up to the format's limit: what takes more than its share of time shows here. */
  long?(): readonly Uint8Array[];
  /**
   * Runs one input; says in a word or two what became of it. An input with a new outcome is mutated further. Throws
   * when an invariant is broken, or when the code under test throws what it doesn't declare.
   */
  run(input: Uint8Array): string | Promise<string>;
  /** Outcomes that a short run must reach: a fuzzer that is stopped at the first check tests nothing. */
  readonly reaches: readonly string[];
  /** After the last input: closes what was opened. */
  close?(): void | Promise<void>;
}

/** An invariant is broken. */
export class Broken extends Error {
  override readonly name = "Broken";
}

export function must(holds: boolean, what: string | (() => string)): asserts holds {
  if (!holds) throw new Broken(typeof what === "string" ? what : what());
}

/** Bounded, for outcomes: digits don't make a new one. */
export function kindOf(text: string): string {
  return text.replace(/\d+/g, "0").slice(0, 80);
}

export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** As files and sockets give it: what is no UTF-8 becomes U+FFFD. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
}

export function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "utf8"));
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
