// The version that `--version`, status and the control channel give: the package's own.
import { readFileSync } from "node:fs";

function readVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const parsed: unknown = JSON.parse(text);
  return typeof parsed === "object" && parsed !== null && "version" in parsed ? String(parsed.version) : "unknown";
}

export const VERSION = readVersion();
export const SOFTWARE = `wirebadge ${VERSION}`;
