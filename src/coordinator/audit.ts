// The audit log's hash chain: each entry's SHA-256 covers it and the hash before, from the first line. A changed,
// removed or inserted line breaks the chain at that place; a cut-off end shows only against a head written down
// elsewhere.
import { createHash } from "node:crypto";
import type { AuditRow } from "./store/rows.ts";
import type { Store } from "./store/store.ts";

export const AUDIT_GENESIS = "0".repeat(64);
const PAGE_ROWS = 1_000;

/** Keys sorted at every depth, so that equal values have equal text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}

export function auditHash(row: Omit<AuditRow, "hash">): string {
  const { seq, atMs, actor, action, subject, details, previous } = row;
  return createHash("sha256")
    .update(canonicalJson(["wirebadge audit 1", seq, atMs, actor, action, subject, details, previous]))
    .digest("hex");
}

/** Undefined when the whole chain fits; else the sequence number of the first entry that doesn't. */
export async function verifyAuditChain(store: Store): Promise<number | undefined> {
  let previous = AUDIT_GENESIS;
  let seq = 0;
  for (;;) {
    const page = await store.transaction((tx) => tx.auditEntries(seq, PAGE_ROWS));
    for (const row of page) {
      if (row.seq !== seq + 1 || row.previous !== previous || row.hash !== auditHash(row)) return row.seq;
      previous = row.hash;
      seq = row.seq;
    }
    if (page.length < PAGE_ROWS) return undefined;
  }
}
