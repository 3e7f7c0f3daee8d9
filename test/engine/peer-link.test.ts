import fc from "fast-check";
import { expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import { decodeLinkMessage, encodeDenial, encodeLease, encodeLeaseAck } from "../../src/engine/peer-link.ts";

const denial = {
  id: "d_0123456789",
  reason: "NEVER",
  policyVersion: 12,
  protocol: 6,
  sourcePort: 40_000,
  destinationPort: 5432,
  destination: parseAddress("10.30.0.5")!,
} as const;

test("each message comes back as it was", () => {
  expect(decodeLinkMessage(encodeLease(Uint8Array.of(1, 2, 3)))).toEqual({
    kind: "lease",
    lease: Uint8Array.of(1, 2, 3),
  });
  expect(decodeLinkMessage(encodeLeaseAck(7, 2 ** 40 + 5))).toEqual({
    kind: "lease-ack",
    epoch: 7,
    serial: 2 ** 40 + 5,
  });
  expect(decodeLinkMessage(encodeDenial(denial))).toEqual({ kind: "denial", denial });
});

test("a reason that a peer is not to be told of becomes NO_GRANT", () => {
  for (const reason of ["AGAINST_FLOW", "FLOW_TABLE_FULL", "NOT_OUR_ADDRESS"] as const) {
    const decoded = decodeLinkMessage(encodeDenial({ ...denial, reason }));
    expect(decoded).toMatchObject({ kind: "denial", denial: { reason: "NO_GRANT" } });
  }
});

test("wrong lengths, unknown types, unknown reasons and ids that are no ids are malformed, and nothing throws", () => {
  const good = encodeDenial(denial);
  expect(decodeLinkMessage(good.subarray(0, good.length - 1))).toBeUndefined();
  expect(decodeLinkMessage(Uint8Array.of(...good, 0))).toBeUndefined();
  expect(decodeLinkMessage(good.map((byte, i) => (i === 1 ? 99 : byte)))).toBeUndefined();
  expect(decodeLinkMessage(good.map((byte, i) => (i === 5 ? 0x1b : byte)))).toBeUndefined(); // an escape character
  expect(decodeLinkMessage(new Uint8Array(0))).toBeUndefined();
  expect(decodeLinkMessage(Uint8Array.of(1))).toBeUndefined();
  expect(decodeLinkMessage(encodeLeaseAck(1, 1).map((byte, i) => (i === 5 ? 0xff : byte)))).toBeUndefined();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      decodeLinkMessage(bytes);
    }),
  );
});
