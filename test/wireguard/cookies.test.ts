// Asker and answerer against each other, and against the clock.
import { describe, expect, test } from "vitest";
import { parseEndpoint } from "../../src/base/address.ts";
import { concatBytes, utf8 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { decodeCookieReply, INITIATION_BYTES, RESPONSE_BYTES } from "../../src/wire/wireguard.ts";
import { COOKIE_REFRESH_TIME_MS, CookieAnswerer, CookieAsker } from "../../src/wireguard/cookies.ts";
import { PROVIDERS } from "../crypto/providers.ts";

const NOW = 1_700_000_000_000;
const FROM = parseEndpoint("192.0.2.1:1001")!;

describe.each(PROVIDERS)("with the %s provider", (_name, crypto) => {
  const publicKey = crypto.publicKey(new Uint8Array(32).fill(5));
  const ends = (): [CookieAsker, CookieAnswerer] => [
    new CookieAsker(crypto, publicKey),
    new CookieAnswerer(crypto, new SeededRandom(1), publicKey),
  ];
  const message = (asker: CookieAsker, nowMs: number, length = INITIATION_BYTES): Uint8Array => {
    const bytes = new Uint8Array(length).fill(1, 0, length - 32);
    asker.addMacs(nowMs, bytes);
    return bytes;
  };

  test.each([INITIATION_BYTES, RESPONSE_BYTES])(
    "a message of %i bytes carries mac1, then mac2 once a cookie came",
    (length) => {
      const [asker, answerer] = ends();
      const first = message(asker, NOW, length);
      expect(answerer.checkMac1(first, 0, length)).toBe(true);
      expect(answerer.checkMac2(NOW, first, 0, length, FROM)).toBe(false); // no secret yet: nothing to be right
      const reply = answerer.createReply(NOW, first, 0, length, FROM);
      expect(answerer.checkMac2(NOW, first, 0, length, FROM)).toBe(false);
      expect(asker.consumeReply(NOW, decodeCookieReply(reply, 0))).toBe(true);
      const second = message(asker, NOW, length);
      expect(answerer.checkMac1(second, 0, length)).toBe(true);
      expect(answerer.checkMac2(NOW, second, 0, length, FROM)).toBe(true);
      for (const at of [length - 1, length - 16, length - 17, 0]) {
        const bent = second.slice();
        bent[at]! ^= 1;
        expect(answerer.checkMac2(NOW, bent, 0, length, FROM)).toBe(false);
      }
    },
  );

  test("no cookie is right before the first was given, at any time", () => {
    const [asker, answerer] = ends();
    const [, other] = ends();
    asker.consumeReply(0, decodeCookieReply(other.createReply(0, message(asker, 0), 0, 148, FROM), 0));
    const bytes = message(asker, 0);
    expect(bytes.subarray(132).some((byte) => byte !== 0)).toBe(true);
    for (const nowMs of [0, COOKIE_REFRESH_TIME_MS, NOW]) {
      expect(answerer.checkMac2(nowMs, bytes, 0, 148, FROM)).toBe(false);
    }
  });

  test("the answerer's secret ends after two minutes, whether or not a new one was made", () => {
    const [asker, answerer] = ends();
    asker.consumeReply(NOW, decodeCookieReply(answerer.createReply(NOW, message(asker, NOW), 0, 148, FROM), 0));
    const bytes = message(asker, NOW);
    expect(answerer.checkMac2(NOW + COOKIE_REFRESH_TIME_MS - 1, bytes, 0, 148, FROM)).toBe(true);
    expect(answerer.checkMac2(NOW + COOKIE_REFRESH_TIME_MS, bytes, 0, 148, FROM)).toBe(false);
    answerer.createReply(NOW + COOKIE_REFRESH_TIME_MS, bytes, 0, 148, FROM);
    expect(answerer.checkMac2(NOW + COOKIE_REFRESH_TIME_MS, bytes, 0, 148, FROM)).toBe(false);
  });

  test("the asker forgets a cookie after two minutes", () => {
    const [asker, answerer] = ends();
    asker.consumeReply(NOW, decodeCookieReply(answerer.createReply(NOW, message(asker, NOW), 0, 148, FROM), 0));
    const mac2 = (nowMs: number): Uint8Array => message(asker, nowMs).subarray(132);
    expect(mac2(NOW + COOKIE_REFRESH_TIME_MS - 1).some((byte) => byte !== 0)).toBe(true);
    expect(mac2(NOW + COOKIE_REFRESH_TIME_MS).every((byte) => byte === 0)).toBe(true);
  });

  test("a reply to no message at all is refused, though anybody can make one", () => {
    const [asker, answerer] = ends();
    const cookieKey = crypto.hash(concatBytes(utf8("cookie--"), publicKey));
    const nonce = new Uint8Array(24).fill(3);
    const sealedCookie = crypto.xSeal(cookieKey, nonce, new Uint8Array(16).fill(4), new Uint8Array(0));
    expect(asker.consumeReply(NOW, { receiverIndex: 0, nonce, sealedCookie })).toBe(false);
    const first = message(asker, NOW);
    expect(answerer.checkMac1(first, 0, 148)).toBe(true);
    expect(first.subarray(132).every((byte) => byte === 0)).toBe(true); // no cookie came
  });

  test("a reply nobody asked for is refused", () => {
    const [asker, answerer] = ends();
    const [other] = ends();
    const reply = decodeCookieReply(answerer.createReply(NOW, message(other, NOW), 0, 148, FROM), 0);
    expect(asker.consumeReply(NOW, reply)).toBe(false);
  });
});
