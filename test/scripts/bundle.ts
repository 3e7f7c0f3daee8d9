// An entry point and all that it imports as one plain file: a process that is killed hundreds of times then starts in a
// third of the time. Made by the bundler that the test runner itself brings along; without that, the sources are run as
// they are.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const top = fileURLToPath(new URL("../..", import.meta.url));

export interface Bundle {
  /** The file to run. */
  readonly path: string;
  remove(): void;
}

/** `entry`: from the top of the checkout, as in "src/cli/main.ts". */
export function bundle(entry: string): Bundle {
  const modules = realpathSync(join(top, "node_modules"));
  const program = join(modules, "rolldown/bin/cli.mjs");
  if (!existsSync(program)) return { path: join(top, entry), remove: () => undefined };
  const name = basename(entry, ".ts");
  const folder = join(modules, `.cache/wirebadge/bundle-${process.pid}-${name}`);
  const out = join(folder, "dist/program"); // as deep as the sources are: the version is read from ../../package.json
  mkdirSync(out, { recursive: true });
  copyFileSync(join(top, "package.json"), join(folder, "package.json"));
  const config = join(folder, "config.mjs");
  const options = {
    input: join(top, entry),
    platform: "node",
    external: ["koffi"],
    resolve: { mainFields: ["module", "main"] },
    output: { dir: out, format: "esm", entryFileNames: `${name}.js`, chunkFileNames: "[name].js" },
  };
  writeFileSync(config, `export default ${JSON.stringify(options)};\n`);
  const made = spawnSync(process.execPath, [program, "-c", config], { encoding: "utf8" });
  if (made.status !== 0) throw new Error(`${entry} could not be bundled: ${made.stdout}${made.stderr}`);
  return { path: join(out, `${name}.js`), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
