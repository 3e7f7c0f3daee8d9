import { expect, test } from "vitest";
import { LEASE_BYTES, type Lease, leaseVerdict, signLease, verifyLease } from "../../src/control/lease.ts";
import { signNetmap } from "../../src/control/netmap-codec.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";

const crypto = new PortableCrypto();
const seed = new Uint8Array(32).fill(1);
const signKey = crypto.signPublicKey(seed);
const session = "s_0123456789abcdef";
const lease: Lease = {
  session,
  epoch: 3,
  serial: 2 ** 40 + 5,
  issuedMs: 1_795_000_000_123,
  lifetimeMs: 300_000,
};

test("a lease reads back as it was signed", () => {
  const bytes = signLease(crypto, seed, lease);
  expect(bytes).toHaveLength(LEASE_BYTES);
  expect(verifyLease(crypto, signKey, bytes)).toEqual(lease);
});

test("every changed byte, another key, another length and another version are named drops", () => {
  const bytes = signLease(crypto, seed, lease);
  for (let at = 1; at < bytes.length; at += 7) {
    const changed = bytes.slice();
    changed[at]! ^= 0x10;
    expect(verifyLease(crypto, signKey, changed), String(at)).toBe("lease-bad-signature");
  }
  const other = crypto.signPublicKey(new Uint8Array(32).fill(2));
  expect(verifyLease(crypto, other, bytes)).toBe("lease-bad-signature");
  expect(verifyLease(crypto, signKey, bytes.subarray(1))).toBe("lease-bad-length");
  expect(verifyLease(crypto, signKey, new Uint8Array(0))).toBe("lease-bad-length");
  bytes[0] = 2;
  expect(verifyLease(crypto, signKey, bytes)).toBe("lease-bad-version");
});

test("what the same key signed under another context is no lease", () => {
  const netmap = signNetmap(crypto, seed, session, { epoch: 1, revision: 1, entries: {} });
  const forged = new Uint8Array(LEASE_BYTES);
  forged.set(signLease(crypto, seed, lease).subarray(0, LEASE_BYTES - 64));
  forged.set(netmap.subarray(0, 64), LEASE_BYTES - 64);
  expect(verifyLease(crypto, signKey, forged)).toBe("lease-bad-signature");
});

const now = lease.issuedMs + 1_000;
test.each([
  ["the first one", lease, 3, undefined, now, "accept"],
  ["a higher serial", { ...lease, serial: 10 }, 3, { ...lease, serial: 9 }, now, "accept"],
  ["a lower serial", { ...lease, serial: 8 }, 3, { ...lease, serial: 9 }, now, "lease-older"],
  ["a lower serial with a longer life", { ...lease, serial: 8, lifetimeMs: 1e9 }, 3, lease, now, "lease-older"],
  ["the same one", lease, 3, lease, now, "same"],
  ["another session's", { ...lease, session: "s_zzzzzzzzzzzzzzzz" }, 3, undefined, now, "lease-other-session"],
  ["a new epoch that no netmap named", { ...lease, epoch: 4 }, 3, lease, now, "lease-other-epoch"],
  ["an old epoch", lease, 4, undefined, now, "lease-other-epoch"],
  ["a low serial of the epoch that the netmap named", { ...lease, epoch: 4, serial: 1 }, 4, lease, now, "accept"],
  ["one in its last millisecond", lease, 3, undefined, lease.issuedMs + 299_999, "accept"],
  ["one that has just ended", lease, 3, undefined, lease.issuedMs + 300_000, "lease-ended"],
] as const)("%s: %#", (_what, candidate, epoch, held, atMs, verdict) => {
  expect(leaseVerdict(candidate, session, epoch, held, atMs)).toBe(verdict);
});
