// Where flows are kept: records in pages, so that a packet of one flow touches two cache lines, and so that a table
// that grows takes one more page and moves nothing. A page that nobody uses any more is given back.
import type { CompiledRule } from "./rules.ts";

export const PAGE_BITS = 12;
export const PAGE_ROWS = 1 << PAGE_BITS;
const PAGE_MASK = PAGE_ROWS - 1;
const ROW_WORDS = 24;
const ROW_NUMBERS = ROW_WORDS / 2;
const ROW_LINKS = 4;

// Words of a record. The key comes first; the four numbers of 64 bits lie in words 16 to 23.
export const CHAIN = 10; // next row of the same bucket + 1; of a free row, the next free one of its page + 1
export const HASH = 11;
export const STATE = 12;
export const GENERATION = 13;
export const WHEEL_PLACE = 14; // + 1; 0: the row is free
const RULE = 15;

// Numbers of a record
export const LAST_MS = 8;
export const STARTED_MS = 9;
export const BYTES_IN = 10;
export const BYTES_OUT = 11;

// Links: row + 1, 0 for none. Apart from the records, so that whoever follows a list stays in few cache lines.
export const WHEEL_NEXT = 0;
export const WHEEL_PREVIOUS = 1;
export const SESSION_NEXT = 2;
export const SESSION_PREVIOUS = 3;

export class Page {
  readonly words = new Int32Array(PAGE_ROWS * ROW_WORDS);
  readonly numbers = new Float64Array(this.words.buffer);
  readonly links = new Int32Array(PAGE_ROWS * ROW_LINKS);
  /** Rows from here on were never taken. */
  fresh = 0;
  /** Taken and given back: linked by CHAIN, row in the page + 1. */
  freeRow = 0;
  live = 0;
}

/** Where a row's words begin in its page. */
export function wordsAt(row: number): number {
  return (row & PAGE_MASK) * ROW_WORDS;
}

export function numbersAt(row: number): number {
  return (row & PAGE_MASK) * ROW_NUMBERS;
}

export function linksAt(row: number): number {
  return (row & PAGE_MASK) * ROW_LINKS;
}

export class FlowPages {
  readonly #pages: (Page | undefined)[] = [];
  readonly #withRoom: number[] = []; // numbers of pages that have a free row; the last is taken from first
  readonly #gone: number[] = []; // numbers without a page
  // Rules that flows live by, each with a number for as long as it has any: a pointer in each row would be one more
  // place of memory to wait for.
  readonly #rules: (CompiledRule | undefined)[] = [];
  readonly #ruleNumbers: number[] = []; // that are free

  /** Rows are below this. */
  get rows(): number {
    return this.#pages.length << PAGE_BITS;
  }

  /** Pages held: 448 KiB each, of which the system gives what is touched. */
  get count(): number {
    return this.#pages.length - this.#gone.length;
  }

  /** Of a row that is taken. */
  of(row: number): Page {
    return this.#pages[row >> PAGE_BITS]!;
  }

  isTaken(row: number): boolean {
    const page = this.#pages[row >> PAGE_BITS];
    return page !== undefined && page.words[wordsAt(row) + WHEEL_PLACE] !== 0;
  }

  rule(row: number): CompiledRule {
    return this.#rules[this.of(row).words[wordsAt(row) + RULE]!]!;
  }

  /** Of a row that had another rule. */
  changeRule(row: number, rule: CompiledRule): void {
    const before = this.rule(row);
    this.of(row).words[wordsAt(row) + RULE] = this.#enter(rule);
    this.#leave(before);
  }

  #enter(rule: CompiledRule): number {
    if (rule.flows++ === 0) {
      rule.number = this.#ruleNumbers.pop() ?? this.#rules.length;
      this.#rules[rule.number] = rule;
    }
    return rule.number;
  }

  #leave(rule: CompiledRule): void {
    if (--rule.flows > 0) return;
    this.#rules[rule.number] = undefined;
    this.#ruleNumbers.push(rule.number);
  }

  /** A row for a flow that lives by this rule. */
  take(rule: CompiledRule): number {
    const number = this.#withRoom.at(-1) ?? this.#add();
    const page = this.#pages[number]!;
    let index = page.freeRow - 1;
    if (index < 0) index = page.fresh++;
    else page.freeRow = page.words[wordsAt(index) + CHAIN]!;
    page.live++;
    page.words[index * ROW_WORDS + RULE] = this.#enter(rule);
    if (page.live === PAGE_ROWS) this.#withRoom.pop();
    return (number << PAGE_BITS) | index;
  }

  give(row: number): void {
    const number = row >> PAGE_BITS;
    const page = this.#pages[number]!;
    const at = wordsAt(row);
    page.words[at + WHEEL_PLACE] = 0;
    page.words[at + CHAIN] = page.freeRow;
    page.freeRow = (row & PAGE_MASK) + 1;
    this.#leave(this.#rules[page.words[at + RULE]!]!);
    if (page.live === PAGE_ROWS) this.#withRoom.push(number);
    page.live--;
    if (page.live > 0 || this.count === 1) return;
    this.#pages[number] = undefined;
    this.#withRoom.splice(this.#withRoom.indexOf(number), 1);
    this.#gone.push(number);
  }

  #add(): number {
    const number = this.#gone.pop() ?? this.#pages.length;
    this.#pages[number] = new Page();
    this.#withRoom.push(number);
    return number;
  }
}
