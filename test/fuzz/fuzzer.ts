// Runs one target: inputs from its seeds, its corpus and its generator, mutated; each timed; what reached something new
// is mutated further; the first failure is made smaller and given back.
import { concatBytes } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { mutate } from "./mutate.ts";
import { type FuzzTarget, kindOf } from "./target.ts";

const POOL_MAX = 256; // inputs that are mutated further
const POOL_INPUT_MAX_BYTES = 4_096;
const SLOW_MS = 100; // one input; a format's whole limit may take this per 64 KiB
const SLOW_BYTES = 65_536;
const TRIES_OF_SLOW = 5; // caches and the collector are not the input's: the quickest counts
const MINIMISE_TRIES = 2_000;
const MINIMISE_MS = 10_000;

export interface FuzzOptions {
  readonly seed: number;
  readonly inputs: number;
  readonly corpus: readonly Uint8Array[];
  /** The target's inputs of a format's whole size come first too: seconds of work. */
  readonly withLong?: boolean;
  /** How long the first failure is made smaller; 10 s. */
  readonly minimiseMs?: number;
  /** Of CPU, for one input of up to 64 KiB; the target's own, else 100. */
  readonly slowMs?: number;
  /** Asked now and then; true ends the run. */
  readonly stopped?: () => boolean;
  readonly onProgress?: (inputs: number) => void;
  /** Every so many inputs; gives back whether the lot reached code that none had reached before. */
  readonly coverage?: { reset(): void; grew(): boolean };
}

export interface FuzzFailure {
  readonly target: string;
  readonly seed: number;
  /** Of the failing input. */
  readonly index: number;
  readonly message: string;
  readonly input: Uint8Array;
  readonly smallest: Uint8Array;
}

export interface FuzzResult {
  readonly target: string;
  readonly inputs: number;
  readonly seconds: number;
  readonly slowestMs: number;
  readonly outcomes: ReadonlyMap<string, number>;
  /** Inputs that reached something new, first of each. */
  readonly fresh: readonly Uint8Array[];
  readonly failure: FuzzFailure | undefined;
}

function allowedMs(input: Uint8Array, slowMs: number): number {
  return slowMs * Math.max(1, input.length / SLOW_BYTES);
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return `threw ${String(error)}`;
  const place =
    error.stack
      ?.split("\n")
      .find((line) => line.includes("/src/"))
      ?.trim() ?? "";
  return `${error.name}: ${error.message}${error.name === "Broken" ? "" : ` ${place.replace(/\(.*\/src\//, "(src/")}`}`;
}

/** Of this thread: other processes on a busy machine don't count. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

const slowOf = (target: FuzzTarget): number => target.slowMs ?? SLOW_MS;

/** What is wrong with this input; undefined when nothing is. Also says when it took too long. */
export async function tryInput(
  target: FuzzTarget,
  input: Uint8Array,
  slowMs = slowOf(target),
): Promise<string | undefined> {
  const allowed = allowedMs(input, slowMs);
  try {
    let bestMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < TRIES_OF_SLOW && bestMs > allowed; i++) {
      const startedMs = cpuMs();
      const outcome = target.run(input);
      if (typeof outcome !== "string") await outcome;
      bestMs = Math.min(bestMs, cpuMs() - startedMs);
    }
    return bestMs > allowed ? "Slow: an input takes too long" : undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** The smallest found that fails alike: pieces taken out, then bytes made zero. */
async function minimise(
  target: FuzzTarget,
  input: Uint8Array,
  message: string,
  { minimiseMs = MINIMISE_MS, slowMs }: FuzzOptions,
): Promise<Uint8Array> {
  const untilMs = performance.now() + minimiseMs;
  let smallest = input;
  let tries = 0;
  const accept = async (candidate: Uint8Array): Promise<boolean> => {
    if (tries++ > MINIMISE_TRIES || performance.now() > untilMs) return false;
    const said = await tryInput(target, candidate, slowMs);
    if (said === undefined || kindOf(said) !== kindOf(message)) return false;
    smallest = candidate;
    return true;
  };
  for (let size = Math.ceil(smallest.length / 2); size > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < smallest.length; ) {
      const candidate = concatBytes(smallest.subarray(0, at), smallest.subarray(at + size));
      if (!(await accept(candidate))) at += size;
    }
  }
  for (let at = 0; at < smallest.length; at++) {
    if (smallest[at] === 0) continue;
    const candidate = smallest.slice();
    candidate[at] = 0;
    await accept(candidate);
  }
  return smallest;
}

const COVERAGE_LOT = 512;

/** Inputs to begin with: as they are, before any is mutated. */
function* givenInputs(target: FuzzTarget, { corpus, withLong }: FuzzOptions): Generator<Uint8Array> {
  yield* target.seeds;
  yield* corpus;
  if (withLong === true) yield* target.long?.() ?? [];
}

class Fuzzer {
  readonly #target: FuzzTarget;
  readonly #options: FuzzOptions;
  readonly #random: SeededRandom;
  readonly #pool: Uint8Array[];
  readonly #fixed: number;
  readonly #outcomes = new Map<string, number>();
  readonly #fresh: Uint8Array[] = [];
  #lot: Uint8Array[] = [];
  #slowestMs = 0;

  constructor(target: FuzzTarget, options: FuzzOptions) {
    this.#target = target;
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    this.#pool = [...target.seeds, ...options.corpus];
    this.#fixed = this.#pool.length;
  }

  #next(): Uint8Array {
    const { make, repair, words = [], maxBytes } = this.#target;
    const random = this.#random;
    const fresh = make !== undefined && (this.#pool.length === 0 || random.chance(0.35));
    let input = fresh ? make.call(this.#target, random) : random.pick(this.#pool);
    if (!fresh || random.chance(0.3)) input = mutate(input, random, this.#pool, words, maxBytes);
    if (repair !== undefined && random.chance(0.75)) input = repair.call(this.#target, input);
    return input.length > maxBytes ? input.slice(0, maxBytes) : input;
  }

  #keep(input: Uint8Array): void {
    if (input.length > POOL_INPUT_MAX_BYTES) return;
    this.#fresh.push(input);
    if (this.#pool.length < this.#fixed + POOL_MAX) this.#pool.push(input);
    else this.#pool[this.#fixed + this.#random.below(POOL_MAX)] = input;
  }

  async #one(input: Uint8Array): Promise<void> {
    const startedMs = performance.now();
    const made = this.#target.run(input);
    const outcome = typeof made === "string" ? made : await made;
    const tookMs = performance.now() - startedMs;
    if (tookMs > this.#slowestMs) this.#slowestMs = tookMs;
    const before = this.#outcomes.get(outcome) ?? 0;
    this.#outcomes.set(outcome, before + 1);
    if (before === 0) this.#keep(input);
    const { slowMs = slowOf(this.#target) } = this.#options;
    if (tookMs > allowedMs(input, slowMs)) {
      const said = await tryInput(this.#target, input, slowMs);
      if (said !== undefined) throw new Error(said);
    }
  }

  /** Keeps those of the lot that reach, run again one by one, code that was not reached before. */
  async #feedBack(): Promise<void> {
    const { coverage } = this.#options;
    const lot = this.#lot;
    this.#lot = [];
    if (coverage === undefined || !coverage.grew()) return;
    // Which of them did is not known any more: a few stand for all.
    for (let i = 0; i < 8 && lot.length > 0; i++) this.#keep(this.#random.pick(lot));
  }

  async run(): Promise<FuzzResult> {
    const { seed, inputs, stopped, onProgress, coverage } = this.#options;
    const startedMs = performance.now();
    const given = givenInputs(this.#target, this.#options);
    let count = 0;
    let failure: FuzzFailure | undefined;
    while (count < inputs) {
      if (count % 256 === 0 && stopped?.() === true) break;
      const ready = given.next();
      const input = ready.done === true ? this.#next() : ready.value;
      count++;
      try {
        // No await where nothing is to wait for: it would cost more than most inputs.
        await this.#one(input);
      } catch (error) {
        const alone =
          (await tryInput(this.#target, input, this.#options.slowMs)) ??
          `only after the inputs before it: ${messageOf(error)}`;
        const smallest = await minimise(this.#target, input, alone, this.#options);
        failure = { target: this.#target.name, seed, index: count, message: alone, input, smallest };
        break;
      }
      if (coverage !== undefined) {
        this.#lot.push(input);
        if (this.#lot.length === COVERAGE_LOT) await this.#feedBack();
      }
      if (count % 1_024 === 0) onProgress?.(count);
    }
    await this.#target.close?.();
    const seconds = (performance.now() - startedMs) / 1_000;
    const outcomes = this.#outcomes;
    const fresh = this.#fresh;
    return { target: this.#target.name, inputs: count, seconds, slowestMs: this.#slowestMs, outcomes, fresh, failure };
  }
}

export async function fuzz(target: FuzzTarget, options: FuzzOptions): Promise<FuzzResult> {
  return await new Fuzzer(target, options).run();
}
