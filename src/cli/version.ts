// The package's version, for --version and for what peers and coordinator say of themselves.
import { readFileSync } from "node:fs";
import { z } from "zod";

const packageSchema = z.object({ version: z.string() });

/** "0.1.0" */
export const SOFTWARE_VERSION = packageSchema.parse(
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")),
).version;

/** "wirebadge 0.1.0" */
export const SOFTWARE = `wirebadge ${SOFTWARE_VERSION}`;
