// A peer's check of the leases that it is shown: what the coordinator signed, and nothing else.
import { leaseEndMs, verifyLease } from "../control/lease.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { LeaseVerifier } from "../engine/desired-state.ts";

/** `signKey`: the coordinator's, as it is at the time; without one no lease is believed. */
export function leaseVerifier(crypto: Crypto, signKey: () => Uint8Array | undefined): LeaseVerifier {
  return {
    verify: (bytes) => {
      const key = signKey();
      const lease = key === undefined ? "lease-bad-signature" : verifyLease(crypto, key, bytes);
      if (typeof lease === "string") return undefined;
      return { session: lease.session, epoch: lease.epoch, serial: lease.serial, endMs: leaseEndMs(lease) };
    },
  };
}
