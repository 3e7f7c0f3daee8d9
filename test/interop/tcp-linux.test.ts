// TCP of the userspace stack and of the Linux kernel, over links with every kind of fault: each byte, whoever opens,
// and no protocol error in tshark's expert analysis of what passed.
import { beforeAll, describe, expect, it } from "vitest";
import { Lab } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { record, scale } from "../proof/form.ts";
import { type Circumstance, type Finding, findings } from "./tcp-linux/expert.ts";
import { Captures, inWorld, rooms, sideBySide } from "./tcp-linux/lab.ts";
import type { TransfersOutcome, TransfersSpec } from "./tcp-linux/transfers.ts";
import type { Faults } from "./tcp-linux/wire.ts";
import { STACK } from "./tcp-linux/world.ts";

interface Link {
  readonly name: string;
  readonly lossPercent: number;
  readonly faults: Faults;
  /** Of each of four connections, each way. */
  readonly bytes: number;
  readonly buffers?: TransfersSpec["buffers"];
}

const MB = 1_000_000;
const LATE: Faults = { reorder: 0.2, lateMs: 20 };

/** The slowest first: they wait while the others work. */
const LINKS: readonly Link[] = [
  { name: "10 % loss, 100 ms", lossPercent: 10, faults: { delayMs: 100 }, bytes: 0.03 * MB },
  { name: "5 % loss, 200 ms", lossPercent: 5, faults: { delayMs: 200 }, bytes: 0.03 * MB },
  {
    name: "everything at once, 40 ms",
    lossPercent: 2,
    faults: { ...LATE, delayMs: 40, duplicate: 0.1 },
    bytes: 0.1 * MB,
  },
  { name: "10 % loss, 1 ms", lossPercent: 10, faults: { delayMs: 1 }, bytes: 0.05 * MB },
  { name: "5 % loss, 20 ms", lossPercent: 5, faults: { delayMs: 20 }, bytes: 0.1 * MB },
  {
    name: "10 % loss, buffers of 5,000 bytes",
    lossPercent: 10,
    faults: { delayMs: 5 },
    bytes: 0.03 * MB,
    buffers: { sendBytes: 65_536, receiveBytes: 5_000 },
  },
  { name: "1 % loss, 5 ms", lossPercent: 1, faults: { delayMs: 5 }, bytes: 0.5 * MB },
  { name: "a fifth out of order, 20 ms", lossPercent: 0, faults: { ...LATE, delayMs: 20 }, bytes: 0.5 * MB },
  { name: "a fifth twice, 5 ms", lossPercent: 0, faults: { delayMs: 5, duplicate: 0.2 }, bytes: 0.5 * MB },
  { name: "200 ms", lossPercent: 0, faults: { delayMs: 200 }, bytes: 0.3 * MB },
  { name: "no fault", lossPercent: 0, faults: {}, bytes: 1 * MB },
];

/** Most of them wait. */
const WIDTH = 4;

function circumstancesOf({ lossPercent, faults }: Link): Circumstance[] {
  const gaps = lossPercent > 0 || (faults.reorder ?? 0) > 0;
  return [
    ...(gaps ? (["gaps"] as const) : []),
    ...((faults.duplicate ?? 0) > 0 ? (["duplicates"] as const) : []),
    ...(gaps || (faults.duplicate ?? 0) > 0 ? (["late segments"] as const) : []),
  ];
}

describe.runIf(needs("netns", "tun", "nft", "tshark"))(
  "TCP between the stack and the Linux kernel, over a link with",
  () => {
    const outcomes = new Map<string, TransfersOutcome>();
    const remarks = new Map<string, Finding[]>();

    beforeAll(async () => {
      await using lab = new Lab();
      using captures = new Captures();
      const run = async (index: number): Promise<void> => {
        const { name, bytes, ...link } = LINKS[index]!;
        const capture = captures.path(name);
        const spec = { ...link, capture, seed: index, bytes: scale(bytes, 4 * bytes) };
        outcomes.set(name, await inWorld(rooms(lab, `w${index}`), "transfers.ts", spec, 200_000));
        remarks.set(name, await findings(capture, Object.values(STACK), circumstancesOf(LINKS[index]!)));
      };
      await sideBySide([...LINKS.keys()], WIDTH, run);
    }, 400_000);

    it.each(LINKS)("$name: every byte arrives both ways, whoever opens", ({ name }) => {
      const { carried } = outcomes.get(name)!;
      expect(Object.keys(carried)).toHaveLength(4);
      for (const [what, { whole, closed }] of Object.entries(carried)) {
        expect([what, ...whole, closed]).toEqual([what, true, true, "closed"]);
      }
      record({ what: `TCP with Linux over ${name}: connections`, count: 4 });
    });

    it.each(LINKS)("$name: the capture holds no protocol error", ({ name }) => {
      expect(outcomes.get(name)!.frames).toBeGreaterThan(100);
      expect(remarks.get(name)).toEqual([]);
    });
  },
);
