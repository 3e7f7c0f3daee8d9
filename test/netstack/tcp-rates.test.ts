import { describe, expect, it } from "vitest";
import { RttEstimator } from "../../src/netstack/tcp/rtt.ts";
import { sequenceAfter, sequenceBefore, sequenceDifference } from "../../src/netstack/tcp/sequence.ts";
import { windowShiftFor } from "../../src/netstack/tcp/window.ts";

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
