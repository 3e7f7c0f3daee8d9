// How the congestion window grows and shrinks, by the RFCs' own numbers.
import { describe, expect, it } from "vitest";
import { Congestion, type CongestionName } from "../../src/netstack/tcp/congestion.ts";
import { Cubic } from "../../src/netstack/tcp/cubic.ts";
import { HyStart } from "../../src/netstack/tcp/hystart.ts";
import { Rack } from "../../src/netstack/tcp/rack.ts";
import { Scoreboard } from "../../src/netstack/tcp/scoreboard.ts";

const MSS = 1_000;
const MAX = 1 << 24;

/** Acknowledgments of two segments each, for one whole window. */
function round(congestion: Congestion, nowMs: number, rttMs: number, isLimit = true): void {
  for (let bytes = congestion.windowBytes; bytes >= 2 * MSS; bytes -= 2 * MSS) {
    congestion.acknowledged(nowMs, 2 * MSS, isLimit, 0, 1 << 30, rttMs, rttMs);
  }
}

describe.each<CongestionName>(["cubic", "newreno"])("the congestion window with %s", (name) => {
  const make = (mssBytes = MSS, maxBytes = MAX): Congestion => new Congestion(mssBytes, maxBytes, name);

  it("begins with ten segments, of at most 14,600 bytes together (RFC 6928)", () => {
    expect(make(1_000).windowBytes).toBe(10_000);
    expect(make(1_460).windowBytes).toBe(14_600);
    expect(make(9_000).windowBytes).toBe(18_000);
  });

  it("doubles each round trip in slow start, but only while it is what limits the sender", () => {
    const congestion = make();
    round(congestion, 0, 10);
    expect(congestion.windowBytes).toBe(20_000);
    round(congestion, 10, 10, false);
    expect(congestion.windowBytes).toBe(20_000);
  });

  it("takes one acknowledgment for eight segments at most (RFC 9406 §4.2)", () => {
    const congestion = make();
    congestion.acknowledged(0, 100 * MSS, true, 0, 1, -1, 10);
    expect(congestion.windowBytes).toBe(18_000);
  });

  it("never outgrows what can be sent", () => {
    const congestion = make(MSS, 50_000);
    for (let i = 0; i < 50; i++) round(congestion, i * 10, 10);
    expect(congestion.windowBytes).toBe(50_000);
  });

  it("is what is in flight and a segment after a timeout; a second one of the same loss reduces nothing more", () => {
    const congestion = make();
    congestion.timedOut(10_000, 0, true);
    expect(congestion.windowBytes).toBe(MSS);
    const { thresholdBytes } = congestion;
    expect(thresholdBytes).toBeCloseTo(name === "cubic" ? 7_000 : 5_000);
    congestion.timedOut(1_000, 0, false);
    expect(congestion.thresholdBytes).toBe(thresholdBytes);
  });

  it("is one segment when the SYN had to be sent again, and no more than the initial one after idling", () => {
    const congestion = make();
    congestion.afterSynLoss();
    expect(congestion.windowBytes).toBe(MSS);
    for (let i = 0; i < 40; i++) congestion.acknowledged(i, MSS, true, 0, 1, -1, 10);
    expect(congestion.windowBytes).toBe(41 * MSS);
    congestion.afterIdle(10_000);
    expect(congestion.windowBytes).toBe(10_000);
  });

  it("is as it was when a loss turns out to have been none (RFC 4015)", () => {
    const congestion = make();
    const twin = make();
    for (const one of [congestion, twin]) {
      round(one, 0, 100);
      one.recoveryBegins(20_000, 3_000);
      one.recoveryEnds();
      for (let i = 1; i < 20; i++) round(one, i * 100, 100);
    }
    const { windowBytes, thresholdBytes } = congestion;
    congestion.recoveryBegins(windowBytes, 3_000);
    congestion.timedOut(windowBytes, 0, true);
    congestion.undo();
    expect(congestion).toMatchObject({ windowBytes, thresholdBytes });
    for (let i = 20; i < 40; i++) for (const one of [congestion, twin]) round(one, i * 100, 100);
    expect(congestion.windowBytes).toBeCloseTo(twin.windowBytes, 0);
  });
});

describe("NewReno", () => {
  it("grows by a segment each round trip in congestion avoidance (RFC 5681 §3.1), and halves", () => {
    const congestion = new Congestion(MSS, MAX, "newreno");
    congestion.recoveryBegins(20_000, 0);
    congestion.recoveryEnds();
    expect(congestion.windowBytes).toBe(5_000);
    const before = congestion.windowBytes;
    for (let i = 0; i < 5; i++) congestion.acknowledged(0, MSS, true, 0, 1, -1, 10);
    expect(congestion.windowBytes - before).toBeGreaterThan(0.9 * MSS);
    expect(congestion.windowBytes - before).toBeLessThanOrEqual(MSS);
  });
});

describe("CUBIC (RFC 9438)", () => {
  /** The window at `atMs` after a loss at `most` segments; acknowledgments come one by one. */
  function windowAt(most: number, rttMs: number, atMs: number): number {
    const cubic = new Cubic();
    let window = cubic.reduced(most * MSS, MSS);
    for (let nowMs = 0; nowMs < atMs; nowMs += rttMs) {
      for (let acked = Math.floor(window / MSS); acked > 0; acked--) {
        window += cubic.growth(nowMs, window, MSS, rttMs, MSS);
      }
    }
    return window / MSS;
  }

  it("keeps 0.7 of the window at a loss (§4.6)", () => {
    expect(new Cubic().reduced(100 * MSS, MSS)).toBeCloseTo(70 * MSS);
  });

  it("is back at the old window after K = cbrt((W_max − cwnd)/C) s, and near it before and behind (§4.2)", () => {
    const most = 10_000; // large enough that the curve is above NewReno's estimate
    const backAfterMs = Math.cbrt((most * 0.3) / 0.4) * 1_000; // 19.6 s
    expect(backAfterMs).toBeCloseTo(19_574, 0);
    expect(windowAt(most, 100, backAfterMs) / most).toBeCloseTo(1, 2);
    const curve = (seconds: number): number => 0.4 * (seconds - backAfterMs / 1_000) ** 3 + most;
    for (const seconds of [2, 5, 10, 30, 40]) {
      expect(windowAt(most, 100, seconds * 1_000) / curve(seconds)).toBeCloseTo(1, 1);
    }
  });

  it("is never slower than NewReno with β = 0.7 would be: α = 3·(1 − β)/(1 + β) a round trip (§4.3)", () => {
    const most = 20;
    const rounds = 5;
    const alpha = (3 * 0.3) / 1.7;
    expect(windowAt(most, 10, rounds * 10)).toBeCloseTo(14 + rounds * alpha, 0);
    // From cwnd_prior on by a whole segment.
    const late = windowAt(most, 10, 400) - windowAt(most, 10, 300);
    expect(late).toBeGreaterThan(9);
    expect(late).toBeLessThan(11);
  });

  it("leaves room to others where it didn't come back to its last maximum (§4.7)", () => {
    const cubic = new Cubic();
    cubic.reduced(100 * MSS, MSS);
    const windowBytes = cubic.reduced(80 * MSS, MSS);
    expect(windowBytes).toBeCloseTo(56 * MSS);
    // W_max is 80 · (1 + 0.7)/2 = 68: K = cbrt((68 − 56)/0.4) s.
    let window = windowBytes;
    const backAfterMs = Math.cbrt(12 / 0.4) * 1_000;
    for (let nowMs = 0; nowMs < backAfterMs; nowMs += 400) {
      for (let acked = Math.floor(window / MSS); acked > 0; acked--) {
        window += cubic.growth(nowMs, window, MSS, 400, MSS);
      }
    }
    expect(window / MSS).toBeGreaterThan(66);
    expect(window / MSS).toBeLessThan(70);
  });

  it("grows by no more than half in a round trip (§4.2), and not for time in which nothing was to be sent", () => {
    const cubic = new Cubic();
    const window = cubic.reduced(100 * MSS, MSS);
    cubic.growth(0, window, MSS, 100, MSS);
    const slept = cubic.growth(3_600_000, window, MSS, 100, MSS);
    expect(slept).toBeCloseTo(0.5 * MSS, 0);
    const rested = new Cubic();
    rested.reduced(100 * MSS, MSS);
    rested.growth(0, window, MSS, 100, MSS);
    rested.idled(3_600_000);
    expect(rested.growth(3_600_000, window, MSS, 100, MSS)).toBeLessThan(0.1 * MSS);
  });
});

describe("proportional rate reduction (RFC 9937)", () => {
  /** A loss with `flight` segments in flight: what each of the next acknowledgments, of a segment each, lets go. */
  function sends(flight: number, lost: number, name: CongestionName): number[] {
    const congestion = new Congestion(MSS, MAX, name);
    congestion.acknowledged(0, 0, true, 0, 1, -1, 10);
    while (congestion.windowBytes < flight * MSS) congestion.acknowledged(0, MSS, true, 0, 1 << 20, -1, 10);
    let pipe = flight - lost;
    congestion.recoveryBegins(flight * MSS, 0);
    const sent: number[] = [];
    for (let i = 0; i < flight - lost; i++) {
      pipe--;
      congestion.recovers(MSS, pipe * MSS, false);
      let now = 0;
      while (congestion.windowBytes - pipe * MSS >= MSS) {
        congestion.sent(MSS);
        pipe++;
        now++;
      }
      sent.push(now);
    }
    return sent;
  }

  it("spreads the reduction over a round trip: half of the acknowledgments let a segment go when it halves", () => {
    const sent = sends(20, 1, "newreno");
    expect(sent[0]).toBe(1); // the fast retransmit
    expect(sent.reduce((sum, one) => sum + one)).toBe(10);
    expect(Math.max(...sent)).toBe(1);
  });

  it("comes down to 0.7 with CUBIC", () => {
    expect(sends(20, 1, "cubic").reduce((sum, one) => sum + one)).toBe(14);
  });

  it("sends for what arrives and no more where most was lost (conservative), faster where UNA moves on", () => {
    expect(sends(20, 15, "newreno")).toEqual([1, 1, 1, 1, 1]);
    const congestion = new Congestion(MSS, MAX, "newreno");
    congestion.recoveryBegins(20_000, 0);
    congestion.recovers(MSS, 1_000, true);
    expect(congestion.windowBytes).toBe(1_000 + 2 * MSS);
  });

  it("ends at the threshold", () => {
    const congestion = new Congestion(MSS, MAX, "newreno");
    congestion.recoveryBegins(10_000, 0);
    congestion.recovers(3 * MSS, 5_000, true);
    congestion.recoveryEnds();
    expect(congestion.windowBytes).toBe(5_000);
  });
});

describe("HyStart++ (RFC 9406 §4.2)", () => {
  /** Rounds of so many samples each, with these round trips. */
  function rounds(start: HyStart, rttsMs: readonly number[], samples = 8, from = 0): number {
    let una = from;
    for (const rttMs of rttsMs) {
      for (let i = 0; i < samples; i++) {
        una++;
        start.acknowledged(una, una + samples, rttMs);
      }
    }
    return una;
  }

  it("goes on as long as the round trip doesn't grow", () => {
    const start = new HyStart();
    rounds(start, [100, 100, 101, 102, 103, 104, 105]);
    expect([start.divisor, start.isOver]).toEqual([1, false]);
  });

  it.each([
    [100, 12.5], // an eighth
    [16, 4], // at least 4 ms
    [400, 16], // at most 16 ms
  ])("becomes careful when a round trip of %i ms has grown by %d ms, a quarter as fast", (rttMs, growthMs) => {
    const calm = new HyStart();
    rounds(calm, [rttMs, rttMs, rttMs + growthMs - 0.1]);
    expect(calm.divisor).toBe(1);
    const start = new HyStart();
    rounds(start, [rttMs, rttMs, rttMs + growthMs]);
    expect(start.divisor).toBe(4);
  });

  it("needs eight samples of a round to say so", () => {
    const start = new HyStart();
    const una = rounds(start, [100, 100]);
    for (let i = 1; i <= 7; i++) start.acknowledged(una + i, una + 100, 150);
    expect(start.divisor).toBe(1);
    start.acknowledged(una + 8, una + 100, 150);
    expect(start.divisor).toBe(4);
  });

  it("is over after five careful rounds, and goes back to slow start when the round trip shrinks again", () => {
    const start = new HyStart();
    const una = rounds(start, [100, 100, 120]);
    const more = rounds(start, [120, 120, 120, 120], 8, una);
    expect(start.isOver).toBe(false);
    rounds(start, [120, 120], 8, more);
    expect(start.isOver).toBe(true);
    const other = new HyStart();
    rounds(other, [100, 100, 120, 101]);
    expect([other.divisor, other.isOver]).toEqual([1, false]);
  });

  it("ends the first slow start at the window that it has found", () => {
    const congestion = new Congestion(MSS, MAX);
    let una = 0;
    for (const rttMs of [100, 100, 130, 130, 130, 130, 130, 130, 130]) {
      const end = una + congestion.windowBytes;
      for (; una < end; una += MSS) congestion.acknowledged(0, MSS, true, una + MSS, end + MSS, rttMs, rttMs);
    }
    expect(congestion.thresholdBytes).toBeLessThan(Number.POSITIVE_INFINITY);
    expect(congestion.windowBytes / congestion.thresholdBytes).toBeCloseTo(1, 1);
  });
});

describe("RACK (RFC 8985 §6.2)", () => {
  /** Ten segments of 100 bytes, one a millisecond from 0 on; the round trip is 40 ms. */
  function flight(): { rack: Rack; board: Scoreboard; sack: (nowMs: number, ...numbers: number[]) => void } {
    const rack = new Rack(0);
    const board = new Scoreboard(0);
    for (let i = 0; i < 10; i++) board.add(i, (i + 1) * 100);
    const sack = (nowMs: number, ...numbers: number[]): void => {
      rack.begin(nowMs, -1);
      for (const number of numbers) board.sack(Uint32Array.of(number * 100, number * 100 + 100), 1, rack);
      rack.judge(nowMs, board, false, 40);
    };
    return { rack, board, sack };
  }

  it("waits a quarter of the least round trip for one that was overtaken", () => {
    const { rack, board, sack } = flight();
    sack(41, 1);
    expect([board.lostSegments, rack.judgeAtMs]).toEqual([0, 0 + 40 + 10]);
    rack.judge(49, board, false, 40);
    expect(board.lostSegments).toBe(0);
    rack.judge(50, board, false, 40);
    expect([board.lostSegments, rack.judgeAtMs]).toEqual([1, Number.POSITIVE_INFINITY]);
  });

  it("doesn't wait once three behind it have arrived, or within a recovery, while nothing has overtaken", () => {
    const { board, sack } = flight();
    sack(41, 1);
    sack(42, 2);
    expect(board.lostSegments).toBe(0);
    sack(43, 3);
    expect([board.lostSegments, board.nextLost()]).toEqual([1, 0]);
  });

  it("waits also then where segments have overtaken each other", () => {
    const { board, sack } = flight();
    sack(43, 3);
    sack(44, 2);
    sack(44, 1);
    expect(board.lostSegments).toBe(0);
  });

  it("waits longer for each round trip with a duplicate, up to SRTT, and forgets that after 16 recoveries", () => {
    const { rack, board, sack } = flight();
    rack.duplicateArrived(0, 1_000);
    rack.duplicateArrived(0, 1_000); // the same round trip
    sack(41, 1);
    expect(rack.judgeAtMs).toBe(40 + 20);
    rack.duplicateArrived(1_000, 2_000);
    rack.judge(41, board, false, 40);
    expect(rack.judgeAtMs).toBe(40 + 30);
    for (let n = 0; n < 5; n++) rack.duplicateArrived(2_000 + n, 2_001 + n);
    rack.judge(41, board, false, 40);
    expect(rack.judgeAtMs).toBe(40 + 40);
    for (let n = 0; n < 16; n++) rack.recovered();
    rack.judge(41, board, false, 40);
    expect(rack.judgeAtMs).toBe(40 + 10);
  });

  it("takes no round trip from an acknowledgment of the first copy of what was sent twice", () => {
    for (const elapsedMs of [-1, 65]) {
      const { rack, board } = flight();
      rack.begin(40, -1);
      board.acknowledge(100, rack); // 40 ms
      board.loseFirst();
      board.resent(41, 0, 100);
      const nowMs = elapsedMs < 0 ? 60 : 90;
      rack.begin(nowMs, elapsedMs);
      board.acknowledge(200, rack);
      rack.judge(nowMs, board, false, 40);
      expect([rack.rttSampleMs, board.lostSegments]).toEqual([-1, 0]);
    }
  });
});
