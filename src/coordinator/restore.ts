// A backup put in the place of a data folder's store: checked whole before anything is touched, and in place by one
// rename. What was there is kept beside it; sessions that had ended there stay ended.
import { copyFileSync, existsSync, linkSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { WirebadgeError } from "../base/errors.ts";
import { fsyncPath } from "../io/fsync-path.ts";
import { verifyAuditChain } from "./audit.ts";
import { BACKUP_VERSION, openStore } from "./backup.ts";
import { type DataPaths, prepareDataDir, writeSecretFile } from "./data-dir.ts";
import { beginEpoch } from "./epoch.ts";
import type { SessionRow } from "./store/rows.ts";

export interface RestoreOptions {
  readonly file: string;
  readonly dataDir: string;
  /** In the place of a network that is there. */
  readonly force: boolean;
  readonly nowMs: number;
}

export interface Restored {
  readonly network: string;
  readonly epoch: number;
  /** When the backup was made. */
  readonly createdMs: number;
  /** Sessions that had ended since. */
  readonly sessions: readonly string[];
  /** Tokens of the backup that can't enrol any more. */
  readonly tokens: readonly string[];
  /** Where the former store is now. */
  readonly former: string | undefined;
}

/** What is in the folder now, as far as it can be read. */
interface Present {
  readonly network: string | undefined;
  readonly epoch: number;
  readonly ended: readonly SessionRow[];
}

/**
 * @throws STATE_UNREADABLE (the file is no whole backup), STATE_LOCKED (the coordinator runs), CONFLICT (a network is
 * there); the folder is then as it was.
 */
export async function restoreBackup({ file, dataDir, force, nowMs }: RestoreOptions): Promise<Restored> {
  const paths = prepareDataDir(dataDir);
  const incoming = `${paths.network}.restoring`;
  try {
    removeDatabase(incoming);
    const { keys, createdMs } = takeBackup(file, incoming);
    const present = existsSync(paths.network) ? await readPresent(paths, force) : undefined;
    const prepared = await prepare(file, incoming, present, createdMs, nowMs);
    fsyncPath(incoming);
    const former = present === undefined ? undefined : setAside(paths, nowMs);
    renameSync(incoming, paths.network);
    fsyncPath(dataDir);
    // Last: a store without its keys doesn't start, keys without their store would begin a new network.
    writeSecretFile(paths.keys, keys);
    return { ...prepared, createdMs, former };
  } catch (error) {
    removeDatabase(incoming);
    if (error instanceof WirebadgeError) throw error;
    throw new WirebadgeError("STORE_FAILED", `the backup can't be put into ${dataDir}`, {
      hint: "see that the folder may be written to and that its disk has room; nothing there has changed",
      cause: error,
    });
  }
}

function removeDatabase(path: string): void {
  for (const end of ["", "-wal", "-shm", "-journal"]) rmSync(path + end, { force: true });
}

function unreadable(file: string, what: string, cause?: unknown): WirebadgeError {
  return new WirebadgeError("STATE_UNREADABLE", `${file} ${what}`, {
    hint: "give a file that `wirebadge coordinator backup` made; `wirebadge coordinator check FILE` looks into it",
    cause,
  });
}

/** Copies it, and takes the keys out of the copy. */
export function takeBackup(file: string, to: string): { readonly keys: string; readonly createdMs: number } {
  try {
    copyFileSync(file, to);
  } catch (cause) {
    throw unreadable(file, "can't be read", cause);
  }
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(to);
    const [row] = database.prepare("select version, created_ms, keys from backup").all();
    const whole = database.prepare("pragma integrity_check").all();
    if (row === undefined || whole.length !== 1 || whole[0]?.["integrity_check"] !== "ok")
      throw unreadable(file, "is damaged");
    if (Number(row["version"]) > BACKUP_VERSION)
      throw new WirebadgeError("STATE_UNREADABLE", `${file} was made by a newer wirebadge`, {
        hint: "upgrade wirebadge on this machine",
      });
    database.exec("pragma secure_delete = on; drop table backup");
    return { keys: String(row["keys"]), createdMs: Number(row["created_ms"]) };
  } catch (cause) {
    throw cause instanceof WirebadgeError ? cause : unreadable(file, "is no backup of a coordinator", cause);
  } finally {
    database?.close();
  }
}

async function readPresent(paths: DataPaths, force: boolean): Promise<Present> {
  try {
    const store = await openStore(paths.network);
    try {
      const present = await store.transaction(async (tx) => ({
        network: (await tx.network())?.id,
        epoch: await tx.addToCounter("epoch", 0),
        ended: (await tx.sessions()).filter(({ state }) => state !== "active"),
      }));
      if (force) return present;
    } finally {
      await store.close();
    }
  } catch (error) {
    if (!(error instanceof WirebadgeError) || error.code !== "STORE_FAILED") throw error;
    if (force) return { network: undefined, epoch: 0, ended: [] }; // beyond reading: that's why it is restored
  }
  throw new WirebadgeError("CONFLICT", `${dirname(paths.network)} holds a network`, {
    hint: "--force puts the backup in its place; the store that is there is kept beside it",
  });
}

async function prepare(
  file: string,
  incoming: string,
  present: Present | undefined,
  createdMs: number,
  nowMs: number,
): Promise<Pick<Restored, "network" | "epoch" | "sessions" | "tokens">> {
  const store = await openStore(incoming);
  try {
    const network = (await store.transaction((tx) => tx.network()))?.id;
    if (network === undefined) throw unreadable(file, "holds no network");
    if (present?.network !== undefined && present.network !== network)
      throw new WirebadgeError("CONFLICT", `the backup is of network ${network}, the folder holds ${present.network}`, {
        hint: "choose another folder with --data",
      });
    const broken = await verifyAuditChain(store);
    if (broken !== undefined) throw unreadable(file, `was changed: its audit log is broken at entry ${broken}`);
    return await store.transaction(async (tx) => {
      const sessions: string[] = [];
      for (const { id, state, endedMs } of present?.ended ?? []) {
        if (state === "active" || (await tx.session(id))?.state !== "active") continue;
        await tx.endSession(id, state, endedMs ?? nowMs);
        sessions.push(id);
      }
      const { epoch, tokens } = await beginEpoch(tx, present?.epoch ?? 0, nowMs);
      const details = { backupMs: createdMs, epoch, sessions, tokens };
      await tx.audit(nowMs, { actor: "operator", action: "network.restore", subject: network, details });
      return { network, epoch, sessions, tokens };
    });
  } finally {
    await store.close();
  }
}

/** The former store under a name of its own; no journal of it stays where the new store would take it for its own. */
function setAside(paths: DataPaths, nowMs: number): string {
  const former = `${paths.network}.before-${new Date(nowMs).toISOString().replace(/[:.]/g, "-")}`;
  linkSync(paths.network, former);
  for (const end of ["-wal", "-shm"])
    if (existsSync(paths.network + end)) renameSync(paths.network + end, former + end);
  return former;
}
