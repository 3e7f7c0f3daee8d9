// What was sent and not yet acknowledged, segment by segment: the scoreboard of RFC 6675 §3 with the times that RACK
// (RFC 8985 §5.2) asks for. A ring in the order of sequence numbers, and through it a list in the order of sending,
// of those segments that may still be judged lost. Each operation takes time by what it changes, not by how much is
// outstanding: acknowledging and marking visit a segment once, finding a sequence number is a binary search. What is
// rare (cutting smaller, an undone loss) takes time by how much is outstanding.
import { assert } from "../../base/assert.ts";
import { sequenceAfter, sequenceBefore, sequenceDifference } from "./sequence.ts";

const CAPACITY_MIN = 16;
/** Kept while nothing is outstanding: some 5 KiB, until the connection rests. */
const CAPACITY_KEPT_MAX = 256;
/** The other end has it. */
const SACKED = 1;
/** Judged lost, not sent again since. */
const LOST = 2;
/** Sent more than once. */
const RESENT = 4;
const NONE = -1;
/** Times are differences of differences: equal ones may differ by a rounding. */
const SAME_MS = 0.01;
/** Without anything outstanding, and shared: most connections are idle. */
const NO_WORDS = new Uint32Array(0);
const NO_BYTES = new Uint8Array(0);
const NO_TIMES = new Float64Array(0);
const NO_PLACES = new Int32Array(0);

/** Told of each segment that the other end turns out to have, once. */
export interface DeliveryWitness {
  delivered(sentMs: number, end: number, wasResent: boolean): void;
}

export class Scoreboard {
  /** SND.UNA, where the first segment begins. */
  #una: number;
  #capacity = 0;
  /** The ring's place of the first segment, and how many there are. */
  #first = 0;
  #count = 0;
  #ends = NO_WORDS;
  #flags = NO_BYTES;
  #sentMs = NO_TIMES;
  /** The list by time of sending: places in the ring. */
  #earlier = NO_PLACES;
  #later = NO_PLACES;
  #earliest = NONE;
  #latest = NONE;
  #pipeBytes = 0;
  #sackedBytes = 0;
  #sackedSegments = 0;
  #lostSegments = 0;
  /** No segment before this one, counted from the first, is lost. */
  #lostFrom = 0;
  /** Blocks marked by the last acknowledgment: what they say again costs nothing. None once segments are cut. */
  #markedEdges: readonly number[] = [];

  constructor(initialSequence: number) {
    this.#una = initialSequence;
  }

  /** Sequence numbers in flight: neither arrived, nor lost without having been sent again (RFC 6675 §4). */
  get pipeBytes(): number {
    return this.#pipeBytes;
  }

  get sackedBytes(): number {
    return this.#sackedBytes;
  }

  get sackedSegments(): number {
    return this.#sackedSegments;
  }

  get segments(): number {
    return this.#count;
  }

  /** Judged lost and not sent again since. */
  get lostSegments(): number {
    return this.#lostSegments;
  }

  /** The other end took back what it had named (RFC 2018 §8): it never names what it acknowledges. */
  get isReneged(): boolean {
    return this.#count > 0 && (this.#flags[this.#first]! & SACKED) !== 0;
  }

  /** New data (or SYN or FIN) up to `end` was sent. */
  add(nowMs: number, end: number): void {
    if (this.#count === this.#capacity) this.#resize(Math.max(CAPACITY_MIN, 2 * this.#capacity));
    const start = this.#end;
    assert(sequenceAfter(end, start), "a segment has a length");
    const place = this.#placeOf(this.#count++);
    this.#ends[place] = end;
    this.#flags[place] = 0;
    this.#sentMs[place] = nowMs;
    this.#pipeBytes += sequenceDifference(end, start);
    this.#append(place);
  }

  /** Everything before `una` has arrived. Returns the bytes of it that no selective acknowledgment had named. */
  acknowledge(una: number, witness: DeliveryWitness): number {
    let newBytes = 0;
    while (this.#count > 0) {
      const place = this.#first;
      const end = this.#ends[place]!;
      const isWhole = !sequenceAfter(end, una);
      const bytes = sequenceDifference(isWhole ? end : una, this.#una);
      if (bytes === 0) break;
      const flags = this.#flags[place]!;
      if ((flags & SACKED) !== 0) this.#sackedBytes -= bytes;
      else {
        newBytes += bytes;
        if ((flags & LOST) === 0) this.#pipeBytes -= bytes;
      }
      this.#una = isWhole ? end : una;
      if (!isWhole) {
        this.#markedEdges = [];
        break;
      }
      this.#removeFirst(place, flags, witness);
    }
    this.#una = una;
    if (this.#count === 0 && this.#capacity > CAPACITY_KEPT_MAX) this.#resize(0);
    return newBytes;
  }

  #removeFirst(place: number, flags: number, witness: DeliveryWitness): void {
    if ((flags & SACKED) !== 0) this.#sackedSegments--;
    else witness.delivered(this.#sentMs[place]!, this.#ends[place]!, (flags & RESENT) !== 0);
    if ((flags & LOST) !== 0) this.#lostSegments--;
    if ((flags & (SACKED | LOST)) === 0) this.#unlink(place);
    this.#first = (place + 1) & (this.#capacity - 1);
    this.#count--;
    if (this.#lostFrom > 0) this.#lostFrom--;
  }

  /**
   * The blocks of one acknowledgment (RFC 2018), as pairs of edges; those outside of what is outstanding are passed
   * over. A segment counts once a block has the whole of it; lower ones count first, whatever the blocks' order.
   * Returns the bytes newly named.
   */
  sack(edges: Uint32Array, blocks: number, witness: DeliveryWitness): number {
    if (blocks === 0) {
      if (this.#markedEdges.length > 0) this.#markedEdges = [];
      return 0;
    }
    const sorted: number[] = [];
    for (let i = 0; i < blocks; i++) {
      const left = edges[2 * i]!;
      const right = edges[2 * i + 1]!;
      if (!this.#isOutstanding(left, right)) continue;
      let at = sorted.length;
      while (at > 0 && sequenceAfter(sorted[at - 2]!, left)) at -= 2;
      sorted.splice(at, 0, left, right);
    }
    let newBytes = 0;
    for (let i = 0; i < sorted.length; i += 2) newBytes += this.#markUnmarked(sorted[i]!, sorted[i + 1]!, witness);
    this.#markedEdges = sorted;
    return newBytes;
  }

  #isOutstanding(left: number, right: number): boolean {
    return sequenceAfter(right, left) && !sequenceBefore(left, this.#una) && !sequenceAfter(right, this.#end);
  }

  /** Passes over the part that the acknowledgment before this one named already. */
  #markUnmarked(left: number, right: number, witness: DeliveryWitness): number {
    const marked = this.#markedEdges;
    for (let i = 0; i < marked.length; i += 2) {
      const [from, to] = [marked[i]!, marked[i + 1]!];
      if (!sequenceAfter(to, from) || sequenceAfter(from, right) || sequenceBefore(to, left)) continue;
      let newBytes = 0;
      if (sequenceBefore(left, from)) newBytes += this.#mark(left, right, from, witness);
      if (sequenceAfter(right, to)) newBytes += this.#mark(to, right, right, witness, left);
      return newBytes;
    }
    return this.#mark(left, right, right, witness);
  }

  /**
   * Marks the segments that lie within [`left`, `right`) and begin before `until`; the first one looked at is the one
   * that holds `from`.
   */
  #mark(from: number, right: number, until: number, witness: DeliveryWitness, left = from): number {
    let newBytes = 0;
    for (let index = this.#indexOf(from); index < this.#count; index++) {
      const start = this.#startOf(index);
      if (!sequenceBefore(start, until)) break;
      const place = this.#placeOf(index);
      const end = this.#ends[place]!;
      if (sequenceAfter(end, right)) break;
      const flags = this.#flags[place]!;
      if (sequenceBefore(start, left) || (flags & SACKED) !== 0) continue;
      const bytes = sequenceDifference(end, start);
      newBytes += bytes;
      this.#sackedBytes += bytes;
      this.#sackedSegments++;
      if ((flags & LOST) !== 0) this.#lostSegments--;
      else {
        this.#pipeBytes -= bytes;
        this.#unlink(place);
      }
      this.#flags[place] = (flags & ~LOST) | SACKED;
      witness.delivered(this.#sentMs[place]!, end, (flags & RESENT) !== 0);
    }
    return newBytes;
  }

  /**
   * Judges by time (RFC 8985 §6.2, step 5): what was sent before the segment (`sentMs`, `end`), which has arrived, and
   * more than `patienceMs` ago, is lost. Returns when the next one would be, Infinity when none waits for it.
   */
  judge(nowMs: number, sentMs: number, end: number, patienceMs: number): number {
    for (let place = this.#earliest; place !== NONE; ) {
      const later = this.#later[place]!;
      const thisMs = this.#sentMs[place]!;
      if (thisMs > sentMs || (thisMs === sentMs && !sequenceBefore(this.#ends[place]!, end))) break;
      if (thisMs + patienceMs - nowMs > SAME_MS) return thisMs + patienceMs;
      this.#lose(place);
      place = later;
    }
    return Number.POSITIVE_INFINITY;
  }

  /** The first segment, unless the other end says that it has it. Without SACK, and at a timeout. */
  loseFirst(): void {
    if (this.#count > 0 && (this.#flags[this.#first]! & (SACKED | LOST)) === 0) this.#lose(this.#first);
  }

  /** All that no selective acknowledgment has named. */
  loseAll(): void {
    for (let place = this.#earliest; place !== NONE; ) {
      const later = this.#later[place]!;
      this.#lose(place);
      place = later;
    }
  }

  /** Of what the other end has named nothing is believed any more. */
  forgetSacks(): void {
    this.#markedEdges = [];
    if (this.#sackedSegments === 0) return;
    for (let index = 0; index < this.#count; index++) {
      const place = this.#placeOf(index);
      if ((this.#flags[place]! & SACKED) === 0) continue;
      this.#flags[place] = (this.#flags[place]! & ~SACKED) | LOST;
      this.#lostSegments++;
    }
    this.#lostFrom = 0;
    this.#sackedBytes = 0;
    this.#sackedSegments = 0;
  }

  /** What seemed lost was late: all of it is on its way. */
  forgetLosses(): void {
    if (this.#lostSegments === 0) return;
    for (let index = 0; index < this.#count; index++) {
      const place = this.#placeOf(index);
      if ((this.#flags[place]! & LOST) === 0) continue;
      this.#flags[place] = this.#flags[place]! & ~LOST;
      this.#pipeBytes += sequenceDifference(this.#ends[place]!, this.#startOf(index));
    }
    this.#lostSegments = 0;
    this.#relink();
  }

  #lose(place: number): void {
    this.#flags[place] = this.#flags[place]! | LOST;
    this.#lostSegments++;
    this.#unlink(place);
    const index = (place - this.#first) & (this.#capacity - 1);
    if (index < this.#lostFrom) this.#lostFrom = index;
    this.#pipeBytes -= sequenceDifference(this.#ends[place]!, this.#startOf(index));
  }

  /** The lost segment with the lowest sequence number: how far from the first, −1 when there is none. */
  nextLost(): number {
    if (this.#lostSegments === 0) return NONE;
    while ((this.#flags[this.#placeOf(this.#lostFrom)]! & LOST) === 0) this.#lostFrom++;
    return this.#lostFrom;
  }

  startOf(index: number): number {
    return this.#startOf(index);
  }

  endOf(index: number): number {
    return this.#ends[this.#placeOf(index)]!;
  }

  /** The segment was sent again: all of it, or of the first one the first `bytes`. */
  resent(nowMs: number, index: number, bytes: number): void {
    if (bytes < sequenceDifference(this.endOf(index), this.#startOf(index))) {
      assert(index === 0 && bytes > 0, "a part of the first segment");
      this.#cutFirst(bytes);
    }
    const place = this.#placeOf(index);
    const flags = this.#flags[place]!;
    assert((flags & SACKED) === 0, "what has arrived isn't sent again");
    if ((flags & LOST) !== 0) {
      this.#lostSegments--;
      this.#pipeBytes += bytes;
    } else this.#unlink(place);
    this.#flags[place] = (flags & ~LOST) | RESENT;
    this.#sentMs[place] = nowMs;
    this.#append(place);
  }

  /** A long silence: nothing is kept for what may come. */
  releaseIdle(): void {
    if (this.#count === 0 && this.#capacity > 0) this.#resize(0);
  }

  /** In two, of which each keeps what is known of the whole. */
  #cutFirst(bytes: number): void {
    if (this.#count === this.#capacity) this.#resize(2 * this.#capacity);
    const rest = this.#first;
    const place = (rest - 1) & (this.#capacity - 1);
    const flags = this.#flags[rest]!;
    this.#first = place;
    this.#count++;
    this.#markedEdges = [];
    this.#ends[place] = (this.#una + bytes) >>> 0;
    this.#flags[place] = flags;
    this.#sentMs[place] = this.#sentMs[rest]!;
    if ((flags & LOST) !== 0) this.#lostSegments++;
    else this.#linkBefore(place, rest);
  }

  /** Segments are smaller from now on: cuts those that are longer. Takes time by how many there are. */
  recut(mssBytes: number): void {
    const ends: number[] = [];
    const from: number[] = [];
    for (let index = 0; index < this.#count; index++) {
      const end = this.endOf(index);
      for (let start = this.#startOf(index); start !== end; from.push(index)) {
        start = (start + Math.min(mssBytes, sequenceDifference(end, start))) >>> 0;
        ends.push(start);
      }
    }
    if (ends.length === this.#count) return;
    let capacity = this.#capacity;
    while (capacity < ends.length) capacity *= 2;
    this.#resize(capacity);
    const [flags, sentMs] = [this.#flags.slice(), this.#sentMs.slice()];
    this.#count = ends.length;
    this.#markedEdges = [];
    this.#lostFrom = 0;
    this.#lostSegments = 0;
    this.#sackedSegments = 0;
    for (const [to, index] of from.entries()) {
      this.#ends[to] = ends[to]!;
      this.#flags[to] = flags[index]!;
      this.#sentMs[to] = sentMs[index]!;
      if ((flags[index]! & LOST) !== 0) this.#lostSegments++;
      if ((flags[index]! & SACKED) !== 0) this.#sackedSegments++;
    }
    this.#relink();
  }

  /** The list anew, from the times. */
  #relink(): void {
    const places: number[] = [];
    for (let index = 0; index < this.#count; index++) {
      const place = this.#placeOf(index);
      if ((this.#flags[place]! & (SACKED | LOST)) === 0) places.push(place);
    }
    places.sort((a, b) => this.#sentMs[a]! - this.#sentMs[b]! || sequenceDifference(this.#ends[a]!, this.#ends[b]!));
    this.#earliest = NONE;
    this.#latest = NONE;
    for (const place of places) this.#append(place);
  }

  get #end(): number {
    return this.#count === 0 ? this.#una : this.#ends[this.#placeOf(this.#count - 1)]!;
  }

  #placeOf(index: number): number {
    return (this.#first + index) & (this.#capacity - 1);
  }

  #startOf(index: number): number {
    return index === 0 ? this.#una : this.#ends[this.#placeOf(index - 1)]!;
  }

  /** Of the segment that holds this sequence number. */
  #indexOf(sequence: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sequenceAfter(this.#ends[this.#placeOf(middle)]!, sequence)) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #append(place: number): void {
    this.#earlier[place] = this.#latest;
    this.#later[place] = NONE;
    if (this.#latest === NONE) this.#earliest = place;
    else this.#later[this.#latest] = place;
    this.#latest = place;
  }

  #linkBefore(place: number, next: number): void {
    const earlier = this.#earlier[next]!;
    this.#earlier[place] = earlier;
    this.#later[place] = next;
    this.#earlier[next] = place;
    if (earlier === NONE) this.#earliest = place;
    else this.#later[earlier] = place;
  }

  #unlink(place: number): void {
    const earlier = this.#earlier[place]!;
    const later = this.#later[place]!;
    if (earlier === NONE) this.#earliest = later;
    else this.#later[earlier] = later;
    if (later === NONE) this.#latest = earlier;
    else this.#earlier[later] = earlier;
  }

  /** `capacity`: a power of two, or 0 when nothing is outstanding. */
  #resize(capacity: number): void {
    const places = Array.from({ length: this.#count }, (_, index) => this.#placeOf(index));
    const [ends, flags, sentMs] = [this.#ends, this.#flags, this.#sentMs];
    this.#ends = capacity === 0 ? NO_WORDS : new Uint32Array(capacity);
    this.#flags = capacity === 0 ? NO_BYTES : new Uint8Array(capacity);
    this.#sentMs = capacity === 0 ? NO_TIMES : new Float64Array(capacity);
    this.#earlier = capacity === 0 ? NO_PLACES : new Int32Array(capacity);
    this.#later = capacity === 0 ? NO_PLACES : new Int32Array(capacity);
    this.#capacity = capacity;
    this.#first = 0;
    for (const [to, from] of places.entries()) {
      this.#ends[to] = ends[from]!;
      this.#flags[to] = flags[from]!;
      this.#sentMs[to] = sentMs[from]!;
    }
    this.#relink();
  }
}
