// `node test/claims.ts [--write]`: checks test/CLAIMS.md against the report that the last `npm test` wrote, and runs
// the commands that it names. --write sets the "last result" column. Exit 0 only if every claim in the table holds.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { judgeTest, parseClaims, type Report, readReport, testIdsIn, withResults } from "./claims-table.ts";

const top = fileURLToPath(new URL("..", import.meta.url));
const TABLE = `${top}test/CLAIMS.md`;
const REPORT = `${top}node_modules/.cache/wirebadge/tests.json`;
// What these name as a test must have passed too.
const DOCUMENTS = ["README.md", "SECURITY.md", "ARCHITECTURE.md", "test/others/README.md"];
const COMMAND_MAX_MS = 600_000;

function loadReport(): Report {
  try {
    return readReport(readFileSync(REPORT, "utf8"), top);
  } catch (error) {
    console.error(`no test report: run npm test first (${String(error)})`);
    process.exit(1);
  }
}

const commands = new Map<string, string | undefined>();

/** Undefined when it ended with exit code 0; run once however many claims name it. */
function judgeCommand(command: string): string | undefined {
  if (!commands.has(command)) {
    const run = spawnSync("sh", ["-c", command], { cwd: top, encoding: "utf8", timeout: COMMAND_MAX_MS });
    const tail = `${run.stdout}${run.stderr}`.trim().split("\n").slice(-10).join("\n    ");
    commands.set(command, run.status === 0 ? undefined : `$ ${command}: ${run.status ?? run.signal}\n    ${tail}`);
  }
  return commands.get(command);
}

const report = loadReport();
const text = readFileSync(TABLE, "utf8");
const { claims, notYetShown, errors } = parseClaims(text);
const day = statSync(REPORT).mtime.toISOString().slice(0, 10);
const results = new Map<number, string>();
let shown = 0;
let failed = 0;

for (const error of errors) console.log(`CLAIMS.md ${error}`);
for (const { line, claim, shownBy } of claims) {
  const wrong = shownBy
    .map((id) => (id.startsWith("$ ") ? judgeCommand(id.slice(2)) : judgeTest(report, id)))
    .filter((reason) => reason !== undefined);
  results.set(line, `${wrong.length === 0 ? "passed" : "failed"} ${day}`);
  if (wrong.length === 0) {
    shown += 1;
    continue;
  }
  failed += 1;
  console.log(`CLAIM NOT SHOWN line ${line}: ${claim}`);
  for (const reason of wrong) console.log(`  ${reason}`);
}
for (const name of DOCUMENTS.filter((document) => existsSync(top + document))) {
  for (const id of testIdsIn(readFileSync(top + name, "utf8"))) {
    const wrong = judgeTest(report, id);
    if (wrong === undefined) continue;
    failed += 1;
    console.log(`NAMED IN ${name} ${wrong}`);
  }
}
for (const item of notYetShown) console.log(`NOT YET SHOWN ${item}`);
if (process.argv.includes("--write")) writeFileSync(TABLE, withResults(text, results));
console.log(`${shown} claims shown, ${failed} not, ${notYetShown.length} not yet written as tests`);
process.exitCode = failed + errors.length > 0 ? 1 : 0;
