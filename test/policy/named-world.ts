// A small network that policy tests speak of by name.
import { type Address, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { PolicyCompiler } from "../../src/policy/compile.ts";
import { formatIssue, parsePolicy } from "../../src/policy/document.ts";
import type { Policy } from "../../src/policy/policy.ts";
import type { IdentityKind } from "../../src/policy/selector.ts";
import type { World, WorldIdentity, WorldSession } from "../../src/policy/world.ts";

export const NETWORK = { ula: parsePrefix("fd77:7777:7777::/48")!, pool4: parsePrefix("10.77.0.0/16")! };

export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

export function policyOf(document: unknown, version = 1): Policy {
  const result = parsePolicy(JSON.stringify(document), version);
  if (!result.ok) throw new Error(result.issues.map(formatIssue).join("\n"));
  return result.policy;
}

export interface SessionInput {
  readonly tags?: readonly string[];
  readonly sponsor?: string;
  readonly token?: string;
  readonly v4?: string;
  readonly routes?: readonly string[];
  readonly serves?: readonly string[];
  readonly mayRoute?: readonly string[];
}

/** Sessions are called as their identities, `s_coder` for "agent:coder"; the n-th has the address fd77:7777:7777::n. */
export function worldOf(sessions: Readonly<Record<string, SessionInput>>): World {
  const identities = new Map<string, WorldIdentity>();
  const all = new Map<string, WorldSession>();
  for (const [index, [name, input]] of Object.entries(sessions).entries()) {
    const kind = name.slice(0, name.indexOf(":")) as IdentityKind;
    identities.set(name, { name, kind, sponsor: input.sponsor, tags: input.tags ?? [] });
    const id = sessionOf(name);
    const serves = input.serves ?? [];
    all.set(id, {
      id,
      identity: name,
      kind: "wirebadge",
      addresses: [
        address(`fd77:7777:7777::${(index + 1).toString(16)}`),
        ...(input.v4 === undefined ? [] : [address(input.v4)]),
      ],
      token: input.token,
      offeredRoutes: input.routes ?? [],
      offeredServices: serves,
      mayRoute: input.mayRoute ?? [],
      serviceAddresses: new Map(serves.map((service, i) => [service, serviceAddress(index + 1, i + 1)])),
    });
  }
  return { network: NETWORK, identities, sessions: all };
}

export function sessionOf(name: string): string {
  return `s_${name.slice(name.indexOf(":") + 1).replace(/[^a-z0-9]/g, "_")}`;
}

/** The overlay address of the i-th service (from 1) that the n-th session (from 1) serves. */
export function serviceAddress(n: number, i: number): Address {
  return address(`fd77:7777:7777:5::${n.toString(16)}:${i.toString(16)}`);
}

export function compilerOf(policy: Policy, world: World): PolicyCompiler {
  const compiler = new PolicyCompiler(policy, world.network);
  for (const session of world.sessions.values()) compiler.setSession(world.identities.get(session.identity)!, session);
  return compiler;
}
