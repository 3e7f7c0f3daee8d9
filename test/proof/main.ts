// `npm run proof [-- WORD…]`: the long form of the tests, one item after the other, and a table of what was done: what,
// how many, failures, duration. Writes the rows of the items that ran into test/CLAIMS.md, with date and commit.
// Exit 0: nothing failed. 1: something did. 2: the command was not understood.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readSection, writeSection } from "../claims-section.ts";
import { readReport } from "../claims-table.ts";
import type { Proof } from "./form.ts";
import { PROOF_ITEMS, type ProofItem } from "./items.ts";
import { formatRows, mergeRows, parseRows, type Row } from "./table.ts";

const top = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "wirebadge-proof-"));

function readProofs(file: string): Proof[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line) as Proof);
}

/** One item, its output on this terminal. What it recorded becomes its rows; else the count of its tests does. */
function runItem(item: ProofItem, id: number, when: string): Row[] {
  const [proofs, tests] = [join(folder, `${id}.jsonl`), join(folder, `${id}.json`)];
  const vitest = ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${tests}`];
  const [program, ...args] =
    "files" in item.run ? [join(top, "node_modules/.bin/vitest"), ...vitest, ...item.run.files] : item.run.command;
  const startedMs = performance.now();
  const run = spawnSync(program!, args, {
    cwd: top,
    stdio: "inherit",
    env: { ...process.env, WIREBADGE_LONG: "1", WIREBADGE_PROOF_REPORT: proofs },
  });
  const durationS = Math.round((performance.now() - startedMs) / 1000);
  const report = existsSync(tests) ? readReport(readFileSync(tests, "utf8"), top) : undefined;
  const failed = report?.tests.filter((test) => test.status !== "passed").length ?? 0;
  const failures = run.status === 0 ? failed : Math.max(1, failed);
  const recorded = readProofs(proofs);
  const passed = report?.tests.filter((test) => test.status === "passed").length;
  const all: Proof[] = passed === undefined ? recorded : [{ what: "tests passed", count: passed }, ...recorded];
  if (all.length === 0) all.push({ what: item.title, count: 0, figure: "nothing recorded" });
  return all.map(({ what, count, figure }, index) => ({
    item: item.title,
    what,
    count: `${count.toLocaleString("en")}${figure === undefined ? "" : ` (${figure})`}`,
    failures: index === 0 ? String(failures) : "",
    duration: index === 0 ? `${durationS} s` : "",
    when,
  }));
}

const words = process.argv.slice(2).filter((word) => word !== "--");
if (words.includes("--help") || words.includes("-h")) {
  process.stdout.write("usage: npm run proof [-- WORD …]   only the items whose title has one of the words\n\n");
  for (const { title } of PROOF_ITEMS) process.stdout.write(`  ${title}\n`);
  process.exit(0);
}
const chosen = PROOF_ITEMS.filter(({ title }) => words.length === 0 || words.some((word) => title.includes(word)));
if (chosen.length === 0) {
  process.stderr.write(`no item has "${words.join('" or "')}" in its title: npm run proof -- --help lists them\n`);
  process.exit(2);
}

const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: top, encoding: "utf8" }).trim();
const when = `${new Date().toISOString().slice(0, 10)} ${commit}`;
const rows = chosen.flatMap((item, id) => runItem(item, id, when));
rmSync(folder, { recursive: true });
process.stdout.write(`\n${formatRows(rows)}\n`);
const titles = PROOF_ITEMS.map(({ title }) => title);
const machine = `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, Node ${process.versions.node}`;
const table = formatRows(mergeRows(titles, parseRows(readSection("Proof")), rows));
writeSection("Proof", `Written by \`npm run proof\`, each row at its date and commit; ${machine}.\n\n${table}`);
process.exitCode = rows.some(({ failures }) => Number(failures) > 0) ? 1 : 0;
