import { expect, test } from "vitest";
import { parseEndpoint } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import {
  encodeProbe,
  encodeProbeAnswer,
  isProbe,
  openProbe,
  openProbeAnswer,
  PROBE_BYTES,
  probeId,
} from "../../src/control/probe.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";

const crypto = new PortableCrypto();
const key = { id: new Uint8Array(8).fill(5), key: new Uint8Array(32).fill(6) };
const seen = parseEndpoint("203.0.113.9:40001")!;

test("a probe's first byte is no WireGuard message type", () => {
  const probe = encodeProbe(crypto, key, 1);
  expect(probe[0]).toBe(0x77);
  expect([1, 2, 3, 4]).not.toContain(probe[0]);
  expect(isProbe(probe)).toBe(true);
});

test.each(["203.0.113.9:40001", "[2001:db8::9]:65535"])("the answer says %s and is as long as the probe", (text) => {
  const probe = encodeProbe(crypto, key, 2 ** 40);
  expect(probeId(probe)).toEqual(key.id);
  expect(openProbe(crypto, key.key, probe)).toBe(2 ** 40);
  const answer = encodeProbeAnswer(crypto, key, 2 ** 40, parseEndpoint(text)!);
  expect(answer.length).toBeLessThanOrEqual(probe.length);
  expect(openProbeAnswer(crypto, key, 2 ** 40, answer)).toEqual(parseEndpoint(text));
});

test("every changed byte of a probe or an answer is refused, and neither passes for the other", () => {
  const probe = encodeProbe(crypto, key, 7);
  const answer = encodeProbeAnswer(crypto, key, 7, seen);
  for (let at = 0; at < PROBE_BYTES; at++) {
    const [changedProbe, changedAnswer] = [probe.slice(), answer.slice()];
    changedProbe[at]! ^= 1;
    changedAnswer[at]! ^= 1;
    expect(typeof openProbe(crypto, key.key, changedProbe)).toBe("string");
    expect(typeof openProbeAnswer(crypto, key, 7, changedAnswer)).toBe("string");
  }
  expect(openProbe(crypto, key.key, answer)).toBe("probe-not-a-probe");
  expect(probeId(answer)).toBeUndefined();
  expect(openProbeAnswer(crypto, key, 7, probe)).toBe("probe-not-a-probe");
  answer[1] = 1; // an answer dressed up as a probe: its MAC is of another context
  expect(openProbe(crypto, key.key, answer)).toBe("probe-bad-mac");
});

test("another length, first byte or key length is refused by name", () => {
  const [probe, answer] = [encodeProbe(crypto, key, 7), encodeProbeAnswer(crypto, key, 7, seen)];
  for (const bytes of [probe.subarray(1), new Uint8Array([...probe, 0]), new Uint8Array(0)]) {
    expect(isProbe(bytes)).toBe(false);
    expect(openProbe(crypto, key.key, bytes)).toBe("probe-bad-length");
  }
  for (const bytes of [probe, answer]) bytes[0] = 1;
  expect(isProbe(probe)).toBe(false);
  expect(openProbe(crypto, key.key, probe)).toBe("probe-not-a-probe");
  expect(openProbeAnswer(crypto, key, 7, answer)).toBe("probe-not-a-probe");
  expect(openProbe(crypto, new Uint8Array(31), encodeProbe(crypto, key, 7))).toBe("probe-not-a-probe");
});

test("an answer to another probe, or under another key's id, is refused by name", () => {
  const answer = encodeProbeAnswer(crypto, key, 7, seen);
  expect(openProbeAnswer(crypto, key, 8, answer)).toBe("probe-other-sequence");
  expect(openProbeAnswer(crypto, { ...key, id: new Uint8Array(8) }, 7, answer)).toBe("probe-unknown-key");
  expect(openProbeAnswer(crypto, key, 7, answer.subarray(1))).toBe("probe-bad-length");
});

test("random datagrams of any length are named drops", () => {
  const random = new SeededRandom(11);
  for (let round = 0; round < 300; round++) {
    const datagram = new Uint8Array(random.chance(0.5) ? PROBE_BYTES : random.below(200));
    random.fill(datagram);
    if (random.chance(0.5)) datagram[0] = 0x77;
    if (random.chance(0.5)) datagram[1] = 1 + random.below(2);
    expect(typeof openProbe(crypto, key.key, datagram)).toBe("string");
    expect(typeof openProbeAnswer(crypto, key, 1, datagram)).toBe("string");
  }
});
