// What a peer keeps for its coordinator.
import { expect, test } from "vitest";
import { REVOCATION_KEPT_MS, REVOCATIONS_KEPT_MAX } from "../../src/base/limits.ts";
import type { NetmapView } from "../../src/control/netmap.ts";
import { KeptForCoordinator } from "../../src/peer/kept-for-coordinator.ts";

const session = (n: number): string => `s_${String(n).padStart(16, "0")}`;
const signature = `${"A".repeat(86)}==`;

function view(peers: readonly number[], revoked: readonly number[]): NetmapView {
  return {
    peers: peers.map((n) => ({ session: session(n) })),
    revoked: revoked.map((n) => ({ session: session(n), untilMs: 1_000, signature })),
  } as unknown as NetmapView;
}

const kept = (of: KeptForCoordinator): string[] => of.toMessage().revocations.map((each) => each.session);

test("a revoked session stays out of each later netmap, also after a restart, until that is forgotten", () => {
  const first = new KeptForCoordinator(undefined);
  expect(first.take(view([1], [2]), 0).changed).toBe(true);
  expect(first.take(view([1], [2]), 0).changed).toBe(false);
  const second = new KeptForCoordinator(first.toState());
  const later = second.take(view([1, 2], []), 500).view;
  expect(later.peers.map((peer) => peer.session)).toEqual([session(1)]);
  expect(later.revoked.map((each) => each.session)).toEqual([session(2)]);
  expect(second.take(view([1, 2], []), 999 + REVOCATION_KEPT_MS).view.peers).toHaveLength(1);
  const last = second.take(view([1, 2], []), 1_000 + REVOCATION_KEPT_MS);
  expect([last.view.peers.length, last.view.revoked.length, last.changed]).toEqual([2, 0, true]);
});

test("at most so many revocations are kept, the newest; one without a signature proves nothing to anybody", () => {
  const many = new KeptForCoordinator(undefined);
  const all = Array.from({ length: REVOCATIONS_KEPT_MAX + 1 }, (_, n) => n);
  many.take(view([], all), 0);
  expect(kept(many)).toEqual(all.slice(1).map(session));
  const none = new KeptForCoordinator(undefined);
  const unsigned = { ...view([], []), revoked: [{ session: session(1), untilMs: 1_000 }] };
  expect(none.take(unsigned, 0).changed).toBe(false);
  expect(kept(none)).toEqual([]);
});

test("the newest bookmark is kept; an answer without one keeps the one before", () => {
  const one = new KeptForCoordinator({ bookmark: "a", revocations: [] });
  one.setBookmark(undefined);
  expect(one.toMessage().bookmark).toBe("a");
  one.setBookmark("b");
  expect(one.toState()).toEqual({ bookmark: "b", revocations: [] });
});
