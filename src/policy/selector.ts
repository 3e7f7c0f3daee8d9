// Who is meant, in one notation for policy, CLI, API and records: `agent:coder`, `user:ana@example.com`, `kind:agent`,
// `agent:*`, `group:platform`, `tag:prod`, `sponsor:user:ana@example.com`, `session:ID`, `token:ID`.
import { NAME_MAX_CHARACTERS } from "../base/limits.ts";
import { nearest } from "./nearest.ts";

export const IDENTITY_KINDS = ["user", "node", "agent"] as const;
export type IdentityKind = (typeof IDENTITY_KINDS)[number];

/** `identity` holds the whole name with its kind ("agent:coder"), `sponsor` that of a user. */
export type Selector =
  | { readonly type: "identity"; readonly name: string }
  | { readonly type: "kind"; readonly kind: IdentityKind }
  | { readonly type: "group"; readonly name: string }
  | { readonly type: "tag"; readonly name: string }
  | { readonly type: "sponsor"; readonly name: string }
  | { readonly type: "session"; readonly id: string }
  | { readonly type: "token"; readonly id: string };

/** Why a text is refused and how to mend it. */
export interface Refusal {
  readonly code: "BAD_SELECTOR" | "BAD_DESTINATION" | "BAD_NAME";
  readonly message: string;
  readonly hint: string;
}

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly refusal: Refusal };

/** RFC 1123 §2.1: letters, digits and inner hyphens, here always in lower case. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/;
const EMAIL = /^[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/;
const EMAIL_MAX_CHARACTERS = 254; // RFC 5321 §4.5.3.1.3
const ID = /^[a-z]{1,8}_[0-9a-hjkmnp-tv-z]{10,32}$/;
const PREFIXES = [...IDENTITY_KINDS, "kind", "group", "tag", "sponsor", "session", "token"] as const;

export function isLabel(text: string): boolean {
  return text.length <= NAME_MAX_CHARACTERS && LABEL.test(text);
}

export function isIdentityKind(text: string): text is IdentityKind {
  return (IDENTITY_KINDS as readonly string[]).includes(text);
}

function refuse<T>(code: Refusal["code"], message: string, hint: string): Parsed<T> {
  return { ok: false, refusal: { code, message, hint } };
}

/** `name` without its kind; users are lower-cased ASCII e-mail addresses, all else RFC 1123 labels. */
function checkName(kind: IdentityKind, name: string): Refusal | undefined {
  if (kind === "user") {
    if (name.length <= EMAIL_MAX_CHARACTERS && EMAIL.test(name) && !name.includes("..")) return undefined;
    return {
      code: "BAD_NAME",
      message: `"${shown(name)}" is not the name of a user`,
      hint: "a user is named by an e-mail address in lower case and ASCII: user:ana@example.com",
    };
  }
  if (isLabel(name)) return undefined;
  return {
    code: "BAD_NAME",
    message: `"${shown(name)}" is not the name of ${kind === "agent" ? "an agent" : "a node"}`,
    hint: `letters a-z, digits and inner hyphens, at most ${NAME_MAX_CHARACTERS}: ${kind}:build-7`,
  };
}

/** For messages: what came from outside, short and on one line. */
export function shown(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 77)}…` : text;
  return JSON.stringify(short).slice(1, -1);
}

/** One identity: `agent:coder`, `node:gw-1` or `user:ana@example.com`; groups, kinds and the like are refused. */
export function parseIdentity(text: string): Parsed<{ readonly kind: IdentityKind; readonly name: string }> {
  const colon = text.indexOf(":");
  const kind = text.slice(0, Math.max(0, colon));
  if (!isIdentityKind(kind)) {
    return refuse("BAD_SELECTOR", `"${shown(text)}" is not an identity`, "write KIND:NAME, such as agent:coder");
  }
  const refusal = checkName(kind, text.slice(colon + 1));
  return refusal === undefined ? { ok: true, value: { kind, name: text } } : { ok: false, refusal };
}

/** Every form of selector. */
export function parseSelector(text: string): Parsed<Selector> {
  const colon = text.indexOf(":");
  if (colon < 0) return refuseBare(text);
  const prefix = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (isIdentityKind(prefix)) {
    if (rest === "*") return { ok: true, value: { type: "kind", kind: prefix } };
    const refusal = checkName(prefix, rest);
    return refusal === undefined ? { ok: true, value: { type: "identity", name: text } } : { ok: false, refusal };
  }
  switch (prefix) {
    case "kind":
      if (isIdentityKind(rest)) return { ok: true, value: { type: "kind", kind: rest } };
      return refuse("BAD_SELECTOR", `"${shown(rest)}" is not a kind`, "the kinds are user, node and agent");
    case "group":
    case "tag":
      if (isLabel(rest)) return { ok: true, value: { type: prefix, name: rest } };
      return refuse(
        "BAD_NAME",
        `"${shown(rest)}" is not the name of a ${prefix}`,
        `letters a-z, digits and inner hyphens, at most ${NAME_MAX_CHARACTERS}: ${prefix}:platform`,
      );
    case "sponsor": {
      const identity = parseIdentity(rest);
      if (!identity.ok || identity.value.kind !== "user") {
        return refuse("BAD_SELECTOR", `"${shown(rest)}" is no sponsor`, "write sponsor:user:ana@example.com");
      }
      return { ok: true, value: { type: "sponsor", name: rest } };
    }
    case "session":
    case "token":
      if (ID.test(rest)) return { ok: true, value: { type: prefix, id: rest } };
      return refuse(
        "BAD_SELECTOR",
        `"${shown(rest)}" is not the id of a ${prefix}`,
        `see \`wirebadge ${prefix} list\``,
      );
    default: {
      const near = nearest(prefix, PREFIXES);
      return refuse(
        "BAD_SELECTOR",
        `"${shown(prefix)}:" names no kind of selector`,
        near === undefined ? `one of ${PREFIXES.join(", ")}` : `did you mean ${near}:${shown(rest)}?`,
      );
    }
  }
}

function refuseBare(text: string): Parsed<Selector> {
  if (text === "*") {
    return refuse(
      "BAD_SELECTOR",
      '"*" names everybody at once',
      "name a whole kind: kind:agent, kind:node or kind:user",
    );
  }
  if (text === "") return refuse("BAD_SELECTOR", "an empty selector", "write KIND:NAME, such as agent:coder");
  return refuse(
    "BAD_SELECTOR",
    `"${shown(text)}" has no kind`,
    isLabel(text) ? `write agent:${text}, node:${text}, group:${text} or tag:${text}` : "write KIND:NAME",
  );
}

/** The canonical text: `kind:agent` for `agent:*`. */
export function formatSelector(selector: Selector): string {
  switch (selector.type) {
    case "identity":
      return selector.name;
    case "kind":
      return `kind:${selector.kind}`;
    case "group":
    case "tag":
    case "sponsor":
      return `${selector.type}:${selector.name}`;
    case "session":
    case "token":
      return `${selector.type}:${selector.id}`;
  }
}
