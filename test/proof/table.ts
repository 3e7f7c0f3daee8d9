// The table of `npm run proof` in test/CLAIMS.md: rows of an item are replaced when it runs again, the others stay.

export interface Row {
  /** The item's title. */
  readonly item: string;
  readonly what: string;
  readonly count: string;
  /** Of the whole item, in its first row. */
  readonly failures: string;
  readonly duration: string;
  /** Date and commit. */
  readonly when: string;
}

const HEADER = ["| Item | What | How many | Failures | Duration | When |", "|---|---|---|---|---|---|"];

export function formatRows(rows: readonly Row[]): string {
  const lines = rows.map(({ item, what, count, failures, duration, when }) => {
    const cells = [item, what, count, failures, duration, when].map((cell) => cell.replaceAll("|", "\\|"));
    return `| ${cells.join(" | ")} |`;
  });
  return [...HEADER, ...lines].join("\n");
}

/** The rows in a section's text. */
export function parseRows(text: string): Row[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith("| ") && !HEADER.includes(line))
    .map((line) => {
      const cells = line
        .replace(/^\| | \|$/g, "")
        .split(/(?<!\\) ?\| ?/)
        .map((cell) => cell.replaceAll("\\|", "|").trim());
      const [item = "", what = "", count = "", failures = "", duration = "", when = ""] = cells;
      return { item, what, count, failures, duration, when };
    });
}

/** `fresh` in the place of what stood there of the same items; in the order of `titles`, nothing of other titles. */
export function mergeRows(titles: readonly string[], old: readonly Row[], fresh: readonly Row[]): Row[] {
  return titles.flatMap((title) => {
    const of = (rows: readonly Row[]): Row[] => rows.filter(({ item }) => item === title);
    return of(fresh).length > 0 ? of(fresh) : of(old);
  });
}
