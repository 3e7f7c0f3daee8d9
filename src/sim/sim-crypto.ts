// The real cryptography, the portable provider's bytes for bytes, with the curves computed by the machine's library
// where there is one: a run makes hundreds of handshakes. Nothing that a run does depends on which it was.
import { PortableCrypto } from "../crypto/portable.ts";
import type { Crypto } from "../crypto/provider.ts";
import { chooseCrypto } from "../io/crypto-choice.ts";

const BASE_POINT = new Uint8Array(32);
BASE_POINT[0] = 9;

export function makeSimCrypto(): Crypto {
  const portable = new PortableCrypto();
  const curves = chooseCrypto().crypto;
  return {
    name: "portable", // engines of slow machines: the same bound on handshakes everywhere
    publicKey: (privateKey) => curves.dh(privateKey, BASE_POINT)!, // RFC 7748 §6.1; the imported key serves again
    dh: (privateKey, publicKey) => curves.dh(privateKey, publicKey),
    signPublicKey: (seed) => curves.signPublicKey(seed),
    sign: (seed, message) => curves.sign(seed, message),
    verify: (publicKey, message, signature) => curves.verify(publicKey, message, signature),
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
}
