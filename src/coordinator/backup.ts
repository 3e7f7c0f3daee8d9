// A backup: one SQLite file with the store as it was between two changes, and the keys. Made beside a running
// coordinator by the coordinator itself, which alone may read its store.
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { WirebadgeError } from "../base/errors.ts";
import { fsyncPath } from "../io/fsync-path.ts";
import type { DataPaths } from "./data-dir.ts";
import { SqlStore } from "./store/sql-store.ts";
import { openSqlite, sqliteDialect } from "./store/sqlite.ts";
import type { AuditHead, Store } from "./store/store.ts";

export const BACKUP_VERSION = 1;
/** Of backups that nobody has fetched from the data folder yet. */
const UNFETCHED = /^backup-[0-9a-z]+\.db(?:-journal|\.part)?$/;

export interface BackupMade {
  readonly createdMs: number;
  readonly bytes: number;
  readonly auditHead: AuditHead;
}

/** Whole under its name, or not there. @throws STORE_FAILED */
export async function writeBackup(store: Store, keysFile: string, path: string, nowMs: number): Promise<BackupMade> {
  const part = `${path}.part`;
  try {
    rmSync(part, { force: true });
    const auditHead = await store.copyTo(part);
    chmodSync(part, 0o600);
    const database = new DatabaseSync(part);
    try {
      database.exec("create table backup (version integer not null, created_ms integer not null, keys text not null)");
      const keys = readFileSync(keysFile, "utf8");
      database.prepare("insert into backup values (?, ?, ?)").run(BACKUP_VERSION, nowMs, keys);
    } finally {
      database.close();
    }
    fsyncPath(part);
    renameSync(part, path);
    fsyncPath(dirname(path));
    return { createdMs: nowMs, bytes: statSync(path).size, auditHead };
  } catch (cause) {
    rmSync(part, { force: true });
    if (cause instanceof WirebadgeError) throw cause;
    throw new WirebadgeError("STORE_FAILED", `the backup ${path} can't be written`, {
      hint: "see that its folder may be written to and that the disk has room for the whole store",
      cause,
    });
  }
}

/** Of a coordinator that doesn't run. @throws STATE_LOCKED when it does, NOT_FOUND, STORE_FAILED */
export async function backupStopped(paths: DataPaths, to: string, nowMs: number): Promise<BackupMade> {
  const store = await openStore(paths.network);
  try {
    return await writeBackup(store, paths.keys, to, nowMs);
  } finally {
    await store.close();
  }
}

/** The store of a coordinator that doesn't run. @throws STATE_LOCKED, NOT_FOUND, STORE_FAILED */
export async function openStore(path: string): Promise<SqlStore> {
  if (!existsSync(path))
    throw new WirebadgeError("NOT_FOUND", `there is no network in ${dirname(path)}`, {
      hint: "name the coordinator's data folder with --data",
    });
  return await SqlStore.open(sqliteDialect(openSqlite(path), path));
}

/** What an interrupted backup left in the data folder. */
export function removeUnfetched(dataDir: string): void {
  for (const name of readdirSync(dataDir)) if (UNFETCHED.test(name)) rmSync(join(dataDir, name), { force: true });
}
