import { expect, test } from "vitest";
import {
  LEASE_HELD_MS,
  LEASE_HELD_PACKETS_MAX,
  LEASE_RESEND_FIRST_MS,
  LEASE_RESEND_MAX_MS,
} from "../../src/base/limits.ts";
import { LeaseExchange } from "../../src/engine/lease-exchange.ts";

const EPOCH = 3;
const lease = (serial: number, epoch = EPOCH, session = "s_remote") => ({ session, epoch, serial, endMs: 1000 });

test("a lease of another session, another epoch, a lower serial, or unsigned is refused by name", () => {
  const exchange = new LeaseExchange("s_remote");
  expect(exchange.accept(undefined, EPOCH)).toBe("unverified");
  expect(exchange.accept(lease(5, EPOCH, "s_other"), EPOCH)).toBe("other-session");
  expect(exchange.accept(lease(5, EPOCH + 1), EPOCH)).toBe("other-epoch");
  expect(exchange.remote).toBeUndefined();
  expect(exchange.accept(lease(5), EPOCH)).toBe("accepted");
  expect(exchange.accept(lease(4), EPOCH)).toBe("older");
  expect(exchange.accept(lease(5), EPOCH)).toBe("known");
  expect(exchange.accept(lease(6), EPOCH)).toBe("accepted");
  expect(exchange.remote?.serial).toBe(6);
});

test("after a restore from backup the new epoch, named by the netmap, begins again at a low serial", () => {
  const exchange = new LeaseExchange("s_remote");
  exchange.accept(lease(900), EPOCH);
  expect(exchange.accept(lease(901), EPOCH + 1)).toBe("other-epoch");
  expect(exchange.accept(lease(1, EPOCH + 1), EPOCH + 1)).toBe("accepted");
});

test("ours is resent with doubling gaps until it is acknowledged, by its own serial alone", () => {
  const exchange = new LeaseExchange("s_remote");
  const gaps: number[] = [];
  let nowMs = 0;
  exchange.shown(nowMs, EPOCH, 7);
  for (let i = 0; i < 8; i++) {
    const dueMs = exchange.nextDeadlineMs();
    expect(exchange.isResendDue(dueMs - 1)).toBe(false);
    expect(exchange.isResendDue(dueMs)).toBe(true);
    gaps.push(dueMs - nowMs);
    nowMs = dueMs;
    exchange.shown(nowMs, EPOCH, 7);
  }
  expect(gaps[0]).toBe(LEASE_RESEND_FIRST_MS);
  expect(gaps[1]).toBe(2 * LEASE_RESEND_FIRST_MS);
  expect(gaps.at(-1)).toBe(LEASE_RESEND_MAX_MS);
  exchange.acknowledged(EPOCH, 6);
  expect(exchange.nextDeadlineMs()).not.toBe(Number.POSITIVE_INFINITY);
  exchange.acknowledged(EPOCH, 7);
  expect(exchange.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
});

test("packets that overtake the lease wait: so many, so long, in order", () => {
  const exchange = new LeaseExchange("s_remote");
  for (let i = 0; i < LEASE_HELD_PACKETS_MAX; i++)
    expect(exchange.hold(100 + i, Uint8Array.of(0, i, 0), 1, 1)).toBe(true);
  expect(exchange.hold(120, Uint8Array.of(9), 0, 1)).toBe(false);
  expect(exchange.nextDeadlineMs()).toBe(100 + LEASE_HELD_MS);
  expect(exchange.dropOverdue(100 + LEASE_HELD_MS - 1)).toBe(0);
  expect(exchange.release().map((packet) => packet[0])).toEqual(
    Array.from({ length: LEASE_HELD_PACKETS_MAX }, (_, i) => i),
  );
  expect(exchange.hold(200, Uint8Array.of(1), 0, 1)).toBe(true);
  expect(exchange.dropOverdue(200 + LEASE_HELD_MS)).toBe(1);
  expect(exchange.release()).toEqual([]);
});
