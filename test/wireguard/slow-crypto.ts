// Cryptography whose curve operations take time by a stopwatch that stands still otherwise: the work of handshakes, at
// virtual time.
import type { Crypto } from "../../src/crypto/provider.ts";
import type { Stopwatch } from "../../src/wireguard/handshake-work.ts";

export interface SlowCrypto {
  readonly crypto: Crypto;
  readonly stopwatch: Stopwatch;
  /** Curve operations so far. */
  count(): number;
}

export function slowCrypto(crypto: Crypto, curveMs: number): SlowCrypto {
  let count = 0;
  const slow: Crypto = Object.create(crypto, {
    dh: {
      value: (privateKey: Uint8Array, publicKey: Uint8Array) => {
        count++;
        return crypto.dh(privateKey, publicKey);
      },
    },
    publicKey: {
      value: (privateKey: Uint8Array) => {
        count++;
        return crypto.publicKey(privateKey);
      },
    },
  }) as Crypto;
  // The prototype's methods have private fields of their own object.
  for (const name of ["hash", "mac", "hmac", "transportAead", "seal", "open", "xSeal", "xOpen"] as const) {
    Object.defineProperty(slow, name, { value: crypto[name].bind(crypto) });
  }
  return { crypto: slow, stopwatch: () => count * curveMs, count: () => count };
}
