// package.json says only what is true: what its scripts, launchers and exports name is there.
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const top = fileURLToPath(new URL("..", import.meta.url));
const manifest = JSON.parse(readFileSync(`${top}package.json`, "utf8")) as {
  readonly scripts: Record<string, string>;
  readonly bin: Record<string, string>;
  readonly exports: Record<string, string | Record<string, string>>;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
};

describe("package.json", () => {
  it("has no script that runs a file or another script that isn't there", () => {
    for (const [name, text] of Object.entries(manifest.scripts)) {
      for (const [, file] of text.matchAll(/\bnode (?:--\S+ )*([\w./-]+)/g))
        expect(existsSync(top + file), `${name}: ${file}`).toBe(true);
      for (const [, other] of text.matchAll(/\bnpm run ([\w:-]+)/g)) expect(manifest.scripts).toHaveProperty([other!]);
    }
  });

  it("runs nothing when somebody installs the package", () => {
    for (const name of ["preinstall", "install", "postinstall", "prepare"])
      expect(manifest.scripts).not.toHaveProperty(name);
  });

  it("names launchers that start an entry point that is there", () => {
    for (const file of [...Object.values(manifest.bin), "bin/quickstart"]) {
      const entry = /\.launch\("([\w/-]+)"\)/.exec(readFileSync(top + file, "utf8"))?.[1];
      expect(existsSync(`${top}src/${entry}.ts`), `${file}: ${entry}`).toBe(true);
    }
  });

  it("exports files that the build makes", () => {
    for (const entry of Object.values(manifest.exports)) {
      for (const file of typeof entry === "string" ? [entry] : Object.values(entry)) {
        const source = file.replace(/^\.\/dist\/(.*?)(?:\.d\.ts|\.js)$/, "src/$1.ts");
        expect(existsSync(top + source), file).toBe(true);
      }
    }
  });

  it("pins every dependency to one version", () => {
    for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies }))
      expect(version, name).toMatch(/^\d+\.\d+\.\d+$/);
  });
});
