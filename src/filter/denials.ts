// What was denied lately, for `denials`, the peer link and the audit: one record for each opening, not for each packet,
// and bounded in number and in rate so that a scan can't fill the memory or the log.
import type { Address } from "../base/address.ts";
import { toBase32 } from "../base/base32.ts";
import { DENIAL_REPEAT_MS, DENIALS_MAX, DENIALS_PER_SECOND_MAX } from "../base/limits.ts";
import { type Random, randomBytes, randomU32 } from "../base/random.ts";
import { Ring } from "../base/ring.ts";
import { SECOND_MS } from "../base/units.ts";
import type { PacketInfo } from "../wire/packet.ts";
import type { DenialRecord } from "./contract.ts";

const RECENT_PLACES = 1_024; // a power of two
const ID_CHARACTERS = 10;

/** A flow that a shell asks about or denies by itself: a name, a dial, a caller without a packet. */
export interface AskedFlow {
  readonly hop: "source" | "destination";
  readonly session: string;
  readonly source?: Address;
  readonly sourcePort?: number;
  readonly destination?: Address;
  readonly destinationPort: number;
  readonly protocol: number;
  readonly name?: string;
}

/** How much one session may have recorded: a bucket that refills by the second. */
export class DenialAllowance {
  #left = DENIALS_PER_SECOND_MAX;
  #filledMs = Number.NEGATIVE_INFINITY;

  take(nowMs: number): boolean {
    if (nowMs - this.#filledMs >= SECOND_MS) {
      this.#left = DENIALS_PER_SECOND_MAX;
      this.#filledMs = nowMs;
    }
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }
}

export class DenialLog {
  readonly #random: Random;
  readonly #seed: number; // fingerprints begin with it, so that nobody can make two of their flows look like one
  readonly #ring = new Ring<DenialRecord>(DENIALS_MAX);
  readonly #recentKey = new Int32Array(RECENT_PLACES);
  readonly #recent = new Array<DenialRecord | undefined>(RECENT_PLACES).fill(undefined);
  /** Denials that were counted but not recorded: repeats, and those above a session's rate. */
  unrecorded = 0;

  constructor(random: Random) {
    this.#random = random;
    this.#seed = randomU32(random);
  }

  fingerprintOf(slot: number, direction: number, info: PacketInfo): number {
    let fingerprint = mix(mix(mix(this.#seed, slot), direction), info.protocol);
    fingerprint = mix(mix(fingerprint, info.sourcePort), info.destinationPort);
    fingerprint = mix(mix(fingerprint, info.source0), info.source1);
    fingerprint = mix(mix(fingerprint, info.source2), info.source3);
    fingerprint = mix(mix(fingerprint, info.destination0), info.destination1);
    return mix(mix(fingerprint, info.destination2), info.destination3);
  }

  fingerprintOfAsked(slot: number, flow: AskedFlow): number {
    let fingerprint = this.#seed;
    for (const character of flow.name ?? "") fingerprint = mix(fingerprint, character.codePointAt(0)!);
    for (const word of [slot, flow.protocol, flow.sourcePort ?? 0, flow.destinationPort]) {
      fingerprint = mix(fingerprint, word);
    }
    for (const address of [flow.source, flow.destination]) {
      for (const word of addressWords(address)) fingerprint = mix(fingerprint, word);
    }
    return fingerprint;
  }

  /** The record of the same denial within the last DENIAL_REPEAT_MS. */
  earlier(nowMs: number, fingerprint: number): DenialRecord | undefined {
    const place = fingerprint & (RECENT_PLACES - 1);
    const record = this.#recent[place];
    if (record === undefined || this.#recentKey[place] !== fingerprint) return undefined;
    if (nowMs - record.atMs >= DENIAL_REPEAT_MS) return undefined;
    this.unrecorded++;
    return record;
  }

  /** A record that is not kept (yet). */
  make(record: Omit<DenialRecord, "id">): DenialRecord {
    return { id: `d_${toBase32(randomBytes(this.#random, 7)).slice(0, ID_CHARACTERS)}`, ...record };
  }

  /** At DENIALS_MAX the oldest goes. */
  keep(fingerprint: number, record: DenialRecord): void {
    const place = fingerprint & (RECENT_PLACES - 1);
    this.#recentKey[place] = fingerprint;
    this.#recent[place] = record;
    if (this.#ring.size === this.#ring.capacity) this.#ring.shift();
    this.#ring.push(record);
  }

  /** Oldest first. */
  list(): DenialRecord[] {
    return this.#ring.toArray();
  }
}

/** One step of a fingerprint (Fibonacci hashing); it begins with a secret seed. */
function mix(hash: number, word: number): number {
  const product = Math.imul(hash ^ word, 0x9e3779b1);
  return product ^ (product >>> 15);
}

function addressWords(address: Address | undefined): readonly number[] {
  return address === undefined ? [] : [address.w0, address.w1, address.w2, address.w3];
}
