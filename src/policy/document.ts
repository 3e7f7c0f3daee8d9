// A policy document from its text: JSONC (comments and trailing commas are kept out of the meaning), then the shape,
// then every selector, destination, name and time in it. Each mistake says what, where (line and column, from 1) and
// how to mend it; up to POLICY_ISSUES_MAX are reported at once.
import {
  createScanner,
  findNodeAtLocation,
  type JSONPath,
  type Node,
  type ParseError,
  parseTree,
  printParseErrorCode,
} from "jsonc-parser";
import type { z } from "zod";
import { utf8 } from "../base/bytes.ts";
import { POLICY_ISSUES_MAX, POLICY_MAX_BYTES } from "../base/limits.ts";
import { buildPolicy } from "./build.ts";
import type { PolicyFault, PolicyIssue, PolicyIssueCode } from "./issue.ts";
import { didYouMean, nearest } from "./nearest.ts";
import type { Policy } from "./policy.ts";
import { type PolicyDocument, policyDocumentSchema } from "./schema.ts";
import { shown } from "./selector.ts";

export type PolicyResult =
  | { readonly ok: true; readonly policy: Policy }
  | { readonly ok: false; readonly issues: readonly PolicyIssue[] };

const DEPTH_MAX = 32;
const LINE_FEED = 10;

/** The policy that `text` (JSONC) holds. Its own tests are not run here: see tests.ts. */
export function parsePolicy(text: string, version: number): PolicyResult {
  const found: PolicyIssue[] = [];
  const places = new Places(text);
  const done = (): PolicyResult => ({ ok: false, issues: found.slice(0, POLICY_ISSUES_MAX) });
  if (utf8(text).length > POLICY_MAX_BYTES) {
    found.push(
      places.issue("TOO_LARGE", 0, "", `larger than ${POLICY_MAX_BYTES} bytes`, "join grants: lists, CIDRs, tags"),
    );
    return done();
  }
  const tooDeep = offsetBeyondDepth(text);
  if (tooDeep !== undefined) {
    found.push(places.issue("TOO_DEEP", tooDeep, "", `nested deeper than ${DEPTH_MAX}`, "a policy is at most 4 deep"));
    return done();
  }
  const errors: ParseError[] = [];
  const tree = parseTree(text, errors, { allowTrailingComma: true });
  const [error] = errors;
  if (tree === undefined) {
    found.push(places.issue("SYNTAX", error?.offset ?? 0, "", "there is no value", "the smallest policy is {}"));
    return done();
  }
  if (error !== undefined) {
    const name = printParseErrorCode(error.error);
    found.push(places.issue("SYNTAX", error.offset, "", syntaxMessage(name), syntaxHint(name)));
    return done();
  }
  findDuplicateKeys(tree, [], found, places);
  if (found.length > 0) return done();
  const parsed = policyDocumentSchema.safeParse(plainValue(tree));
  if (!parsed.success) {
    // A document of its full size may hold 100,000 mistakes, and finding the place of each takes a walk through it.
    for (const issue of parsed.error.issues.slice(0, POLICY_ISSUES_MAX)) {
      for (const fault of faultsOfShape(issue, tree)) found.push(places.locate(fault, tree));
    }
    return done();
  }
  const { $schema: _, ...document } = parsed.data;
  const { policy, faults } = buildPolicy(document, version);
  if (faults.length === 0) return { ok: true, policy };
  for (const fault of faults.slice(0, POLICY_ISSUES_MAX)) found.push(places.locate(fault, tree));
  return done();
}

/**
 * The policy that a value holds, such as what `definePolicy` gave; places are those of its canonical JSON, indented.
 */
export function parsePolicyValue(value: unknown, version: number): PolicyResult {
  const text = JSON.stringify(value, undefined, 2);
  return parsePolicy(text ?? "", version);
}

/** One text for one meaning: no comments, keys in the schema's order and names sorted. */
export function canonicalPolicy(policy: Policy): string {
  const { groups, services, routes, grants, never, leases, tests } = policy.document;
  const sorted = <V>(record: Record<string, V> | undefined): Record<string, V> | undefined =>
    record && Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
  const ordered: PolicyDocument = {
    groups: sorted(groups),
    services: sorted(services),
    routes: sorted(routes),
    grants,
    never,
    leases,
    tests,
  };
  return JSON.stringify(ordered);
}

/**
 * Where in a document's text a path of it stands, line and column from 1: `placeInPolicy(text, ["tests", 0])`. The
 * text has been read before (parsePolicy).
 */
export function placeInPolicy(text: string, path: JSONPath): { readonly line: number; readonly column: number } {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  const node = tree === undefined ? undefined : findNodeAtLocation(tree, path);
  const { line, column } = new Places(text).issue("SYNTAX", node?.offset ?? 0, "", "", "");
  return { line, column };
}

/** `line:column: message (hint)`, for terminals. */
export function formatIssue(issue: PolicyIssue): string {
  const where = issue.path === "" ? "" : ` ${issue.path}:`;
  return `${issue.line}:${issue.column}:${where} ${issue.message}. ${issue.hint}`;
}

/** Turns offsets and paths into lines and columns. */
class Places {
  readonly #lineStarts: number[] = [0];

  constructor(text: string) {
    for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) === LINE_FEED) this.#lineStarts.push(i + 1);
  }

  issue(code: PolicyIssueCode, offset: number, path: string, message: string, hint: string): PolicyIssue {
    let low = 0;
    let high = this.#lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#lineStarts[middle]! <= offset) low = middle;
      else high = middle - 1;
    }
    return { code, message, hint, path, line: low + 1, column: offset - this.#lineStarts[low]! + 1 };
  }

  /** Where the path leads; for a missing key, where the object around it begins. */
  locate(fault: PolicyFault, tree: Node): PolicyIssue {
    let node: Node | undefined;
    for (let length = fault.path.length; node === undefined && length >= 0; length--) {
      node = findNodeAtLocation(tree, fault.path.slice(0, length));
      if (node !== undefined && length === fault.path.length && fault.atKey) node = node.parent?.children?.[0] ?? node;
    }
    return this.issue(fault.code, node?.offset ?? 0, formatPath(fault.path), fault.message, fault.hint);
  }
}

function formatPath(path: JSONPath): string {
  let out = "";
  for (const part of path) {
    if (typeof part === "number") out += `[${part}]`;
    else if (/^[A-Za-z_$][\w$-]*$/.test(part)) out += out === "" ? part : `.${part}`;
    else out += `["${shown(part)}"]`;
  }
  return out;
}

/** The recursive parser behind this must not be fed a million brackets. */
function offsetBeyondDepth(text: string): number | undefined {
  const scanner = createScanner(text, true);
  let depth = 0;
  for (let token = scanner.scan(); token !== 17; token = scanner.scan()) {
    if (token === 1 || token === 3) depth++;
    else if (token === 2 || token === 4) depth--;
    if (depth > DEPTH_MAX) return scanner.getTokenOffset();
  }
  return undefined;
}

function syntaxMessage(name: string): string {
  const words = name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  return `not JSON: ${words}`;
}

function syntaxHint(name: string): string {
  switch (name) {
    case "CommaExpected":
      return 'put a "," before this';
    case "ColonExpected":
      return 'put a ":" between key and value';
    case "CloseBraceExpected":
      return 'a "}" is missing';
    case "CloseBracketExpected":
      return 'a "]" is missing';
    case "PropertyNameExpected":
      return "keys are written in double quotes";
    case "UnexpectedEndOfString":
      return "a closing double quote is missing; in JSON a string ends on its line";
    case "UnexpectedEndOfComment":
      return "the comment is not closed: */";
    case "EndOfFileExpected":
      return "the document ends before this";
    case "InvalidSymbol":
      return "texts are written in double quotes";
    default:
      return "comments and trailing commas are allowed, all else is JSON";
  }
}

function findDuplicateKeys(node: Node, path: JSONPath, found: PolicyIssue[], places: Places): void {
  if (found.length >= POLICY_ISSUES_MAX) return;
  if (node.type === "array") {
    for (const [index, child] of (node.children ?? []).entries())
      findDuplicateKeys(child, [...path, index], found, places);
    return;
  }
  if (node.type !== "object") return;
  const seen = new Set<string>();
  for (const property of node.children ?? []) {
    const [key, value] = property.children ?? [];
    if (key === undefined || value === undefined) continue;
    const name = String(key.value);
    const at = [...path, name];
    if (name === "__proto__") {
      found.push(places.issue("UNKNOWN_KEY", key.offset, formatPath(at), '"__proto__" is no key', "take it out"));
    } else if (seen.has(name)) {
      const hint = "join the two: only one would count, and which is anybody's guess";
      found.push(places.issue("DUPLICATE_KEY", key.offset, formatPath(at), `"${shown(name)}" is there twice`, hint));
    }
    seen.add(name);
    findDuplicateKeys(value, at, found, places);
  }
}

function plainValue(node: Node): unknown {
  switch (node.type) {
    case "array":
      return (node.children ?? []).map(plainValue);
    case "object": {
      const value: Record<string, unknown> = {};
      for (const { children } of node.children ?? []) value[String(children![0]!.value)] = plainValue(children![1]!);
      return value;
    }
    default:
      return node.value;
  }
}

const KEYS: Readonly<Record<string, readonly string[]>> = {
  "": ["groups", "services", "routes", "grants", "never", "leases", "tests"],
  services: ["at", "via", "tags", "discoverable"],
  routes: ["via"],
  grants: ["id", "from", "to", "until"],
  never: ["id", "from", "to"],
  leases: ["user", "node", "agent"],
  tests: ["from", "to", "expect"],
};

function faultsOfShape(issue: z.core.$ZodIssue, tree: Node): PolicyFault[] {
  const path = issue.path.map((part) => (typeof part === "number" ? part : String(part)));
  const node = findNodeAtLocation(tree, path);
  const said = node === undefined ? "nothing" : nameOfType(node);
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = KEYS[String(path[0] ?? "")] ?? [];
      return issue.keys.slice(0, POLICY_ISSUES_MAX).map((key) => ({
        code: "UNKNOWN_KEY",
        path: [...path, key],
        message: `"${shown(key)}" is no key here`,
        hint: `${didYouMean(nearest(key, known))}the keys are ${known.join(", ")}`,
        atKey: true,
      }));
    }
    case "invalid_type": {
      if (node === undefined) {
        const key = String(path.at(-1));
        return [{ code: "MISSING_KEY", path, message: `"${key}" is missing`, hint: `add "${key}": ${exampleOf(key)}` }];
      }
      const expected = issue.expected === "record" ? "object" : issue.expected;
      return [
        { code: "WRONG_TYPE", path, message: `${said} where ${article(expected)} belongs`, hint: shapeHint(path) },
      ];
    }
    case "invalid_union": {
      if (node === undefined) {
        const key = String(path.at(-1));
        return [{ code: "MISSING_KEY", path, message: `"${key}" is missing`, hint: `add "${key}": ${exampleOf(key)}` }];
      }
      const wrong = node.type === "array" ? (node.children ?? []).findIndex((child) => child.type !== "string") : -1;
      const at = wrong < 0 ? path : [...path, wrong];
      const what = wrong < 0 ? said : nameOfType(node.children![wrong]!);
      if (what === "a text" || (wrong < 0 && node.type === "array")) {
        return [
          { code: "TOO_LONG", path: at, message: "too long", hint: "at most 512 characters, and 1,000 in a list" },
        ];
      }
      return [
        {
          code: "WRONG_TYPE",
          path: at,
          message: `${what} where a text or a list of texts belongs`,
          hint: shapeHint(path),
        },
      ];
    }
    case "too_big": {
      const isText = issue.origin === "string";
      const message = `more than ${issue.maximum} ${isText ? "characters" : "entries"}`;
      const hint = isText ? "at most 512 characters" : "join some by lists, CIDRs, groups or tags";
      return [{ code: isText ? "TOO_LONG" : "TOO_MANY", path, message, hint }];
    }
    case "custom":
      return [{ code: "TOO_MANY", path, message: issue.message, hint: "join some by lists, CIDRs, groups or tags" }];
    default:
      return [{ code: "WRONG_VALUE", path, message: issue.message.toLowerCase(), hint: 'such as "allow" or "deny"' }];
  }
}

function nameOfType(node: Node): string {
  switch (node.type) {
    case "string":
      return "a text";
    case "array":
      return "a list";
    case "object":
      return "an object";
    case "null":
      return "null";
    default:
      return `a ${node.type}`;
  }
}

function article(expected: string): string {
  switch (expected) {
    case "string":
      return "a text";
    case "array":
      return "a list";
    case "object":
      return "an object";
    default:
      return `a ${expected}`;
  }
}

function exampleOf(key: string): string {
  switch (key) {
    case "via":
      return '["node:gw-1"]';
    case "at":
      return '"10.20.0.5 tcp:5432"';
    case "from":
      return '"agent:coder"';
    case "to":
      return '"service:staging-db"';
    default:
      return '"allow"';
  }
}

function shapeHint(path: JSONPath): string {
  switch (path[0]) {
    case "groups":
      return 'such as "groups": { "platform": ["user:ana@example.com"] }';
    case "services":
      return 'such as "services": { "db": { "at": "10.20.0.5 tcp:5432", "via": ["node:gw-1"] } }';
    case "routes":
      return 'such as "routes": { "10.20.0.0/16": { "via": ["node:gw-1"] } }';
    case "grants":
    case "never":
      return `such as "${path[0]}": [{ "from": "agent:coder", "to": "service:db" }]`;
    case "leases":
      return 'such as "leases": { "agent": "5m" }';
    case "tests":
      return 'such as "tests": [{ "from": "agent:coder", "to": "service:db", "expect": "allow" }]';
    default:
      return "a policy is one object: {}";
  }
}
