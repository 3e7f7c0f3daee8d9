import { describe, expect, it } from "vitest";
import { Congestion } from "../../src/netstack/tcp/congestion.ts";
import { RttEstimator } from "../../src/netstack/tcp/rtt.ts";
import { sequenceAfter, sequenceBefore, sequenceDifference } from "../../src/netstack/tcp/sequence.ts";
import { windowShiftFor } from "../../src/netstack/tcp/window.ts";

const MSS = 1_000;
const MAX = 1 << 20;

describe("the retransmission timeout (RFC 6298)", () => {
  it("begins at 1 s, then follows SRTT and RTTVAR with a floor of 200 ms above SRTT", () => {
    const rtt = new RttEstimator();
    expect(rtt.timeoutMs).toBe(1_000);
    rtt.sample(500);
    expect(rtt.timeoutMs).toBe(500 + 4 * 250); // §2.2: R + 4 · R/2
    rtt.sample(400);
    const variance = 0.75 * 250 + 0.25 * 100; // §2.3: the variance first, by the old SRTT
    const smoothed = 0.875 * 500 + 0.125 * 400;
    expect(rtt.timeoutMs).toBeCloseTo(smoothed + 4 * variance);
    for (let i = 0; i < 100; i++) rtt.sample(10);
    expect(rtt.timeoutMs).toBeCloseTo(210, 0);
  });

  it("doubles up to 60 s, and forgets that on progress", () => {
    const rtt = new RttEstimator();
    for (let i = 0; i < 20; i++) rtt.backOff();
    expect(rtt.timeoutMs).toBe(60_000);
    rtt.progress();
    expect(rtt.timeoutMs).toBe(1_000);
  });

  it("is 3 s after a lost SYN (§5.7)", () => {
    const rtt = new RttEstimator();
    rtt.backOff();
    rtt.afterSynLoss();
    expect(rtt.timeoutMs).toBe(3_000);
  });
});

describe("the congestion window (RFC 5681, 6582, 6928)", () => {
  it("begins with ten segments, of at most 14,600 bytes together", () => {
    expect(new Congestion(1_000, 0, MAX).windowBytes).toBe(10_000);
    expect(new Congestion(1_460, 0, MAX).windowBytes).toBe(14_600);
    expect(new Congestion(9_000, 0, MAX).windowBytes).toBe(18_000);
  });

  it("doubles each round trip in slow start, but only while it is what limits the sender", () => {
    const congestion = new Congestion(MSS, 0, MAX);
    for (let i = 1; i <= 5; i++) congestion.acknowledged(i * 2 * MSS, 2 * MSS, 10_000);
    expect(congestion.windowBytes).toBe(20_000);
    for (let i = 1; i <= 5; i++) congestion.acknowledged(i * 2 * MSS, 2 * MSS, 2_000);
    expect(congestion.windowBytes).toBe(20_000);
  });

  it("halves on the third duplicate, inflates, deflates on a partial and ends on a full acknowledgment", () => {
    const congestion = new Congestion(MSS, 0, MAX);
    expect([1, 2, 3].map(() => congestion.duplicate(1, 10_001))).toEqual([false, false, true]);
    expect(congestion.windowBytes).toBe(5_000 + 3 * MSS);
    congestion.duplicate(1, 10_001);
    expect(congestion.windowBytes).toBe(9_000);
    expect(congestion.acknowledged(3_001, 3_000, 10_000)).toBe(true);
    expect(congestion.windowBytes).toBe(9_000 - 3_000 + 1_000);
    expect(congestion.acknowledged(10_001, 7_000, 7_000)).toBe(false);
    expect(congestion.inRecovery).toBe(false);
    expect(congestion.windowBytes).toBe(2_000); // nothing in flight: no burst
    const before = congestion.windowBytes;
    congestion.acknowledged(12_001, 2_000, 2_000);
    expect(congestion.windowBytes).toBeGreaterThan(before); // below ssthresh: slow start again
  });

  it("grows by a segment each round trip in congestion avoidance", () => {
    const congestion = new Congestion(MSS, 0, MAX);
    congestion.timedOut(10_001, 20_000, true); // ssthresh 10,000
    let una = 10_001;
    const acknowledge = (bytes: number): void => {
      una += bytes;
      congestion.acknowledged(una, bytes, congestion.windowBytes);
    };
    while (congestion.windowBytes < 10_000) acknowledge(MSS);
    const before = congestion.windowBytes;
    for (let i = 0; i < 5; i++) acknowledge(2 * MSS);
    expect(congestion.windowBytes - before).toBeGreaterThan(0.9 * MSS);
    expect(congestion.windowBytes - before).toBeLessThanOrEqual(MSS);
  });

  it("falls to one segment after a timeout, and takes no duplicates of that loss for another", () => {
    const congestion = new Congestion(MSS, 0, MAX);
    congestion.timedOut(10_001, 10_000, true);
    expect(congestion.windowBytes).toBe(MSS);
    expect([1, 2, 3, 4].map(() => congestion.duplicate(5_001, 10_001))).toEqual([false, false, false, false]);
    congestion.acknowledged(12_001, 7_000, 7_000);
    expect([1, 2, 3].map(() => congestion.duplicate(12_001, 14_001))).toEqual([false, false, true]);
  });

  it("lets two new segments out for the first two duplicates (RFC 3042)", () => {
    const congestion = new Congestion(MSS, 0, MAX);
    congestion.duplicate(1, 10_001);
    expect(congestion.allowanceBytes).toBe(MSS);
    congestion.duplicate(1, 10_001);
    expect(congestion.allowanceBytes).toBe(2 * MSS);
    congestion.duplicate(1, 10_001);
    expect(congestion.allowanceBytes).toBe(0);
  });

  it("never outgrows the send buffer", () => {
    const congestion = new Congestion(MSS, 0, 50_000);
    for (let i = 0; i < 500; i++) congestion.acknowledged(i * MSS, 2 * MSS, congestion.windowBytes);
    expect(congestion.windowBytes).toBe(50_000);
  });
});

describe("sequence numbers", () => {
  it.each([
    [0, 1, true],
    [1, 0, false],
    [0xffff_ffff, 0, true],
    [0, 0xffff_ffff, false],
    [0x7fff_ffff, 0x8000_0000, true],
    [5, 5, false],
  ])("%i before %i: %s", (a, b, expected) => {
    expect(sequenceBefore(a, b)).toBe(expected);
    expect(sequenceAfter(b, a)).toBe(expected);
  });

  it("differ by what lies between them across the wrap", () => {
    expect(sequenceDifference(3, 0xffff_fffe)).toBe(5);
    expect(sequenceDifference(0xffff_fffe, 3)).toBe(-5);
  });
});

describe("the window's shift", () => {
  it.each([
    [1, 0],
    [65_535, 0],
    [65_536, 1],
    [1 << 20, 5],
    [2 ** 31, 14],
  ])("for %i bytes is %i", (bytes, shift) => expect(windowShiftFor(bytes)).toBe(shift));
});
