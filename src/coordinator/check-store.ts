// What `wirebadge coordinator check` looks at: the whole file, the audit chain, and figures for people.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WirebadgeError } from "../base/errors.ts";
import { verifyAuditChain } from "./audit.ts";
import { openStore } from "./backup.ts";
import { takeBackup } from "./restore.ts";
import type { AuditHead } from "./store/store.ts";

export interface StoreFigures {
  readonly network: string;
  readonly name: string;
  readonly epoch: number;
  readonly policyVersion: number;
  readonly identities: number;
  readonly activeSessions: number;
  readonly tokens: number;
  readonly auditHead: AuditHead;
  /** Of a backup: when it was made. */
  readonly backupMs?: number;
}

/** @throws STATE_LOCKED, NOT_FOUND, STORE_FAILED; CONFLICT when `head` is no entry of the audit log */
export async function checkStore(path: string, head: AuditHead | undefined): Promise<StoreFigures> {
  const store = await openStore(path);
  try {
    const broken = await verifyAuditChain(store);
    if (broken !== undefined)
      throw new WirebadgeError("STORE_FAILED", `the audit log of ${path} is broken at entry ${broken}`, {
        hint: "it was changed by something else than the coordinator: restore a backup from before",
      });
    return await store.transaction(async (tx) => {
      const network = await tx.network();
      if (network === undefined) throw new WirebadgeError("NOT_FOUND", `there is no network in ${path}`);
      const [entry] = head === undefined ? [] : await tx.auditEntries(head.seq - 1, 1);
      if (head !== undefined && entry?.hash !== head.hash)
        throw new WirebadgeError(
          "CONFLICT",
          `the audit log of ${path} does not hold entry ${head.seq} with that hash`,
          {
            hint: "its end was cut off, or it was put back to an older state",
          },
        );
      return {
        network: network.id,
        name: network.name,
        epoch: await tx.addToCounter("epoch", 0),
        policyVersion: (await tx.policy())?.version ?? 0,
        identities: (await tx.identities()).length,
        activeSessions: (await tx.sessions()).filter(({ state }) => state === "active").length,
        tokens: (await tx.tokens()).length,
        auditHead: store.auditHead(),
      };
    });
  } finally {
    await store.close();
  }
}

/** The same of a backup file, which stays as it is. @throws also STATE_UNREADABLE */
export async function checkBackup(file: string, head: AuditHead | undefined): Promise<StoreFigures> {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-check-"));
  try {
    const copy = join(folder, "network.db");
    const { createdMs } = takeBackup(file, copy);
    return { ...(await checkStore(copy, head)), backupMs: createdMs };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
