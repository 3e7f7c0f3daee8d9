// Noise_NK_25519_ChaChaPoly_BLAKE2s (Noise rev. 34, §7.5): the initiator knows the responder's static key beforehand
// and stays anonymous; who it is, it signs over the handshake hash afterwards. Both handshake payloads are empty here.
//   <- s   ...   -> e, es   <- e, ee
import { concatBytes, utf8 } from "../base/bytes.ts";
import { type Random, randomBytes } from "../base/random.ts";
import { type Crypto, KEY_BYTES, type KeyPair, TAG_BYTES } from "../crypto/provider.ts";

const PROTOCOL_NAME = "Noise_NK_25519_ChaChaPoly_BLAKE2s"; // 33 bytes: one more than HASHLEN, so h = HASH(name)
const EMPTY = new Uint8Array(0);
export const NK_MESSAGE_BYTES = KEY_BYTES + TAG_BYTES; // with an empty payload, both ways

export type NoiseDrop = "noise-bad-length" | "noise-low-order" | "noise-forged";

export interface NoiseKeys {
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
  /** h after the last message: what the channel is bound to. */
  readonly handshakeHash: Uint8Array;
}

/** [Noise §5.2] One chaining key, one cipher key, one hash. */
class SymmetricState {
  readonly #crypto: Crypto;
  #chainingKey: Uint8Array;
  #key: Uint8Array | undefined;
  #counter = 0;
  hash: Uint8Array;

  constructor(crypto: Crypto, prologue: Uint8Array) {
    this.#crypto = crypto;
    this.hash = crypto.hash(utf8(PROTOCOL_NAME));
    this.#chainingKey = this.hash;
    this.mixHash(prologue);
  }

  mixHash(data: Uint8Array): void {
    this.hash = this.#crypto.hash(this.hash, data); // h = HASH(h ‖ data)
  }

  mixKey(input: Uint8Array): void {
    [this.#chainingKey, this.#key] = this.#hkdf(input); // ck, k = HKDF(ck, input, 2)
    this.#counter = 0;
  }

  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    const sealed =
      this.#key === undefined ? plaintext : this.#crypto.seal(this.#key, this.#counter++, plaintext, this.hash);
    this.mixHash(sealed);
    return sealed;
  }

  decryptAndHash(sealed: Uint8Array): Uint8Array | undefined {
    const plaintext = this.#key === undefined ? sealed : this.#crypto.open(this.#key, this.#counter, sealed, this.hash);
    if (plaintext === undefined) return undefined;
    this.#counter++;
    this.mixHash(sealed);
    return plaintext;
  }

  split(): readonly [Uint8Array, Uint8Array] {
    return this.#hkdf(EMPTY);
  }

  #hkdf(input: Uint8Array): [Uint8Array, Uint8Array] {
    const temporary = this.#crypto.hmac(this.#chainingKey, input);
    const first = this.#crypto.hmac(temporary, Uint8Array.of(1));
    return [first, this.#crypto.hmac(temporary, concatBytes(first, Uint8Array.of(2)))];
  }
}

export class NoiseInitiator {
  readonly #crypto: Crypto;
  readonly #state: SymmetricState;
  readonly #remoteStatic: Uint8Array;
  readonly #ephemeral: Uint8Array;

  constructor(crypto: Crypto, random: Random, prologue: Uint8Array, remoteStatic: Uint8Array) {
    this.#crypto = crypto;
    this.#remoteStatic = remoteStatic;
    this.#ephemeral = randomBytes(random, KEY_BYTES);
    this.#state = new SymmetricState(crypto, prologue);
    this.#state.mixHash(remoteStatic); // <- s
  }

  /** -> e, es. Undefined when the pinned key is a low-order point: no handshake is possible. */
  writeMessage1(payload: Uint8Array = EMPTY): Uint8Array | undefined {
    const publicKey = this.#crypto.publicKey(this.#ephemeral);
    const shared = this.#crypto.dh(this.#ephemeral, this.#remoteStatic);
    if (shared === undefined) return undefined;
    this.#state.mixHash(publicKey); // e
    this.#state.mixKey(shared); // es
    return concatBytes(publicKey, this.#state.encryptAndHash(payload));
  }

  /** <- e, ee */
  readMessage2(message: Uint8Array): { readonly keys: NoiseKeys; readonly payload: Uint8Array } | NoiseDrop {
    if (message.length < NK_MESSAGE_BYTES) return "noise-bad-length";
    const remote = message.slice(0, KEY_BYTES);
    this.#state.mixHash(remote); // e
    const shared = this.#crypto.dh(this.#ephemeral, remote);
    if (shared === undefined) return "noise-low-order";
    this.#state.mixKey(shared); // ee
    const payload = this.#state.decryptAndHash(message.subarray(KEY_BYTES));
    if (payload === undefined) return "noise-forged";
    const [send, receive] = this.#state.split();
    this.#ephemeral.fill(0);
    return { keys: { send, receive, handshakeHash: this.#state.hash }, payload };
  }
}

/** Reads message 1 and writes message 2 in one step: the responder keeps nothing between them. */
export function respond(
  crypto: Crypto,
  random: Random,
  prologue: Uint8Array,
  staticKeys: KeyPair,
  message1: Uint8Array,
  payload: Uint8Array = EMPTY,
): { readonly keys: NoiseKeys; readonly message2: Uint8Array; readonly payload: Uint8Array } | NoiseDrop {
  if (message1.length < NK_MESSAGE_BYTES) return "noise-bad-length";
  const state = new SymmetricState(crypto, prologue);
  state.mixHash(staticKeys.publicKey); // <- s
  const remote = message1.slice(0, KEY_BYTES);
  state.mixHash(remote); // e
  const es = crypto.dh(staticKeys.privateKey, remote);
  if (es === undefined) return "noise-low-order";
  state.mixKey(es); // es
  const received = state.decryptAndHash(message1.subarray(KEY_BYTES));
  if (received === undefined) return "noise-forged";
  const ephemeral = randomBytes(random, KEY_BYTES);
  const publicKey = crypto.publicKey(ephemeral);
  state.mixHash(publicKey); // e
  const ee = crypto.dh(ephemeral, remote);
  ephemeral.fill(0);
  if (ee === undefined) return "noise-low-order";
  state.mixKey(ee); // ee
  const message2 = concatBytes(publicKey, state.encryptAndHash(payload));
  const [receive, send] = state.split();
  return { keys: { send, receive, handshakeHash: state.hash }, message2, payload: received };
}
