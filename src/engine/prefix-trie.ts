// Longest-prefix match over 128-bit addresses: which peer a destination belongs to, or whether a source may be spoken
// for ([WG §2] cryptokey routing). A path-compressed binary trie; a test holds it equal to a plain list.
import type { Prefix } from "../base/address.ts";
import { makePrefix } from "../base/address.ts";

// Words are signed in here: those above 2^31 would else be numbers on the heap, one for each call.
interface Node<T> {
  readonly w0: number;
  readonly w1: number;
  readonly w2: number;
  readonly w3: number;
  readonly bits: number;
  value: T | undefined;
  zero: Node<T> | undefined;
  one: Node<T> | undefined;
}

function makeNode<T>({ address, bits }: Prefix, value: T | undefined): Node<T> {
  const { w0, w1, w2, w3 } = address;
  return { w0: w0 | 0, w1: w1 | 0, w2: w2 | 0, w3: w3 | 0, bits, value, zero: undefined, one: undefined };
}

function bitAt(w0: number, w1: number, w2: number, w3: number, index: number): number {
  const word = index < 64 ? (index < 32 ? w0 : w1) : index < 96 ? w2 : w3;
  return (word >>> (31 - (index & 31))) & 1;
}

function wordMatches(a: number, b: number, bits: number): boolean {
  if (bits <= 0) return true;
  return bits >= 32 ? a === b : (a ^ b) >>> (32 - bits) === 0;
}

function covers<T>(node: Node<T>, w0: number, w1: number, w2: number, w3: number): boolean {
  const { bits } = node;
  return (
    wordMatches(node.w0, w0, bits) &&
    wordMatches(node.w1, w1, bits - 32) &&
    wordMatches(node.w2, w2, bits - 64) &&
    wordMatches(node.w3, w3, bits - 96)
  );
}

/** How many leading bits both have in common, at most `limit`. */
function commonBits<T>(node: Node<T>, { address }: Prefix, limit: number): number {
  const difference = [node.w0 ^ address.w0, node.w1 ^ address.w1, node.w2 ^ address.w2, node.w3 ^ address.w3];
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
        return makeNode(prefix, value);
      }
      const common = commonBits(node, prefix, Math.min(node.bits, prefix.bits));
      if (common === node.bits) {
        if (common === prefix.bits) {
          if (node.value === undefined) this.#size++;
          node.value = value;
        } else if (bitOf(prefix, common) === 0) node.zero = add(node.zero);
        else node.one = add(node.one);
        return node;
      }
      // The node's prefix parts from the new one: a branch above both.
      const branch = makeNode<T>(makePrefix(prefix.address, common), undefined);
      if (bitAt(node.w0, node.w1, node.w2, node.w3, common) === 0) branch.zero = node;
      else branch.one = node;
      return add(branch);
    };
    this.#root = add(this.#root);
  }

  /**
   * Takes the address as words, IPv4 mapped, signed or not: signed ones (`word | 0`) cost a packet no garbage on their
   * way here.
   */
  find(word0: number, word1: number, word2: number, word3: number): T | undefined {
    const w0 = word0 | 0;
    const w1 = word1 | 0;
    const w2 = word2 | 0;
    const w3 = word3 | 0;
    const v4 = w0 === 0 && w1 === 0 && w2 === 0xffff;
    let best: T | undefined;
    let node = this.#root;
    while (node !== undefined && covers(node, w0, w1, w2, w3)) {
      // `::/0` is IPv6 only: a prefix shorter than 96 bits says nothing about IPv4.
      if (node.value !== undefined && (!v4 || node.bits >= 96)) best = node.value;
      if (node.bits === 128) break;
      node = bitAt(w0, w1, w2, w3, node.bits) === 0 ? node.zero : node.one;
    }
    return best;
  }
}

function bitOf({ address }: Prefix, index: number): number {
  return bitAt(address.w0, address.w1, address.w2, address.w3, index);
}
