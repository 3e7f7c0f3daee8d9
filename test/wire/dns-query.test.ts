import { expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import { concatBytes, readU16, toHex, utf8, writeU16 } from "../../src/base/bytes.ts";
import { DNS_TYPE_A, DNS_TYPE_AAAA, decodeDnsAnswer, encodeDnsQuestion } from "../../src/wire/dns.ts";
import {
  addressRecord,
  DNS_TYPE_SOA,
  type DnsQuery,
  type DnsRecord,
  type DnsReply,
  datagramRoom,
  decodeDnsQuery,
  emptyReply,
  encodeDnsName,
  encodeDnsReply,
  soaRecord,
} from "../../src/wire/dns-query.ts";

const NAME = encodeDnsName(["Db", "sTaging", "internal"]);

interface Change {
  readonly name?: Uint8Array;
  readonly type?: number;
  readonly recordClass?: number;
  readonly flags?: number;
  /** QD, AN, NS, AR */
  readonly counts?: readonly [number, number, number, number];
  readonly behind?: Uint8Array;
}

function queryBytes(change: Change = {}): Uint8Array {
  const name = change.name ?? NAME;
  const bytes = new Uint8Array(12 + name.length + 4);
  writeU16(bytes, 0, 0xbeef);
  writeU16(bytes, 2, change.flags ?? 0x0100);
  for (const [i, count] of (change.counts ?? [1, 0, 0, 0]).entries()) writeU16(bytes, 4 + 2 * i, count);
  bytes.set(name, 12);
  writeU16(bytes, 12 + name.length, change.type ?? DNS_TYPE_A);
  writeU16(bytes, 14 + name.length, change.recordClass ?? 1);
  return concatBytes(bytes, change.behind ?? new Uint8Array(0));
}

function opt(payloadBytes: number, version = 0, owner = Uint8Array.of(0), data = new Uint8Array(0)): Uint8Array {
  const rest = new Uint8Array(10);
  writeU16(rest, 0, 41);
  writeU16(rest, 2, payloadBytes);
  rest[5] = version;
  writeU16(rest, 8, data.length);
  return concatBytes(owner, rest, data);
}

const withOpt = (...opts: readonly Uint8Array[]): Uint8Array =>
  queryBytes({ counts: [1, 0, 0, opts.length], behind: concatBytes(...opts) });

function queryOf(bytes: Uint8Array): DnsQuery {
  const decoded = decodeDnsQuery(bytes);
  if (decoded.kind !== "query") throw new Error(`no query: ${JSON.stringify(decoded)}`);
  return decoded.query;
}

/** "refused FORMERR"-like: the code of the reply that it gets, or why it gets none. */
function fate(bytes: Uint8Array): string {
  const decoded = decodeDnsQuery(bytes);
  if (decoded.kind === "dropped") return decoded.drop;
  return decoded.kind === "failed" ? `code ${decoded.code}` : "query";
}

const A: DnsRecord = addressRecord(parseAddress("10.66.0.5")!);
const reply = (records: readonly DnsRecord[]): DnsReply => ({ ...emptyReply(0), records, ttlSeconds: 5 });

test("a question is read in lower case, and kept as it came", () => {
  const query = queryOf(queryBytes());
  expect(query).toMatchObject({ id: 0xbeef, labels: ["db", "staging", "internal"], type: 1, recordClass: 1 });
  expect(toHex(query.question)).toBe(toHex(concatBytes(NAME, Uint8Array.of(0, 1, 0, 1))));
  expect(query.edns).toBeUndefined();
});

test("a label may hold a dot, and is not two", () => {
  expect(queryOf(queryBytes({ name: encodeDnsName(["a.b", "internal"]) })).labels).toEqual(["a.b", "internal"]);
});

test("our own client's question is one, and it takes our reply", () => {
  for (const [type, text] of [
    [DNS_TYPE_A, "10.66.0.5"],
    [DNS_TYPE_AAAA, "fd00::5"],
  ] as const) {
    const question = { id: 7, name: "db.staging.internal", type };
    const query = queryOf(encodeDnsQuestion(question));
    expect(query.edns).toEqual({ payloadBytes: 1232, version: 0 });
    const address = parseAddress(text)!;
    const bytes = encodeDnsReply(query, reply([addressRecord(address)]), datagramRoom(query));
    expect(decodeDnsAnswer(bytes, question)).toEqual({ kind: "addresses", addresses: [address] });
  }
});

test("the reply is RFC 1035's, with the question's own case, RD and CD given back, no recursion offered", () => {
  const bytes = encodeDnsReply(queryOf(queryBytes({ flags: 0x0130 })), reply([A]), 512);
  const head = "beef" + "8510" + "0001000100000000";
  expect(toHex(bytes)).toBe(`${head}${toHex(NAME)}00010001c00c000100010000000500040a420005`);
});

test("a zone's SOA is owned by the end of the question's name", () => {
  const soa = soaRecord(["staging", "internal"], 9, 5);
  const none: DnsReply = { code: 3, records: [], ttlSeconds: 5, authority: { record: soa, zoneLabels: 2 } };
  const bytes = encodeDnsReply(queryOf(queryBytes()), none, 512);
  expect(toHex(bytes.subarray(2, 12))).toBe("8503" + "0001" + "0000" + "0001" + "0000");
  const at = 12 + NAME.length + 4;
  expect(toHex(bytes.subarray(at, at + 4))).toBe("c00f0006"); // 12 + "\x02Db"
  expect(toHex(NAME.subarray(3))).toBe(toHex(bytes.subarray(15, 12 + NAME.length)));
  expect(soa.type).toBe(DNS_TYPE_SOA);
  expect(toHex(soa.data.subarray(-20))).toBe("00000009" + "00000e10" + "00000258" + "00015180" + "00000005");
});

test("what does not fit is left out whole, and TC says so; by TCP it fits", () => {
  const query = queryOf(queryBytes());
  const records = Array.from({ length: 40 }, () => A);
  const bytes = encodeDnsReply(query, reply(records), datagramRoom(query));
  expect(bytes).toHaveLength(12 + query.question.length);
  expect(readU16(bytes, 2) & 0x0200).toBe(0x0200);
  expect(readU16(bytes, 6)).toBe(0);
  const whole = encodeDnsReply(query, reply(records), 65_535);
  expect(readU16(whole, 2) & 0x0200).toBe(0);
  expect(readU16(whole, 6)).toBe(40);
});

test.each([
  [0, 512],
  [511, 512],
  [513, 513],
  [1232, 1232],
  [65_535, 1232],
])("a client that takes %i bytes gets at most %i", (asked, room) => {
  expect(datagramRoom(queryOf(withOpt(opt(asked))))).toBe(room);
});

test("without EDNS a datagram of 512 bytes is the most, and the reply has no OPT", () => {
  const query = queryOf(queryBytes());
  expect(datagramRoom(query)).toBe(512);
  expect(readU16(encodeDnsReply(query, reply([A]), 512), 10)).toBe(0);
});

test("EDNS is answered by EDNS; a version beyond ours by BADVERS", () => {
  const bytes = encodeDnsReply(queryOf(withOpt(opt(4096))), reply([A]), 1232);
  expect(toHex(bytes.subarray(-11))).toBe("00" + "0029" + "04d0" + "00000000" + "0000");
  const decoded = decodeDnsQuery(withOpt(opt(4096, 1)));
  expect(decoded).toMatchObject({ kind: "failed", code: 16 });
  if (decoded.kind !== "failed") return;
  expect(readU16(decoded.reply, 2) & 0x0f).toBe(0);
  expect(toHex(decoded.reply.subarray(-11))).toBe("00" + "0029" + "04d0" + "01000000" + "0000");
});

const long = (...sizes: readonly number[]): Uint8Array => encodeDnsName(sizes.map((size) => "a".repeat(size)));
const cookie = opt(
  1232,
  0,
  Uint8Array.of(0),
  Uint8Array.from({ length: 12 }, (_, i) => i),
);

test.each<[what: string, bytes: Uint8Array, fate: string]>([
  ["nothing", new Uint8Array(0), "short"],
  ["half a header", queryBytes().subarray(0, 11), "short"],
  ["a reply", queryBytes({ flags: 0x8180 }), "reply"],
  ["a broken reply", queryBytes({ flags: 0x8180 }).subarray(0, 14), "reply"],
  ["a status request", queryBytes({ flags: 0x1000 }), "code 4"],
  ["an update", queryBytes({ flags: 0x2800 }), "code 4"],
  ["no question", queryBytes({ counts: [0, 0, 0, 0] }), "code 1"],
  ["two questions", queryBytes({ counts: [2, 0, 0, 0], behind: queryBytes().subarray(12) }), "code 1"],
  ["an answer in it", queryBytes({ counts: [1, 1, 0, 0], behind: opt(512) }), "code 1"],
  ["an authority in it", queryBytes({ counts: [1, 0, 1, 0], behind: opt(512) }), "code 1"],
  ["a name cut off", queryBytes().subarray(0, 20), "code 1"],
  ["a question cut off", queryBytes().subarray(0, 12 + NAME.length + 3), "code 1"],
  ["a name that points to itself", queryBytes({ name: Uint8Array.of(0xc0, 12) }), "code 1"],
  ["a name that points into the header", queryBytes({ name: Uint8Array.of(0xc0, 4) }), "code 1"],
  ["a label of 63 bytes", queryBytes({ name: long(63) }), "query"],
  [
    "a label of 64 bytes",
    queryBytes({ name: concatBytes(Uint8Array.of(64), utf8("a".repeat(64)), Uint8Array.of(0)) }),
    "code 1",
  ],
  ["a name of 255 bytes", queryBytes({ name: long(63, 63, 63, 61) }), "query"],
  ["a name of 256 bytes", queryBytes({ name: long(63, 63, 63, 62) }), "code 1"],
  ["the root", queryBytes({ name: Uint8Array.of(0) }), "query"],
  ["EDNS with a cookie", withOpt(cookie), "query"],
  ["EDNS twice", withOpt(opt(512), opt(512)), "code 1"],
  ["EDNS of a name", withOpt(opt(512, 0, Uint8Array.of(1, 97, 0))), "code 1"],
  ["EDNS cut off", withOpt(cookie).subarray(0, -1), "code 1"],
  ["four records behind", withOpt(...Array.from({ length: 4 }, (_, i) => (i === 0 ? opt(512) : tsig()))), "query"],
  ["five records behind", withOpt(...Array.from({ length: 5 }, (_, i) => (i === 0 ? opt(512) : tsig()))), "code 1"],
  ["fewer records than it says", queryBytes({ counts: [1, 0, 0, 1] }), "code 1"],
  ["more than it says", queryBytes({ behind: Uint8Array.of(0) }), "code 1"],
  ["the type OPT", queryBytes({ type: 41 }), "code 1"],
])("%s", (_what, bytes, expected) => {
  expect(fate(bytes)).toBe(expected);
});

function tsig(): Uint8Array {
  const bytes = opt(255);
  writeU16(bytes, 1, 250);
  return bytes;
}

test("what was not understood is told so under its own id, and nothing of it is given back", () => {
  const decoded = decodeDnsQuery(queryBytes({ flags: 0x2900 }));
  expect(decoded.kind === "failed" && toHex(decoded.reply)).toBe("beef" + "a904" + "0000000000000000");
});
