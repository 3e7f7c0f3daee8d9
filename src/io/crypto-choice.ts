// Which cryptographic provider this process uses. The native one is taken only after it has passed published vectors
// and refused a flipped tag in this very process; else the portable one, with the reason for `status`.
import { concatBytes, equalBytes, fromHex, utf8 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { PortableCrypto } from "../crypto/portable.ts";
import { type Crypto, TAG_BYTES } from "../crypto/provider.ts";
import type { Arena } from "./ffi/arena.ts";
import { createNativeCrypto, type NativeCryptoOptions } from "./native-crypto.ts";

export interface CryptoChoice {
  readonly crypto: Crypto;
  /** Why it is not the native one; undefined when it is. */
  readonly reason: string | undefined;
}

export interface CryptoChoiceOptions {
  /** Refuse to run on anything slower. */
  readonly require?: "native";
  /** Where packets lie, so that they are sealed in place; an own small one when absent. */
  readonly arena?: Arena | undefined;
  /** Builds the native provider; another one in tests. */
  readonly build?: (arena?: Arena, options?: NativeCryptoOptions) => Crypto;
}

const hex = (text: string): Uint8Array => fromHex(text)!;

// RFC 8439 §2.8.2
const KEY = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
const NONCE = hex("070000004041424344454647");
const AAD = hex("50515253c0c1c2c3c4c5c6c7");
const PLAINTEXT = utf8(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
);
const SEALED = hex(
  "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b" +
    "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
    "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
);
// RFC 7748 §6.1
const ALICE_PRIVATE = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
const BOB_PUBLIC = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
const SHARED = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");

/** What is wrong with this provider; undefined when it does as the RFCs say. */
export function selfTest(crypto: Crypto): string | undefined {
  if (!equalBytes(crypto.sealWithNonce(KEY, NONCE, PLAINTEXT, AAD), SEALED)) return "sealing differs from RFC 8439";
  const opened = crypto.openWithNonce(KEY, NONCE, SEALED, AAD);
  if (opened === undefined || !equalBytes(opened, PLAINTEXT)) return "opening differs from RFC 8439";
  const forged = SEALED.slice();
  forged[forged.length - 1]! ^= 1;
  if (crypto.openWithNonce(KEY, NONCE, forged, AAD) !== undefined) return "a flipped tag was accepted";
  const shared = crypto.dh(ALICE_PRIVATE, BOB_PUBLIC);
  if (shared === undefined || !equalBytes(shared, SHARED)) return "X25519 differs from RFC 7748";
  if (crypto.dh(ALICE_PRIVATE, new Uint8Array(32)) !== undefined) return "a low-order point was accepted";
  return selfTestTransport(crypto);
}

/** The in-place form against the portable provider, at a counter that needs both halves: a short packet, a long one. */
function selfTestTransport(crypto: Crypto): string | undefined {
  const aead = crypto.transportAead(KEY);
  const reference = new PortableCrypto().transportAead(KEY);
  try {
    for (const plaintext of [PLAINTEXT, concatBytes(...new Array<Uint8Array>(9).fill(PLAINTEXT))]) {
      const { length } = plaintext;
      const expected = new Uint8Array(length + TAG_BYTES);
      expected.set(plaintext);
      const buffer = expected.slice();
      reference.seal(0xfffffffe, 0x80000001, expected, 0, length);
      aead.seal(0xfffffffe, 0x80000001, buffer, 0, length);
      if (!equalBytes(buffer, expected)) return "sealing in place differs from the portable provider";
      const forged = expected.slice();
      forged[forged.length - 1]! ^= 1;
      if (aead.open(0xfffffffe, 0x80000001, forged, 0, forged.length)) return "a flipped tag was accepted in place";
      const opened = aead.open(0xfffffffe, 0x80000001, buffer, 0, buffer.length);
      if (!opened || !equalBytes(buffer.subarray(0, length), plaintext)) return "opening in place failed";
    }
    return undefined;
  } finally {
    aead.destroy();
    reference.destroy();
  }
}

/**
 * @throws WirebadgeError NATIVE_UNAVAILABLE when the native provider is required and can't be had.
 */
export function chooseCrypto(options: CryptoChoiceOptions = {}): CryptoChoice {
  const build = options.build ?? createNativeCrypto;
  let reason = "";
  // A node binary may lack the functions below EVP, or have others by their names.
  for (const evpOnly of [false, true]) {
    try {
      const crypto = build(options.arena, { evpOnly });
      const wrong = selfTest(crypto);
      if (wrong === undefined) return { crypto, reason: undefined };
      reason = `native crypto failed its self-test: ${wrong}`;
    } catch (error) {
      reason = `native crypto is not available: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
  if (options.require === "native") {
    throw new WirebadgeError("NATIVE_UNAVAILABLE", reason, {
      hint: "leave out --require native to run on the portable crypto, at about a tenth of the speed",
    });
  }
  return { crypto: new PortableCrypto(), reason };
}
