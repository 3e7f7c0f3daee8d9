// How fast TCP comes over a lossy link: the stack with Linux, beside Linux with Linux over the very same wire, with all
// its means and without SACK and timestamps. The kernel's algorithm is CUBIC, as the stack's: a host's default may be
// another. The figures stand in the proof's report.
import { beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { LONG, record, scale } from "../proof/form.ts";
import type { GoodputOutcome } from "./tcp-linux/goodput.ts";
import { Captures, inWorld, ROUTER_OF_HOST, rooms } from "./tcp-linux/lab.ts";

const LOSSES = LONG ? [0, 1, 5, 10] : [1];
const PARTNERS = ["stack", "Linux", "Linux without SACK and timestamps"] as const;
const DELAY_MS = 25;

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const rate = (bytesPerSecond: number): string => `${(bytesPerSecond / 1e6).toFixed(2)} MB/s`;

describe.runIf(needs("netns", "tun", "nft", "ping"))("the goodput of TCP", () => {
  const outcomes = new Map<string, GoodputOutcome>();

  /** One after the other: each has the machine to itself. */
  beforeAll(async () => {
    await using lab = new Lab();
    using captures = new Captures();
    for (const [index, lossPercent] of LOSSES.entries()) {
      for (const [number, partner] of PARTNERS.entries()) {
        const place = rooms(lab, `g${index}${number}`);
        const far = partner === "stack" ? undefined : lab.namespace(`g${index}${number}-far`);
        place.host.ip("route", "change", "default", "via", ROUTER_OF_HOST, "congctl", "cubic");
        for (const end of partner === PARTNERS[2] ? [place.host, far!] : []) {
          end.setSysctl("net.ipv4.tcp_sack", "0");
          end.setSysctl("net.ipv4.tcp_timestamps", "0");
        }
        const capture = captures.path(`${index}${number}`);
        const bytes = lossPercent > 1 ? 300_000 : scale(300_000, 3_000_000);
        const faults = { delayMs: DELAY_MS };
        const more = far === undefined ? {} : { far: far.name };
        const spec = { lossPercent, faults, capture, seed: index, bytes, runs: scale(1, 7), ...more };
        outcomes.set(`${lossPercent} ${partner}`, await inWorld(place, "goodput.ts", spec, 600_000));
      }
    }
  }, 3_600_000);

  it.each(LOSSES)("at %i % loss is measured beside the kernel's own, every byte counted once", (lossPercent) => {
    const [stack, linux, plain] = PARTNERS.map((partner) => outcomes.get(`${lossPercent} ${partner}`)!);
    expect([stack!.whole, linux!.whole, plain!.whole]).toEqual([true, true, true]);
    const [down, up] = [median(stack!.down), median(stack!.up)];
    const [best, alike] = [median(linux!.down), median(plain!.down)];
    const figure =
      `stack → Linux ${rate(down)}, ${(down / best).toFixed(2)} of Linux → Linux (${rate(best)}), ` +
      `${(down / alike).toFixed(2)} of it when plain (${rate(alike)}); Linux → stack ${rate(up)}`;
    const what = `TCP goodput, ${lossPercent} % loss, ${2 * DELAY_MS} ms there and back`;
    record({ what, count: stack!.down.length, figure });
  });
});
