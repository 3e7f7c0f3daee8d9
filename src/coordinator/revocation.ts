// Revocation: a selector becomes sessions, they end on disk, and in the same turn every connected peer that knew them
// is told and the sessions' own channels are closed. The signed revocation stays in netmaps until the longest lease has
// passed.
import { WirebadgeError } from "../base/errors.ts";
import type { ControlDesk } from "./control-desk.ts";
import type { Core } from "./core.ts";
import type { Revocation } from "./http/schema.ts";
import type { Leases } from "./leases.ts";
import type { Netmaps } from "./netmaps.ts";
import type { Policies } from "./policies.ts";
import type { Roster } from "./roster.ts";
import type { RevocationRow, SessionRow } from "./store/rows.ts";

export interface RevocationParts {
  readonly core: Core;
  readonly desk: Pick<ControlDesk, "expel">;
  readonly netmaps: Netmaps;
  readonly leases: Leases;
  readonly policies: Policies;
  readonly roster: Roster;
}

/**
 * Ends every session that the selector names, and the tokens by which they could come back. `remove` takes the identity
 * itself away too. NOT_FOUND when it names nothing at all.
 */
export async function revoke(
  parts: RevocationParts,
  selector: string,
  reason: string,
  actor: string,
  remove = false,
): Promise<Revocation> {
  const { core } = parts;
  const nowMs = core.nowMs();
  const untilMs = nowMs + parts.policies.longestLeaseMs();
  const written = await core.change(
    async (tx) => {
      // Selected inside the change: nobody enrols between the question and the answer.
      const selection = parts.policies.select(selector);
      const sessions = selection.sessions();
      const tokens = (await tx.tokens()).filter((row) => row.revokedMs === undefined && selection.hasToken(row));
      const identity = remove ? await tx.identity(selector) : undefined;
      const known = identity !== undefined && identity.removedMs === undefined;
      if (sessions.length === 0 && tokens.length === 0 && !known && !core.world.identities.has(selector))
        throw new WirebadgeError("NOT_FOUND", `${selector} names no active session, token or identity`, {
          hint: "see `wirebadge session list` and `wirebadge token list`",
        });
      const ended = new Set(sessions.map(({ id }) => id));
      const rows: RevocationRow[] = sessions.map(({ id }) => {
        const concerned = parts.roster.peersOf(id, nowMs).filter((peer) => !ended.has(peer));
        return { session: id, selector, reason, atMs: nowMs, untilMs, concerned };
      });
      for (const row of rows) {
        await tx.endSession(row.session, "revoked", nowMs);
        await tx.insertRevocation(row);
      }
      for (const token of tokens) await tx.revokeToken(token.id, nowMs);
      const removed = known ? { ...identity, removedMs: nowMs } : undefined;
      if (removed !== undefined) await tx.putIdentity(removed);
      const details = { reason, sessions: sessions.map(({ id }) => id), tokens: tokens.map(({ id }) => id) };
      const action = remove ? "identity.remove" : "revoke";
      await tx.audit(nowMs, { actor, action, subject: selector, details });
      return { sessions, rows, tokens, removed };
    },
    ({ sessions, rows, tokens, removed }) => {
      const toldPeers = endSessions(parts, sessions, rows, selector);
      if (removed !== undefined) core.world.identities.set(removed.name, removed);
      return { toldPeers, sessions: sessions.map(({ id }) => id), tokens: tokens.map(({ id }) => id) };
    },
  );
  return { selector, ...written, atMs: nowMs };
}

/** In memory and towards peers, after the commit; how many were told. */
export function endSessions(
  parts: RevocationParts,
  sessions: readonly SessionRow[],
  rows: readonly RevocationRow[],
  selector: string,
): number {
  const { core, desk, netmaps, leases, roster } = parts;
  const concerned = new Set<string>(rows.flatMap((row) => row.concerned));
  for (const { id } of sessions) {
    for (const peer of netmaps.seenBy(id)) concerned.add(peer);
    roster.drop(id);
    leases.forget(id);
  }
  for (const row of rows) core.world.addRevocation(row);
  for (const { id } of sessions) concerned.delete(id);
  // Peers first: their filters cut the flows; the revoked end's own channel only tells it why.
  const told = netmaps.refresh(concerned);
  for (const { id } of sessions)
    desk.expel(
      id,
      new WirebadgeError("SESSION_REVOKED", `session ${id} was revoked (${selector})`, { hint: "ask an admin" }),
    );
  return told;
}
