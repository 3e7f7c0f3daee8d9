// The Internet between the stations: loses (also in one direction alone), delays, reorders, duplicates, corrupts, cuts
// and replays datagrams, and stands NATs before some stations. Every choice comes from the seed.
import { type Endpoint, formatEndpoint } from "../base/address.ts";
import type { SeededRandom } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";

export interface NetworkFaults {
  /** Probabilities of one datagram's fate. */
  readonly loss: number;
  readonly duplicate: number;
  readonly corrupt: number;
  /** Of an earlier datagram of anybody's being sent once more, from where it came or from elsewhere. */
  readonly replay: number;
  /** One way; the second is drawn anew for each datagram, so that they overtake each other. */
  readonly delayMs: number;
  readonly jitterMs: number;
}

export const NO_FAULTS: NetworkFaults = { loss: 0, duplicate: 0, corrupt: 0, replay: 0, delayMs: 10, jitterMs: 2 };

export interface SimDatagram {
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly bytes: Uint8Array;
}

const REMEMBERED_MAX = 256;
const NAT_MAPPING_MS = 30 * SECOND_MS;

/** A NAT with port-restricted filtering (RFC 4787 §5): lets in only what comes from where something was sent to. */
export class Nat {
  readonly #sentMs = new Map<string, number>();

  sent(nowMs: number, to: Endpoint): void {
    this.#sentMs.set(formatEndpoint(to), nowMs);
  }

  lets(nowMs: number, from: Endpoint): boolean {
    const sentMs = this.#sentMs.get(formatEndpoint(from));
    return sentMs !== undefined && nowMs - sentMs < NAT_MAPPING_MS;
  }

  /** A new mapping knows nobody. */
  rebind(): void {
    this.#sentMs.clear();
  }
}

export interface NetworkCounts {
  sent: number;
  lost: number;
  duplicated: number;
  corrupted: number;
  replayed: number;
}

export class SimNetwork {
  faults: NetworkFaults = NO_FAULTS;
  readonly counts: NetworkCounts = { sent: 0, lost: 0, duplicated: 0, corrupted: 0, replayed: 0 };
  readonly #random: SeededRandom;
  readonly #deliver: (atMs: number, datagram: SimDatagram) => void;
  readonly #remembered: SimDatagram[] = [];
  readonly #cutUntilMs = new Map<string, number>();
  readonly #weak = new Map<string, { readonly loss: number; readonly untilMs: number }>();

  constructor(random: SeededRandom, deliver: (atMs: number, datagram: SimDatagram) => void) {
    this.#random = random;
    this.#deliver = deliver;
  }

  /** Nothing gets from one station to the other until then; the way back is another cut. */
  cut(from: number, to: number, untilMs: number): void {
    const key = `${from}>${to}`;
    this.#cutUntilMs.set(key, Math.max(untilMs, this.#cutUntilMs.get(key) ?? untilMs));
  }

  /** From one station to the other this much is lost until then; not on the way back. */
  weaken(from: number, to: number, loss: number, untilMs: number): void {
    this.#weak.set(`${from}>${to}`, { loss, untilMs });
  }

  mendAll(): void {
    this.#cutUntilMs.clear();
    this.#weak.clear();
  }

  isCut(nowMs: number, from: number, to: number): boolean {
    return nowMs < (this.#cutUntilMs.get(`${from}>${to}`) ?? Number.NEGATIVE_INFINITY);
  }

  /** Probability that a datagram from one station to the other is lost, before what is lost everywhere. */
  lossOf(nowMs: number, from: number, to: number): number {
    const weak = this.#weak.get(`${from}>${to}`);
    return weak !== undefined && nowMs < weak.untilMs ? weak.loss : 0;
  }

  /** `loss`: of its own way, besides that of the faults everywhere. */
  send(nowMs: number, datagram: SimDatagram, loss = 0): void {
    const { faults, counts } = this;
    const random = this.#random;
    counts.sent++;
    this.#remember(datagram);
    if (random.chance(faults.replay)) this.#replay(nowMs);
    if (random.chance(faults.loss) || (loss > 0 && random.chance(loss))) {
      counts.lost++;
      return;
    }
    const copies = random.chance(faults.duplicate) ? 1 + random.below(3) : 1;
    counts.duplicated += copies - 1;
    for (let copy = 0; copy < copies; copy++) {
      const isCorrupt = random.chance(faults.corrupt);
      if (isCorrupt) counts.corrupted++;
      const bytes = isCorrupt ? this.#corrupted(datagram.bytes) : datagram.bytes;
      const atMs = nowMs + faults.delayMs + random.fraction() * faults.jitterMs;
      this.#deliver(atMs, { ...datagram, bytes });
    }
  }

  #remember(datagram: SimDatagram): void {
    if (this.#remembered.length < REMEMBERED_MAX) this.#remembered.push(datagram);
    else this.#remembered[this.#random.below(REMEMBERED_MAX)] = datagram;
  }

  /** Somebody on the way recorded it; he can't open it, but he can send it again, also as if from his own endpoint. */
  #replay(nowMs: number): void {
    const old = this.#random.pick(this.#remembered);
    const from = this.#random.chance(0.5) ? old.from : this.#random.pick(this.#remembered).from;
    this.counts.replayed++;
    this.#deliver(nowMs + this.faults.delayMs, { ...old, from });
  }

  #corrupted(bytes: Uint8Array): Uint8Array {
    const random = this.#random;
    const changed = bytes.slice();
    switch (random.below(4)) {
      case 0:
        return changed.subarray(0, random.below(changed.length)); // cut short
      case 1: {
        const longer = new Uint8Array(changed.length + 1 + random.below(32));
        longer.set(changed);
        return longer;
      }
      default:
        for (let i = 1 + random.below(3); i > 0; i--) changed[random.below(changed.length)]! ^= 1 << random.below(8);
        return changed;
    }
  }
}
