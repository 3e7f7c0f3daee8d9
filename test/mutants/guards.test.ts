// The mutation check finds what turns something away, and takes out that alone.
import { describe, expect, it } from "vitest";
import { guardsOf, without } from "./guards.ts";

const taken = (text: string, tables: readonly string[] = []): string[] =>
  guardsOf("a.ts", text, tables).map((guard) => without(text, guard));

describe("guards", () => {
  it("are conditions whose body ends here, whole and by each operand of ||", () => {
    expect(taken("function f(a: number) { if (a > 1 || (a < 0 && b)) return 1; if (a) b(); }")).toEqual([
      "function f(a: number) { if (false) return 1; if (a) b(); }",
      "function f(a: number) { if (false || (a < 0 && b)) return 1; if (a) b(); }",
      "function f(a: number) { if (a > 1 || false) return 1; if (a) b(); }",
    ]);
    expect(taken('for (;;) { if (a) { b(); continue; } if (c) throw new Error("d"); }')).toEqual([
      'for (;;) { if (false) { b(); continue; } if (c) throw new Error("d"); }',
      'for (;;) { if (a) { b(); continue; } if (false) throw new Error("d"); }',
    ]);
  });

  it("are the operands of a returned && and ||, and the left side of a returned ??", () => {
    expect(taken("function f() { return a && b; }")).toEqual([
      "function f() { return true && b; }",
      "function f() { return a && true; }",
    ]);
    expect(taken("function f() { return a || b; }")).toEqual([
      "function f() { return false || b; }",
      "function f() { return a || false; }",
    ]);
    expect(taken("function f() { return gate(a) ?? rest; }")).toEqual(["function f() { return rest; }"]);
    expect(taken("function f() { return a ?? rest; }")).toEqual([]);
  });

  it("are the rows of a named table", () => {
    expect(taken('const T = [["a", 1], ["b", 2]];', ["T"])).toEqual([
      'const T = [...[], ["b", 2]];',
      'const T = [["a", 1], ...[]];',
    ]);
    expect(taken('const T = [["a", 1]];')).toEqual([]);
  });

  it("stand with their line and text", () => {
    expect(guardsOf("a.ts", "function f() {\n  if (\n    a ||\n    b\n  )\n    return;\n}")[0]).toMatchObject({
      line: 3,
      text: "a || b",
    });
  });
});
