// `wirebadge identity …`, `session list` and `revoke`: who is in the network, and ending it.
import type { Command } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import {
  identityListSchema,
  identityShowSchema,
  type Revocation,
  revocationSchema,
  type Session,
  sessionListSchema,
} from "../coordinator/http/schema.ts";
import { type AdminFlags, addAdminCommand, adminClient, type Context, escaped } from "./admin-command.ts";
import { addFamily, parseIdentity } from "./command.ts";
import { properties, relative, table } from "./table.ts";

const SELECTOR = /^(?:user|node|agent|kind|group|tag|sponsor|session|token):[^\s]{1,300}$/;

export function addIdentityCommands(program: Command, context: Context): void {
  const family = addFamily(program, "identity", "list, show and remove identities");
  addAdminCommand(family, {
    usage: "list",
    summary: "list users, nodes and agents, with their active sessions",
    examples: ["wirebadge identity list"],
  }).action(async (flags: AdminFlags) => {
    const client = await adminClient(context, flags);
    const answer = await client.call("GET", "/v1/identities", identityListSchema);
    const nowMs = context.terminal.surroundings.nowMs();
    context.terminal.result(answer, ({ identities }) =>
      table(
        ["NAME", "SPONSOR", "TAGS", "SESSIONS", "CREATED"],
        identities.map((identity) => [
          identity.name,
          identity.sponsor ?? "",
          identity.tags.join(" "),
          identity.removedMs === undefined ? String(identity.activeSessions) : "removed",
          relative(identity.createdMs, nowMs),
        ]),
        "no identities: `wirebadge token create --as agent:NAME` makes the first",
      ),
    );
  });
  addAdminCommand(family, {
    usage: "show <name>",
    summary: "show one identity and its sessions",
    examples: ["wirebadge identity show agent:coder"],
  }).action((name: string, flags: AdminFlags) => showIdentity(context, identityName(name), flags));
  addAdminCommand(family, {
    usage: "remove <name>",
    summary: "end all sessions and tokens of an identity and take it out of the network",
    examples: ["wirebadge identity remove agent:coder"],
  }).action(async (name: string, flags: AdminFlags) => {
    const client = await adminClient(context, flags);
    const answer = await client.call("DELETE", `/v1/identities/${escaped(identityName(name))}`, revocationSchema);
    context.terminal.result(answer, () => formatRevocation(`removed ${name}`, answer));
  });
}

function identityName(text: string): string {
  try {
    return parseIdentity(text);
  } catch (error) {
    throw new WirebadgeError("USAGE", `${text} is not the name of an identity`, {
      cause: error,
      hint: "KIND:NAME, as in agent:coder, node:gateway or user:ana@example.com",
    });
  }
}

async function showIdentity(context: Context, name: string, flags: AdminFlags): Promise<void> {
  const client = await adminClient(context, flags);
  const identity = await client.call("GET", `/v1/identities/${escaped(name)}`, identityShowSchema);
  const nowMs = context.terminal.surroundings.nowMs();
  context.terminal.result(identity, () =>
    [
      properties([
        ["name", identity.name],
        ["sponsor", identity.sponsor],
        ["tags", identity.tags.length === 0 ? undefined : identity.tags.join(" ")],
        ["created", relative(identity.createdMs, nowMs)],
        ["removed", identity.removedMs === undefined ? undefined : relative(identity.removedMs, nowMs)],
      ]),
      "",
      sessionTable(identity.sessions, nowMs),
    ].join("\n"),
  );
}

export function addSessionCommands(program: Command, context: Context): void {
  const family = addFamily(program, "session", "list sessions");
  addAdminCommand(family, {
    usage: "list",
    summary: "list the sessions: one for each process that joined",
    examples: ["wirebadge session list", "wirebadge session list --all --json | jq '.sessions[].refusedOffers'"],
  })
    .option("--all", "revoked ones and ones that left, too")
    .action(async (flags: AdminFlags & { readonly all?: boolean }) => {
      const client = await adminClient(context, flags);
      const answer = await client.call(
        "GET",
        `/v1/sessions${flags.all === true ? "?all=true" : ""}`,
        sessionListSchema,
      );
      const nowMs = context.terminal.surroundings.nowMs();
      context.terminal.result(answer, ({ sessions }) => sessionTable(sessions, nowMs));
    });
}

export function addRevokeCommand(program: Command, context: Context): void {
  addAdminCommand(program, {
    usage: "revoke <selector>",
    summary: "end sessions now: live flows are cut, and nothing enrols again with their tokens",
    details:
      "SELECTOR: agent:NAME, user:EMAIL, node:NAME, session:ID, token:ID, tag:TAG, group:NAME, kind:agent, " +
      "sponsor:user:EMAIL.",
    examples: [
      "wirebadge revoke agent:coder --reason 'wrote to the wrong bucket'",
      "wirebadge revoke sponsor:user:ana@example.com",
    ],
  })
    .option("--reason <text>", "why, for the record")
    .action(async (selector: string, flags: AdminFlags & { readonly reason?: string }) => {
      if (!SELECTOR.test(selector))
        throw new WirebadgeError("USAGE", `${selector} selects nothing`, {
          hint: "as in agent:coder, session:ID or tag:prod",
        });
      const client = await adminClient(context, flags);
      const body = { selector, ...(flags.reason === undefined ? {} : { reason: flags.reason }) };
      const answer = await client.call("POST", "/v1/revocations", revocationSchema, body);
      context.terminal.result(answer, () => formatRevocation(`revoked ${selector}`, answer));
    });
}

function formatRevocation(what: string, { sessions, tokens, toldPeers }: Revocation): string {
  const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`;
  return (
    `${printable(what)}: ${count(sessions.length, "session")} ended, ${count(tokens.length, "token")} ` +
    `void, ${count(toldPeers, "peer")} told`
  );
}

function sessionTable(sessions: readonly Session[], nowMs: number): string {
  const rows = sessions.map((session) => [
    session.id,
    session.identity,
    session.sponsor ?? "",
    session.state === "active" ? (session.connected ? "connected" : "away") : session.state,
    session.leaseEndMs === undefined ? "" : relative(session.leaseEndMs, nowMs),
    session.addresses.join(" "),
    [...session.offers.serves, ...session.offers.routes].join(" "),
  ]);
  const lines = [
    table(["SESSION", "IDENTITY", "SPONSOR", "STATE", "LEASE ENDS", "ADDRESSES", "OFFERS"], rows, "no sessions"),
  ];
  for (const session of sessions) {
    for (const { offer, reason } of session.refusedOffers)
      lines.push(`${printable(session.identity)}: offer ${printable(offer)} refused: ${printable(reason)}`);
    for (const missing of session.missingOffers)
      lines.push(
        `${printable(session.identity)}: the policy lists it for ${printable(missing)}, but it doesn't offer ` +
          "that itself",
      );
  }
  return lines.join("\n");
}
