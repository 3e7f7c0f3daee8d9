// node:sqlite behind Kysely. WAL with synchronous FULL: what was acknowledged survives kill -9 and power loss. The file
// is locked for this process alone by the kernel, which lets go of it however the process ends.
import { chmodSync } from "node:fs";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { type Dialect, SqliteAdapter, SqliteDialect, SqliteIntrospector, SqliteQueryCompiler } from "kysely";
import { WirebadgeError } from "../../base/errors.ts";

/**
 * Opens (or makes, mode 0600) a database file for this process alone. STATE_LOCKED when another has it, STORE_FAILED
 * otherwise.
 */
export function openSqlite(path: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    database.exec("pragma busy_timeout = 0; pragma locking_mode = exclusive; pragma journal_mode = wal");
    database.exec("pragma synchronous = full; pragma foreign_keys = on; begin immediate; commit");
    chmodSync(path, 0o600);
    return database;
  } catch (cause) {
    database?.close();
    if (cause instanceof Error && /locked|busy/i.test(cause.message))
      throw new WirebadgeError("STATE_LOCKED", `another process uses ${path}`, {
        hint: "one data folder serves one coordinator: stop the other, or choose another --data",
        cause,
      });
    throw storeFailure(path, cause);
  }
}

// Of an extended result code the low byte says what it is about (https://sqlite.org/rescode.html).
const FAILURES: Readonly<Record<number, readonly [what: string, hint: string]>> = {
  8: ["can't be written", "see that its folder is yours, and not on a file system that is read-only"],
  10: ["met an error of the disk", "look at the disk, or the file system that it is on; the kernel's log says more"],
  11: ["is damaged", "restore a backup: `wirebadge coordinator restore`"],
  13: ["has no room: the disk is full", "make room; what was refused meanwhile has to be done again"],
  14: ["can't be opened", "see that its folder is yours, and that the disk has room"],
  26: ["is no store of a coordinator", "restore a backup: `wirebadge coordinator restore`"],
};

/** What SQLite says of a file, for people. */
export function storeFailure(path: string, cause: unknown): WirebadgeError {
  const code = cause instanceof Error && "errcode" in cause ? Number(cause.errcode) & 0xff : 0;
  const [what, hint] = FAILURES[code] ?? ["can't be used", "see the cause; restore a backup if it is damaged"];
  return new WirebadgeError("STORE_FAILED", `${path} ${what}`, { hint, cause });
}

/** Runs it; failures of the file itself get their name, all others (a broken constraint) are the caller's to know. */
function naming<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const code = error instanceof Error && "errcode" in error ? Number(error.errcode) & 0xff : 0;
    throw code in FAILURES ? storeFailure(path, error) : error;
  }
}

const NOTHING_DONE = { changes: 0, lastInsertRowid: 0 };

/** Kysely's SQLite dialect over an open database; `path` is named in errors. */
export function sqliteDialect(database: DatabaseSync, path: string): Dialect {
  const dialect = new SqliteDialect({
    database: {
      close: () => database.close(),
      prepare: (sql) => {
        const statement = database.prepare(sql);
        return {
          reader: statement.columns().length > 0,
          all: (parameters) => naming(path, () => statement.all(...(parameters as SQLInputValue[]))),
          run: (parameters) => {
            // A full disk has ended the transaction already: there is nothing left to roll back.
            if (sql === "rollback" && !database.isTransaction) return NOTHING_DONE;
            return naming(path, () => statement.run(...(parameters as SQLInputValue[])));
          },
          iterate: (parameters) => statement.iterate(...(parameters as SQLInputValue[])),
        };
      },
    },
  });
  return {
    createAdapter: () => new SqliteAdapter(),
    createDriver: () => dialect.createDriver(),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}
