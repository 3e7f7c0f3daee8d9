// Inputs that are kept: of failures, and those that reached something new. One file each, corpus/TARGET/HASH.bin, run
// again by every `npm run check`.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("corpus", import.meta.url));

export function corpusOf(target: string, folder = FOLDER): Uint8Array[] {
  const path = join(folder, target);
  if (!existsSync(path)) return [];
  const names = readdirSync(path).filter((name) => name.endsWith(".bin"));
  return names.sort().map((name) => new Uint8Array(readFileSync(join(path, name))));
}

/** The file's path, also when it was there already. */
export function keep(target: string, input: Uint8Array, folder = FOLDER): string {
  const hash = createHash("sha256").update(input).digest("hex").slice(0, 16);
  const path = join(folder, target, `${hash}.bin`);
  mkdirSync(join(folder, target), { recursive: true });
  writeFileSync(path, input);
  return path;
}

export function corpusTargets(folder = FOLDER): string[] {
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}
