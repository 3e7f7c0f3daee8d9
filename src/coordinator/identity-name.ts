// `KIND:NAME` of identities: agents and nodes are RFC 1123 labels, users lower-case ASCII e-mail addresses.
import { WirebadgeError } from "../base/errors.ts";
import type { IdentityKind } from "./store/rows.ts";

const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const EMAIL = /^[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/;

export interface IdentityName {
  readonly kind: IdentityKind;
  readonly name: string;
}

/** Throws CONFIG_INVALID, saying what a name of that kind looks like. */
export function parseIdentityName(text: string): IdentityName {
  const cut = text.indexOf(":");
  const [kind, name] = [text.slice(0, cut), text.slice(cut + 1)];
  if (kind === "user" && EMAIL.test(name)) return { kind, name };
  if ((kind === "agent" || kind === "node") && LABEL.test(name)) return { kind, name };
  const hints: Record<string, string> = {
    user: "a user is a lower-case e-mail address: user:ana@example.com",
    agent: "an agent's name has a–z, 0–9 and inner hyphens, at most 63: agent:coder",
    node: "a node's name has a–z, 0–9 and inner hyphens, at most 63: node:gw-1",
  };
  const hint = hints[kind] ?? "give KIND:NAME, as in agent:coder, node:gw-1 or user:ana@example.com";
  throw new WirebadgeError("CONFIG_INVALID", `${JSON.stringify(text)} is no identity`, { hint });
}
