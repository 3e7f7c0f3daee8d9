import { describe, expect, it } from "vitest";
import { printable } from "../../src/base/printable.ts";

describe("text from outside, for a terminal", () => {
  it("keeps what a person can read, in any script", () => {
    expect(printable("agent:coder · café 日本 🙂")).toBe("agent:coder · café 日本 🙂");
  });

  it.each([
    ["\u001b[2J", "\\u{1b}[2J"],
    ["a\r\nb", "a\\u{d}\\u{a}b"],
    ["\u009b31m", "\\u{9b}31m"],
    ["user\u202etxt.exe", "user\\u{202e}txt.exe"],
    ["a\u2066b\u200b", "a\\u{2066}b\\u{200b}"],
    ["\ud800", "\\u{d800}"],
    ["\u007f\u0000", "\\u{7f}\\u{0}"],
  ])("spells out what would move the cursor, break the line or turn the text round: %j", (from, to) => {
    expect(printable(from)).toBe(to);
  });

  it("cuts what is too long", () => {
    expect(printable("abcdef", 3)).toBe("abc…");
  });
});
