// The house rules run over the tree, and each over a planted violation, so that a rule that finds nothing is known to
// work.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { codeOf, importsOf, RULES, type SourceFile } from "./tidy-rules.ts";

const top = new URL("..", import.meta.url).pathname;
const FOLDERS = ["src", "test", "bin", "benchmarks", "examples", ".ci"];
const TEXT = /\.(ts|js|mjs|json|jsonc|md|yml|sh|conf)$|^[^.]+$|^\.(npmrc|gitignore)$/;
const PLANTED_IN = "test/tidy.test.ts"; // holds the planted violations below
const OPENING = "// What it is.\n";

function filesOfTree(): SourceFile[] {
  const paths = readdirSync(top, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name);
  for (const folder of FOLDERS.filter((name) => existsSync(join(top, name)))) {
    for (const entry of readdirSync(join(top, folder), { recursive: true, withFileTypes: true }))
      if (entry.isFile()) paths.push(join(entry.parentPath, entry.name).slice(top.length));
  }
  return paths
    .filter((path) => TEXT.test(path.split("/").at(-1) ?? "") && path !== PLANTED_IN)
    .map((path) => ({ path, text: readFileSync(join(top, path), "utf8") }));
}

/** rule → a file that breaks it (and nothing else that the rule may see). */
const PLANTED: Readonly<Record<string, readonly (readonly [path: string, text: string])[]>> = {
  "pure folders have no clock, chance, I/O, timers or async": [
    ["src/base/a.ts", "const a = Date.now();"],
    ["src/base/a.ts", "const a = new Date();"],
    ["src/engine/a.ts", "const a = performance . now();"],
    ["src/crypto/a.ts", "const a = Math.random();"],
    ["src/crypto/a.ts", "const a = randomBytes(32);"],
    ["src/netstack/tcp/a.ts", "setTimeout(() => 1, 2);"],
    ["src/policy/a.ts", "export async function a() {}"],
    ["src/control/a.ts", "const a: Promise<void> = b();"],
    ["src/wire/a.ts", 'import { readFileSync } from "node:fs";'],
    ["src/wireguard/a.ts", 'import { createHash } from "node:crypto";'],
    ["src/filter/a.ts", "console.log(1);"],
  ],
  "imports follow the folder order": [
    ["src/base/a.ts", 'import { b } from "../crypto/b.ts";'],
    ["src/wireguard/a.ts", 'import type { B } from "../filter/b.ts";'],
    ["src/engine/a.ts", 'export { b } from "../io/b.ts";'],
    ["src/peer/a.ts", 'const b = await import("../coordinator/b.ts");'],
    ["src/coordinator/store/a.ts", 'import { b } from "../../engine/b.ts";'],
    ["src/cli/a.ts", 'import { b } from "../sim/b.ts";'],
    ["src/cli/a.ts", 'import b from "../../package.json";'],
    ["src/cli/a.ts", 'import { b } from "./b.js";'],
    ["src/odd/a.ts", "export const a = 1;"],
    ["src/a.ts", "export const a = 1;"],
  ],
  "koffi is imported in src/io/ffi only": [
    ["src/io/a.ts", 'import koffi from "koffi";'],
    ["test/io/a.test.ts", 'const koffi = await import("koffi");'],
  ],
  "src imports only declared dependencies": [
    ["src/cli/a.ts", 'import { b } from "fast-check";'],
    ["src/cli/a.ts", 'import { b } from "@other/scope/deep";'],
  ],
  "a source is named outside of imports by the ending of the file that names it": [
    ["src/io/a.ts", 'const a = new URL("./worker.ts", import.meta.url);'],
    ["src/io/a.ts", 'const a = import.meta.resolve("../io/worker.ts");'],
  ],
  "documents that are named are there": [["src/base/a.ts", "// see PLAN.md"]],
  "no cast to any": [["src/base/a.ts", "const a = b as any;"]],
  "no unfinished work is left as a note": [["test/a.ts", "// TODO later"]],
  "no test is left out or singled out": [
    ["test/a.test.ts", 'it.only("a", () => 1);'],
    ["test/a.test.ts", 'describe.skip("a", () => 1);'],
    ["test/a.test.ts", 'it.concurrent.skipIf(true)("a", () => 1);'],
    ["test/a.test.ts", 'it("a", (context) => context.skip());'],
    ["test/a.test.ts", 'it.todo("a");'],
  ],
  "a suite is left out by needs() only": [["test/a.test.ts", 'describe.runIf(process.env.X)("a", () => 1);']],
  "no catch is empty": [
    ["src/io/a.ts", "try { b(); } catch {}"],
    ["src/io/a.ts", "try { b(); } catch (error: unknown) {\n}"],
    ["src/io/a.ts", "b().catch(() => {});"],
  ],
  "no default exports in src": [["src/base/a.ts", "export default 1;"]],
  "files and lines keep to their size": [
    ["src/base/a.ts", `// ${"x".repeat(118)}`],
    ["src/base/a.ts", "//\n".repeat(601)],
  ],
  "file names are kebab-case nouns": [
    ["src/base/replayWindow.ts", ""],
    ["src/base/utils.ts", ""],
    ["src/base/index.ts", ""],
    ["test/peer/types.test.ts", ""],
  ],
  "each source file opens with a comment": [
    ["src/base/a.ts", "export const a = 1;"],
    ["bin/a", "#!/usr/bin/env node\nstart();"],
  ],
  "no path of one machine": [
    ["README.md", ["see ", "home", "ana", "wirebadge"].join("/")],
    ["test/a.ts", `spawn("${["", "root", "bin", "wireguard"].join("/")}")`],
  ],
  "no registry host, no lock-file addresses": [
    ["package-lock.json", '"resolved": "x"'],
    [".npmrc", "registry=http://localhost"],
    [".ci/run", "curl https://artifactory.example.com/x"],
  ],
};

/** rule → a file that looks like a violation and is none. */
const INNOCENT: Readonly<Record<string, readonly (readonly [path: string, text: string])[]>> = {
  "pure folders have no clock, chance, I/O, timers or async": [
    ["src/base/a.ts", "// Date.now() is not used; await nothing\nconst a = new Date(nowMs);"],
    ["src/base/a.ts", 'const a = "setTimeout"; const b = `async $' + "{a} await`; const c = /await/;"],
    ["src/base/a.ts", "const a = randomBytes(this.#random, 32); const b = randomBytes(random, 3);"],
    ["src/io/a.ts", "const a = Date.now();"],
  ],
  "imports follow the folder order": [
    ["src/coordinator/store/a.ts", 'import { a } from "../../control/a.ts"; import { b } from "../b.ts";'],
    ["src/peer/a.ts", '// import { b } from "../cli/b.ts"\nimport { c } from "../io/c.ts";'],
  ],
  "koffi is imported in src/io/ffi only": [["src/io/ffi/a.ts", 'import koffi from "koffi";']],
  "src imports only declared dependencies": [["src/cli/a.ts", 'import { b } from "@known/scope/deep";']],
  "a source is named outside of imports by the ending of the file that names it": [
    ["src/io/a.ts", 'import { b } from "./b.ts"; const c = await import("./c.ts"); import "./d.ts"; // "./e.ts"'],
  ],
  "no catch is empty": [["src/io/a.ts", "try { b(); } catch {\n  // already gone: that is what was wanted\n}"]],
  "files and lines keep to their size": [["src/base/a.ts", "//\n".repeat(600)]],
};

const manifest: SourceFile = {
  path: "package.json",
  text: '{"dependencies":{"@known/scope":"1.0.0","koffi":"1.0.0"}}',
};

describe("the sources keep the house rules", () => {
  const files = filesOfTree();

  it("sees the tree: sources, tests, launchers, CI and documents", () => {
    const paths = files.map((file) => file.path);
    for (const path of ["src/base/ring.ts", "test/tidy-rules.ts", "package-lock.json", "tsconfig.json", ".npmrc"])
      expect(paths).toContain(path);
  });

  for (const rule of RULES) it(rule.name, () => expect(rule.check(files)).toEqual([]));
});

describe("each house rule finds a planted violation", () => {
  it("has one for every rule", () => {
    expect(Object.keys(PLANTED).sort()).toEqual(RULES.map((rule) => rule.name).sort());
  });

  for (const rule of RULES) {
    const open = (path: string, text: string): SourceFile => ({
      path,
      text: rule.name.startsWith("each source") ? text : OPENING + text,
    });
    it(rule.name, () => {
      for (const [path, text] of PLANTED[rule.name] ?? [])
        expect(rule.check([manifest, open(path, text)]), `${path}: ${text.slice(0, 60)}`).toHaveLength(1);
      for (const [path, text] of INNOCENT[rule.name] ?? [])
        expect(rule.check([manifest, { path, text }]), `${path}: ${text.slice(0, 60)}`).toEqual([]);
    });
  }
});

describe("the reader of sources", () => {
  it("blanks comments, strings, templates and regular expressions, and keeps lines and length", () => {
    const text =
      'const a = "x//y"; // b\nconst c = `d $' +
      "{e + `f`} g`; /* h\n i */ const j = /[/'\"]k/.test(l) ? m / n : o / p;";
    const code = codeOf(text);
    expect(code).toHaveLength(text.length);
    expect(code.replace(/ +/g, " ")).toBe(
      'const a = " "; \nconst c = ` $' + "{e + ` `} `; \n const j = .test(l) ? m / n : o / p;",
    );
  });

  it("finds imports over several lines, re-exports, side effects and dynamic ones", () => {
    const text =
      'import {\n  a,\n  b,\n} from "./a.ts";\nexport { c } from "./c.ts";\nimport "./d.ts";\nimport("./e.ts");';
    expect(importsOf({ path: "src/base/z.ts", text }).map(({ from }) => from)).toEqual([
      "./a.ts",
      "./c.ts",
      "./d.ts",
      "./e.ts",
    ]);
  });
});
