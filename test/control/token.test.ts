import { expect, test } from "vitest";
import { randomId } from "../../src/base/base32.ts";
import { WirebadgeError } from "../../src/base/errors.ts";
import { TOKEN_MAX_CHARACTERS } from "../../src/base/limits.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import {
  checksumOf,
  formatJoinToken,
  formatSecretToken,
  isSecretToken,
  type JoinToken,
  parseJoinToken,
  readJoinToken,
} from "../../src/control/token.ts";

const random = new SeededRandom(7);
const token: JoinToken = {
  url: "https://net.example.com:8443/wirebadge",
  coordinatorKey: randomBytes(random, 32),
  id: randomId(random, "t"),
  secret: randomBytes(random, 32),
};
const text = formatJoinToken(token);
const again = (body: string): string => `${body}_${checksumOf(body)}`;

test("the checksum is the CRC-32 of zip (its published check value)", () => {
  expect(checksumOf("123456789")).toBe("cbf43926");
});

test("a join token reads back as it was written, also with white space around it", () => {
  expect(readJoinToken(text)).toEqual(token);
  expect(readJoinToken(`\n  ${text}\r\n`)).toEqual(token);
  expect(parseJoinToken(text)).toEqual(token);
});

test.each([
  ["", "empty"],
  ["   ", "empty"],
  ["hello", "not-a-token"],
  ["x".repeat(5_000), "not-a-token"],
  ["wb_jo", "truncated"],
  ["wb_join_", "truncated"],
  [`wb_join_${"A".repeat(TOKEN_MAX_CHARACTERS - 8)}`, "mistyped"],
  [`wb_join_${"A".repeat(TOKEN_MAX_CHARACTERS - 7)}`, "not-a-token"],
  [again("wb_join"), "mistyped"],
  [text.slice(0, -1), "truncated"],
  [text.slice(0, -9), "truncated"],
  [text.slice(0, 60), "truncated"],
  [text.slice(0, 12), "truncated"],
  [text.replace(/.$/, (last) => (last === "0" ? "1" : "0")), "mistyped"],
  [text.slice(0, 40) + (text[40] === "A" ? "B" : "A") + text.slice(41), "mistyped"],
  [text.toLowerCase(), "mistyped"],
  [again("wb_join_!!!!"), "mistyped"],
  [again("wb_join_AQ"), "mistyped"],
  [again(text.replace(/^wb_join_AQ/, "wb_join_AA").slice(0, -9)), "mistyped"], // version 0, found by the fuzzer
  [again(text.slice(0, -13)), "mistyped"],
  [formatSecretToken("admin", new Uint8Array(10), new Uint8Array(32)), "wrong-kind"],
  ["wb_guest_x_y_00000000", "wrong-kind"],
  [again(`wb_join_${Buffer.from([2, 0, 0, 9]).toString("base64url")}`), "too-new"],
  [formatJoinToken({ ...token, url: "ftp://x.example" }), "bad-url"],
  [formatJoinToken({ ...token, url: "http://user@x.example" }), "bad-url"],
  [formatJoinToken({ ...token, url: "http://:pw@x.example" }), "bad-url"],
  [formatJoinToken({ ...token, url: "http://x.example/?a=b" }), "bad-url"],
  [formatJoinToken({ ...token, url: "http://x.example/#a" }), "bad-url"],
  [formatJoinToken({ ...token, url: "http://" }), "bad-url"],
  [formatJoinToken({ ...token, url: "" }), "bad-url"],
] as const)("case %#: a bad token is refused as %2$s", (input, problem) => {
  expect(readJoinToken(input)).toBe(problem);
});

test("every cut of a token is named truncated, and no one-letter change is accepted", () => {
  for (let length = 1; length < text.length; length++) {
    if (length >= 3) expect(["truncated", "mistyped"]).toContain(readJoinToken(text.slice(0, length)));
    if (length < text.length - 9) expect(readJoinToken(text.slice(0, length)), String(length)).toBe("truncated");
  }
  for (let at = 0; at < text.length; at++) {
    const changed = text.slice(0, at) + (text[at] === "x" ? "y" : "x") + text.slice(at + 1);
    expect(typeof readJoinToken(changed)).toBe("string");
  }
});

test("the error of a bad token has code and hint and holds nothing of the token", () => {
  const bad = text.slice(0, -1);
  try {
    parseJoinToken(bad);
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(WirebadgeError);
    const { code, hint, message } = error as WirebadgeError;
    expect(code).toBe("TOKEN_INVALID");
    expect(hint).toBeDefined();
    for (let at = 8; at + 8 < bad.length; at += 8) expect(`${message}${hint}`).not.toContain(bad.slice(at, at + 8));
  }
});

test("secrets of other kinds carry kind and checksum", () => {
  const admin = formatSecretToken("admin", randomBytes(random, 10), randomBytes(random, 32));
  expect(admin).toMatch(/^wb_admin_[0-9a-z]{16}_[0-9a-z]{52}_[0-9a-f]{8}$/);
  expect(isSecretToken("admin", admin)).toBe(true);
  expect(isSecretToken("guest", admin)).toBe(false);
  expect(isSecretToken("admin", `${admin.slice(0, -1)}x`)).toBe(false);
  expect(
    isSecretToken(
      "admin",
      admin.replace(/.$/, (last) => (last === "0" ? "1" : "0")),
    ),
  ).toBe(false);
});
