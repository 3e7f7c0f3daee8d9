// `wirebadge coordinator backup`, `restore` and `check`: for the operator, on the coordinator's machine, beside its
// data folder.
import { constants, copyFileSync, existsSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import type { BackupMade } from "../coordinator/backup.ts";
import type { StoreFigures } from "../coordinator/check-store.ts";
import { dataPaths } from "../coordinator/data-dir.ts";
import { backupSchema } from "../coordinator/http/schema.ts";
import type { Restored } from "../coordinator/restore.ts";
import type { AuditHead } from "../coordinator/store/store.ts";
import { type AdminFlags, addAdminCommand, adminClient, type Context } from "./admin-command.ts";
import { addCommand } from "./command.ts";
import { defaultDataFolder } from "./folders.ts";

const DATA_OPTION = "the coordinator's data folder (default: ~/.local/share/wirebadge/coordinator)";

export function addBackupCommands(coordinator: Command, context: Context): void {
  addAdminCommand(coordinator, {
    usage: "backup <file>",
    summary: "write the network and its keys into one file, also while the coordinator runs",
    details:
      "The file holds the coordinator's private keys and is made for its owner alone (0600): guard it as the " +
      "data folder itself.\nFlow and denial records are not in it. The coordinator stands still while it copies.",
    examples: ["wirebadge coordinator backup /backup/mesh-2026-11-22.db --data /var/lib/wirebadge"],
  }).action((file: string, flags: AdminFlags) => backup(context, file, flags));
  addCommand(coordinator, {
    usage: "restore <file>",
    summary: "put a backup in the place of a stopped coordinator's network",
    details:
      "Begins a new epoch: leases from before are refused, and tokens from before can't enrol any more.\n" +
      "Sessions that ended since the backup stay ended, as far as the store that is there, or a peer that comes " +
      "back, knows of them.",
    examples: [
      "wirebadge coordinator restore /backup/mesh-2026-11-22.db --data /var/lib/wirebadge",
      "wirebadge coordinator restore /backup/mesh-2026-11-22.db --data /var/lib/wirebadge --force",
    ],
  })
    .option("--data <dir>", DATA_OPTION)
    .option("--force", "also where a network is: its store is kept beside the new one")
    .action((file: string, flags: { data?: string; force?: true }) => restore(context, file, flags));
  addCommand(coordinator, {
    usage: "check [backup]",
    summary: "look through a stopped coordinator's store, or through a backup",
    details: "Opens it, recomputes the audit log's chain, and prints figures and the log's last entry (SEQ:HASH).",
    examples: [
      "wirebadge coordinator check --data /var/lib/wirebadge",
      "wirebadge coordinator check /backup/mesh-2026-11-22.db",
    ],
  })
    .option("--data <dir>", DATA_OPTION)
    .option("--head <seq:hash>", "an entry that the audit log must hold, as printed earlier", parseHead)
    .action((file: string | undefined, flags: { data?: string; head?: AuditHead }) => check(context, file, flags));
}

function parseHead(text: string): AuditHead {
  const match = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (match === null || Number(match[1]) === 0)
    throw new InvalidArgumentError("Expected SEQ:HASH, as printed by check.");
  return { seq: Number(match[1]), hash: match[2]! };
}

const formatHead = ({ seq, hash }: AuditHead): string => `${seq}:${hash}`;
const isoTime = (ms: number): string => new Date(ms).toISOString();

async function backup(context: Context, file: string, flags: AdminFlags): Promise<void> {
  const { terminal } = context;
  const to = resolve(file);
  if (existsSync(to))
    throw new WirebadgeError("CONFLICT", `${to} is there already`, {
      hint: "choose another name: nothing is overwritten",
    });
  const folder = flags.data ?? defaultDataFolder(terminal.surroundings.env);
  const { backupStopped } = await import("../coordinator/backup.ts");
  let made: BackupMade;
  try {
    made = await backupStopped(dataPaths(folder), to, Math.floor(terminal.surroundings.nowMs()));
  } catch (error) {
    if (!(error instanceof WirebadgeError) || error.code !== "STATE_LOCKED") throw error;
    made = await fetchBackup(context, folder, to, flags);
  }
  terminal.result({ file: to, ...made }, () =>
    [`backed up to ${to} (${made.bytes} bytes)`, `  audit log up to ${formatHead(made.auditHead)}`].join("\n"),
  );
}

/** From the coordinator that runs: it alone may read its store. */
async function fetchBackup(context: Context, folder: string, to: string, flags: AdminFlags): Promise<BackupMade> {
  const client = await adminClient(context, flags);
  const { file, ...made } = await client.call("POST", "/v1/backups", backupSchema);
  const from = join(folder, file);
  const { fsyncPath } = await import("../io/fsync-path.ts");
  try {
    copyFileSync(from, to, constants.COPYFILE_EXCL); // with its mode, 0600
    fsyncPath(to);
    return made;
  } catch (cause) {
    rmSync(to, { force: true });
    throw new WirebadgeError("STORE_FAILED", `the backup can't be written to ${to}`, {
      hint: "see that its folder may be written to and that the disk has room",
      cause,
    });
  } finally {
    rmSync(from, { force: true });
  }
}

async function restore(context: Context, file: string, flags: { data?: string; force?: true }): Promise<void> {
  const { terminal } = context;
  const dataDir = flags.data ?? defaultDataFolder(terminal.surroundings.env);
  const { restoreBackup } = await import("../coordinator/restore.ts");
  const nowMs = Math.floor(terminal.surroundings.nowMs());
  const restored = await restoreBackup({ file, dataDir, force: flags.force === true, nowMs });
  terminal.result({ data: dataDir, ...restored }, () => formatRestored(dataDir, restored));
}

function formatRestored(dataDir: string, restored: Restored): string {
  const { network, epoch, createdMs, sessions, tokens, former } = restored;
  return [
    `restored network ${network} into ${dataDir}, as it was at ${isoTime(createdMs)}`,
    `  epoch ${epoch}; ${tokens.length} tokens can't enrol any more: make new ones`,
    `  ${sessions.length} sessions that had ended since stay ended`,
    ...(former === undefined ? [] : [`  the store that was there is now ${former}`]),
    "  changes made since then are gone: look through policy and identities, and revoke again what had been revoked",
  ].join("\n");
}

async function check(
  context: Context,
  file: string | undefined,
  { data, head }: { data?: string; head?: AuditHead },
): Promise<void> {
  const { terminal } = context;
  const { checkBackup, checkStore } = await import("../coordinator/check-store.ts");
  const folder = data ?? defaultDataFolder(terminal.surroundings.env);
  const figures =
    file === undefined ? await checkStore(dataPaths(folder).network, head) : await checkBackup(file, head);
  terminal.result(figures, () => formatFigures(figures));
}

function formatFigures(figures: StoreFigures): string {
  const { network, name, epoch, policyVersion, identities, activeSessions, tokens, auditHead, backupMs } = figures;
  return [
    `network ${network} (${name}): the store and its audit log are whole`,
    ...(backupMs === undefined ? [] : [`  backed up at ${isoTime(backupMs)}`]),
    `  epoch ${epoch}, policy version ${policyVersion}`,
    `  ${identities} identities, ${activeSessions} active sessions, ${tokens} tokens`,
    `  audit log up to ${formatHead(auditHead)}`,
  ].join("\n");
}
