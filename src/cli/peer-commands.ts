// Questions to a running peer over its state folder's socket: status, ping, whois, can, denials.
import type { Command } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { canSchema as adminCanSchema } from "../coordinator/http/schema.ts";
import { type AdminFlags, adminClient, type Context, escaped, withAdminOptions } from "./admin-command.ts";
import { addCommand, type CommandText } from "./command.ts";
import { formatDenial, formatStatus } from "./peer-format.ts";
import { formatMeasuredMs, properties } from "./table.ts";

interface PeerFlags {
  readonly state?: string;
}

function addPeerCommand(program: Command, text: CommandText): Command {
  return addCommand(program, text).option(
    "--state <dir>",
    "which peer: its state folder (default: the only running one)",
  );
}

export function addPeerCommands(program: Command, context: Context): void {
  const { terminal, runtime } = context;
  addPeerCommand(program, {
    usage: "status",
    summary: "show the running peer: identity, lease, peers, services, entry points",
    examples: ["wirebadge status", "wirebadge status --json | jq .counters"],
  }).action(async (flags: PeerFlags) => {
    const status = await (await runtime.localApi(flags.state)).status();
    terminal.result(status, formatStatus);
  });
  addPeerCommand(program, {
    usage: "ping <name>",
    summary: "measure the round trip to a peer, through its tunnel",
    examples: ["wirebadge ping node:gateway"],
  }).action(async (name: string, flags: PeerFlags) => {
    const ping = await (await runtime.localApi(flags.state)).ping(name);
    terminal.result(ping, () => {
      const who = ping.identity === undefined ? printable(ping.name) : printable(ping.identity);
      const over = ping.endpoint === undefined ? ping.path : `${ping.path}, ${ping.endpoint}`;
      return `${who} (${ping.address}) answered in ${formatMeasuredMs(ping.rttMs)} (${over})`;
    });
  });
  addPeerCommand(program, {
    usage: "whois <address>",
    summary: "say which identity stands behind an overlay address, or behind a socket that this gateway dialled",
    details:
      "ADDRESS, or IP:PORT: the source of a connection as a service behind this gateway sees it, for as " +
      "long as it lives.",
    examples: ["wirebadge whois fd4e:8b1c:22a0::7", "wirebadge whois 127.0.0.1:52114"],
  }).action(async (of: string, flags: PeerFlags) => {
    const whois = await (await runtime.localApi(flags.state)).whois(of);
    terminal.result(whois, () =>
      properties([
        ["identity", whois.identity],
        ["session", whois.session],
        ["sponsor", whois.sponsor],
        ["tags", whois.tags.length === 0 ? undefined : whois.tags.join(" ")],
        ["addresses", whois.addresses.join(" ")],
        ["asked for", whois.destination],
      ]),
    );
  });
  addPeerCommand(program, {
    usage: "denials",
    summary: "list what was denied to or by the running peer, newest last, each with its id and reason",
    examples: ["wirebadge denials", "wirebadge denials --json | jq '.denials[-1]'"],
  }).action(async (flags: PeerFlags) => {
    const answer = await (await runtime.localApi(flags.state)).denials();
    terminal.result(answer, ({ denials }) =>
      denials.length === 0 ? "nothing was denied" : denials.map(formatDenial).join("\n"),
    );
  });
  addCanCommand(program, context);
}

const SELECTOR = /^(?:user|node|agent|kind|group|tag|sponsor|session|token):/;
const PROTOCOL = /^(?:tcp|udp|icmp|any)(?::|$)/;

function addCanCommand(program: Command, context: Context): void {
  const command = addCommand(program, {
    usage: "can <from-or-dest> [dest]",
    summary: "ask whether something may be reached: exit code 0 allowed, 1 denied, 2 error",
    details:
      "With one argument the running peer answers about itself; with FROM and DEST the coordinator answers " +
      "about anybody, with the full reason.\n" +
      "DEST as in the policy: service:NAME, or a destination with protocol and ports in one argument: " +
      "'10.20.0.5 tcp:5432'.",
    examples: [
      "wirebadge can service:staging",
      "wirebadge can '10.20.0.5 tcp:5432' && psql",
      "wirebadge can agent:coder service:production",
    ],
  })
    .usage("[options] [FROM] DEST")
    .option("--state <dir>", "which peer answers about itself: its state folder (default: the only running one)");
  withAdminOptions(command).action((first: string, second: string | undefined, flags: PeerFlags & AdminFlags) =>
    second === undefined ? canSelf(context, first, flags) : canFrom(context, first, second, flags),
  );
}

interface Answer {
  readonly allowed: boolean;
  readonly reason: string;
  readonly ruleId?: string | undefined;
  readonly policyVersion?: number | undefined;
}

function formatAnswer(subject: string, answer: Answer, more: readonly string[]): string {
  const rule = answer.ruleId === undefined ? "" : ` by ${printable(answer.ruleId)}`;
  const version = answer.policyVersion === undefined ? "" : `, policy version ${answer.policyVersion}`;
  const head =
    `${answer.allowed ? "allowed" : "denied"}: ${printable(subject)} ` +
    `(${printable(answer.reason)}${rule}${version})`;
  return [head, ...more.map((line) => `  ${printable(line)}`)].join("\n");
}

async function canSelf(context: Context, dest: string, flags: PeerFlags): Promise<void> {
  const answer = await (await context.runtime.localApi(flags.state)).can(dest);
  const hint = answer.hint === undefined ? [] : [answer.hint];
  context.terminal.result(answer, () => formatAnswer(answer.destination, answer, hint));
  context.exitCode = answer.allowed ? 0 : 1;
}

async function canFrom(context: Context, from: string, dest: string, flags: AdminFlags): Promise<void> {
  if (PROTOCOL.test(dest) || !SELECTOR.test(from))
    throw new WirebadgeError("USAGE", `${from} is no FROM`, {
      hint: PROTOCOL.test(dest)
        ? `quote the destination: wirebadge can '${from} ${dest}'`
        : "as in agent:coder or session:ID",
    });
  const client = await adminClient(context, flags);
  const answer = await client.call("GET", `/v1/can?from=${escaped(from)}&dest=${escaped(dest)}`, adminCanSchema);
  context.terminal.result(answer, () => formatAnswer(`${from} to ${dest}`, answer, answer.explanation));
  context.exitCode = answer.allowed ? 0 : 1;
}
