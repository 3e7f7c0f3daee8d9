// The launchers: a Node that is too old hands over to the pinned one as if it were not there, or says what to do.
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { codeOf } from "../tidy-rules.ts";

const bin = fileURLToPath(new URL("../../bin", import.meta.url));
const base = realpathSync(mkdtempSync(join(tmpdir(), "wirebadge-launch-")));
let top = "";
let count = 0;

/** Stands in for the command line: says where it runs, then does what its first word says. */
const ENTRY = `
import { readFileSync } from "node:fs";
const words: string[] = process.argv.slice(2);
if (words[0] === "wait") {
  let signals = 0;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
    process.on(signal, () => { console.log(signal); signals += 1; setTimeout(() => process.exit(40 + signals), 200); });
  setInterval(() => 0, 1000);
}
console.log(JSON.stringify({ version: process.versions.node, words, file: import.meta.url.split("/").slice(-3) }));
if (words[0] === "code") process.exit(Number(words[1]));
if (words[0] === "kill") process.kill(process.pid, words[1]);
if (words[0] === "echo") process.stdout.write(readFileSync(0));
`;

function write(path: string, text: string): void {
  mkdirSync(join(top, path, ".."), { recursive: true });
  writeFileSync(join(top, path), text);
}

/** As `npm ci` leaves it: a package.json with the version, and a program, here this very Node. */
function installPinned(version = "24.21.0", script = `#!/bin/sh\nexec "${process.execPath}" "$@"\n`): void {
  write("node_modules/node/package.json", JSON.stringify({ version }));
  write("node_modules/node/bin/node", script);
  chmodSync(join(top, "node_modules/node/bin/node"), 0o755);
}

/** Node 20, as far as the launcher can tell. */
function start(words: readonly string[], options: SpawnOptions & { version?: string } = {}): ChildProcess {
  const version = options.version ?? "20.20.2";
  write(
    "old.cjs",
    `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } });`,
  );
  const args = ["--require", join(top, "old.cjs"), join(top, "bin/wirebadge"), ...words];
  return spawn(process.execPath, args, { stdio: "pipe", ...options });
}

interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly err: string;
}

async function outcome(child: ChildProcess, input = ""): Promise<Outcome> {
  const text = { out: "", err: "" };
  child.stdout?.setEncoding("utf8").on("data", (part: string) => (text.out += part));
  child.stderr?.setEncoding("utf8").on("data", (part: string) => (text.err += part));
  child.stdin?.end(input);
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return { code, signal, ...text };
}

beforeEach(() => {
  top = join(base, String(count++));
  cpSync(bin, join(top, "bin"), { recursive: true });
  write("package.json", '{ "type": "module" }');
});
afterAll(() => rmSync(base, { recursive: true }));

describe("the launcher on a Node that is too old", () => {
  it("runs the same words on the pinned Node, with its input, output and exit code", async () => {
    installPinned();
    write("src/cli/main.ts", ENTRY);
    const { code, out } = await outcome(start(["code", "7", "--a b"]));
    expect(JSON.parse(out)).toMatchObject({ words: ["code", "7", "--a b"], version: process.versions.node });
    expect(code).toBe(7);
    expect((await outcome(start(["echo"]), "through")).out).toMatch(/through$/);
  });

  it("ends by the signal that the command ended by", async () => {
    installPinned();
    write("src/cli/main.ts", ENTRY);
    expect(await outcome(start(["kill", "SIGTERM"]))).toMatchObject({ code: null, signal: "SIGTERM" });
    expect(await outcome(start(["kill", "SIGKILL"]))).toMatchObject({ code: null, signal: "SIGKILL" });
  });

  it.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("passes %s on, once", async (signal) => {
    installPinned();
    write("src/cli/main.ts", ENTRY);
    const child = start(["wait"]);
    const ended = outcome(child);
    await once(child.stdout!, "data");
    child.kill(signal);
    const { code, out } = await ended;
    expect(out.trim().split("\n").slice(1)).toEqual([signal]);
    expect(code).toBe(41);
  });

  it("says what to do: in a package, in a checkout without packages, in one without install scripts", async () => {
    expect(await outcome(start([]))).toMatchObject({ code: 2, err: expect.stringContaining("Install Node 24") });
    write("src/cli/main.ts", ENTRY);
    const { code, out, err } = await outcome(start([]));
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^wirebadge needs Node 24\.15 or newer; this is v\S+ \(.+\)\.\nRun `npm ci` in .+\n$/);
    write("node_modules/node/package.json", '{ "version": "24.21.0" }');
    expect(await outcome(start([]))).toMatchObject({ code: 2, err: expect.stringContaining("npm rebuild node") });
  });

  it("does not hand over to a pinned Node that is too old itself, or that can't be started", async () => {
    write("src/cli/main.ts", ENTRY);
    installPinned("22.1.0");
    expect(await outcome(start([]))).toMatchObject({ code: 2, out: "" });
    installPinned("24.21.0", "#!/nowhere/sh\n");
    expect(await outcome(start([]))).toMatchObject({ code: 2, err: expect.stringContaining("could not start") });
  });

  it.each([
    ["12.22.12", false],
    ["23.99.0", false],
    ["24.14.9", false],
    ["24.15.0", true],
    ["25.0.0", true],
  ])("takes Node %s as new enough: %s", async (version, enough) => {
    write("src/cli/main.ts", ENTRY);
    expect((await outcome(start(["code", "0"], { version }))).code).toBe(enough ? 0 : 2);
  });
});

describe("the launcher on a Node that is new enough", () => {
  const version = process.versions.node;

  it("runs the sources in a checkout, dist/ in a package, and says so when neither is there", async () => {
    expect(await outcome(start([], { version }))).toMatchObject({ code: 2, err: expect.stringContaining("not whole") });
    write("dist/cli/main.js", ENTRY.replace(": string[]", ""));
    expect(JSON.parse((await outcome(start([], { version }))).out).file).toEqual(["dist", "cli", "main.js"]);
    write("src/cli/main.ts", ENTRY);
    expect(JSON.parse((await outcome(start([], { version }))).out).file).toEqual(["src", "cli", "main.ts"]);
  });

  it("gives peers a small young generation and one thread that compiles, and no other command", async () => {
    write("src/cli/main.ts", "console.log(JSON.stringify({ pid: process.pid, flags: process.execArgv.slice(2) }));");
    for (const [command, flags] of [
      ["up", ["--max-semi-space-size=1", "--v8-pool-size=1", "--no-allocation-site-pretenuring"]],
      ["wg", ["--max-semi-space-size=1", "--v8-pool-size=1", "--no-allocation-site-pretenuring"]],
      ["status", []],
    ] as const) {
      const child = start([command], { version });
      const said = JSON.parse((await outcome(child)).out) as { pid: number; flags: string[] };
      expect(said, command).toEqual({ pid: child.pid, flags });
    }
  });

  it("says that packages are missing before npm ci, and hides no other error", async () => {
    write("src/cli/main.ts", 'import "commander-that-is-not-there";');
    expect(await outcome(start([], { version }))).toMatchObject({ code: 2, err: expect.stringContaining("npm ci") });
    write("src/cli/main.ts", 'throw new Error("its own");');
    expect(await outcome(start([], { version }))).toMatchObject({ code: 1, err: expect.stringContaining("its own") });
  });

  it("is written so that Node 12 can read it", () => {
    for (const file of ["launch.js", "wirebadge", "quickstart"]) {
      const text = readFileSync(join(bin, file), "utf8").replace(/^#!.*/, "");
      expect(codeOf(text, "strings")).not.toMatch(/\?\.|\?\?|\|\|=|&&=|"node:|\bawait\b|^import |#\w+\s*[;=(]|\d_\d/m);
    }
  });
});
