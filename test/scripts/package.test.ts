// The package as its users get it: packed, installed into an empty folder without install scripts, run from there.
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { needs, requireTool } from "../needs.ts";

const top = fileURLToPath(new URL("../..", import.meta.url));
const COPIED = ["bin", "src", "package.json", "package-lock.json", "tsconfig.json", "tsconfig.build.json", ".npmrc"];
const TEXTS = ["README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"];

/** npm runs on the Node of these tests: the first on the PATH. */
const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env["PATH"]}` };

describe.runIf(needs("npm"))("the package", () => {
  const base = mkdtempSync(join(tmpdir(), "wirebadge-package-"));
  const source = join(base, "source");
  const user = join(base, "user");
  const installed = join(user, "node_modules/wirebadge");
  const npm = (cwd: string, ...args: string[]): string =>
    execFileSync(requireTool("npm"), args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  let packed: readonly string[] = [];

  beforeAll(() => {
    mkdirSync(source);
    mkdirSync(user);
    for (const name of [...COPIED, ...TEXTS])
      if (existsSync(join(top, name))) cpSync(join(top, name), join(source, name), { recursive: true });
    symlinkSync(join(top, "node_modules"), join(source, "node_modules"));
    const [made] = JSON.parse(npm(source, "pack", "--json")) as { filename: string; files: { path: string }[] }[];
    packed = made!.files.map((file) => file.path);
    writeFileSync(join(user, "package.json"), '{ "name": "user", "private": true }');
    npm(user, "install", "--ignore-scripts", "--no-audit", "--no-fund", join(source, made!.filename));
  }, 240_000);
  afterAll(() => rmSync(base, { recursive: true }));

  it("holds launchers, every source but the simulator as JavaScript with types, and the texts", () => {
    const sources = readdirSync(join(top, "src"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && !path.startsWith("sim/"))
      .map((path) => `dist/${path.replace(/\.ts$/, "")}`);
    expect(sources.length).toBeGreaterThan(20);
    for (const path of sources) expect(packed).toEqual(expect.arrayContaining([`${path}.js`, `${path}.d.ts`]));
    expect(packed).toEqual(
      expect.arrayContaining(["package.json", "bin/wirebadge", "bin/launch.js", "bin/package.json"]),
    );
    for (const name of TEXTS) if (existsSync(join(top, name))) expect(packed).toContain(name);
    expect(
      packed.filter((path) => /^(src|test|node_modules|benchmarks)\/|^dist\/sim\/|\.tsbuildinfo$/.test(path)),
    ).toEqual([]);
  });

  it("imports nothing by a .ts name and nothing from outside its dependencies", () => {
    for (const path of packed.filter((name) => /^dist\/.*\.js$/.test(name)))
      expect(readFileSync(join(installed, path), "utf8"), path).not.toMatch(/["'`]\.\.?\/[\w./-]+\.ts["'`]/);
  });

  it("surprises nobody with a script at install time", () => {
    const { scripts = {} } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
      scripts?: Record<string, string>;
    };
    for (const name of ["preinstall", "install", "postinstall", "prepare"]) expect(scripts[name]).toBeUndefined();
  });

  it("starts from the installed folder", () => {
    const { version } = JSON.parse(readFileSync(join(top, "package.json"), "utf8")) as { version: string };
    const run = (...args: string[]): string =>
      execFileSync(join(user, "node_modules/.bin/wirebadge"), args, { cwd: user, env, encoding: "utf8" });
    expect(run("--version")).toContain(version);
    for (const command of ["up", "wg", "coordinator"]) expect(run(command, "--help")).toContain(command);
  });
});
