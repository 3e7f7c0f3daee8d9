// Longest-prefix match over 128-bit addresses: which peer a destination belongs to, or whether a source may be spoken
// for ([WG §2] cryptokey routing). A path-compressed binary trie; a test holds it equal to a plain list.
import type { Prefix } from "../base/address.ts";
import { makePrefix } from "../base/address.ts";

interface Node<T> {
  readonly prefix: Prefix;
  value: T | undefined;
  zero: Node<T> | undefined;
  one: Node<T> | undefined;
}

function bitAt(w0: number, w1: number, w2: number, w3: number, index: number): number {
  const word = index < 64 ? (index < 32 ? w0 : w1) : index < 96 ? w2 : w3;
  return (word >>> (31 - (index & 31))) & 1;
}

function wordMatches(a: number, b: number, bits: number): boolean {
  if (bits <= 0) return true;
  return bits >= 32 ? a === b : (a ^ b) >>> (32 - bits) === 0;
}

function covers(prefix: Prefix, w0: number, w1: number, w2: number, w3: number): boolean {
  const { address, bits } = prefix;
  return (
    wordMatches(address.w0, w0, bits) &&
    wordMatches(address.w1, w1, bits - 32) &&
    wordMatches(address.w2, w2, bits - 64) &&
    wordMatches(address.w3, w3, bits - 96)
  );
}

/** How many leading bits both have in common, at most `limit`. */
function commonBits(a: Prefix, b: Prefix, limit: number): number {
  const difference = [
    a.address.w0 ^ b.address.w0,
    a.address.w1 ^ b.address.w1,
    a.address.w2 ^ b.address.w2,
    a.address.w3 ^ b.address.w3,
  ];
  for (let word = 0; word < 4; word++) {
    if (difference[word] !== 0) return Math.min(limit, word * 32 + Math.clz32(difference[word]!));
  }
  return limit;
}

export class PrefixTrie<T> {
  #root: Node<T> | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#root = undefined;
    this.#size = 0;
  }

  /** The last value set for a prefix wins. */
  set(prefix: Prefix, value: T): void {
    const add = (node: Node<T> | undefined): Node<T> => {
      if (node === undefined) {
        this.#size++;
        return { prefix, value, zero: undefined, one: undefined };
      }
      const common = commonBits(node.prefix, prefix, Math.min(node.prefix.bits, prefix.bits));
      if (common === node.prefix.bits) {
        if (common === prefix.bits) {
          if (node.value === undefined) this.#size++;
          node.value = value;
        } else if (this.#bit(prefix, common) === 0) node.zero = add(node.zero);
        else node.one = add(node.one);
        return node;
      }
      // The node's prefix parts from the new one: a branch above both.
      const branch: Node<T> = {
        prefix: makePrefix(prefix.address, common),
        value: undefined,
        zero: undefined,
        one: undefined,
      };
      if (this.#bit(node.prefix, common) === 0) branch.zero = node;
      else branch.one = node;
      return add(branch) as Node<T>;
    };
    this.#root = add(this.#root);
  }

  /** Takes the address as words, IPv4 mapped, so that nothing is allocated for a packet. */
  find(w0: number, w1: number, w2: number, w3: number): T | undefined {
    const v4 = w0 === 0 && w1 === 0 && w2 === 0xffff;
    let best: T | undefined;
    let node = this.#root;
    while (node !== undefined && covers(node.prefix, w0, w1, w2, w3)) {
      // `::/0` is IPv6 only: a prefix shorter than 96 bits says nothing about IPv4.
      if (node.value !== undefined && (!v4 || node.prefix.bits >= 96)) best = node.value;
      if (node.prefix.bits === 128) break;
      node = bitAt(w0, w1, w2, w3, node.prefix.bits) === 0 ? node.zero : node.one;
    }
    return best;
  }

  #bit(prefix: Prefix, index: number): number {
    const { w0, w1, w2, w3 } = prefix.address;
    return bitAt(w0, w1, w2, w3, index);
  }
}
