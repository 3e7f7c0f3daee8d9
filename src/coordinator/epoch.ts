// A new epoch: begun when the store was put back to an older state, by `restore` or by copying files. Leases and
// bookmarks of the epoch before are refused from then on, and tokens from before can't enrol any more: which of them
// were spent or revoked after the backup nobody knows.
import { WirebadgeError } from "../base/errors.ts";
import { SECOND_MS } from "../base/units.ts";
import type { StoreTransaction } from "./store/store.ts";

const EPOCH_MAX = 2 ** 32 - 1; // as leases carry it

/**
 * Higher than the store's and than what peers have seen. Seconds since 1970 at least: the same backup restored twice
 * gives two epochs, also when no peer was there in between.
 */
export function nextEpoch(current: number, seen: number, nowMs: number): number {
  const next = Math.max(current + 1, seen + 1, Math.floor(nowMs / SECOND_MS));
  if (next <= EPOCH_MAX) return next;
  throw new WirebadgeError("STORE_FAILED", `there is no epoch after ${Math.max(current, seen)}`, {
    hint: "the store is damaged, or the clock is far ahead: set the clock and restore a backup",
  });
}

export interface NewEpoch {
  readonly epoch: number;
  /** Tokens that could have enrolled until now. */
  readonly tokens: readonly string[];
}

/** Inside a transaction whose caller writes the audit entry. */
export async function beginEpoch(tx: StoreTransaction, seen: number, nowMs: number): Promise<NewEpoch> {
  const epoch = await tx.raiseCounter("epoch", nextEpoch(await tx.addToCounter("epoch", 0), seen, nowMs));
  const tokens = (await tx.tokens()).filter(
    ({ revokedMs, usesLeft, expiresMs }) => revokedMs === undefined && usesLeft > 0 && nowMs < expiresMs,
  );
  for (const { id } of tokens) await tx.revokeToken(id, nowMs);
  return { epoch, tokens: tokens.map(({ id }) => id) };
}
