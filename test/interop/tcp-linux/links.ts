// The links over which TCP must carry every byte. The short form has one of each kind, with fixed seeds; the long one
// all combinations with new seeds, which stand in the names of its tests, and one transfer of more than 100 MB.
import { randomInt } from "node:crypto";
import { LONG } from "../../proof/form.ts";
import type { Circumstance } from "./expert.ts";
import type { TransfersSpec } from "./transfers.ts";
import type { Faults } from "./wire.ts";

export interface Link extends Pick<TransfersSpec, "lossPercent" | "faults" | "bytes" | "buffers" | "openers" | "seed"> {
  readonly name: string;
}

const KB = 1_000;
const MB = 1_000 * KB;
const LATE: Faults = { reorder: 0.2, lateMs: 20 };
const TWICE: Faults = { duplicate: 0.2 };

type Unseeded = Omit<Link, "seed">;

/** The slowest first: they wait while the others work. */
const SHORT: readonly Unseeded[] = [
  { name: "10 % loss, 100 ms", lossPercent: 10, faults: { delayMs: 100 }, bytes: 30 * KB },
  { name: "5 % loss, 200 ms", lossPercent: 5, faults: { delayMs: 200 }, bytes: 30 * KB },
  { name: "all faults, 40 ms", lossPercent: 2, faults: { ...LATE, delayMs: 40, duplicate: 0.1 }, bytes: 100 * KB },
  { name: "10 % loss, 1 ms", lossPercent: 10, faults: { delayMs: 1 }, bytes: 50 * KB },
  { name: "5 % loss, 20 ms", lossPercent: 5, faults: { delayMs: 20 }, bytes: 100 * KB },
  {
    name: "10 % loss, buffers of 5,000 bytes",
    lossPercent: 10,
    faults: { delayMs: 5 },
    bytes: 30 * KB,
    buffers: { sendBytes: 65_536, receiveBytes: 5_000 },
  },
  { name: "1 % loss, 5 ms", lossPercent: 1, faults: { delayMs: 5 }, bytes: 500 * KB },
  { name: "a fifth out of order, 20 ms", lossPercent: 0, faults: { ...LATE, delayMs: 20 }, bytes: 500 * KB },
  { name: "a fifth twice, 5 ms", lossPercent: 0, faults: { ...TWICE, delayMs: 5 }, bytes: 500 * KB },
  { name: "200 ms", lossPercent: 0, faults: { delayMs: 200 }, bytes: 300 * KB },
  { name: "no fault", lossPercent: 0, faults: {}, bytes: 1 * MB },
];

const KINDS: readonly (readonly [name: string, faults: Faults])[] = [
  ["", {}],
  [", a fifth out of order", LATE],
  [", a fifth twice", TWICE],
  [", both", { ...LATE, ...TWICE }],
];

function allCombinations(): Unseeded[] {
  return [10, 5, 1, 0].flatMap((lossPercent) =>
    [200, 100, 20, 1].flatMap((delayMs) =>
      KINDS.map(([kind, faults]) => ({
        name: `${lossPercent} % loss, ${delayMs} ms${kind}`,
        lossPercent,
        faults: { ...faults, delayMs },
        bytes: lossPercent >= 5 ? 100 * KB : 1 * MB,
      })),
    ),
  );
}

const LARGE: Unseeded = {
  name: "no fault, 110 MB",
  lossPercent: 0,
  faults: {},
  bytes: 110 * MB,
  openers: ["v6, stack"],
};

const seeded = (link: Unseeded): Link => {
  const seed = randomInt(2 ** 31);
  return { ...link, seed, name: `${link.name}, seed ${seed}` };
};

export const LINKS: readonly Link[] = LONG
  ? [...allCombinations(), ...SHORT, LARGE].map(seeded)
  : SHORT.map((link, seed) => ({ ...link, seed }));

/** Which of tshark's notes are legitimate there. */
export function circumstancesOf({ lossPercent, faults }: Link): Circumstance[] {
  const hasGaps = lossPercent > 0 || (faults.reorder ?? 0) > 0;
  const hasDuplicates = (faults.duplicate ?? 0) > 0;
  return [
    ...(hasGaps ? (["gaps"] as const) : []),
    ...(hasDuplicates ? (["duplicates"] as const) : []),
    ...(hasGaps || hasDuplicates ? (["late segments"] as const) : []),
  ];
}
