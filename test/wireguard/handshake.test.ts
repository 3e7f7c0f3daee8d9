// The product's own handshake functions run through the published Noise vector: only the prologue and the payloads
// differ from WireGuard's. Then everything that must not be taken.
import { describe, expect, test } from "vitest";
import { concatBytes, fromHex, toHex } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { Crypto, KeyPair } from "../../src/crypto/provider.ts";
import {
  consumeResponse,
  createInitiation,
  finishResponse,
  newEphemeral,
  openInitiationStatic,
  openInitiationTimestamp,
  prepareResponse,
  type ResponderState,
  wipeHandshake,
} from "../../src/wireguard/handshake.ts";
import { PROVIDERS } from "../crypto/providers.ts";
import vector from "../vectors/noise-ikpsk2.json" with { type: "json" };

const hex = (text: string): Uint8Array => fromHex(text)!;
const EMPTY = new Uint8Array(0);

function keyPair(crypto: Crypto, privateKey: Uint8Array): KeyPair {
  return { privateKey, publicKey: crypto.publicKey(privateKey) };
}

/** Both halves. */
function createResponse(
  crypto: Crypto,
  state: ResponderState,
  remotePublicKey: Uint8Array,
  presharedKey: Uint8Array | undefined,
  ephemeral: KeyPair,
  payload?: Uint8Array,
): ReturnType<typeof finishResponse> {
  if (!prepareResponse(crypto, state, ephemeral)) return undefined;
  return finishResponse(crypto, state, remotePublicKey, presharedKey, ephemeral, payload);
}

describe.each(PROVIDERS)("with the %s provider", (_name, crypto) => {
  test("the handshake is Noise_IKpsk2, byte for byte as published", () => {
    const initiator = keyPair(crypto, hex(vector.initiatorStatic));
    const responder = keyPair(crypto, hex(vector.responderStatic));
    expect(toHex(responder.publicKey)).toBe(vector.responderPublic);
    const shared = crypto.dh(initiator.privateKey, responder.publicKey)!;
    const prologue = hex(vector.prologue);
    const presharedKey = hex(vector.presharedKey);
    const [first, second, ...transport] = vector.messages;

    const ephemeral = keyPair(crypto, hex(vector.initiatorEphemeral));
    const made = createInitiation(
      crypto,
      initiator,
      responder.publicKey,
      shared,
      ephemeral,
      hex(first!.payload),
      prologue,
    )!;
    const { fields } = made;
    expect(toHex(concatBytes(fields.ephemeral, fields.sealedStatic, fields.sealedTimestamp))).toBe(first!.ciphertext);

    const opened = openInitiationStatic(crypto, responder, fields, prologue);
    if (typeof opened === "string") throw new Error(opened);
    expect(opened.remotePublicKey).toEqual(initiator.publicKey);
    expect(toHex(openInitiationTimestamp(crypto, opened.state, shared, fields)!)).toBe(first!.payload);

    const answer = createResponse(
      crypto,
      opened.state,
      opened.remotePublicKey,
      presharedKey,
      keyPair(crypto, hex(vector.responderEphemeral)),
      hex(second!.payload),
    )!;
    expect(toHex(concatBytes(answer.fields.ephemeral, answer.fields.sealedEmpty))).toBe(second!.ciphertext);
    expect(toHex(answer.hash)).toBe(vector.handshakeHash);

    const accepted = consumeResponse(crypto, made.state, initiator, presharedKey, answer.fields);
    if (typeof accepted === "string") throw new Error(accepted);
    expect(toHex(accepted.payload)).toBe(second!.payload);
    expect(toHex(accepted.hash)).toBe(vector.handshakeHash);
    expect(accepted.keys.sendKey).toEqual(answer.keys.receiveKey);
    expect(accepted.keys.receiveKey).toEqual(answer.keys.sendKey);

    for (const [i, message] of transport.entries()) {
      const key = i % 2 === 0 ? accepted.keys.sendKey : answer.keys.sendKey;
      expect(toHex(crypto.seal(key, i >> 1, hex(message.payload), EMPTY))).toBe(message.ciphertext);
    }
  });

  /** Both ends up to message 1, with keys of a seed. */
  function started(seed: number) {
    const random = new SeededRandom(seed);
    const initiator = newEphemeral(crypto, random);
    const responder = newEphemeral(crypto, random);
    const shared = crypto.dh(initiator.privateKey, responder.publicKey)!;
    const timestamp = hex("400000006553f10a00000000");
    const ephemeral = newEphemeral(crypto, random);
    const made = createInitiation(crypto, initiator, responder.publicKey, shared, ephemeral, timestamp)!;
    return { random, initiator, responder, shared, made };
  }

  test("one flipped bit anywhere in message 1 is refused by one of its two halves", () => {
    const { responder, shared, made } = started(1);
    for (const field of ["ephemeral", "sealedStatic", "sealedTimestamp"] as const) {
      for (let at = 0; at < made.fields[field].length; at += 5) {
        const bent = made.fields[field].slice();
        bent[at]! ^= 1;
        const fields = { ...made.fields, [field]: bent };
        const opened = openInitiationStatic(crypto, responder, fields);
        if (field !== "sealedTimestamp") expect(opened).toBe("INITIATION_FORGED");
        else if (typeof opened === "string") throw new Error(opened);
        else expect(openInitiationTimestamp(crypto, opened.state, shared, fields)).toBeUndefined();
      }
    }
  });

  test("an ephemeral key of low order is refused in both messages", () => {
    const { initiator, responder, made } = started(2);
    const zero = new Uint8Array(32);
    expect(openInitiationStatic(crypto, responder, { ...made.fields, ephemeral: zero })).toBe("LOW_ORDER_POINT");
    const response = { ephemeral: zero, sealedEmpty: new Uint8Array(16) };
    expect(consumeResponse(crypto, made.state, initiator, undefined, response)).toBe("LOW_ORDER_POINT");
  });

  test("nor is anything made for a key of low order, of either kind", () => {
    const { random, initiator, responder, shared, made } = started(4);
    const zero = new Uint8Array(32);
    const ephemeral = newEphemeral(crypto, random);
    expect(createInitiation(crypto, initiator, zero, shared, ephemeral, new Uint8Array(12))).toBeUndefined();
    const opened = openInitiationStatic(crypto, responder, made.fields);
    if (typeof opened === "string") throw new Error(opened);
    const { state } = opened;
    const copy = () => ({ ...state, chainingKey: state.chainingKey.slice(), hash: state.hash.slice() });
    expect(createResponse(crypto, copy(), zero, undefined, ephemeral)).toBeUndefined();
    const bent = { ...copy(), remoteEphemeral: zero };
    expect(createResponse(crypto, bent, initiator.publicKey, undefined, ephemeral)).toBeUndefined();
    expect(createResponse(crypto, copy(), initiator.publicKey, undefined, ephemeral)).toBeDefined();
  });

  test("a forged response leaves the handshake able to take the true one; another preshared key is refused", () => {
    const { random, initiator, responder, shared, made } = started(3);
    const opened = openInitiationStatic(crypto, responder, made.fields);
    if (typeof opened === "string") throw new Error(opened);
    openInitiationTimestamp(crypto, opened.state, shared, made.fields);
    const psk = new Uint8Array(32).fill(4);
    const answer = createResponse(crypto, opened.state, initiator.publicKey, psk, newEphemeral(crypto, random))!;
    const forged = { ...answer.fields, sealedEmpty: new Uint8Array(16) };
    expect(consumeResponse(crypto, made.state, initiator, psk, forged)).toBe("RESPONSE_FORGED");
    expect(consumeResponse(crypto, made.state, initiator, undefined, answer.fields)).toBe("RESPONSE_FORGED");
    expect(typeof consumeResponse(crypto, made.state, initiator, psk, answer.fields)).toBe("object");
  });

  test("what is wiped is zero", () => {
    const { made } = started(4);
    wipeHandshake(made.state);
    expect(toHex(made.state.chainingKey)).toBe("00".repeat(32));
    expect(toHex(made.state.hash)).toBe("00".repeat(32));
    expect(toHex(made.state.ephemeral.privateKey)).toBe("00".repeat(32));
  });
});
