// The handshake byte by byte: nothing is said before a message is whole, and the same then as at once.
import { describe, expect, test } from "vitest";
import { concatBytes, utf8 } from "../../src/base/bytes.ts";
import { Socks5Handshake, type Socks5Step } from "../../src/peer/socks5-handshake.ts";

const CREDENTIALS = { user: "ana", password: "secret" };
const GREETING = Uint8Array.of(5, 2, 0, 2);
const PASSWORD = Uint8Array.of(1, 3, ...utf8("ana"), 6, ...utf8("secret"));
const REQUESTS: readonly (readonly [string, Uint8Array, string])[] = [
  ["IPv4", Uint8Array.of(5, 1, 0, 1, 10, 1, 2, 3, 0x1f, 0x90), "10.1.2.3"],
  ["IPv6", Uint8Array.of(5, 1, 0, 4, 0xfd, ...new Uint8Array(14), 7, 0x1f, 0x90), "fd00::7"],
  ["a name", Uint8Array.of(5, 1, 0, 3, 7, ...utf8("staging"), 0x1f, 0x90), "staging"],
];

/** What is said after each byte that was pushed. */
function byteByByte(handshake: Socks5Handshake, bytes: Uint8Array): (Socks5Step | undefined)[] {
  return [...bytes].map((byte) => {
    handshake.push(Uint8Array.of(byte));
    return handshake.next();
  });
}

const silence = (count: number): undefined[] => new Array<undefined>(count).fill(undefined);

describe.each(REQUESTS)("a request for %s", (_name, request, host) => {
  test.each([
    ["without credentials", undefined, [GREETING], [Uint8Array.of(5, 0)]],
    ["with them", CREDENTIALS, [GREETING, PASSWORD], [Uint8Array.of(5, 2), Uint8Array.of(1, 0)]],
  ])("%s", (_what, credentials, messages, replies) => {
    const handshake = new Socks5Handshake(credentials);
    for (const [i, message] of messages.entries()) {
      const said = byteByByte(handshake, message);
      expect(said).toEqual([...silence(message.length - 1), { kind: "reply", bytes: replies[i] }]);
    }
    const connect = { kind: "connect", target: { host, port: 8_080 }, rest: new Uint8Array(0) };
    expect(byteByByte(handshake, request)).toEqual([...silence(request.length - 1), connect]);
    const atOnce = new Socks5Handshake(credentials);
    atOnce.push(concatBytes(...messages, request, utf8("more")));
    for (const bytes of replies) expect(atOnce.next()).toEqual({ kind: "reply", bytes });
    expect(atOnce.next()).toEqual({ ...connect, rest: utf8("more") });
    expect(atOnce.next()).toBeUndefined();
  });
});

test("another version is refused at its first byte, at each step", () => {
  const fail = (reason: string) => ({ kind: "fail", bytes: new Uint8Array(0), reason });
  const greeting = new Socks5Handshake(undefined);
  expect(byteByByte(greeting, Uint8Array.of(4))).toEqual([fail("not-socks5")]);
  const password = new Socks5Handshake(CREDENTIALS);
  byteByByte(password, GREETING);
  expect(byteByByte(password, Uint8Array.of(5))).toEqual([fail("bad-credentials")]);
  const request = new Socks5Handshake(undefined);
  byteByByte(request, GREETING);
  expect(byteByByte(request, Uint8Array.of(4))).toEqual([fail("bad-request")]);
});
