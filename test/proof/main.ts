// `npm run proof [-- NAME…]`: the long form of the tests, one item after the other, and a table of what was done: what,
// how many, failures, duration. A run of all of them writes the table into test/CLAIMS.md, with date and commit.
// Exit 0: nothing failed. 1: something did. 2: the command was not understood.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeSection } from "../claims-section.ts";
import { readReport } from "../claims-table.ts";
import type { Proof } from "./form.ts";
import { PROOF_ITEMS, type ProofItem } from "./items.ts";

interface Row {
  readonly what: string;
  readonly count: string;
  readonly failures: number;
  readonly durationS: number;
}

const top = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "wirebadge-proof-"));

function readProofs(file: string): Proof[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line) as Proof);
}

/** One item, its output on this terminal. What it recorded becomes its rows; else the count of its tests does. */
function runItem(item: ProofItem, id: number): Row[] {
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
  const all: Proof[] =
    passed === undefined ? recorded : [{ what: `${item.title}: tests passed`, count: passed }, ...recorded];
  if (all.length === 0) return [{ what: item.title, count: "none recorded", failures, durationS }];
  return all.map(({ what, count, figure }, index) => ({
    what,
    count: `${count.toLocaleString("en")}${figure === undefined ? "" : ` (${figure})`}`,
    failures: index === 0 ? failures : 0,
    durationS: index === 0 ? durationS : 0,
  }));
}

function tableOf(rows: readonly Row[]): string {
  const lines = rows.map(({ what, count, failures, durationS }) => {
    const duration = durationS === 0 ? "" : `${durationS} s`;
    return `| ${what.replaceAll("|", "\\|")} | ${count} | ${failures} | ${duration} |`;
  });
  return ["| What | How many | Failures | Duration |", "|---|---|---|---|", ...lines].join("\n");
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

const rows = chosen.flatMap((item, id) => runItem(item, id));
rmSync(folder, { recursive: true });
const failures = rows.reduce((sum, row) => sum + row.failures, 0);
process.stdout.write(`\n${tableOf(rows)}\n`);
if (words.length === 0) {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: top, encoding: "utf8" }).trim();
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, Node ${process.versions.node}`;
  const when = `Written by \`npm run proof\` on ${new Date().toISOString().slice(0, 10)} at ${commit}; ${machine}.`;
  writeSection("Proof", `${when}\n\n${tableOf(rows)}`);
}
process.exitCode = failures === 0 ? 0 : 1;
