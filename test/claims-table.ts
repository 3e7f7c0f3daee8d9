// test/CLAIMS.md as data, and its judgement against vitest's JSON report: a claim holds when each test that it names
// has run and passed. claims.ts is the command.

/** Sections that commands write: tables of other kinds. */
const WRITTEN = new Set(["Proof", "Figures", "TUN figures"]);

export interface Claim {
  readonly line: number;
  readonly claim: string;
  /**
   * Test ids ("test/a.test.ts", "test/a.test.ts > suite", "test/a.test.ts > suite > name") and commands ("$ npm
   * start").
   */
  readonly shownBy: readonly string[];
}

export interface ClaimsTable {
  readonly claims: readonly Claim[];
  /** The items under "Not yet shown". */
  readonly notYetShown: readonly string[];
  /** Lines that are no claim and no text either. */
  readonly errors: readonly string[];
}

export interface TestOutcome {
  /** "test/a.test.ts > suite > name" */
  readonly id: string;
  /** "passed", "failed", "skipped", … as vitest says. */
  readonly status: string;
}

export interface Report {
  readonly tests: readonly TestOutcome[];
  /** Every test and every file passed, and nothing failed outside of tests. */
  readonly success: boolean;
}

/** The part of vitest's JSON report that is read. */
interface JsonReport {
  readonly success: boolean;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
    }[];
  }[];
}

const HEADER = /^\|\s*Claim\s*\|/;

/** A `|` inside a cell is written `\|`. */
function cellsOf(line: string): string[] {
  return line
    .replace(/^\||\|\s*$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.replaceAll("\\|", "|").trim());
}

export function parseClaims(text: string): ClaimsTable {
  const claims: Claim[] = [];
  const notYetShown: string[] = [];
  const errors: string[] = [];
  let heading = "";
  for (const [index, line] of text.split("\n").entries()) {
    if (line.startsWith("## "))
      heading = line.slice(3).trim(); // ### groups the items below it
    else if (heading === "Not yet shown" && /^[-*] /.test(line)) notYetShown.push(line.slice(2).trim());
    if (WRITTEN.has(heading)) continue;
    if (!line.startsWith("|") || HEADER.test(line) || /^\|[\s|:-]+$/.test(line)) continue;
    const cells = cellsOf(line);
    const shownBy = [...(cells[1] ?? "").matchAll(/`([^`]+)`/g)].map((span) => (span[1] ?? "").trim());
    const wellFormed = shownBy.every((id) => id.startsWith("$ ") || /^test\/[\w./-]+\.test\.ts( > .+)?$/.test(id));
    if (cells.length !== 3 || shownBy.length === 0 || !wellFormed)
      errors.push(`line ${index + 1}: not "| claim | \`test/file.test.ts > name\` or \`$ command\` | result |"`);
    else claims.push({ line: index + 1, claim: cells[0] ?? "", shownBy });
  }
  return { claims, notYetShown, errors };
}

/** The test ids that a document names in code spans: "`test/a.test.ts > suite > name`". */
export function testIdsIn(text: string): string[] {
  return [...text.matchAll(/`(test\/[\w./-]+\.test\.ts(?: > [^`]+)?)`/g)].map((span) => span[1] ?? "");
}

/** `top` is the repository's folder: the report holds absolute paths. */
export function readReport(json: string, top: string): Report {
  const report = JSON.parse(json) as JsonReport;
  const tests = report.testResults.flatMap((file) => {
    const path = file.name.startsWith(top) ? file.name.slice(top.length).replace(/^\//, "") : file.name;
    const outcomes = file.assertionResults.map((test) => ({
      id: [path, ...test.ancestorTitles, test.title].join(" > "),
      status: test.status,
    }));
    // A file that could not be loaded has no tests in it: it counts as one that failed.
    return outcomes.length === 0 && file.status !== "passed" ? [{ id: path, status: "failed" }] : outcomes;
  });
  return { tests, success: report.success };
}

/** vitest's JSON reports of several runs as one. */
export function mergeReports(jsons: readonly string[]): string {
  const reports = jsons.map((json) => JSON.parse(json) as JsonReport);
  return JSON.stringify({
    success: reports.every((report) => report.success),
    testResults: reports.flatMap((report) => report.testResults),
  });
}

/** What is wrong with a named test: undefined when it and all tests below that name have passed. */
export function judgeTest(report: Report, id: string): string | undefined {
  const named = report.tests.filter((test) => test.id === id || test.id.startsWith(`${id} > `));
  if (named.length === 0) return `${id}: no such test has run`;
  const other = named.find((test) => test.status !== "passed");
  return other === undefined ? undefined : `${other.id}: ${other.status}`;
}

/** The same text with the last column of each claim's line set. */
export function withResults(text: string, results: ReadonlyMap<number, string>): string {
  return text
    .split("\n")
    .map((line, index) => {
      const result = results.get(index + 1);
      if (result === undefined) return line;
      return line.replace(/(?<!\\)\|((?:[^|]|\\\|)*)\|\s*$/, () => `| ${result} |`);
    })
    .join("\n");
}
