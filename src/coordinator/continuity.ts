// Whether this store is the newest one that peers have seen. Each peer keeps a bookmark and the signed revocations that
// it was told of; one that shows more than the store knows shows that the store was put back to an older state. Then
// what it shows is taken in, and a new epoch begins.
import { fromBase64, toBase64, toHex } from "../base/bytes.ts";
import { randomBytes } from "../base/random.ts";
import { type Bookmark, openBookmark, sealBookmark } from "../control/bookmark.ts";
import type { Kept } from "../control/messages.ts";
import { RECORD_LEASE } from "../control/messages.ts";
import { verifyRevocation } from "../control/revocation.ts";
import { beginEpoch } from "./epoch.ts";
import type { ReservedCounter } from "./reserved-counter.ts";
import { endSessions, type RevocationParts } from "./revocation.ts";
import type { RevocationRow, SessionRow } from "./store/rows.ts";

const SELECTOR = "revoked before a restore"; // of what peers brought back

export interface Counters {
  readonly serials: ReservedCounter;
  readonly revisions: ReservedCounter;
}

export class Continuity {
  readonly #parts: RevocationParts;
  readonly #counters: Counters;
  readonly #run: string;

  constructor(parts: RevocationParts, counters: Counters) {
    this.#parts = parts;
    this.#counters = counters;
    this.#run = toHex(randomBytes(parts.core.random, 8));
  }

  /** As it is now: for a peer to keep. */
  bookmark(): string {
    const { crypto, random, keys, store, world } = this.#parts.core;
    const { seq, hash } = store.auditHead();
    const { serials, revisions } = this.#counters;
    const mark: Bookmark = {
      epoch: world.epoch,
      run: this.#run,
      auditSeq: seq,
      auditHash: hash,
      serial: serials.last,
      revision: revisions.last,
    };
    return toBase64(sealBookmark(crypto, random, keys.sign.privateKey, mark));
  }

  /** Before the peer that shows it is let in: changes nothing unless it shows what the store doesn't know. */
  async consider(kept: Kept | undefined): Promise<void> {
    if (kept === undefined) return;
    const mark = this.#open(kept.bookmark);
    if (this.#forgotten(kept).length === 0 && !(await this.#isAhead(mark))) return;
    const { core } = this.#parts;
    const nowMs = core.nowMs();
    const untilMs = nowMs + this.#parts.policies.longestLeaseMs();
    await core.change(
      async (tx) => {
        // Asked again: another peer may have shown the same while this waited.
        const sessions = this.#forgotten(kept);
        const old = mark === undefined || mark.epoch >= core.world.epoch;
        if (!old && sessions.length === 0) return undefined;
        const rows = sessions.map(({ id }): RevocationRow => {
          const concerned = this.#parts.roster.peersOf(id, nowMs);
          return { session: id, selector: SELECTOR, reason: "", atMs: nowMs, untilMs, concerned };
        });
        for (const row of rows) {
          await tx.endSession(row.session, "revoked", nowMs);
          await tx.insertRevocation(row);
        }
        const begun = old ? await beginEpoch(tx, mark?.epoch ?? 0, nowMs) : undefined;
        const details = { sessions: sessions.map(({ id }) => id), ...begun, peerHadSeen: mark?.auditSeq };
        await tx.audit(nowMs, { actor: "coordinator", action: "network.old-copy", subject: "store", details });
        return { sessions, rows, begun };
      },
      (written) => written !== undefined && this.#apply(written.sessions, written.rows, written.begun?.epoch),
    );
  }

  #apply(sessions: readonly SessionRow[], rows: readonly RevocationRow[], epoch: number | undefined): void {
    const { core, netmaps, leases } = this.#parts;
    core.counters.add("store-older-than-peers");
    core.logger.warn(
      { epoch: epoch ?? core.world.epoch, sessions: sessions.map(({ id }) => id) },
      "this store is older than what a peer has seen: what it had forgotten is taken in again",
    );
    endSessions(this.#parts, sessions, rows, SELECTOR);
    if (epoch === undefined) return;
    core.world.epoch = epoch;
    for (const id of netmaps.connectedSessions()) {
      const session = core.world.sessions.get(id);
      if (session === undefined) continue;
      netmaps.sendFull(id);
      netmaps.connection(id)?.sendBytes(RECORD_LEASE, leases.issue(session));
    }
  }

  #open(text: string | undefined): Bookmark | undefined {
    const sealed = text === undefined ? undefined : fromBase64(text);
    const { crypto, keys } = this.#parts.core;
    return sealed === undefined ? undefined : openBookmark(crypto, keys.sign.privateKey, sealed);
  }

  /** Sessions that live here, and whose end this coordinator has signed. The first bad signature ends the reading. */
  #forgotten({ revocations }: Kept): SessionRow[] {
    const { crypto, keys, world, counters } = this.#parts.core;
    const found: SessionRow[] = [];
    for (const { session, signature } of revocations) {
      const row = world.sessions.get(session);
      if (row === undefined) continue;
      if (!verifyRevocation(crypto, keys.sign.publicKey, session, fromBase64(signature) ?? new Uint8Array(0))) {
        counters.add("revocation-bad-signature");
        break;
      }
      found.push(row);
    }
    return found;
  }

  async #isAhead(mark: Bookmark | undefined): Promise<boolean> {
    const { store, world } = this.#parts.core;
    if (mark === undefined || mark.epoch < world.epoch || mark.run === this.#run) return false;
    if (mark.epoch > world.epoch) return true;
    const { serials, revisions } = this.#counters;
    if (mark.serial >= serials.first || mark.revision >= revisions.first) return true;
    const [entry] = await store.transaction((tx) => tx.auditEntries(mark.auditSeq - 1, 1));
    return entry?.hash !== mark.auditHash; // also when the log doesn't reach that far
  }
}
