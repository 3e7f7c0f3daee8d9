// Finds what a packet belongs to by its local and remote endpoint, without allocating. The hash is HalfSipHash-1-3
// (Aumasson and Bernstein) under a random key, so that a remote end that chooses its ports can't choose its bucket. In
// memory only, never on the wire.
import type { Endpoint } from "../base/address.ts";
import { type Random, randomU32 } from "../base/random.ts";

/**
 * Base of everything that a FlowTable holds: one local and one remote endpoint, words kept signed for fast comparison.
 */
export class FlowKey {
  readonly local: Endpoint;
  readonly remote: Endpoint;
  readonly local0: number;
  readonly local1: number;
  readonly local2: number;
  readonly local3: number;
  readonly remote0: number;
  readonly remote1: number;
  readonly remote2: number;
  readonly remote3: number;
  readonly ports: number;

  constructor(local: Endpoint, remote: Endpoint) {
    this.local = local;
    this.remote = remote;
    this.local0 = local.address.w0 | 0;
    this.local1 = local.address.w1 | 0;
    this.local2 = local.address.w2 | 0;
    this.local3 = local.address.w3 | 0;
    this.remote0 = remote.address.w0 | 0;
    this.remote1 = remote.address.w1 | 0;
    this.remote2 = remote.address.w2 | 0;
    this.remote3 = remote.address.w3 | 0;
    this.ports = (local.port << 16) | remote.port;
  }

  equals(other: FlowKey): boolean {
    return (
      this.ports === other.ports &&
      this.remote3 === other.remote3 &&
      this.local3 === other.local3 &&
      this.remote2 === other.remote2 &&
      this.local2 === other.local2 &&
      this.remote1 === other.remote1 &&
      this.local1 === other.local1 &&
      this.remote0 === other.remote0 &&
      this.local0 === other.local0
    );
  }
}

/** A bound socket has no remote end: it stands under this one. */
export const ANY_REMOTE: Endpoint = { address: { w0: 0, w1: 0, w2: 0, w3: 0 }, port: 0 };

interface Slot<T> {
  readonly key: FlowKey;
  readonly hash: number;
  readonly value: T;
  next: Slot<T> | undefined;
}

const BUCKETS_MIN = 64;

/** `capacity` bounds it: `add` beyond is refused. */
export class FlowTable<T> {
  readonly capacity: number;
  readonly #key0: number;
  readonly #key1: number;
  #buckets: (Slot<T> | undefined)[] = new Array<Slot<T> | undefined>(BUCKETS_MIN);
  #size = 0;
  #last: Slot<T> | undefined;

  constructor(capacity: number, random: Random) {
    this.capacity = capacity;
    this.#key0 = randomU32(random) | 0;
    this.#key1 = randomU32(random) | 0;
  }

  get size(): number {
    return this.#size;
  }

  /** Words may be signed or unsigned; ports is `local << 16 | remote`. */
  find(
    local0: number,
    local1: number,
    local2: number,
    local3: number,
    remote0: number,
    remote1: number,
    remote2: number,
    remote3: number,
    ports: number,
  ): T | undefined {
    const last = this.#last; // packets come in trains
    if (
      last !== undefined &&
      matches(last.key, local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports)
    ) {
      return last.value;
    }
    const hash = this.#hash(local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports);
    let slot = this.#buckets[hash & (this.#buckets.length - 1)];
    while (slot !== undefined) {
      if (
        slot.hash === hash &&
        matches(slot.key, local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports)
      ) {
        this.#last = slot;
        return slot.value;
      }
      slot = slot.next;
    }
    return undefined;
  }

  get(key: FlowKey): T | undefined {
    const { local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports } = key;
    return this.find(local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports);
  }

  /** False when the table is full or the key is taken: nothing was stored. */
  add(key: FlowKey, value: T): boolean {
    if (this.#size >= this.capacity || this.get(key) !== undefined) return false;
    if (this.#size >= this.#buckets.length) this.#grow();
    const hash = this.#hashOf(key);
    const index = hash & (this.#buckets.length - 1);
    this.#buckets[index] = { key, hash, value, next: this.#buckets[index] };
    this.#size++;
    return true;
  }

  /** Puts another value under a key that is there. */
  replace(key: FlowKey, value: T): void {
    this.delete(key);
    this.add(key, value);
  }

  delete(key: FlowKey): boolean {
    const index = this.#hashOf(key) & (this.#buckets.length - 1);
    let before: Slot<T> | undefined;
    for (let slot = this.#buckets[index]; slot !== undefined; slot = slot.next) {
      if (slot.key.equals(key)) {
        if (before === undefined) this.#buckets[index] = slot.next;
        else before.next = slot.next;
        if (this.#last === slot) this.#last = undefined;
        this.#size--;
        return true;
      }
      before = slot;
    }
    return false;
  }

  #grow(): void {
    const buckets = new Array<Slot<T> | undefined>(this.#buckets.length * 2);
    for (const first of this.#buckets) {
      let slot = first;
      while (slot !== undefined) {
        const next: Slot<T> | undefined = slot.next;
        const index = slot.hash & (buckets.length - 1);
        slot.next = buckets[index];
        buckets[index] = slot;
        slot = next;
      }
    }
    this.#buckets = buckets;
  }

  #hashOf(key: FlowKey): number {
    const { local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports } = key;
    return this.#hash(local0, local1, local2, local3, remote0, remote1, remote2, remote3, ports);
  }

  #hash(
    local0: number,
    local1: number,
    local2: number,
    local3: number,
    remote0: number,
    remote1: number,
    remote2: number,
    remote3: number,
    ports: number,
  ): number {
    let v0 = this.#key0;
    let v1 = this.#key1;
    let v2 = 0x6c796765 ^ v0;
    let v3 = 0x74656462 ^ v1;
    for (let i = 0; i < 13; i++) {
      let word = 0;
      switch (i) {
        case 0:
          word = ports;
          break;
        case 1:
          word = remote3;
          break;
        case 2:
          word = local3;
          break;
        case 3:
          word = remote2;
          break;
        case 4:
          word = local2;
          break;
        case 5:
          word = remote1;
          break;
        case 6:
          word = local1;
          break;
        case 7:
          word = remote0;
          break;
        case 8:
          word = local0;
          break;
        case 9:
          word = 36 << 24; // length in bytes
          break;
        case 10:
          v2 ^= 0xff; // finalization: three rounds without a word
          break;
      }
      v3 ^= word;
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    return (v1 ^ v3) >>> 0;
  }
}

function matches(
  key: FlowKey,
  local0: number,
  local1: number,
  local2: number,
  local3: number,
  remote0: number,
  remote1: number,
  remote2: number,
  remote3: number,
  ports: number,
): boolean {
  return (
    key.ports === (ports | 0) &&
    key.remote3 === (remote3 | 0) &&
    key.local3 === (local3 | 0) &&
    key.remote2 === (remote2 | 0) &&
    key.local2 === (local2 | 0) &&
    key.remote1 === (remote1 | 0) &&
    key.local1 === (local1 | 0) &&
    key.remote0 === (remote0 | 0) &&
    key.local0 === (local0 | 0)
  );
}
