// The search for the highest rate, over a tunnel that is a formula.
import { describe, expect, it } from "vitest";
import { highestRate, type RateProbe } from "../../benchmarks/tun/rate-search.ts";

const SEARCH = { from: 30_000, lostBelow: 0.01, within: 1.07 };

/** Carries `limit` a second and loses the rest; the sender can't do more than `sender`. */
function tunnel(limit: number, sender = Number.POSITIVE_INFINITY) {
  const asked: number[] = [];
  const probe = async (rate: number): Promise<RateProbe> => {
    asked.push(rate);
    const sent = Math.min(rate, sender);
    const received = Math.min(sent, limit);
    return { sent, received, lost: 1 - received / sent };
  };
  return { asked, probe };
}

describe("the highest rate that is carried", () => {
  it("is found to within the asked share, from above and from below", async () => {
    for (const limit of [150, 5_000, 29_999, 30_000, 31_000, 61_000, 103_000, 999_000]) {
      const found = await highestRate(tunnel(limit).probe, SEARCH);
      expect(found, String(limit)).toBeLessThanOrEqual(limit);
      expect(found, String(limit)).toBeGreaterThanOrEqual(limit / 1.07);
    }
  });

  it("is nothing when everything is lost, after a bounded number of probes", async () => {
    const dead = tunnel(0);
    expect(await highestRate(dead.probe, SEARCH)).toBe(0);
    expect(dead.asked.length).toBeLessThan(40);
  });

  it("ends where the sender can't do more", async () => {
    const slow = tunnel(1_000_000, 70_000);
    expect(await highestRate(slow.probe, SEARCH)).toBe(70_000);
    expect(slow.asked).toEqual([30_000, 60_000, 120_000]);
  });

  it("asks a second time: one hiccup is no limit", async () => {
    const { probe } = tunnel(103_000);
    let probes = 0;
    const hiccup = async (rate: number): Promise<RateProbe> =>
      ++probes === 2 ? { sent: rate, received: rate / 2, lost: 0.5 } : await probe(rate);
    expect(await highestRate(hiccup, SEARCH)).toBeGreaterThan(103_000 / 1.07);
  });
});
