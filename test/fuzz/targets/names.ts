// Questions to the resolver of `up --tun`: the decoder, and what is answered from one peer's view.
import { concatBytes, readU16, writeU16 } from "../../../src/base/bytes.ts";
import type { SeededRandom } from "../../../src/base/random.ts";
import { OverlayNames } from "../../../src/peer/tun/overlay-names.ts";
import { type DnsQuery, datagramRoom, decodeDnsQuery, encodeDnsReply } from "../../../src/wire/dns-query.ts";
import { GW, netmapOf } from "../../peer/world.ts";
import { queryFor, readRecords } from "../../wire/dns-bytes.ts";
import { type FuzzTarget, must, same } from "../target.ts";

const [STAGING] = netmapOf().services;
const MANY = Array.from({ length: 40 }, (_, i) => ({ session: GW, address: `fd00:17:0:2::${i + 1}` }));
const NAMES = new OverlayNames(netmapOf({ services: [STAGING!, { ...STAGING!, name: "many", gateways: MANY }] }));
const REVERSE6 = `6${".0".repeat(19)}.7.1.0.0.0.0.d.f.ip6.arpa`; // fd00:17::6, less two labels
const ASKED = [
  ["staging.test.internal", 28],
  ["Staging.TEST.internal", 255],
  ["many.test.internal", 28],
  ["gw.test.internal", 1],
  ["nobody.test.internal", 28],
  ["test.internal", 6],
  ["example.com", 1],
  ["6.0.99.10.in-addr.arpa", 12],
  [REVERSE6, 12],
  ["", 2],
] as const;
const OPT1 = Uint8Array.of(0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0);
const SEEDS = [
  ...ASKED.map(([name, type]) => queryFor(name, type)),
  ...ASKED.map(([name, type]) => queryFor(name, type, { payloadBytes: 1232 })),
  concatBytes(queryFor("gw.test.internal", 1, { payloadBytes: 1232 }).subarray(0, -11), OPT1),
  queryFor("gw.test.internal", 1, { flags: 0x2800 }),
  queryFor("gw.test.internal", 1, { flags: 0x8180 }),
];

function randomQuery(random: SeededRandom): Uint8Array {
  const [name, type] = random.pick(ASKED);
  const labels = name.split(".");
  if (random.chance(0.3)) labels[random.pick([0, labels.length - 1])] = random.pick(["x", "a".repeat(63), "10", "*"]);
  if (random.chance(0.2)) labels.unshift(random.pick(["gw", "0", "_tcp"]));
  const payloadBytes = random.pick([undefined, 0, 512, 1232, 65_535]);
  const bytes = queryFor(labels.filter((label) => label !== "").join("."), random.pick([type, 1, 12, 28, 252, 255]), {
    recordClass: random.pick([1, 1, 1, 3, 255]),
    ...(payloadBytes !== undefined && { payloadBytes }),
  });
  if (random.chance(0.2)) writeU16(bytes, random.pick([2, 4, 6, 8, 10]), random.pick([0, 1, 2, 0x8000, 0x0110]));
  return bytes;
}

function answered(query: DnsQuery, room: number): string {
  const reply = NAMES.answer(query);
  const bytes = encodeDnsReply(query, reply, room);
  must(bytes.length <= room, "a reply longer than its room");
  must(readU16(bytes, 0) === query.id && readU16(bytes, 4) === 1, "another id, or no question");
  must(same(bytes.subarray(12, 12 + query.question.length), query.question), "another question");
  must((readU16(bytes, 2) & 0x8080) === 0x8000, "no reply, or one that offers recursion");
  const again = decodeDnsQuery(bytes);
  must(again.kind === "dropped" && again.drop === "reply", "a reply that would be answered");
  const truncated = (readU16(bytes, 2) & 0x0200) !== 0;
  const records = readRecords(bytes);
  must(!truncated || records.length === 0, "a part of an answer");
  for (const { owner, type } of records) must(type === 6 || owner.length > 0, "a record of the root");
  const what = records.length === 0 ? "no record" : records.some(({ type }) => type !== 6) ? "records" : "SOA";
  return `${reply.code} ${truncated ? "truncated" : what}`;
}

function runQuery(input: Uint8Array): string {
  const decoded = decodeDnsQuery(input);
  if (decoded.kind === "dropped") return decoded.drop;
  if (decoded.kind === "failed") {
    must(decoded.reply.length <= 512 && readU16(decoded.reply, 0) === readU16(input, 0), "another reply");
    must((decoded.reply[2]! & 0x80) === 0x80, "no reply");
    return `code ${decoded.code}`;
  }
  const { query } = decoded;
  must(query.question.length <= 259, "a question that is too long");
  must(
    query.labels.every((label) => label.length > 0 && label.length <= 63),
    "a label that is none",
  );
  must(
    query.labels.every((label) => label === label.replace(/[A-Z]/g, "?")),
    "upper case",
  );
  must(same(input.subarray(12, 12 + query.question.length), query.question), "another question");
  return [answered(query, datagramRoom(query)), answered(query, 65_535)].join();
}

export const NAME_TARGETS: readonly FuzzTarget[] = [
  {
    name: "dns-query",
    share: 40,
    maxBytes: 4_096,
    seeds: SEEDS,
    make: randomQuery,
    run: runQuery,
    reaches: [
      "short",
      "reply",
      "code 1",
      "code 4",
      "code 16",
      "0 records,0 records",
      "0 SOA,0 SOA",
      "0 truncated,0 records",
      "3 SOA,3 SOA",
      "5 no record,5 no record",
    ],
  },
];
