// Where things are kept when no option says so.
import { homedir } from "node:os";
import { join } from "node:path";

/**
 * The coordinator's data folder: `$XDG_DATA_HOME/wirebadge/coordinator`, else under `~/.local/share`. One folder =
 * one network.
 */
export function defaultDataFolder(env: NodeJS.ProcessEnv): string {
  return join(env["XDG_DATA_HOME"] || join(homedir(), ".local", "share"), "wirebadge", "coordinator");
}

export const ADMIN_TOKEN_FILE = "admin.token";
