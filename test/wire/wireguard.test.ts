// Types, exact lengths and field places of the four messages; no bytes make the decoder throw.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import {
  classifyMessage,
  decodeCookieReply,
  decodeInitiation,
  decodeResponse,
  encodeCookieReply,
  encodeDataHeader,
  encodeInitiation,
  encodeResponse,
  readDataCounterHigh,
  readDataCounterLow,
  readDataReceiver,
  TYPE_DATA,
} from "../../src/wire/wireguard.ts";

const message = (type: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  if (length > 0) bytes[0] = type;
  return bytes;
};

describe("a message's kind", () => {
  test.each([
    [1, 148, 1],
    [1, 147, "WRONG_LENGTH"],
    [1, 149, "WRONG_LENGTH"],
    [2, 92, 2],
    [2, 91, "WRONG_LENGTH"],
    [2, 148, "WRONG_LENGTH"],
    [3, 64, 3],
    [3, 63, "WRONG_LENGTH"],
    [4, 32, 4],
    [4, 31, "WRONG_LENGTH"],
    [4, 47, 4], // the packet of the MTU's last bytes is not padded
    [4, 1452, 4],
    [0, 148, "UNKNOWN_TYPE"],
    [5, 148, "UNKNOWN_TYPE"],
    [255, 32, "UNKNOWN_TYPE"],
    [1, 3, "WRONG_LENGTH"],
    [1, 0, "WRONG_LENGTH"],
  ])("type %i with %i bytes is %s", (type, length, kind) => {
    expect(classifyMessage(message(type, length), 0, length)).toBe(kind);
  });

  test.each([1, 2, 3])("reserved byte %i must be zero", (at) => {
    const bytes = message(1, 148);
    bytes[at] = 1;
    expect(classifyMessage(bytes, 0, 148)).toBe("UNKNOWN_TYPE");
  });

  test("no bytes make it throw, and only the exact lengths are messages", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(8), (bytes, type) => {
        if (bytes.length >= 4) bytes.set([type, 0, 0, 0]);
        const kind = classifyMessage(bytes, 0, bytes.length);
        if (typeof kind === "string") return;
        expect(kind === TYPE_DATA ? bytes.length >= 32 : [0, 148, 92, 64][kind] === bytes.length).toBe(true);
      }),
      { numRuns: 200 },
    );
  });
});

const field = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);

test("an initiation's fields stand where [WG §5.4.2] puts them", () => {
  const initiation = {
    senderIndex: 0x01020304,
    ephemeral: field(32, 0xe1),
    sealedStatic: field(48, 0x51),
    sealedTimestamp: field(28, 0x71),
  };
  const bytes = encodeInitiation(initiation);
  const expected = `01000000 04030201 ${"e1".repeat(32)} ${"51".repeat(48)} ${"71".repeat(28)} ${"00".repeat(32)}`;
  expect(toHex(bytes)).toBe(expected.replaceAll(" ", ""));
  expect(decodeInitiation(bytes, 0)).toEqual(initiation);
});

test("a response's fields stand where [WG §5.4.3] puts them", () => {
  const response = {
    senderIndex: -2,
    receiverIndex: 0x7fffffff,
    ephemeral: field(32, 0xe2),
    sealedEmpty: field(16, 0x33),
  };
  const bytes = encodeResponse(response);
  const expected = `02000000 feffffff ffffff7f ${"e2".repeat(32)} ${"33".repeat(16)} ${"00".repeat(32)}`;
  expect(toHex(bytes)).toBe(expected.replaceAll(" ", ""));
  expect(decodeResponse(bytes, 0)).toEqual(response);
});

test("a cookie reply's fields stand where [WG §5.4.7] puts them", () => {
  const reply = { receiverIndex: -1, nonce: field(24, 0x4e), sealedCookie: field(32, 0xc0) };
  const bytes = encodeCookieReply(reply);
  expect(toHex(bytes)).toBe(`03000000ffffffff${"4e".repeat(24)}${"c0".repeat(32)}`);
  expect(decodeCookieReply(bytes, 0)).toEqual(reply);
});

test("a data header holds receiver and counter, at any offset", () => {
  const buffer = new Uint8Array(40);
  encodeDataHeader(buffer, 5, -3, 0xfffffffe, 0x80000001);
  expect(toHex(buffer.subarray(5, 21))).toBe("04000000fdfffffffeffffff01000080");
  expect(readDataReceiver(buffer, 5)).toBe(-3);
  expect(readDataCounterLow(buffer, 5)).toBe(0xfffffffe);
  expect(readDataCounterHigh(buffer, 5)).toBe(0x80000001);
});

test("decoded fields are views: nothing is copied", () => {
  const bytes = fromHex("00".repeat(148))!;
  expect(decodeInitiation(bytes, 0).ephemeral.buffer).toBe(bytes.buffer);
});
