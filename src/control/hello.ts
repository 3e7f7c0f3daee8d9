// What binds a peer's two keys to one channel: the session key signs the handshake hash, the WireGuard key proves
// itself by a MAC under Diffie–Hellman with the coordinator's challenge key. Neither is worth anything in another
// channel.
import { equalBytes } from "../base/bytes.ts";
import type { Crypto } from "../crypto/provider.ts";
import { inContext } from "./contexts.ts";

export function signHello(crypto: Crypto, signSeed: Uint8Array, handshakeHash: Uint8Array): Uint8Array {
  return crypto.sign(signSeed, inContext("hello", handshakeHash));
}

export function verifyHello(
  crypto: Crypto,
  signKey: Uint8Array,
  handshakeHash: Uint8Array,
  signature: Uint8Array,
): boolean {
  return crypto.verify(signKey, inContext("hello", handshakeHash), signature);
}

export interface PossessionInputs {
  /** X25519: the prover's WireGuard key, or the challenger's ephemeral key. */
  readonly privateKey: Uint8Array;
  /** The other end's. */
  readonly publicKey: Uint8Array;
  readonly handshakeHash: Uint8Array;
  readonly signKey: Uint8Array;
  readonly wireguardKey: Uint8Array;
}

/** 16 bytes; undefined for a low-order key. Both ends compute it alike. */
export function possessionProof(crypto: Crypto, inputs: PossessionInputs): Uint8Array | undefined {
  const shared = crypto.dh(inputs.privateKey, inputs.publicKey);
  if (shared === undefined) return undefined;
  const { handshakeHash, signKey, wireguardKey } = inputs;
  return crypto.hmac(shared, inContext("possession", handshakeHash, signKey, wireguardKey)).slice(0, 16);
}

export function verifyPossession(crypto: Crypto, inputs: PossessionInputs, proof: Uint8Array): boolean {
  const expected = possessionProof(crypto, inputs);
  return expected !== undefined && equalBytes(expected, proof);
}
