// What the commands for administrators share: --url, --data, and the client made from them.
import type { Command } from "commander";
import { DEFAULT_ADMIN_LISTEN } from "../coordinator/options.ts";
import type { AdminClient } from "./admin-client.ts";
import { readAdminToken, refuseClearText } from "./admin-client.ts";
import { addCommand, type CommandText, parseHttpUrl } from "./command.ts";
import { defaultDataFolder } from "./folders.ts";
import type { Runtime } from "./runtime.ts";
import type { Terminal } from "./terminal.ts";

/** What every command gets. */
export interface Context {
  readonly terminal: Terminal;
  readonly runtime: Runtime;
  /** Set by a command that ends with something else than 0 without being a failure, as `can` does. */
  exitCode: number;
}

export interface AdminFlags {
  readonly url?: string;
  readonly data?: string;
}

export function withAdminOptions(command: Command): Command {
  return command
    .option("--url <url>", `the coordinator's admin listener (default: http://${DEFAULT_ADMIN_LISTEN})`, parseHttpUrl)
    .option("--data <dir>", "the coordinator's data folder, for its admin.token; else set WIREBADGE_ADMIN_TOKEN");
}

export function addAdminCommand(parent: Command, text: CommandText): Command {
  return withAdminOptions(addCommand(parent, text));
}

export async function adminClient(context: Context, flags: AdminFlags): Promise<Pick<AdminClient, "call">> {
  const { env } = context.terminal.surroundings;
  const url = flags.url ?? `http://${DEFAULT_ADMIN_LISTEN}`;
  refuseClearText(url);
  const token = await readAdminToken(env, flags.data ?? defaultDataFolder(env));
  return context.runtime.adminClient({ url, token });
}

/** `path("/v1/identities/", name)`: one path segment or query value, escaped. */
export const escaped = encodeURIComponent;
