// The real hashes and ciphers of the portable provider, with a model in place of the curve: a run makes hundreds of
// handshakes, and X25519 would be a third of its cost. In the model whoever has either private key and the other public
// one gets the same secret, which is all that a handshake asks of a curve; that outsiders can't is shown elsewhere.
import { isAllZero } from "../base/bytes.ts";
import { PortableCrypto } from "../crypto/portable.ts";
import type { Crypto } from "../crypto/provider.ts";

const POINT = Uint8Array.of(0x50);
const SECRET = Uint8Array.of(0x53);

export interface SimCrypto {
  readonly crypto: Crypto;
  readonly stopwatch: () => number;
}

/** Of a curve operation by the simulation's stopwatch: a slow machine, so that handshakes wait for each other. */
const CURVE_MS = 1;

/** The stopwatch stands still but for curve operations: every run is the same, on whatever machine. */
export function makeSimCrypto(): SimCrypto {
  let spentMs = 0;
  const spend = <T>(value: T): T => {
    spentMs += CURVE_MS;
    return value;
  };
  const portable = new PortableCrypto();
  const publicKey = (privateKey: Uint8Array): Uint8Array => portable.hash(POINT, privateKey);
  const crypto: Crypto = {
    name: "portable",
    publicKey: (privateKey) => spend(publicKey(privateKey)),
    dh(privateKey, remote) {
      if (isAllZero(remote)) return undefined;
      const both = publicKey(privateKey);
      for (let i = 0; i < both.length; i++) both[i]! ^= remote[i]!; // the same from either side
      return spend(portable.hash(SECRET, both));
    },
    signPublicKey: (seed) => portable.signPublicKey(seed),
    sign: (seed, message) => portable.sign(seed, message),
    verify: (key, message, signature) => portable.verify(key, message, signature),
    hash: (...parts) => portable.hash(...parts),
    mac: (key, input) => portable.mac(key, input),
    hmac: (key, ...parts) => portable.hmac(key, ...parts),
    transportAead: (key) => portable.transportAead(key),
    sealWithNonce: (key, nonce, plaintext, aad) => portable.sealWithNonce(key, nonce, plaintext, aad),
    openWithNonce: (key, nonce, sealed, aad) => portable.openWithNonce(key, nonce, sealed, aad),
    seal: (key, counter, plaintext, aad) => portable.seal(key, counter, plaintext, aad),
    open: (key, counter, sealed, aad) => portable.open(key, counter, sealed, aad),
    xSeal: (key, nonce, plaintext, aad) => portable.xSeal(key, nonce, plaintext, aad),
    xOpen: (key, nonce, sealed, aad) => portable.xOpen(key, nonce, sealed, aad),
  };
  return { crypto, stopwatch: () => spentMs };
}
