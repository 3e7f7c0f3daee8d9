// A policy as the admin wrote it: JSONC text as it stands, or a module whose default export is the document. A module
// runs on this machine only, with the admin's own rights; the coordinator is sent plain JSON.
import { readFile, stat } from "node:fs/promises";
import { registerHooks } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { WirebadgeError } from "../base/errors.ts";
import { POLICY_MAX_BYTES } from "../base/limits.ts";
import { printable } from "../base/printable.ts";
import type { Surroundings } from "./terminal.ts";

const ENDING = import.meta.url.endsWith(".ts") ? ".ts" : ".js"; // of this program: sources in a checkout, else dist
const MODULE = /\.(?:ts|mts|js|mjs)$/;

/** The text to send. `-` reads standard input. Throws POLICY_INVALID. */
export async function readPolicyFile(path: string, stdin: Surroundings["stdin"]): Promise<string> {
  const text =
    path === "-" ? await readAll(stdin) : MODULE.test(path) ? await evaluateModule(path) : await readText(path);
  if (Buffer.byteLength(text) > POLICY_MAX_BYTES)
    throw new WirebadgeError("POLICY_INVALID", `${path} is larger than ${POLICY_MAX_BYTES} bytes`);
  return text;
}

async function readText(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > POLICY_MAX_BYTES)
      throw new WirebadgeError("POLICY_INVALID", `${path} is larger than ${POLICY_MAX_BYTES} bytes`);
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof WirebadgeError) throw error;
    throw new WirebadgeError("POLICY_INVALID", `${path} can't be read (${(error as NodeJS.ErrnoException).code})`, {
      cause: error,
    });
  }
}

async function readAll(stdin: Surroundings["stdin"]): Promise<string> {
  let text = "";
  for await (const chunk of stdin) {
    text += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("utf8");
    if (text.length > POLICY_MAX_BYTES) break; // the caller refuses it
  }
  return text;
}

async function evaluateModule(path: string): Promise<string> {
  const url = pathToFileURL(resolve(path)).href;
  const hooks = registerHooks({
    // So that a policy file needs no node_modules of its own.
    resolve: (specifier, context, next) =>
      specifier === "wirebadge/policy"
        ? { url: import.meta.resolve(`../policy/define${ENDING}`), shortCircuit: true }
        : next(specifier, context),
  });
  let exported: unknown;
  try {
    exported = ((await import(url)) as { default?: unknown }).default;
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error);
    throw new WirebadgeError("POLICY_INVALID", `${path} can't be evaluated: ${printable(what, 500)}`, {
      cause: error,
      hint: 'it is run as an ES module on this machine; definePolicy is exported by "wirebadge/policy"',
    });
  } finally {
    hooks.deregister();
  }
  if (typeof exported !== "object" || exported === null || Array.isArray(exported))
    throw new WirebadgeError("POLICY_INVALID", `${path} has no default export that is a policy`, {
      hint: "export default definePolicy({ grants: [] })",
    });
  const unwritable = findUnwritable(exported, "", new Set());
  if (unwritable !== undefined)
    throw new WirebadgeError("POLICY_INVALID", `${path}: ${unwritable}, which JSON can't hold`);
  return `${JSON.stringify(exported, undefined, 2)}\n`;
}

/**
 * What JSON would drop or change silently: a function, a Map, NaN, a cycle. `grants.0.to is a function`, or
 * undefined when all is fine.
 */
function findUnwritable(value: unknown, at: string, above: ReadonlySet<unknown>): string | undefined {
  const where = at === "" ? "the policy" : at.slice(1);
  if (typeof value === "number") return Number.isFinite(value) ? undefined : `${where} is ${value}`;
  if (value === null || ["string", "boolean", "undefined"].includes(typeof value)) return undefined;
  if (typeof value !== "object") return `${where} is a ${typeof value}`;
  if (above.has(value)) return `${where} is part of itself`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null)
    return `${where} is a ${value.constructor.name}`;
  const below = new Set(above).add(value);
  for (const [key, child] of Object.entries(value)) {
    const found = findUnwritable(child, `${at}.${key}`, below);
    if (found !== undefined) return found;
  }
  return undefined;
}
