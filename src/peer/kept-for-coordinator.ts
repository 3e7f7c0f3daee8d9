// What a peer keeps for its coordinator: its newest bookmark, and the signed revocations it was told of. Should the
// coordinator come back from an old backup, they say so; until it has taken them in, sessions revoked before stay out
// here, whatever the netmap says.
import { REVOCATION_KEPT_MS, REVOCATIONS_KEPT_MAX } from "../base/limits.ts";
import type { Kept } from "../control/messages.ts";
import type { NetmapView } from "../control/netmap.ts";

export interface KeptRevocation {
  readonly session: string;
  readonly signature: string;
  /** By the coordinator's clock. */
  readonly forgetMs: number;
}

export interface KeptState {
  readonly bookmark?: string | undefined;
  readonly revocations: readonly KeptRevocation[];
}

export class KeptForCoordinator {
  #bookmark: string | undefined;
  readonly #revocations = new Map<string, KeptRevocation>(); // in order of arrival

  constructor(state: KeptState | undefined) {
    this.#bookmark = state?.bookmark;
    for (const revocation of state?.revocations ?? []) this.#revocations.set(revocation.session, revocation);
  }

  setBookmark(bookmark: string | undefined): void {
    this.#bookmark = bookmark ?? this.#bookmark;
  }

  /** The netmap with all that is kept; true when something new was kept. */
  take(view: NetmapView, coordinatorMs: number): { readonly view: NetmapView; readonly changed: boolean } {
    let changed = this.#forget(coordinatorMs);
    const told = new Set(view.revoked.map(({ session }) => session));
    for (const { session, signature, untilMs } of view.revoked) {
      if (signature === undefined || this.#revocations.has(session)) continue;
      this.#revocations.set(session, { session, signature, forgetMs: untilMs + REVOCATION_KEPT_MS });
      changed = true;
    }
    while (this.#revocations.size > REVOCATIONS_KEPT_MAX)
      this.#revocations.delete(this.#revocations.keys().next().value!);
    const kept = [...this.#revocations.values()].filter(({ session }) => !told.has(session));
    if (kept.length === 0) return { view, changed };
    const revoked = [...view.revoked, ...kept.map(({ session, forgetMs }) => ({ session, untilMs: forgetMs }))];
    const peers = view.peers.filter(({ session }) => !this.#revocations.has(session));
    return { view: { ...view, revoked, peers }, changed };
  }

  #forget(coordinatorMs: number): boolean {
    const before = this.#revocations.size;
    for (const { session, forgetMs } of this.#revocations.values())
      if (forgetMs <= coordinatorMs) this.#revocations.delete(session);
    return this.#revocations.size !== before;
  }

  /** For the coordinator. */
  toMessage(): Kept {
    const revocations = [...this.#revocations.values()].map(({ session, signature }) => ({ session, signature }));
    return { ...(this.#bookmark !== undefined && { bookmark: this.#bookmark }), revocations };
  }

  /** For the state file. */
  toState(): KeptState {
    return {
      ...(this.#bookmark !== undefined && { bookmark: this.#bookmark }),
      revocations: [...this.#revocations.values()],
    };
  }
}
