// Denials and flows as peers report them, in a second file, in batches: losing the last second of them in a crash costs
// nobody a connection. The queue and the file are bounded; the oldest go first.
import type { DatabaseSync } from "node:sqlite";
import { RECORDS_QUEUED_MAX, RECORDS_STORED_MAX } from "../base/limits.ts";
import type { Counters } from "./counters.ts";
import { openSqlite, storeFailure } from "./store/sqlite.ts";

export type RecordKind = "denial" | "flow";

export interface StoredRecord {
  readonly id: number;
  readonly reporter: string;
  readonly receivedMs: number;
  readonly record: Record<string, unknown>;
}

interface Queued {
  readonly kind: RecordKind;
  readonly reporter: string;
  readonly atMs: number;
  readonly record: string;
}

const FLUSH_AFTER_MS = 1_000;

export class PeerRecords {
  readonly #database: DatabaseSync;
  readonly #counters: Counters;
  readonly #storedMax: number;
  #queue: Queued[] = [];
  #lastFailure: unknown;
  #timer: NodeJS.Timeout | undefined;

  constructor(path: string, counters: Counters, storedMax: number = RECORDS_STORED_MAX) {
    this.#counters = counters;
    this.#storedMax = storedMax;
    this.#database = openSqlite(path);
    try {
      this.#create();
    } catch (cause) {
      this.#database.close();
      throw storeFailure(path, cause);
    }
  }

  #create(): void {
    this.#database.exec(
      `create table if not exists records (id integer primary key, kind text not null, reporter text not null,
        at_ms integer not null, record text not null);
       create index if not exists records_by_reporter on records (reporter, kind, id)`,
    );
  }

  add(kind: RecordKind, reporter: string, records: readonly object[], nowMs: number): void {
    const room = Math.max(0, RECORDS_QUEUED_MAX - this.#queue.length);
    if (records.length > room) this.#counters.add("records-dropped", records.length - room);
    for (const record of records.slice(0, room))
      this.#queue.push({ kind, reporter, atMs: nowMs, record: JSON.stringify(record) });
    if (this.#timer !== undefined || this.#queue.length === 0) return;
    this.#timer = setTimeout(() => this.flush(), FLUSH_AFTER_MS);
    this.#timer.unref();
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const batch = this.#queue;
    this.#queue = [];
    if (batch.length === 0) return;
    try {
      this.#store(batch);
      this.#counters.add("records-stored", batch.length);
    } catch (error) {
      // A full disk costs records, not the network.
      if (this.#database.isTransaction) this.#database.exec("rollback");
      this.#counters.add("records-dropped", batch.length);
      this.#lastFailure = error;
    }
  }

  /** Why a batch could not be stored, if one couldn't. */
  get lastFailure(): unknown {
    return this.#lastFailure;
  }

  #store(batch: readonly Queued[]): void {
    const insert = this.#database.prepare("insert into records (kind, reporter, at_ms, record) values (?, ?, ?, ?)");
    this.#database.exec("begin");
    for (const { kind, reporter, atMs, record } of batch) insert.run(kind, reporter, atMs, record);
    this.#database.prepare("delete from records where id <= (select max(id) from records) - ?").run(this.#storedMax);
    this.#database.exec("commit");
  }

  /** After that id, oldest first. */
  list(kind: RecordKind, after: number, limit: number, reporter?: string): StoredRecord[] {
    this.flush();
    const rows = this.#database
      .prepare(
        `select id, reporter, at_ms, record from records
         where kind = ? and id > ? and (? is null or reporter = ?) order by id limit ?`,
      )
      .all(kind, after, reporter ?? null, reporter ?? null, limit);
    return rows.map((row) => ({
      id: Number(row["id"]),
      reporter: String(row["reporter"]),
      receivedMs: Number(row["at_ms"]),
      record: JSON.parse(String(row["record"])) as Record<string, unknown>,
    }));
  }

  close(): void {
    this.flush();
    this.#database.close();
  }
}
