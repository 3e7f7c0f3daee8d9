import { expect, it } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { record, scale } from "../proof/form.ts";
import { splitLikeTwin } from "./split-in-memory.ts";
import { hostileSuper, randomSuper } from "./super-packets.ts";

const RUNS = scale(Number(process.env["FC_RUNS"] ?? 2_000), 1_000_000) / 2;

it.each([
  ["random", randomSuper, 1],
  ["hostile", hostileSuper, 2],
] as const)(
  "the splitter does what the naive one does: %s super-packets",
  { timeout: 1_200_000 },
  (kind, make, seed) => {
    const random = new SeededRandom(seed);
    let split = 0;
    for (let run = 0; run < RUNS; run++) {
      const result = splitLikeTwin(make(random), { shift: random.below(8), gap: random.below(16) });
      if (typeof result !== "string") split++;
    }
    expect(split).toBeGreaterThan(RUNS / 10);
    if (kind === "hostile") expect(split).toBeLessThan(RUNS * 0.9);
    record({ what: `${kind} super-packets split or refused as the naive splitter does`, count: RUNS });
  },
);
