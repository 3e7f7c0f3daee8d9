// `wirebadge token …`: enrolment tokens. The token itself is printed once, alone on standard output or into a file of
// mode 0600.
import { unlink, writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import {
  type Token,
  type TokenCreate,
  tokenCreatedSchema,
  tokenListSchema,
  tokenRevokedSchema,
} from "../coordinator/http/schema.ts";
import { type AdminFlags, addAdminCommand, adminClient, type Context, escaped } from "./admin-command.ts";
import { addFamily, collect, parseCount, parseDuration, parseIdentity, parseRoute } from "./command.ts";
import { relative, table } from "./table.ts";

interface CreateFlags extends AdminFlags {
  readonly as: string;
  readonly sponsor?: string;
  readonly tag?: string[];
  readonly uses?: number;
  readonly expires?: number;
  readonly mayRoute?: string[];
  readonly out?: string;
}

export function addTokenCommands(program: Command, context: Context): void {
  const family = addFamily(program, "token", "make, list and revoke enrolment tokens");
  addAdminCommand(family, {
    usage: "create",
    summary: "make a token that lets a process join as one identity",
    details:
      "The token is printed once and kept only as a hash. Standard output carries nothing else, notes go " +
      "to standard error.",
    examples: [
      "wirebadge token create --as agent:coder --sponsor user:ana@example.com --out coder.token",
      "wirebadge token create --as node:gateway --may-route 10.20.0.0/16 --expires 10m | ssh gw wirebadge " +
        "up --token-file -",
    ],
  })
    .requiredOption("--as <identity>", "who joins with it: agent:NAME, node:NAME or user:EMAIL", parseIdentity)
    .option("--sponsor <identity>", "the user that an agent works for", parseIdentity)
    .option("--tag <tag>", "a tag of its sessions (repeatable)", collect(String))
    .option("--uses <n>", "how many sessions may enrol with it (default: 1)", parseCount)
    .option("--expires <duration>", "how long it can be used, as in 10m, 12h, 7d (default: 1h)", parseDuration)
    .option(
      "--may-route <route>",
      "a CIDR or host:PATTERN that it may offer as a gateway (repeatable)",
      collect(parseRoute),
    )
    .option("--out <file>", "write the token into this new file, readable by you alone")
    .action((flags: CreateFlags) => createToken(context, flags));
  addAdminCommand(family, {
    usage: "list",
    summary: "list tokens: whom they are for, uses left, state",
    examples: ["wirebadge token list", "wirebadge token list --json | jq '.tokens[] | select(.state == \"active\")'"],
  }).action(async (flags: AdminFlags) => {
    const client = await adminClient(context, flags);
    const answer = await client.call("GET", "/v1/tokens", tokenListSchema);
    context.terminal.result(answer, ({ tokens }) => tokenTable(tokens, context.terminal.surroundings.nowMs()));
  });
  addAdminCommand(family, {
    usage: "revoke <id>",
    summary: "let nobody enrol with this token any more",
    details: "Sessions that enrolled with it go on; `wirebadge revoke token:ID` ends those too.",
    examples: ["wirebadge token revoke t_4g8k2m6p0r5t9w3y"],
  }).action(async (id: string, flags: AdminFlags) => {
    const client = await adminClient(context, flags);
    const token = await client.call("DELETE", `/v1/tokens/${escaped(id)}`, tokenRevokedSchema);
    context.terminal.result(token, () => `${token.id} (${token.as}) is ${token.state}`);
  });
}

async function createToken(context: Context, flags: CreateFlags): Promise<void> {
  const { terminal } = context;
  if (flags.sponsor !== undefined && !flags.as.startsWith("agent:"))
    throw new WirebadgeError("USAGE", "--sponsor is for agents", {
      hint: "leave it out, or make the token --as agent:NAME",
    });
  if (flags.sponsor !== undefined && !flags.sponsor.startsWith("user:"))
    throw new WirebadgeError("USAGE", `--sponsor ${flags.sponsor} is not a user`, {
      hint: "as in user:ana@example.com",
    });
  const body: TokenCreate = {
    as: flags.as,
    ...(flags.sponsor === undefined ? {} : { sponsor: flags.sponsor }),
    ...(flags.tag === undefined ? {} : { tags: flags.tag }),
    ...(flags.uses === undefined ? {} : { uses: flags.uses }),
    ...(flags.expires === undefined ? {} : { expiresInMs: flags.expires }),
    ...(flags.mayRoute === undefined ? {} : { mayRoute: flags.mayRoute }),
  };
  const client = await adminClient(context, flags);
  // The file is made before the token, so that no token is lost for want of a place to put it.
  if (flags.out !== undefined) await createPrivateFile(flags.out);
  const created = client.call("POST", "/v1/tokens", tokenCreatedSchema, body);
  const { token, ...about } = await created.catch(async (error: unknown) => {
    if (flags.out !== undefined) await unlink(flags.out);
    throw error;
  });
  if (flags.out === undefined) terminal.result({ ...about, token }, () => token);
  else {
    await writeFile(flags.out, `${token}\n`);
    terminal.result({ ...about, file: flags.out }, () => "");
  }
  if (terminal.json) return;
  const uses = about.uses === 1 ? "one use" : `${about.uses} uses`;
  const ends = relative(about.expiresMs, terminal.surroundings.nowMs());
  terminal.note(
    `token ${about.id} for ${about.as}: ${uses}, expires ${ends}${flags.out === undefined ? "" : `, in ${flags.out}`}`,
  );
}

async function createPrivateFile(path: string): Promise<void> {
  try {
    await writeFile(path, "", { flag: "wx", mode: 0o600 });
  } catch (error) {
    throw new WirebadgeError("USAGE", `${path} can't be created (${(error as NodeJS.ErrnoException).code})`, {
      cause: error,
      hint: "--out makes a new file; an existing one is never overwritten",
    });
  }
}

function tokenTable(tokens: readonly Token[], nowMs: number): string {
  const rows = tokens.map((token) => [
    token.id,
    token.as,
    token.sponsor ?? "",
    token.state,
    `${token.usesLeft}/${token.uses}`,
    relative(token.expiresMs, nowMs),
    [...token.tags.map((tag) => `tag:${tag}`), ...token.mayRoute].join(" "),
  ]);
  return table(["ID", "AS", "SPONSOR", "STATE", "USES LEFT", "EXPIRES", "TAGS, ROUTES"], rows, "no tokens");
}
