import { expect, test } from "vitest";
import { utf8 } from "../../src/base/bytes.ts";
import { RECORDS_PER_MESSAGE_MAX, SESSION_ENDPOINTS_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import {
  decodeCoordinatorRecord,
  decodePeerRecord,
  encodeJsonRecord,
  type PeerMessage,
} from "../../src/control/messages.ts";

const key = "A".repeat(43).concat("=");
const mac = "A".repeat(22).concat("==");
const session = "s_0123456789abcdef";
const offers = { routes: ["10.0.0.0/8"], serves: ["*"] };
const denial = {
  id: "d_0123456789",
  atMs: 1,
  hop: "destination" as const,
  session,
  source: "fd00::1",
  destination: "fd00::2",
  protocol: 6,
  destinationPort: 22,
  reason: "NO_GRANT",
  policyVersion: 1,
  revision: 1,
};
const MESSAGES: PeerMessage[] = [
  { type: "hello", version: 1, signKey: key, signature: "A".repeat(86).concat("=="), software: "x" },
  { type: "enroll", token: "t_0123456789abcdef", secret: key, publicKey: key, proof: mac, offers, endpoints: [] },
  { type: "resume", session, publicKey: key, proof: mac, offers, endpoints: ["10.0.0.1:1"] },
  { type: "offers", ...offers },
  { type: "endpoints", endpoints: [] },
  { type: "punch", session },
  { type: "renew" },
  { type: "full" },
  { type: "ping", n: 4 },
  { type: "denials", records: [denial] },
  { type: "flows", records: [] },
  { type: "leave" },
];

test.each(MESSAGES)("a $type record reads back as it was sent", (message) => {
  expect(decodePeerRecord(encodeJsonRecord(message))).toEqual(message);
});

test.each([
  ["nothing", new Uint8Array(0), "record-empty"],
  ["a netmap from a peer", Uint8Array.of(2, 1, 1), "record-unknown-kind"],
  ["an unknown kind", Uint8Array.of(9), "record-unknown-kind"],
  ["broken JSON", Uint8Array.of(1, ...utf8("{")), "record-not-json"],
  ["broken UTF-8", Uint8Array.of(1, 0xff, 0xfe), "record-not-json"],
  ["JSON of another shape", Uint8Array.of(1, ...utf8("[]")), "record-bad-shape"],
  ["an unknown type", Uint8Array.of(1, ...utf8('{"type":"grant"}')), "record-bad-shape"],
  ["a session of another form", Uint8Array.of(1, ...utf8('{"type":"punch","session":"*"}')), "record-bad-shape"],
] as const)("%s is a named drop", (_what, record, drop) => {
  expect(decodePeerRecord(record)).toBe(drop);
});

test("what is no record of a coordinator's is a named drop too", () => {
  expect(decodeCoordinatorRecord(new Uint8Array(0))).toBe("record-empty");
  expect(decodeCoordinatorRecord(Uint8Array.of(9))).toBe("record-unknown-kind");
  expect(decodeCoordinatorRecord(Uint8Array.of(1, 0xff))).toBe("record-not-json");
  expect(decodeCoordinatorRecord(Uint8Array.of(1, ...utf8("[]")))).toBe("record-bad-shape");
});

test("lists are taken up to their limit, and refused one beyond it", () => {
  const endpoints = (count: number): PeerMessage => ({ type: "endpoints", endpoints: Array(count).fill("10.0.0.1:1") });
  expect(decodePeerRecord(encodeJsonRecord(endpoints(SESSION_ENDPOINTS_MAX)))).toEqual(
    endpoints(SESSION_ENDPOINTS_MAX),
  );
  expect(decodePeerRecord(encodeJsonRecord(endpoints(SESSION_ENDPOINTS_MAX + 1)))).toBe("record-bad-shape");
  const denials = (count: number): PeerMessage => ({ type: "denials", records: Array(count).fill(denial) });
  expect(decodePeerRecord(encodeJsonRecord(denials(RECORDS_PER_MESSAGE_MAX)))).toEqual(
    denials(RECORDS_PER_MESSAGE_MAX),
  );
  expect(decodePeerRecord(encodeJsonRecord(denials(RECORDS_PER_MESSAGE_MAX + 1)))).toBe("record-bad-shape");
});

test("random bytes and mutated records never throw, at either end", () => {
  const random = new SeededRandom(21);
  for (let round = 0; round < 2_000; round++) {
    const record = encodeJsonRecord(random.pick(MESSAGES)).slice();
    for (let n = 1 + random.below(4); n > 0; n--) record[random.below(record.length)] = random.below(256);
    const noise = new Uint8Array(random.below(60));
    random.fill(noise);
    for (const bytes of [record, noise, record.subarray(0, random.below(record.length))]) {
      expect(decodePeerRecord(bytes)).toBeDefined();
      expect(decodeCoordinatorRecord(bytes)).toBeDefined();
    }
  }
});
