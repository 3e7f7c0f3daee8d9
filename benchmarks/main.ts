// `npm run bench [-- NAME…] [--json]`: every benchmark alone, one after the other; medians; machine and versions beside
// the figures. A run of all of them writes its figures into test/CLAIMS.md, with date and commit.
// `npm run bench -- tun` has options of its own: tun/suite.ts.
import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { writeSection } from "../test/claims-section.ts";
import type { BenchResult } from "./result.ts";
import type { SuiteOptions } from "./tun/suite.ts";

interface Suite {
  run(options: SuiteOptions): BenchResult[] | Promise<BenchResult[]>;
}

const SUITES: Readonly<Record<string, () => Promise<Suite>>> = {
  crypto: () => import("./crypto.ts"),
  filter: () => import("./filter.ts"),
  netstack: async () => {
    const { run } = await import("./netstack.ts");
    return { run: () => run() };
  },
  tunnel: () => import("./tunnel.ts"),
  join: () => import("./join.ts"),
  sdk: () => import("./sdk.ts"),
  tun: () => import("./tun/suite.ts"),
  rules: async () => {
    const { run } = await import("./tun/rules.ts");
    return { run: () => run() };
  },
};

const words = process.argv.slice(2);
const json = words.includes("--json");
const flags = new Map(
  words
    .filter((word) => word.startsWith("--"))
    .map((word) => [word.split("=", 1)[0]!.slice(2), word.split("=")[1] ?? ""]),
);
const names = words.filter((word) => !word.startsWith("--"));
const unknown = names.filter((name) => SUITES[name] === undefined);
if (unknown.length > 0 || words.includes("--help")) {
  const problem = unknown.length > 0 ? `no benchmark is called ${unknown.join(", ")}\n` : "";
  process.stderr.write(`${problem}usage: npm run bench [-- ${Object.keys(SUITES).join("|")} …] [--json] [--quick]\n`);
  process.exit(unknown.length > 0 ? 2 : 0);
}

const results: BenchResult[] = [];
const { node, openssl } = process.versions;
const machine = `${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, Node ${node}, OpenSSL ${openssl}`;
if (!json) process.stdout.write(`${machine}\n`);
for (const [name, load] of Object.entries(SUITES)) {
  if (names.length > 0 && !names.includes(name)) continue;
  for (const result of await (await load()).run({ flags, json })) {
    results.push(result);
    const value = result.value >= 100 ? Math.round(result.value).toLocaleString("en") : result.value.toPrecision(3);
    if (!json) process.stdout.write(`${result.name.padEnd(58)} ${value.padStart(12)} ${result.unit}\n`);
  }
}
if (json) process.stdout.write(`${JSON.stringify({ machine, date: new Date().toISOString(), results })}\n`);
if (names.length === 0 && !flags.has("quick")) writeFigures();

function writeFigures(): void {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  const rows = results.map(({ name, value, unit }) => `- ${name}: ${Number(value.toPrecision(3))} ${unit}`);
  const when = `Written by \`npm run bench\` on ${new Date().toISOString().slice(0, 10)} at ${commit}; ${machine}.`;
  writeSection("Figures", `${when}\n\n${rows.join("\n")}`);
}
