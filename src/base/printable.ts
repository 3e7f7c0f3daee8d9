// Text from outside, made safe for a terminal: no escape sequence, no line break, no reordering of what a person reads.

/** C0 and C1 controls, DEL, line and paragraph separators, and the bidirectional controls (Unicode TR 36 §2.5). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udfff]/gu;

/**
 * `printable("a\u001b[2Jb")` is `a\u{1b}[2Jb` with the control character spelled out; at most `maxCharacters`, then
 * "…".
 */
export function printable(text: string, maxCharacters = 2_000): string {
  const cut = text.length > maxCharacters ? `${text.slice(0, maxCharacters)}…` : text;
  return cut.replace(UNSAFE, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}
