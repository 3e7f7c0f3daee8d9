// A lease: the coordinator's word, signed, that one session may send and receive until issued + lifetime. No lease, no
// packets. Given to its holder alone, who shows the bytes to its peers; each of them verifies and orders it here.
import { assert } from "../base/assert.ts";
import { fromBase32, ID_BYTES, toBase32 } from "../base/base32.ts";
import { concatBytes, readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { type Crypto, SIGNATURE_BYTES } from "../crypto/provider.ts";
import { inContext } from "./contexts.ts";

export interface Lease {
  /** `s_…` */
  readonly session: string;
  readonly epoch: number;
  /** Rises with every lease of an epoch (< 2^48). */
  readonly serial: number;
  /** Unix ms by the coordinator's clock. */
  readonly issuedMs: number;
  readonly lifetimeMs: number;
}

// version 1 · session 10 · epoch 4 · serial 6 · issued 6 · lifetime 4, big-endian, then the signature
const LEASE_VERSION = 1;
const BODY_BYTES = 1 + ID_BYTES + 4 + 6 + 6 + 4;
export const LEASE_BYTES = BODY_BYTES + SIGNATURE_BYTES; // 95

export type LeaseDrop = "lease-bad-length" | "lease-bad-version" | "lease-bad-signature";

function writeU48(bytes: Uint8Array, at: number, value: number): void {
  writeU16(bytes, at, Math.floor(value / 2 ** 32));
  writeU32(bytes, at + 2, value % 2 ** 32);
}

function readU48(bytes: Uint8Array, at: number): number {
  return readU16(bytes, at) * 2 ** 32 + readU32(bytes, at + 2);
}

/** Whole milliseconds only: fractions are cut. A number that has no room is our own bug, and nothing is signed. */
export function signLease(crypto: Crypto, signSeed: Uint8Array, lease: Lease): Uint8Array {
  assert(lease.epoch < 2 ** 32 && lease.lifetimeMs < 2 ** 32, "a lease's epoch and lifetime have 32 bits");
  assert(lease.serial < 2 ** 48 && lease.issuedMs < 2 ** 48, "a lease's serial and time have 48 bits");
  const body = new Uint8Array(BODY_BYTES);
  body[0] = LEASE_VERSION;
  body.set(fromBase32(lease.session.slice(2))!, 1);
  writeU32(body, 11, lease.epoch);
  writeU48(body, 15, lease.serial);
  writeU48(body, 21, Math.floor(lease.issuedMs));
  writeU32(body, 27, Math.floor(lease.lifetimeMs));
  return concatBytes(body, crypto.sign(signSeed, inContext("lease", body)));
}

/** Form and signature alone; whether it is whose it should be, current and newer is for the caller (`leaseVerdict`). */
export function verifyLease(crypto: Crypto, signKey: Uint8Array, bytes: Uint8Array): Lease | LeaseDrop {
  if (bytes.length !== LEASE_BYTES) return "lease-bad-length";
  if (bytes[0] !== LEASE_VERSION) return "lease-bad-version";
  const body = bytes.subarray(0, BODY_BYTES);
  if (!crypto.verify(signKey, inContext("lease", body), bytes.subarray(BODY_BYTES))) return "lease-bad-signature";
  return {
    session: `s_${toBase32(body.subarray(1, 11))}`,
    epoch: readU32(body, 11),
    serial: readU48(body, 15),
    issuedMs: readU48(body, 21),
    lifetimeMs: readU32(body, 27),
  };
}

export function leaseEndMs(lease: Lease): number {
  return lease.issuedMs + lease.lifetimeMs;
}

/** When its holder asks for the next one. */
export function leaseHalfLifeMs(lease: Lease): number {
  return lease.issuedMs + lease.lifetimeMs / 2;
}

export type LeaseVerdict =
  | "accept"
  | "same"
  | "lease-other-session"
  | "lease-other-epoch"
  | "lease-older"
  | "lease-ended";

/**
 * Orders a verified lease against the one held for that session. `epoch` is the one that the signed netmap names: a
 * lease alone never moves a peer to a new epoch, and one of an old epoch is refused once the netmap moved on.
 */
export function leaseVerdict(
  lease: Lease,
  session: string,
  epoch: number,
  held: Lease | undefined,
  coordinatorNowMs: number,
): LeaseVerdict {
  if (lease.session !== session) return "lease-other-session";
  if (lease.epoch !== epoch) return "lease-other-epoch";
  if (held !== undefined && held.epoch === epoch) {
    if (lease.serial < held.serial) return "lease-older";
    if (lease.serial === held.serial) return "same";
  }
  return coordinatorNowMs >= leaseEndMs(lease) ? "lease-ended" : "accept";
}
