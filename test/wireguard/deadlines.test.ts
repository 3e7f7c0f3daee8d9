// Each deadline follows from what happened, and the reason is the gravest of those due.
import { expect, test } from "vitest";
import { type DeadlineReason, dueReason, nextDeadlineMs, TunnelTimes } from "../../src/wireguard/deadlines.ts";

const times = (happened: Partial<TunnelTimes>): TunnelTimes => Object.assign(new TunnelTimes(), happened);

test.each<[DeadlineReason, Partial<TunnelTimes>, number]>([
  ["retry-handshake", { attemptStartedMs: 1_000 }, 1_000],
  ["retry-handshake", { attemptStartedMs: 1_000, lastHandshakeSentMs: 1_000, retryJitterMs: 77 }, 6_077],
  ["give-up", { attemptStartedMs: 1_000, lastHandshakeSentMs: 90_900 }, 91_000],
  ["no-answer", { firstSentUnansweredMs: 1_000, answerJitterMs: 33 }, 16_033],
  ["keepalive", { firstReceivedUnansweredMs: 1_000 }, 11_000],
  ["persistent-keepalive", { lastTraversalMs: 1_000, persistentKeepaliveMs: 25_000 }, 26_000],
  ["zero-keys", { keysMadeMs: 1_000 }, 541_000],
])("%s after %o is due at %i ms, and not before", (reason, happened, atMs) => {
  expect(nextDeadlineMs(times(happened))).toBe(atMs);
  expect(dueReason(times(happened), atMs)).toBe(reason);
  expect(dueReason(times(happened), atMs - 1)).toBeUndefined();
});

test("nothing happened, nothing is due", () => {
  expect(nextDeadlineMs(new TunnelTimes())).toBe(Number.POSITIVE_INFINITY);
  expect(nextDeadlineMs(times({ lastTraversalMs: 5 }))).toBe(Number.POSITIVE_INFINITY);
  expect(nextDeadlineMs(times({ lastHandshakeSentMs: 5 }))).toBe(Number.POSITIVE_INFINITY);
  expect(dueReason(new TunnelTimes(), 1e15)).toBeUndefined();
});

test("of several the earliest is next", () => {
  const all = times({ attemptStartedMs: 0, firstReceivedUnansweredMs: 0, keysMadeMs: 0, lastHandshakeSentMs: 9_000 });
  expect(nextDeadlineMs(all)).toBe(10_000);
  expect(dueReason(all, 10_000)).toBe("keepalive");
  expect(dueReason(all, 90_000)).toBe("give-up");
});
