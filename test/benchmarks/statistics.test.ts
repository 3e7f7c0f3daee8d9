// Medians, paired ratios and the word for a ratio.
import { describe, expect, it } from "vitest";
import { EQUAL_BELOW, median, pairedRatio, percentile, word } from "../../benchmarks/tun/statistics.ts";

describe("the figures of several starts", () => {
  it("takes the middle sample, between two the mean, and of none nothing", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([10, 9])).toBe(9.5);
    expect(median([null, 7, null])).toBe(7);
    expect(median([null])).toBeUndefined();
  });

  it("compares neighbouring starts, not medians: a machine that slows down changes no ratio", () => {
    expect(pairedRatio([4, 2, 1], [2, 1, 0.5])).toBe(2);
    expect(pairedRatio([3, 100, 8], [1, 100, 2])).toBe(3); // medians alone: 8 / 2
  });

  it("leaves out the rounds that one of the two lacks, and a ratio to nothing", () => {
    expect(pairedRatio([4, null, 9, 9], [2, 1, null, 0])).toBe(2);
    expect(pairedRatio([1, 2], [])).toBeUndefined();
  });

  it("takes the smallest value that the asked share is no greater than", () => {
    const values = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect(percentile(values, 0.5)).toBe(50);
    expect(percentile(values, 0.99)).toBe(99);
    expect(percentile([5], 0.99)).toBe(5);
    expect(percentile([], 0.5)).toBeUndefined();
  });

  it("calls equal what is nearer than 1.15 times, either way, and knows which way is better", () => {
    expect(EQUAL_BELOW).toBe(1.15);
    expect(word(1.15, "more")).toBe("better");
    expect(word(1.149, "more")).toBe("equal");
    expect(word(0.87, "more")).toBe("equal");
    expect(word(0.869, "more")).toBe("worse");
    expect(word(0.869, "less")).toBe("better");
    expect(word(1.149, "less")).toBe("equal");
    expect(word(1.16, "less")).toBe("worse");
  });
});
