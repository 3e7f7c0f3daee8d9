// The proof's table survives being written and read, and a run of one item replaces that item's rows alone.
import { describe, expect, it } from "vitest";
import { PROOF_ITEMS } from "./items.ts";
import { formatRows, mergeRows, parseRows, type Row } from "./table.ts";

const row = (item: string, what: string, failures = "0"): Row => ({
  item,
  what,
  count: "1,000 (p99 | 3 ms)",
  failures,
  duration: failures === "" ? "" : "12 s",
  when: "2026-01-02 abcdef0",
});

describe("the proof's table", () => {
  it("reads what it wrote, empty cells and pipes too", () => {
    const rows = [row("a", "kills"), row("a", "restarts", ""), row("b", "seeds")];
    expect(parseRows(`text\n\n${formatRows(rows)}\n`)).toEqual(rows);
    expect(parseRows("no table")).toEqual([]);
  });

  it("replaces the rows of the items that ran, keeps the others, and forgets items that are gone", () => {
    const old = [row("a", "one"), row("a", "two", ""), row("b", "old"), row("gone", "x")];
    const fresh = [row("a", "three")];
    expect(mergeRows(["b", "a", "c"], old, fresh)).toEqual([row("b", "old"), row("a", "three")]);
  });

  it("has a title of its own for each item", () => {
    expect(new Set(PROOF_ITEMS.map(({ title }) => title)).size).toBe(PROOF_ITEMS.length);
  });
});
