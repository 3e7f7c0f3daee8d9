// The end of one session as the coordinator signs it, by itself: every peer that knew the session keeps it, and shows
// it to a coordinator that comes back from a backup in which that session still lives. A session never begins again,
// so there is nothing else to say, and nothing to order.
import { utf8 } from "../base/bytes.ts";
import { type Crypto, SIGNATURE_BYTES } from "../crypto/provider.ts";
import { inContext } from "./contexts.ts";

export function signRevocation(crypto: Crypto, signSeed: Uint8Array, session: string): Uint8Array {
  return crypto.sign(signSeed, inContext("revocation", utf8(session)));
}

export function verifyRevocation(crypto: Crypto, signKey: Uint8Array, session: string, signature: Uint8Array): boolean {
  return (
    signature.length === SIGNATURE_BYTES && crypto.verify(signKey, inContext("revocation", utf8(session)), signature)
  );
}
