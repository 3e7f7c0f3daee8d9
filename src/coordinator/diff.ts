// A unified-style diff of two texts by lines, for the history of the policy: what was taken out (-), what was put in
// (+), and up to three lines of what stands around it. Longest common subsequence after cutting off what both share at
// either end.

const CONTEXT_LINES = 3;
const TABLE_CELLS_MAX = 4_000_000; // beyond it: all out, all in

function commonLines(a: readonly string[], b: readonly string[]): Uint32Array[] | undefined {
  if (a.length * b.length > TABLE_CELLS_MAX) return undefined;
  const table = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      table[i]![j] = a[i] === b[j] ? table[i + 1]![j + 1]! + 1 : Math.max(table[i + 1]![j]!, table[i]![j + 1]!);
  return table;
}

function changes(a: readonly string[], b: readonly string[]): string[] {
  const table = commonLines(a, b);
  if (table === undefined) return [...a.map((line) => `-${line}`), ...b.map((line) => `+${line}`)];
  const out: string[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push(` ${a[i++]}`);
      j++;
    } else if (j >= b.length || (i < a.length && table[i + 1]![j]! >= table[i]![j + 1]!)) out.push(`-${a[i++]}`);
    else out.push(`+${b[j++]}`);
  }
  return out;
}

/** Empty when the texts are equal. */
export function diffLines(before: string, after: string): string {
  if (before === after) return "";
  const [a, b] = [before.replace(/\n$/, "").split("\n"), after.replace(/\n$/, "").split("\n")];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const start = Math.max(0, head - CONTEXT_LINES);
  const end = a.length - tail;
  const lines = [
    ...a.slice(start, head).map((line) => ` ${line}`),
    ...changes(a.slice(head, end), b.slice(head, b.length - tail)),
    ...a.slice(end, Math.min(a.length, end + CONTEXT_LINES)).map((line) => ` ${line}`),
  ];
  return `@@ line ${start + 1} @@\n${lines.join("\n")}\n`;
}
