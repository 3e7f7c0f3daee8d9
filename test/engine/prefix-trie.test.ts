import { expect, test } from "vitest";
import {
  makeAddress,
  makePrefix,
  makeV4,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixContains,
} from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PrefixTrie } from "../../src/engine/prefix-trie.ts";

function find<T>(trie: PrefixTrie<T>, text: string): T | undefined {
  const a = parseAddress(text)!;
  return trie.find(a.w0, a.w1, a.w2, a.w3);
}

test("the longest prefix wins, whatever the order of insertion", () => {
  for (const order of [
    ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"],
    ["10.1.2.3/32", "10.1.0.0/16", "10.0.0.0/8"],
  ]) {
    const trie = new PrefixTrie<string>();
    for (const text of order) trie.set(parsePrefix(text)!, text);
    expect(find(trie, "10.1.2.3")).toBe("10.1.2.3/32");
    expect(find(trie, "10.1.9.9")).toBe("10.1.0.0/16");
    expect(find(trie, "10.200.0.1")).toBe("10.0.0.0/8");
    expect(find(trie, "11.0.0.1")).toBeUndefined();
    expect(trie.size).toBe(3);
  }
});

test("::/0 does not take IPv4 traffic and 0.0.0.0/0 does not take IPv6 traffic", () => {
  const trie = new PrefixTrie<string>();
  trie.set(parsePrefix("::/0")!, "six");
  expect(find(trie, "10.0.0.1")).toBeUndefined();
  expect(find(trie, "fd00::1")).toBe("six");
  trie.set(parsePrefix("0.0.0.0/0")!, "four");
  expect(find(trie, "10.0.0.1")).toBe("four");
  expect(find(trie, "fd00::1")).toBe("six");
});

test("agrees with a plain list on random prefixes and addresses", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const trie = new PrefixTrie<number>();
    const list = new Map<string, { prefix: Prefix; value: number }>();
    const word = (): number => (random.chance(0.7) ? random.below(3) : random.u32());
    for (let i = 0; i < 40; i++) {
      const prefix = random.chance(0.5)
        ? makePrefix(makeV4(0x0a000000 + word()), 96 + random.below(33))
        : makePrefix(makeAddress(word(), word(), word(), word()), random.below(129));
      trie.set(prefix, i);
      list.set(JSON.stringify(prefix), { prefix, value: i });
    }
    expect(trie.size).toBe(list.size);
    for (let i = 0; i < 200; i++) {
      const address = random.chance(0.5) ? makeV4(0x0a000000 + word()) : makeAddress(word(), word(), word(), word());
      let best: { prefix: Prefix; value: number } | undefined;
      for (const entry of list.values()) {
        if (prefixContains(entry.prefix, address) && (best === undefined || entry.prefix.bits > best.prefix.bits))
          best = entry;
      }
      expect(trie.find(address.w0, address.w1, address.w2, address.w3), `seed ${seed}`).toBe(best?.value);
    }
  }
});
