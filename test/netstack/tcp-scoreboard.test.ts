// The scoreboard against a naive twin: plain objects in an array, and every answer counted anew.
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { type DeliveryWitness, Scoreboard } from "../../src/netstack/tcp/scoreboard.ts";
import { sequenceDifference } from "../../src/netstack/tcp/sequence.ts";

interface Segment {
  start: number;
  end: number;
  sentMs: number;
  isSacked: boolean;
  isLost: boolean;
  wasResent: boolean;
}

/** Sequence numbers from 0 on, without a wrap. */
class Twin {
  una = 0;
  segments: Segment[] = [];
  /** In the order of sending. */
  order: Segment[] = [];

  get end(): number {
    return this.segments.at(-1)?.end ?? this.una;
  }

  #sum(of: (segment: Segment) => boolean): number {
    return this.segments.reduce((sum, one) => sum + (of(one) ? one.end - one.start : 0), 0);
  }

  get figures(): Record<string, number | boolean> {
    const count = (of: (segment: Segment) => boolean): number => this.segments.filter(of).length;
    return {
      pipeBytes: this.#sum((one) => !one.isSacked && !one.isLost),
      sackedBytes: this.#sum((one) => one.isSacked),
      sackedSegments: count((one) => one.isSacked),
      lostSegments: count((one) => one.isLost),
      segments: this.segments.length,
      isReneged: this.segments[0]?.isSacked ?? false,
      nextLost: this.segments.findIndex((one) => one.isLost),
    };
  }

  add(nowMs: number, end: number): void {
    const one = { start: this.end, end, sentMs: nowMs, isSacked: false, isLost: false, wasResent: false };
    this.segments.push(one);
    this.order.push(one);
  }

  acknowledge(una: number, told: string[]): number {
    let newBytes = 0;
    for (const one of this.segments) {
      const until = Math.min(una, one.end);
      if (until > one.start && !one.isSacked) newBytes += until - one.start;
      if (one.end <= una && !one.isSacked) told.push(`${one.sentMs} ${one.end} ${one.wasResent}`);
      one.start = Math.max(one.start, until);
    }
    this.segments = this.segments.filter((one) => one.end > una);
    this.order = this.order.filter((one) => one.end > una);
    this.una = una;
    return newBytes;
  }

  sack(blocks: readonly (readonly [number, number])[], told: string[]): number {
    let newBytes = 0;
    const [una, last] = [this.una, this.end];
    for (const one of this.segments) {
      const isNamed = blocks.some(
        ([left, right]) => left >= una && right <= last && left <= one.start && one.end <= right,
      );
      if (!isNamed || one.isSacked) continue;
      newBytes += one.end - one.start;
      told.push(`${one.sentMs} ${one.end} ${one.wasResent}`);
      one.isSacked = true;
      one.isLost = false;
    }
    this.order = this.order.filter((one) => !one.isSacked);
    return newBytes;
  }

  lose(which: (segment: Segment) => boolean): void {
    for (const one of this.segments) if (!one.isSacked && !one.isLost && which(one)) one.isLost = true;
    this.order = this.order.filter((one) => !one.isLost);
  }

  judge(nowMs: number, sentMs: number, end: number, patienceMs: number): number {
    for (const one of [...this.order]) {
      if (one.sentMs > sentMs || (one.sentMs === sentMs && one.end >= end)) break;
      if (one.sentMs + patienceMs > nowMs) return one.sentMs + patienceMs;
      this.lose((other) => other === one);
    }
    return Number.POSITIVE_INFINITY;
  }

  resent(nowMs: number, index: number, bytes: number): void {
    const one = this.segments[index]!;
    if (bytes < one.end - one.start) {
      const rest = { ...one, start: one.start + bytes };
      one.end = rest.start;
      this.segments.splice(index + 1, 0, rest);
      if (!one.isLost) this.order[this.order.indexOf(one)] = rest;
    }
    this.order = this.order.filter((other) => other !== one);
    Object.assign(one, { isLost: false, wasResent: true, sentMs: nowMs });
    this.order.push(one);
  }

  recut(mssBytes: number): void {
    this.segments = this.segments.flatMap((one) => {
      const pieces: Segment[] = [];
      for (let at = one.start; at < one.end; at += mssBytes) {
        pieces.push({ ...one, start: at, end: Math.min(one.end, at + mssBytes) });
      }
      return pieces;
    });
    this.relink();
  }

  relink(): void {
    this.order = this.segments
      .filter((one) => !one.isSacked && !one.isLost)
      .sort((a, b) => a.sentMs - b.sentMs || a.end - b.end);
  }
}

class Both {
  readonly first: number;
  readonly real: Scoreboard;
  readonly twin = new Twin();
  readonly told: string[] = [];
  readonly toldTwin: string[] = [];
  readonly witness: DeliveryWitness = {
    delivered: (sentMs, end, wasResent) => {
      this.told.push(`${sentMs} ${sequenceDifference(end, this.first)} ${wasResent}`);
    },
  };

  constructor(first: number) {
    this.first = first;
    this.real = new Scoreboard(first);
  }

  /** On the real one's circle. */
  at(offset: number): number {
    return (this.first + offset) >>> 0;
  }

  sack(blocks: readonly (readonly [number, number])[]): void {
    const edges = new Uint32Array(8);
    for (const [i, [left, right]] of blocks.entries()) edges.set([this.at(left), this.at(right)], 2 * i);
    expect(this.real.sack(edges, blocks.length, this.witness)).toBe(this.twin.sack(blocks, this.toldTwin));
  }

  check(): void {
    const { real, twin } = this;
    const { pipeBytes, sackedBytes, sackedSegments, lostSegments, segments, isReneged } = real;
    const nextLost = real.nextLost();
    const figures = { pipeBytes, sackedBytes, sackedSegments, lostSegments, segments, isReneged, nextLost };
    expect(figures).toEqual(twin.figures);
    expect(this.told).toEqual(this.toldTwin);
    this.told.length = 0;
    this.toldTwin.length = 0;
    for (const index of [0, nextLost, segments - 1]) {
      if (index < 0 || segments === 0) continue;
      const { start, end } = twin.segments[index]!;
      expect([real.startOf(index), real.endOf(index)]).toEqual([this.at(start), this.at(end)]);
    }
  }
}

/** One random operation on both. */
function operate(both: Both, random: SeededRandom, clock: { nowMs: number }): string {
  const { real, twin } = both;
  const outstandingBytes = twin.end - twin.una;
  const somewhere = (): number => twin.una - 20 + random.below(outstandingBytes + 40);
  const edge = (): number => random.pick(twin.segments)?.[random.chance(0.5) ? "start" : "end"] ?? 0;
  clock.nowMs += random.below(4);
  const roll = twin.segments.length > 200 ? 3 + random.below(9) : random.below(14);
  if (roll <= 2 || twin.segments.length === 0) {
    const end = twin.end + 1 + random.below(100);
    real.add(clock.nowMs, both.at(end));
    twin.add(clock.nowMs, end);
    return "add";
  }
  if (roll === 3) {
    const una = random.chance(0.7) ? Math.max(edge(), twin.una) : twin.una + random.below(outstandingBytes + 1);
    expect(real.acknowledge(both.at(una), both.witness)).toBe(twin.acknowledge(una, both.toldTwin));
    return `acknowledge ${una}`;
  }
  if (roll <= 6) {
    const blocks = Array.from({ length: 1 + random.below(4) }, () => {
      const [left, right] = random.chance(0.8) ? [edge(), edge()] : [somewhere(), somewhere()];
      return (random.chance(0.9) && left > right ? [right, left] : [left, right]) as [number, number];
    });
    both.sack(blocks);
    return `sack ${JSON.stringify(blocks)}`;
  }
  if (roll === 7) {
    const [sentMs, end, patienceMs] = [clock.nowMs - random.below(20), edge(), random.below(30)];
    expect(real.judge(clock.nowMs, sentMs, both.at(end), patienceMs)).toBe(
      twin.judge(clock.nowMs, sentMs, end, patienceMs),
    );
    return "judge";
  }
  if (roll <= 9) {
    const index = random.chance(0.8) ? real.nextLost() : random.below(twin.segments.length);
    const one = twin.segments[index];
    if (one === undefined || one.isSacked) return "nothing to send again";
    clock.nowMs++;
    const length = one.end - one.start;
    const bytes = index === 0 && random.chance(0.5) ? 1 + random.below(length) : length;
    real.resent(clock.nowMs, index, bytes);
    twin.resent(clock.nowMs, index, bytes);
    clock.nowMs++;
    return `resent ${index} ${bytes}`;
  }
  if (roll === 10) {
    real.loseFirst();
    twin.lose((one) => one === twin.segments[0]);
    return "loseFirst";
  }
  if (roll === 11 || random.chance(0.5)) return "nothing";
  const rare = random.below(4);
  if (rare === 0) {
    real.loseAll();
    twin.lose(() => true);
  } else if (rare === 1) {
    real.forgetSacks();
    for (const one of twin.segments) if (one.isSacked) Object.assign(one, { isSacked: false, isLost: true });
  } else if (rare === 2) {
    const had = twin.segments.some((one) => one.isLost);
    real.forgetLosses();
    for (const one of twin.segments) one.isLost = false;
    if (had) twin.relink();
  } else {
    const mssBytes = 10 + random.below(60);
    real.recut(mssBytes);
    twin.recut(mssBytes);
  }
  return `rare ${rare}`;
}

describe("the scoreboard", () => {
  it("equals its naive twin under any operations, across the wrap: 25,000 of them", () => {
    let operations = 0;
    const seen = new Set<string>();
    for (let seed = 1; operations < 25_000; seed++) {
      const random = new SeededRandom(seed);
      const both = new Both(random.pick([0, 1_000, 0xffff_ff00, 0x7fff_ff00]));
      const clock = { nowMs: 1_000 };
      for (let n = 0; n < 500; n++, operations++) {
        try {
          seen.add(operate(both, random, clock).split(" ")[0]!);
          both.check();
        } catch (error) {
          throw new Error(`seed ${seed}, operation ${n}: ${error}`, { cause: error });
        }
      }
    }
    expect([...seen]).toEqual(
      expect.arrayContaining(["add", "acknowledge", "sack", "judge", "resent", "loseFirst", "rare"]),
    );
  });

  it("counts lower segments first, whatever the order of the blocks: nothing seems to have overtaken", () => {
    const board = new Scoreboard(0);
    for (let end = 10; end <= 100; end += 10) board.add(end, end);
    const ends: number[] = [];
    const edges = Uint32Array.of(80, 90, 20, 30, 50, 60, 0, 0);
    board.sack(edges, 3, { delivered: (_sentMs, end) => void ends.push(end) });
    expect(ends).toEqual([30, 60, 90]);
  });

  it("passes over blocks that are inverted, empty, huge or outside of what is outstanding", () => {
    const board = new Scoreboard(1_000);
    for (let end = 1_100; end <= 2_000; end += 100) board.add(0, end);
    const none = { delivered: () => expect.unreachable("nothing has arrived") };
    const bad = [
      [1_500, 1_200],
      [1_500, 1_500],
      [900, 1_300],
      [1_800, 2_100],
      [0, 0x7fff_ffff],
      [0xffff_fff0, 1_400],
      [1_200, 1_200 + 0x8000_0000],
      [3_000, 4_000],
    ] as const;
    for (const [left, right] of bad) expect(board.sack(Uint32Array.of(left, right), 1, none)).toBe(0);
    expect([board.pipeBytes, board.sackedBytes, board.segments]).toEqual([1_000, 0, 10]);
  });

  it("refuses to send again what has arrived", () => {
    const board = new Scoreboard(0);
    for (let end = 10; end <= 30; end += 10) board.add(0, end);
    board.sack(Uint32Array.of(10, 20), 1, { delivered: () => undefined });
    expect(() => board.resent(1, 1, 10)).toThrow("isn't sent again");
  });
});
