// Runs in a namespace of its own (see world.ts): over one wire with faults, both families, whoever opens, all at once.
// Prints one line of JSON.
import { type Carried, carry } from "./ends.ts";
import { FAMILIES, type Family, World, type WorldSpec } from "./world.ts";

export interface TransfersSpec extends WorldSpec {
  /** Of each connection, each way. */
  readonly bytes: number;
  /** These alone, instead of all four. */
  readonly openers?: readonly Opener[];
}

export type Opener = `${Family}, ${"kernel" | "stack"}`;

export interface TransfersOutcome {
  readonly carried: Readonly<Record<string, Carried>>;
  readonly counters: Readonly<Record<string, number>>;
  readonly frames: number;
  readonly refusedPackets: number;
}

const spec = JSON.parse(process.argv[2] ?? "") as TransfersSpec;
const world = new World(spec);
const { bytes } = spec;
let port = 7_000;
const runs = FAMILIES.flatMap((family) =>
  (["kernel", "stack"] as const)
    .filter((opener) => spec.openers?.includes(`${family}, ${opener}`) ?? true)
    .map(async (opener) => {
      port += 10;
      const carried = await carry(world, { family, opener, port, upBytes: bytes, downBytes: bytes });
      return [`${family}, ${opener} opens`, carried] as const;
    }),
);
const carried = Object.fromEntries(await Promise.all(runs));
world.stop();
const outcome: TransfersOutcome = {
  carried,
  counters: Object.fromEntries(Object.entries(world.stack.counters).filter(([, value]) => value > 0)),
  frames: world.frames,
  refusedPackets: world.refusedPackets,
};
console.log(JSON.stringify(outcome));
process.exit(0);
