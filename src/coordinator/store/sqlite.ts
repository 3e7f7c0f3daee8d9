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
    throw new WirebadgeError("STORE_FAILED", `can't open ${path}`, {
      hint: "see the cause; restore a backup if it is damaged",
      cause,
    });
  }
}

/** Kysely's SQLite dialect over an open database. */
export function sqliteDialect(database: DatabaseSync): Dialect {
  const dialect = new SqliteDialect({
    database: {
      close: () => database.close(),
      prepare: (sql) => {
        const statement = database.prepare(sql);
        return {
          reader: statement.columns().length > 0,
          all: (parameters) => statement.all(...(parameters as SQLInputValue[])),
          run: (parameters) => statement.run(...(parameters as SQLInputValue[])),
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
