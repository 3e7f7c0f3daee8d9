// A claim counts only when the test that it names is there, has run and has passed.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { withSection } from "./claims-section.ts";
import { judgeTest, mergeReports, parseClaims, readReport, testIdsIn, withResults } from "./claims-table.ts";

const table = `# Claims
| Claim | Shown by | Last result |
|---|---|---|
| It works | \`test/a.test.ts > suite > works\` and \`$ npm start -- --once\` | never |
| A pipe \\| too | \`test/b.test.ts\` | |
| Nothing named | see above | |

## Proof

| Item | What | How many | Failures | Duration | When |
|---|---|---|---|---|---|
| a | kills | 7 | 0 | 1 s | today |

## TUN figures

| Figure | us |
|---|---|
| speed | 1 |

## Not yet shown
### Of one kind
- later
`;

const report = readReport(
  JSON.stringify({
    success: false,
    testResults: [
      {
        name: "/top/test/a.test.ts",
        status: "failed",
        message: "",
        assertionResults: [
          { ancestorTitles: ["suite"], title: "works", status: "passed" },
          { ancestorTitles: ["suite"], title: "works not", status: "failed" },
          { ancestorTitles: ["left out"], title: "x", status: "skipped" },
        ],
      },
      { name: "/top/test/c.test.ts", status: "failed", message: "cannot load", assertionResults: [] },
    ],
  }),
  "/top/",
);

describe("the table of claims", () => {
  it("is read line by line, and a line that names nothing is an error", () => {
    const { claims, notYetShown, errors } = parseClaims(table);
    expect(claims).toEqual([
      { line: 4, claim: "It works", shownBy: ["test/a.test.ts > suite > works", "$ npm start -- --once"] },
      { line: 5, claim: "A pipe | too", shownBy: ["test/b.test.ts"] },
    ]);
    expect(notYetShown).toEqual(["later"]);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toContain("line 6");
  });

  it("holds for a test that passed, and for nothing else", () => {
    expect(judgeTest(report, "test/a.test.ts > suite > works")).toBeUndefined();
    expect(judgeTest(report, "test/a.test.ts > suite > works not")).toContain("failed");
    expect(judgeTest(report, "test/a.test.ts > suite")).toContain("works not: failed");
    expect(judgeTest(report, "test/a.test.ts > left out > x")).toContain("skipped");
    expect(judgeTest(report, "test/a.test.ts > suite > work")).toContain("no such test");
    expect(judgeTest(report, "test/c.test.ts")).toContain("failed");
    expect(judgeTest(report, "test/d.test.ts")).toContain("no such test");
  });

  it("gets its last column written", () => {
    const lines = withResults(
      table,
      new Map([
        [4, "passed"],
        [5, "failed"],
      ]),
    ).split("\n");
    expect(lines[3]).toBe("| It works | `test/a.test.ts > suite > works` and `$ npm start -- --once` | passed |");
    expect(lines[4]).toBe("| A pipe \\| too | `test/b.test.ts` | failed |");
    expect(lines[5]).toBe("| Nothing named | see above | |");
  });

  it("is well-formed as it stands", () => {
    const text = readFileSync(new URL("CLAIMS.md", import.meta.url), "utf8");
    const { claims, notYetShown, errors } = parseClaims(text);
    expect(errors).toEqual([]);
    expect(claims.length + notYetShown.length).toBeGreaterThan(20);
  });
});

/** True when a test file holds that title, or a template (`%s`, `$name`) that could become it. */
function hasTitle(text: string, title: string): boolean {
  if (text.includes(title)) return true;
  const templates = [...text.matchAll(/\b(?:describe|it|test)[^"`;]*?(?:"((?:[^"\\\n]|\\.)*)"|`([^`\n]*)`)/g)];
  return templates.some(([, quoted, template]) => {
    const parts = (quoted ?? template ?? "").split(/%[sidfjo#]|\$\{[^}]*\}|\$[\w.]+/);
    const pattern = parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join(".+");
    return parts.length > 1 && parts.join("").trim() !== "" && new RegExp(`^${pattern}$`).test(title);
  });
}

describe("the documents", () => {
  // The whole answer needs the report; this much is known at once, and catches a test that was renamed.
  const documents = ["test/CLAIMS.md", "SECURITY.md", "test/others/README.md"];
  it.each(documents)("%s names tests that are in their files", (document) => {
    const ids = testIdsIn(readFileSync(new URL(`../${document}`, import.meta.url), "utf8"));
    expect(ids.length).toBeGreaterThan(0);
    for (const id of ids) {
      const [file, ...titles] = id.split(" > ");
      const text = readFileSync(new URL(`../${file}`, import.meta.url), "utf8");
      for (const title of titles) expect(hasTitle(text, title), id).toBe(true);
    }
  });
});

describe("sections that commands write", () => {
  it("are replaced where they stand, and put at the end when new", () => {
    const text = "# Claims\n\ntext\n\n## Proof\n\nold\n\n## Figures\n\n- one\n";
    expect(withSection(text, "Proof", "new\n")).toBe(text.replace("old", "new"));
    expect(withSection(text, "Other", "body")).toBe(`${text}\n## Other\n\nbody\n`);
  });
});

describe("reports of several runs", () => {
  it("become one, which succeeds only if each did", () => {
    const part = (name: string, success: boolean) =>
      JSON.stringify({ success, testResults: [{ name, status: "passed", message: "", assertionResults: [] }] });
    const merged = JSON.parse(mergeReports([part("a", true), part("b", false)]));
    expect(merged.success).toBe(false);
    expect(merged.testResults.map((file: { name: string }) => file.name)).toEqual(["a", "b"]);
    expect(JSON.parse(mergeReports([part("a", true), part("b", true)])).success).toBe(true);
  });
});
