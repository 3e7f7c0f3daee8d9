import { expect, test } from "vitest";
import { parseAddress } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { TokenBucket } from "../../src/base/token-bucket.ts";
import { IndexTable } from "../../src/wireguard/index-table.ts";
import { RateLimiter, type SourceKey, sourceKey } from "../../src/wireguard/rate-limiter.ts";

const at = (text: string): SourceKey => sourceKey(parseAddress(text)!);
const NOW = 1_000_000;

test("a source gets a burst of 5, then 20 a second", () => {
  const limiter = new RateLimiter(100, 20, 5);
  const allowed = (nowMs: number): number => {
    let count = 0;
    for (let i = 0; i < 50; i++) if (limiter.allows(nowMs, at("192.0.2.1"))) count++;
    return count;
  };
  expect(allowed(NOW)).toBe(5);
  expect(allowed(NOW + 49)).toBe(0);
  expect(allowed(NOW + 50)).toBe(1);
  expect(allowed(NOW + 3_600_000)).toBe(5);
});

test("IPv4 sources are single addresses, IPv6 sources are their /64", () => {
  const limiter = new RateLimiter(100, 20, 5);
  for (let i = 0; i < 5; i++) expect(limiter.allows(NOW, at("192.0.2.1"))).toBe(true);
  expect(limiter.allows(NOW, at("192.0.2.1"))).toBe(false);
  expect(limiter.allows(NOW, at("192.0.2.2"))).toBe(true);
  for (let i = 0; i < 5; i++) expect(limiter.allows(NOW, at(`2001:db8:0:1::${i}`))).toBe(true);
  expect(limiter.allows(NOW, at("2001:db8:0:1:ffff::"))).toBe(false);
  expect(limiter.allows(NOW, at("2001:db8:0:2::"))).toBe(true);
});

test("the table holds no more than its limit: who was let through longest ago is forgotten at limit + 1", () => {
  const limiter = new RateLimiter(3, 20, 5);
  for (const host of [1, 2, 3]) for (let i = 0; i < 5; i++) limiter.allows(NOW + host, at(`192.0.2.${host}`));
  expect(limiter.allows(NOW + 51, at("192.0.2.1"))).toBe(true); // now the youngest
  expect(limiter.allows(NOW + 51, at("192.0.2.1"))).toBe(false);
  expect(limiter.allows(NOW + 51, at("192.0.2.4"))).toBe(true);
  expect(limiter.size).toBe(3);
  expect(limiter.evicted).toBe(1);
  expect(limiter.has(at("192.0.2.2"))).toBe(false);
  expect(limiter.allows(NOW + 51, at("192.0.2.1"))).toBe(false);
});

test("a source that is refused again and again is not forgotten for it, and takes nobody's place", () => {
  const limiter = new RateLimiter(2, 20, 5);
  for (let i = 0; i < 100; i++) limiter.allows(NOW, at("192.0.2.1"));
  for (let i = 0; i < 100; i++) limiter.allows(NOW, at("192.0.2.2"));
  expect([limiter.size, limiter.evicted]).toEqual([2, 0]);
  expect(limiter.allows(NOW, at("192.0.2.1"))).toBe(false);
});

test("a bucket leaves spare tokens to others when it is asked to", () => {
  const bucket = new TokenBucket(NOW, 10, 4);
  expect([bucket.take(NOW, 2), bucket.take(NOW, 2), bucket.take(NOW, 2)]).toEqual([true, true, false]);
  expect([bucket.take(NOW), bucket.take(NOW), bucket.take(NOW)]).toEqual([true, true, false]);
  expect([bucket.take(NOW + 100), bucket.take(NOW + 100)]).toEqual([true, false]);
});

test("indexes are unlike each other, found until freed, and bound to one session", () => {
  const table = new IndexTable<string>(new SeededRandom(3));
  const indexes = Array.from({ length: 1_000 }, (_, i) => table.allocate(`peer ${i}`));
  expect(new Set(indexes).size).toBe(1_000);
  expect(table.size).toBe(1_000);
  expect(table.find(indexes[7]!)).toEqual({ tunnel: "peer 7", session: undefined });
  table.free(indexes[7]!);
  expect(table.find(indexes[7]!)).toBeUndefined();
  expect(indexes.some((index) => index < 0) && indexes.some((index) => index > 0)).toBe(true);
  expect(indexes.every((index) => Number.isInteger(index) && index === (index | 0))).toBe(true);
});

test("an index that chance gives twice is given out once", () => {
  let calls = 0;
  const table = new IndexTable<string>({
    fill(bytes) {
      bytes.fill(calls++ < 3 ? 9 : 10); // the first three draws are alike
    },
  });
  expect(table.allocate("a")).not.toBe(table.allocate("b"));
  expect(calls).toBe(4);
});
