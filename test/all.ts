// `npm test` after types and lint: all tests. Those that mostly wait for real time (project "realtime") run in a
// process of their own beside the others, which it would only make longer; their output follows at the end, and the
// two reports become one, for `.ci/run` and test/claims.ts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { mergeReports } from "./claims-table.ts";

const top = fileURLToPath(new URL("..", import.meta.url));
const cache = join(top, "node_modules/.cache/wirebadge");
const REPORT = join(cache, "tests.json");
const PARTS = [
  { name: "rest", projects: ["unit", "slow", "real"], shownAtOnce: true },
  { name: "realtime", projects: ["realtime"], shownAtOnce: false },
] as const;

type Part = (typeof PARTS)[number];
const reportOf = (part: Part): string => join(cache, `tests-${part.name}.json`);

function start(part: Part) {
  const args = [
    join(top, "node_modules/vitest/vitest.mjs"),
    "run",
    ...part.projects.flatMap((project) => ["--project", project]),
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${reportOf(part)}`,
  ];
  const child = spawn(process.execPath, args, {
    cwd: top,
    stdio: part.shownAtOnce ? "inherit" : ["ignore", "pipe", "pipe"],
  });
  const output: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk: Buffer) => output.push(chunk));
  const ended = once(child, "close").then(([code]) => (code === 0 ? 0 : 1));
  return { part, child, output, ended };
}

mkdirSync(cache, { recursive: true });
for (const part of PARTS) rmSync(reportOf(part), { force: true });
rmSync(REPORT, { force: true });

const runs = PARTS.map(start);
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.on(signal, () => {
    for (const { child } of runs) child.kill(signal);
  });
const codes = await Promise.all(runs.map(({ ended }) => ended));
for (const { part, output } of runs) if (!part.shownAtOnce) process.stdout.write(Buffer.concat(output));
writeFileSync(REPORT, mergeReports(PARTS.map((part) => readFileSync(reportOf(part), "utf8"))));
process.exitCode = Math.max(...codes);
