// Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s: the two handshake messages and the transport keys, [WG §5.4.1] to [WG §5.4.5].
// Pure functions: state in, fields out; indexes, macs and timers are others' work. The paper's line stands behind each
// step: C chaining key, H hash, κ one-time key, τ derived, E ephemeral, S static, Q preshared key; suffix i initiator,
// r responder.
import { utf8 } from "../base/bytes.ts";
import { type Random, randomBytes } from "../base/random.ts";
import { kdf1, kdf2, kdf3 } from "../crypto/kdf.ts";
import { type Crypto, KEY_BYTES, type KeyPair } from "../crypto/provider.ts";

export const CONSTRUCTION = utf8("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s");
export const IDENTIFIER = utf8("WireGuard v1 zx2c4 Jason@zx2c4.com");
const EMPTY = new Uint8Array(0);
const NO_PRESHARED_KEY = new Uint8Array(KEY_BYTES); // [WG §5.4.3] Q = 0^32 when there is none

/** What both ends have mixed so far. */
interface NoiseState {
  chainingKey: Uint8Array;
  hash: Uint8Array;
}

/** The initiator's side between message 1 and message 2. */
export interface InitiatorState extends NoiseState {
  readonly ephemeral: KeyPair;
}

/** The responder's side between message 1 and message 2. */
export interface ResponderState extends NoiseState {
  readonly remoteEphemeral: Uint8Array;
}

/** Each for one direction. */
export interface TransportKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
}

export interface InitiationFields {
  readonly ephemeral: Uint8Array;
  readonly sealedStatic: Uint8Array;
  /** Sealed payload; WireGuard's is the TAI64N timestamp. */
  readonly sealedTimestamp: Uint8Array;
}

export interface ResponseFields {
  readonly ephemeral: Uint8Array;
  readonly sealedEmpty: Uint8Array;
}

function begin(crypto: Crypto, prologue: Uint8Array, responderPublicKey: Uint8Array): NoiseState {
  const chainingKey = crypto.hash(CONSTRUCTION); //                           C := Hash(Construction)
  let hash = crypto.hash(chainingKey, prologue); //                           H := Hash(C ‖ Identifier)
  hash = crypto.hash(hash, responderPublicKey); //                            H := Hash(H ‖ S_r^pub)
  return { chainingKey, hash };
}

function mixHash(crypto: Crypto, state: NoiseState, data: Uint8Array): void {
  state.hash = crypto.hash(state.hash, data);
}

/** C := KDF1(C, input). */
function mixChain(crypto: Crypto, state: NoiseState, input: Uint8Array): void {
  const next = kdf1(crypto, state.chainingKey, input);
  state.chainingKey.fill(0);
  state.chainingKey = next;
}

/** (C, κ) := KDF2(C, secret); returns κ. */
function mixKey(crypto: Crypto, state: NoiseState, secret: Uint8Array): Uint8Array {
  const [next, key] = kdf2(crypto, state.chainingKey, secret);
  state.chainingKey.fill(0);
  state.chainingKey = next;
  return key;
}

function sealAndMix(crypto: Crypto, state: NoiseState, key: Uint8Array, plaintext: Uint8Array): Uint8Array {
  const sealed = crypto.seal(key, 0, plaintext, state.hash);
  key.fill(0);
  mixHash(crypto, state, sealed);
  return sealed;
}

function openAndMix(crypto: Crypto, state: NoiseState, key: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
  const plaintext = crypto.open(key, 0, sealed, state.hash);
  key.fill(0);
  if (plaintext !== undefined) mixHash(crypto, state, sealed);
  return plaintext;
}

export function newEphemeral(crypto: Crypto, random: Random): KeyPair {
  const privateKey = randomBytes(random, KEY_BYTES);
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
}

/** Overwrites what a finished or abandoned handshake could still tell. */
export function wipeHandshake(state: InitiatorState | ResponderState): void {
  state.chainingKey.fill(0);
  state.hash.fill(0);
  if ("ephemeral" in state) state.ephemeral.privateKey.fill(0);
}

/**
 * Message 1 at the initiator. `staticShared` is DH(S_i, S_r), computed once per peer. Undefined when the remote static
 * key is of low order.
 */
export function createInitiation(
  crypto: Crypto,
  local: KeyPair,
  remotePublicKey: Uint8Array,
  staticShared: Uint8Array,
  ephemeral: KeyPair,
  timestamp: Uint8Array,
  prologue: Uint8Array = IDENTIFIER,
): { state: InitiatorState; fields: InitiationFields } | undefined {
  const state: InitiatorState = { ...begin(crypto, prologue, remotePublicKey), ephemeral };
  mixChain(crypto, state, ephemeral.publicKey); //                            C := KDF1(C, E_i^pub)
  mixHash(crypto, state, ephemeral.publicKey); //                             H := Hash(H ‖ msg.ephemeral)
  const shared = crypto.dh(ephemeral.privateKey, remotePublicKey);
  if (shared === undefined) return undefined;
  const staticKey = mixKey(crypto, state, shared); //                         (C, κ) := KDF2(C, DH(E_i, S_r))
  shared.fill(0);
  const sealedStatic = sealAndMix(crypto, state, staticKey, local.publicKey); // AEAD(κ, 0, S_i^pub, H); mix
  const timestampKey = mixKey(crypto, state, staticShared); //                (C, κ) := KDF2(C, DH(S_i, S_r))
  const sealedTimestamp = sealAndMix(crypto, state, timestampKey, timestamp); // AEAD(κ, 0, Timestamp(), H); mix
  return { state, fields: { ephemeral: ephemeral.publicKey, sealedStatic, sealedTimestamp } };
}

/** Message 1 at the responder, first half: who claims to ask. The claim is proven only by the second half. */
export function openInitiationStatic(
  crypto: Crypto,
  local: KeyPair,
  fields: InitiationFields,
  prologue: Uint8Array = IDENTIFIER,
): { state: ResponderState; remotePublicKey: Uint8Array } | "LOW_ORDER_POINT" | "INITIATION_FORGED" {
  const remoteEphemeral = new Uint8Array(fields.ephemeral);
  const state: ResponderState = { ...begin(crypto, prologue, local.publicKey), remoteEphemeral };
  mixChain(crypto, state, remoteEphemeral); //                                C := KDF1(C, E_i^pub)
  mixHash(crypto, state, remoteEphemeral); //                                 H := Hash(H ‖ msg.ephemeral)
  const shared = crypto.dh(local.privateKey, remoteEphemeral);
  if (shared === undefined) return "LOW_ORDER_POINT";
  const staticKey = mixKey(crypto, state, shared); //                         (C, κ) := KDF2(C, DH(S_r, E_i))
  shared.fill(0);
  const remotePublicKey = openAndMix(crypto, state, staticKey, fields.sealedStatic);
  return remotePublicKey === undefined ? "INITIATION_FORGED" : { state, remotePublicKey };
}

/**
 * Message 1 at the responder, second half: the timestamp, which only the holder of S_i could seal. Undefined when
 * forged.
 */
export function openInitiationTimestamp(
  crypto: Crypto,
  state: ResponderState,
  staticShared: Uint8Array,
  fields: InitiationFields,
): Uint8Array | undefined {
  const timestampKey = mixKey(crypto, state, staticShared); //                (C, κ) := KDF2(C, DH(S_r, S_i))
  return openAndMix(crypto, state, timestampKey, fields.sealedTimestamp);
}

/**
 * Message 2 at the responder, first half: one Diffie–Hellman of two. False when the initiator's ephemeral key is of low
 * order.
 */
export function prepareResponse(crypto: Crypto, state: ResponderState, ephemeral: KeyPair): boolean {
  mixChain(crypto, state, ephemeral.publicKey); //                            C := KDF1(C, E_r^pub)
  mixHash(crypto, state, ephemeral.publicKey); //                             H := Hash(H ‖ msg.ephemeral)
  const shared = crypto.dh(ephemeral.privateKey, state.remoteEphemeral);
  if (shared === undefined) return false;
  mixChain(crypto, state, shared); //                                         C := KDF1(C, DH(E_r, E_i))
  shared.fill(0);
  return true;
}

/** Message 2 at the responder, second half. Undefined when the static key is of low order. The state is spent. */
export function finishResponse(
  crypto: Crypto,
  state: ResponderState,
  remotePublicKey: Uint8Array,
  presharedKey: Uint8Array | undefined,
  ephemeral: KeyPair,
  payload: Uint8Array = EMPTY,
): { fields: ResponseFields; keys: TransportKeys; hash: Uint8Array } | undefined {
  const shared = crypto.dh(ephemeral.privateKey, remotePublicKey);
  if (shared === undefined) return undefined;
  mixChain(crypto, state, shared); //                                         C := KDF1(C, DH(E_r, S_i))
  shared.fill(0);
  const key = mixPresharedKey(crypto, state, presharedKey);
  const sealedEmpty = sealAndMix(crypto, state, key, payload); //             msg.empty := AEAD(κ, 0, ε, H); mix
  const [receiveKey, sendKey] = kdf2(crypto, state.chainingKey, EMPTY); //    (T_r^recv, T_r^send) := KDF2(C, ε)
  const hash = new Uint8Array(state.hash);
  wipeHandshake(state);
  return { fields: { ephemeral: ephemeral.publicKey, sealedEmpty }, keys: { sendKey, receiveKey }, hash };
}

/**
 * Message 2 at the initiator. A forged response must not end the attempt: the given state stays as it was, and is the
 * caller's to wipe.
 */
export function consumeResponse(
  crypto: Crypto,
  pending: InitiatorState,
  local: KeyPair,
  presharedKey: Uint8Array | undefined,
  fields: ResponseFields,
): { keys: TransportKeys; hash: Uint8Array; payload: Uint8Array } | "LOW_ORDER_POINT" | "RESPONSE_FORGED" {
  const state: NoiseState = { chainingKey: new Uint8Array(pending.chainingKey), hash: pending.hash };
  mixChain(crypto, state, fields.ephemeral); //                               C := KDF1(C, E_r^pub)
  mixHash(crypto, state, fields.ephemeral); //                                H := Hash(H ‖ msg.ephemeral)
  const ephemeralShared = crypto.dh(pending.ephemeral.privateKey, fields.ephemeral);
  const staticShared = crypto.dh(local.privateKey, fields.ephemeral);
  if (ephemeralShared === undefined || staticShared === undefined) return "LOW_ORDER_POINT";
  mixChain(crypto, state, ephemeralShared); //                                C := KDF1(C, DH(E_i, E_r))
  mixChain(crypto, state, staticShared); //                                   C := KDF1(C, DH(S_i, E_r))
  ephemeralShared.fill(0);
  staticShared.fill(0);
  const key = mixPresharedKey(crypto, state, presharedKey);
  const payload = openAndMix(crypto, state, key, fields.sealedEmpty);
  if (payload === undefined) {
    state.chainingKey.fill(0);
    return "RESPONSE_FORGED";
  }
  const [sendKey, receiveKey] = kdf2(crypto, state.chainingKey, EMPTY); //    (T_i^send, T_i^recv) := KDF2(C, ε)
  state.chainingKey.fill(0);
  return { keys: { sendKey, receiveKey }, hash: state.hash, payload };
}

/** (C, τ, κ) := KDF3(C, Q); H := Hash(H ‖ τ); returns κ. */
function mixPresharedKey(crypto: Crypto, state: NoiseState, presharedKey: Uint8Array | undefined): Uint8Array {
  const [next, mixed, key] = kdf3(crypto, state.chainingKey, presharedKey ?? NO_PRESHARED_KEY);
  state.chainingKey.fill(0);
  state.chainingKey = next;
  mixHash(crypto, state, mixed);
  return key;
}
