// A store that has no room: the change is refused with its reason, nothing of it is there, and later ones work.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SqlStore } from "../../src/coordinator/store/sql-store.ts";
import { openSqlite, sqliteDialect, storeFailure } from "../../src/coordinator/store/sqlite.ts";

let folder: string;
let database: DatabaseSync;
let store: SqlStore;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "wirebadge-store-"));
  const path = join(folder, "network.db");
  database = openSqlite(path);
  store = await SqlStore.open(sqliteDialect(database, path));
});
afterEach(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

const audit = (subject: string): Promise<void> =>
  store.transaction((tx) => tx.audit(1, { actor: "test", action: "write", subject }));

test("a full store says that it is full, keeps what it had, and goes on when there is room", async () => {
  await audit("before");
  const pages = Number(database.prepare("pragma page_count").get()?.["page_count"]);
  database.exec(`pragma max_page_count = ${pages}`);
  await expect(audit("x".repeat(100_000))).rejects.toMatchObject({
    code: "STORE_FAILED",
    message: expect.stringMatching(/network\.db has no room: the disk is full/),
    hint: expect.stringMatching(/make room/),
  });
  expect(store.auditHead().seq).toBe(1);
  database.exec("pragma max_page_count = 1000000");
  await audit("after");
  const entries = await store.transaction((tx) => tx.auditEntries(0, 10));
  expect(entries.map(({ subject }) => subject)).toEqual(["before", "after"]);
});

test("what is no store, and what broke a rule of the store, keep their names apart", async () => {
  const failure = storeFailure("x.db", Object.assign(new Error("not a database"), { errcode: 26 }));
  expect([failure.code, failure.message]).toEqual(["STORE_FAILED", "x.db is no store of a coordinator"]);
  const twice = store.transaction(async (tx) => {
    const row = { id: "n_1", name: "x", ula: "fd00::/48", pool4: "10.0.0.0/16", createdMs: 0 };
    await tx.insertNetwork(row);
    await tx.insertNetwork(row);
  });
  await expect(twice).rejects.toThrow(/UNIQUE/);
});
