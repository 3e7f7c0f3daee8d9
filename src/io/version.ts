// The package's version, for --version and for what peers and coordinator say of themselves.
import { readFileSync } from "node:fs";
import { assert } from "../base/assert.ts";

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const { version } = JSON.parse(text) as { readonly version?: unknown };
  assert(typeof version === "string", "package.json has a version");
  return version;
}

/** "0.1.0" */
export const SOFTWARE_VERSION = packageVersion();

/** "wirebadge 0.1.0" */
export const SOFTWARE = `wirebadge ${SOFTWARE_VERSION}`;
