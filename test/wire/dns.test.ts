import { expect, test } from "vitest";
import { formatAddress } from "../../src/base/address.ts";
import { concatBytes, readU16, writeU16 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import {
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  type DnsAnswer,
  type DnsQuestion,
  decodeDnsAnswer,
  encodeDnsQuestion,
} from "../../src/wire/dns.ts";

const QUESTION: DnsQuestion = { id: 0x1234, name: "db.staging.internal", type: DNS_TYPE_A };

function name(text: string): Uint8Array {
  const labels = text === "" ? [] : text.split(".");
  return concatBytes(...labels.map((label) => Uint8Array.of(label.length, ...Buffer.from(label))), Uint8Array.of(0));
}

function record(owner: Uint8Array, type: number, data: Uint8Array, recordClass = 1): Uint8Array {
  const head = new Uint8Array(10);
  writeU16(head, 0, type);
  writeU16(head, 2, recordClass);
  head[7] = 60;
  writeU16(head, 8, data.length);
  return concatBytes(owner, head, data);
}

function message(records: readonly Uint8Array[], change: { question?: DnsQuestion; flags?: number } = {}): Uint8Array {
  const question = encodeDnsQuestion(change.question ?? QUESTION);
  question[11] = 0;
  writeU16(question, 2, change.flags ?? 0x8180);
  writeU16(question, 6, records.length);
  return concatBytes(question.subarray(0, question.length - 11), ...records);
}

const POINTER = Uint8Array.of(0xc0, 12);

function shown(answer: DnsAnswer): unknown {
  return answer.kind === "addresses" ? answer.addresses.map(formatAddress) : answer;
}

test("the question is the one of RFC 1035 §4, with EDNS0's size behind it", () => {
  const bytes = encodeDnsQuestion({ id: 0xbeef, name: "a.bc", type: DNS_TYPE_AAAA });
  expect(Buffer.from(bytes).toString("hex")).toBe(
    "beef010000010000000000010161026263" + "00" + "001c0001" + "00002904d0000000000000",
  );
});

test("addresses at the name itself, or at the end of its own aliases, are the answer", () => {
  const direct = message([
    record(POINTER, 1, Uint8Array.of(10, 20, 0, 5)),
    record(POINTER, 1, Uint8Array.of(10, 20, 0, 6)),
  ]);
  expect(shown(decodeDnsAnswer(direct, QUESTION))).toEqual(["10.20.0.5", "10.20.0.6"]);
  const alias = message([
    record(name("Db.Staging.INTERNAL"), 5, name("one.example")),
    record(name("two.example"), 1, Uint8Array.of(10, 0, 0, 2)),
    record(name("one.example"), 5, name("two.example")),
  ]);
  expect(shown(decodeDnsAnswer(alias, QUESTION))).toEqual(["10.0.0.2"]);
  const v6: DnsQuestion = { ...QUESTION, type: DNS_TYPE_AAAA };
  const bytes = new Uint8Array(16).fill(0xfd);
  expect(shown(decodeDnsAnswer(message([record(POINTER, 28, bytes)], { question: v6 }), v6))).toHaveLength(1);
});

test("addresses of other names, classes and types don't count", () => {
  const strange = message([
    record(name("evil.example"), 1, Uint8Array.of(6, 6, 6, 6)),
    record(POINTER, 1, Uint8Array.of(6, 6, 6, 6), 3),
    record(POINTER, 16, Uint8Array.of(3, 97, 98, 99)),
    record(POINTER, 28, new Uint8Array(16)),
  ]);
  expect(decodeDnsAnswer(strange, QUESTION)).toEqual({ kind: "none" });
});

test("aliases in a circle, or too many of them, end in none", () => {
  const circle = message([record(POINTER, 5, name("b.example")), record(name("b.example"), 5, POINTER)]);
  expect(decodeDnsAnswer(circle, QUESTION)).toEqual({ kind: "none" });
  const chain = Array.from({ length: 40 }, (_, i) =>
    record(i === 0 ? POINTER : name(`n${i}.x`), 5, name(`n${i + 1}.x`)),
  );
  chain.push(record(name("n40.x"), 1, Uint8Array.of(1, 2, 3, 4)));
  expect(decodeDnsAnswer(message(chain), QUESTION)).toEqual({ kind: "none" });
});

test.each([
  ["short", message([]).subarray(0, 11)],
  ["not-a-response", message([], { flags: 0x0180 })],
  ["not-a-response", message([], { flags: 0xa980 })],
  ["other-id", message([], { question: { ...QUESTION, id: 0x1235 } })],
  ["other-question", message([], { question: { ...QUESTION, name: "db.staging.internam" } })],
  ["other-question", message([], { question: { ...QUESTION, type: DNS_TYPE_AAAA } })],
  ["malformed", message([record(POINTER, 1, Uint8Array.of(1, 2, 3))])],
  ["malformed", message([record(Uint8Array.of(0xc0, 37), 1, Uint8Array.of(1, 2, 3, 4))])],
  ["malformed", message([record(Uint8Array.of(0xc0, 200), 1, Uint8Array.of(1, 2, 3, 4))])],
  ["malformed", message([record(POINTER, 5, Uint8Array.of(1, 97, 0, 0))])],
  ["malformed", message([record(Uint8Array.of(0x80, 1), 1, Uint8Array.of(1, 2, 3, 4))])],
  ["malformed", message([record(name(`${"a.".repeat(130)}a`), 1, Uint8Array.of(1, 2, 3, 4))])],
  ["malformed", message([record(Uint8Array.of(3, 97, 46, 98, 0), 1, Uint8Array.of(1, 2, 3, 4))])],
] as const)("%s is dropped by its name (%#)", (drop, bytes) => {
  expect(decodeDnsAnswer(bytes, QUESTION)).toEqual({ kind: "dropped", drop });
});

test("a message cut anywhere inside its records is malformed; one with more records than it may have, too", () => {
  const whole = message([
    record(POINTER, 5, name("one.example")),
    record(name("one.example"), 1, Uint8Array.of(1, 2, 3, 4)),
  ]);
  for (let length = 12; length < whole.length; length++) {
    expect(decodeDnsAnswer(whole.subarray(0, length), QUESTION).kind, String(length)).toBe("dropped");
  }
  const many = message(Array.from({ length: 129 }, () => record(POINTER, 16, new Uint8Array(0))));
  expect(decodeDnsAnswer(many, QUESTION)).toEqual({ kind: "dropped", drop: "malformed" });
});

test("no such name, a server's failure and a truncated answer are told apart", () => {
  expect(decodeDnsAnswer(message([], { flags: 0x8183 }), QUESTION)).toEqual({ kind: "none" });
  expect(decodeDnsAnswer(message([]), QUESTION)).toEqual({ kind: "none" });
  expect(decodeDnsAnswer(message([], { flags: 0x8182 }), QUESTION)).toEqual({ kind: "failed", code: 2 });
  expect(decodeDnsAnswer(message([], { flags: 0x8185 }), QUESTION)).toEqual({ kind: "failed", code: 5 });
  expect(decodeDnsAnswer(message([], { flags: 0x8380 }), QUESTION)).toEqual({ kind: "truncated" });
});

test("any bytes at all, and any change of a good answer, are a value and never a throw", () => {
  const random = new SeededRandom(8);
  const good = message([
    record(POINTER, 5, name("one.example")),
    record(name("one.example"), 1, Uint8Array.of(1, 2, 3, 4)),
  ]);
  for (let i = 0; i < 5_000; i++) {
    const bytes = random.chance(0.3) ? new Uint8Array(random.below(200)) : good.slice(0, random.below(good.length + 1));
    if (random.chance(0.3)) random.fill(bytes);
    for (let n = random.below(4); n > 0 && bytes.length > 12; n--)
      bytes[random.below(bytes.length)] = random.below(256);
    const answer = decodeDnsAnswer(bytes, QUESTION);
    if (answer.kind !== "dropped") expect(readU16(bytes, 0)).toBe(QUESTION.id);
  }
});
