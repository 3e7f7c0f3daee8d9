import { expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import {
  encodeNameDialAnswer,
  encodeNameDialRequest,
  NameDialAnswerReader,
  NameDialRequestReader,
} from "../../src/peer/name-dial.ts";

function feed<R extends { readonly want: number; add(bytes: Uint8Array): void }>(reader: R, bytes: Uint8Array): number {
  let at = 0;
  while (reader.want > 0 && at < bytes.length) {
    const taken = bytes.subarray(at, at + reader.want);
    reader.add(taken);
    at += taken.length;
  }
  return at;
}

test("requests and answers come back as they were sent, and the stream behind them is left alone", () => {
  const request = encodeNameDialRequest({ name: "db.staging.internal", port: 5432 });
  const reader = new NameDialRequestReader();
  expect(feed(reader, Uint8Array.of(...request, 1, 2, 3))).toBe(request.length);
  expect(reader.result()).toEqual({ name: "db.staging.internal", port: 5432 });
  for (const status of ["connected", "denied", "refused", "unreachable", "unresolved", "timeout"] as const) {
    const denialId = status === "denied" ? "d_0123456789" : undefined;
    const answer = encodeNameDialAnswer({ status, denialId });
    const answers = new NameDialAnswerReader();
    expect(feed(answers, Uint8Array.of(...answer, 9, 9))).toBe(answer.length);
    expect(answers.result()).toEqual({ status, denialId });
  }
});

test("a request of another version, without a port, or with what is no canonical name is refused", () => {
  const good = encodeNameDialRequest({ name: "db.lan", port: 80 });
  const changed = (at: number, value: number) => {
    const bytes = good.slice();
    bytes[at] = value;
    return bytes;
  };
  for (const bytes of [
    changed(0, 2),
    Uint8Array.of(1, 0, 0, 6, ...good.subarray(4)),
    changed(4, 0x44),
    changed(5, 0),
    changed(5, 0x20),
    changed(5, 0xe4),
    encodeNameDialRequest({ name: "127.0.0.1", port: 80 }),
    encodeNameDialRequest({ name: "", port: 80 }),
  ]) {
    const reader = new NameDialRequestReader();
    feed(reader, bytes);
    expect(reader.want).toBe(0);
    expect(reader.result()).toBeUndefined();
  }
});

test("an answer with an unknown status, version or free text for an id is refused", () => {
  for (const bytes of [
    Uint8Array.of(2, 0, 0),
    Uint8Array.of(1, 99, 0),
    Uint8Array.of(1, 1, 3, 0x1b, 0x5b, 0x41),
    Uint8Array.of(1, 1, 40, ...new Uint8Array(40).fill(0x61)),
  ]) {
    const reader = new NameDialAnswerReader();
    feed(reader, bytes);
    expect(reader.want).toBe(0);
    expect(reader.result()).toBeUndefined();
  }
});

test("any bytes at all: a reader never wants more than its own message and never throws", () => {
  const random = new SeededRandom(5);
  for (let i = 0; i < 3_000; i++) {
    const bytes = new Uint8Array(random.below(300));
    random.fill(bytes);
    for (const reader of [new NameDialRequestReader(), new NameDialAnswerReader()]) {
      feed(reader, bytes);
      expect(reader.want).toBeLessThanOrEqual(255);
      if (reader.want === 0) reader.result();
    }
  }
});
