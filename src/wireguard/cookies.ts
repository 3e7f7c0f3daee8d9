// The two MACs of handshake messages and the cookies under load, [WG §5.4.4] and [WG §5.4.7]. mac1 shows that the
// sender knows whom it asks; mac2, under a cookie, that it receives at the address it sends from. Both ends:
// CookieAnswerer (one per device) and CookieAsker (one per peer).
import { addressTo16, type Endpoint } from "../base/address.ts";
import { concatBytes, equalBytes, isAllZero, utf8, writeU16 } from "../base/bytes.ts";
import { type Random, randomBytes } from "../base/random.ts";
import { Blake2sMac } from "../crypto/blake2s.ts";
import type { Crypto } from "../crypto/provider.ts";
import { type CookieReply, encodeCookieReply, macsOffset, readIndex } from "../wire/wireguard.ts";

export const COOKIE_REFRESH_TIME_MS = 120_000;
const MAC_BYTES = 16;
const SECRET_BYTES = 32;
const NONCE_BYTES = 24;
const SENDER_INDEX_AT = 4;

/** mac1's key, or the key that cookies are sealed under, of the device with this public key. */
function labelKey(crypto: Crypto, label: "mac1----" | "cookie--", publicKey: Uint8Array): Uint8Array {
  return crypto.hash(utf8(label), publicKey); // Hash(Label ‖ S_m^pub)
}

function endpointBytes(endpoint: Endpoint): Uint8Array {
  const port = new Uint8Array(2);
  writeU16(port, 0, endpoint.port);
  return concatBytes(addressTo16(endpoint.address), port);
}

/** The side that is asked for handshakes. */
export class CookieAnswerer {
  readonly #crypto: Crypto;
  readonly #random: Random;
  readonly #mac1: Blake2sMac;
  readonly #cookieKey: Uint8Array;
  #secret: Blake2sMac | undefined;
  #secretMs = 0;

  constructor(crypto: Crypto, random: Random, publicKey: Uint8Array) {
    this.#crypto = crypto;
    this.#random = random;
    this.#mac1 = new Blake2sMac(labelKey(crypto, "mac1----", publicKey));
    this.#cookieKey = labelKey(crypto, "cookie--", publicKey);
  }

  /** Of an initiation or a response in the buffer; without it nothing is answered, so a scan sees silence. */
  checkMac1(buffer: Uint8Array, offset: number, length: number): boolean {
    const before = macsOffset(length);
    const expected = this.#mac1.of(buffer, offset, before); // Mac(κ, msg_α)
    return equalBytes(expected, buffer.subarray(offset + before, offset + before + MAC_BYTES));
  }

  /** True when mac2 was made under a cookie given to this source less than COOKIE_REFRESH_TIME ago. */
  checkMac2(nowMs: number, buffer: Uint8Array, offset: number, length: number, from: Endpoint): boolean {
    if (this.#secret === undefined || nowMs - this.#secretMs >= COOKIE_REFRESH_TIME_MS) return false;
    const mac2At = offset + macsOffset(length) + MAC_BYTES;
    const mac2 = buffer.subarray(mac2At, mac2At + MAC_BYTES);
    if (isAllZero(mac2)) return false; // of who has no cookie, at the least cost
    const cookie = this.#cookieOf(this.#secret, from);
    const expected = this.#crypto.mac(cookie, buffer.subarray(offset, mac2At)); // msg.mac2 := Mac(τ, msg_β)
    return equalBytes(expected, mac2);
  }

  /** The 64-byte answer to a message with a right mac1. Shorter than what it answers. */
  createReply(nowMs: number, buffer: Uint8Array, offset: number, length: number, from: Endpoint): Uint8Array {
    if (this.#secret === undefined || nowMs - this.#secretMs >= COOKIE_REFRESH_TIME_MS) {
      this.#secret = new Blake2sMac(randomBytes(this.#random, SECRET_BYTES)); // R_m changes every two minutes
      this.#secretMs = nowMs;
    }
    const mac1At = offset + macsOffset(length);
    const cookie = this.#cookieOf(this.#secret, from);
    const nonce = randomBytes(this.#random, NONCE_BYTES);
    const mac1 = buffer.subarray(mac1At, mac1At + MAC_BYTES);
    const sealedCookie = this.#crypto.xSeal(this.#cookieKey, nonce, cookie, mac1); // XAEAD(κ, nonce, τ, M)
    return encodeCookieReply({ receiverIndex: readIndex(buffer, offset + SENDER_INDEX_AT), nonce, sealedCookie });
  }

  /** τ := Mac(R_m, A_m') */
  #cookieOf(secret: Blake2sMac, from: Endpoint): Uint8Array {
    const source = endpointBytes(from);
    return secret.of(source, 0, source.length);
  }
}

/** The side that asks one peer. */
export class CookieAsker {
  readonly #crypto: Crypto;
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  #lastMac1: Uint8Array | undefined;
  #cookie: Uint8Array | undefined;
  #cookieMs = 0;

  constructor(crypto: Crypto, remotePublicKey: Uint8Array) {
    this.#crypto = crypto;
    this.#mac1Key = labelKey(crypto, "mac1----", remotePublicKey);
    this.#cookieKey = labelKey(crypto, "cookie--", remotePublicKey);
  }

  /** Writes mac1, and mac2 when a cookie is at hand, into a whole initiation or response. */
  addMacs(nowMs: number, message: Uint8Array): void {
    const macsAt = macsOffset(message.length);
    const mac1 = this.#crypto.mac(this.#mac1Key, message.subarray(0, macsAt));
    message.set(mac1, macsAt);
    this.#lastMac1 = mac1;
    if (this.#cookie !== undefined && nowMs - this.#cookieMs < COOKIE_REFRESH_TIME_MS) {
      message.set(this.#crypto.mac(this.#cookie, message.subarray(0, macsAt + MAC_BYTES)), macsAt + MAC_BYTES);
    }
  }

  /**
   * False when it doesn't answer the last message sent, or answers it a second time. The cookie serves from the next
   * message on.
   */
  consumeReply(nowMs: number, reply: CookieReply): boolean {
    if (this.#lastMac1 === undefined) return false;
    const cookie = this.#crypto.xOpen(this.#cookieKey, reply.nonce, reply.sealedCookie, this.#lastMac1);
    if (cookie === undefined) return false;
    this.#lastMac1 = undefined;
    this.#cookie = cookie;
    this.#cookieMs = nowMs;
    return true;
  }
}
