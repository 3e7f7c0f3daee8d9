// `npm run bench [-- NAME…] [--json]`: every benchmark alone, one after the other; medians; machine and versions beside
// the figures. A run of all of them writes its figures into test/CLAIMS.md, with date and commit.
import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { writeSection } from "../test/claims-section.ts";
import type { BenchResult } from "./result.ts";

const SUITES: Readonly<Record<string, () => Promise<{ run(): BenchResult[] | Promise<BenchResult[]> }>>> = {
  crypto: () => import("./crypto.ts"),
  netstack: () => import("./netstack.ts"),
  tunnel: () => import("./tunnel.ts"),
  join: () => import("./join.ts"),
};

const words = process.argv.slice(2);
const json = words.includes("--json");
const names = words.filter((word) => !word.startsWith("--"));
const unknown = names.filter((name) => SUITES[name] === undefined);
if (unknown.length > 0 || words.includes("--help")) {
  const problem = unknown.length > 0 ? `no benchmark is called ${unknown.join(", ")}\n` : "";
  process.stderr.write(`${problem}usage: npm run bench [-- ${Object.keys(SUITES).join("|")} …] [--json]\n`);
  process.exit(unknown.length > 0 ? 2 : 0);
}

const results: BenchResult[] = [];
const { node, openssl } = process.versions;
const machine = `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, Node ${node}, OpenSSL ${openssl}`;
if (!json) process.stdout.write(`${machine}\n`);
for (const [name, load] of Object.entries(SUITES)) {
  if (names.length > 0 && !names.includes(name)) continue;
  for (const result of await (await load()).run()) {
    results.push(result);
    const value = result.value >= 100 ? Math.round(result.value).toLocaleString("en") : result.value.toPrecision(3);
    if (!json) process.stdout.write(`${result.name.padEnd(58)} ${value.padStart(12)} ${result.unit}\n`);
  }
}
if (json) process.stdout.write(`${JSON.stringify({ machine, date: new Date().toISOString(), results })}\n`);
if (names.length === 0) writeFigures();

function writeFigures(): void {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  const rows = results.map(({ name, value, unit }) => `- ${name}: ${Number(value.toPrecision(3))} ${unit}`);
  const when = `Written by \`npm run bench\` on ${new Date().toISOString().slice(0, 10)} at ${commit}; ${machine}.`;
  writeSection("Figures", `${when}\n\n${rows.join("\n")}`);
}
