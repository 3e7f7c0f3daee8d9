import { expect, it } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { same } from "../fuzz/target.ts";
import { record, scale } from "../proof/form.ts";
import { mergeInMemory, mustGiveBack, randomTraffic } from "./merge-traffic.ts";
import { mergeNaively } from "./naive-merge.ts";

const BATCHES = scale(Math.ceil(Number(process.env["FC_RUNS"] ?? 2_000) / 10), 100_000);

it("the merger writes what the naive one writes, and split again it is what came in", { timeout: 1_200_000 }, () => {
  const random = new SeededRandom(1);
  let packetsIn = 0;
  let writesOut = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const packets = randomTraffic(random);
    const uso = random.chance(0.8);
    const writes = mergeInMemory(packets, uso, random.pick([0, 255]), random.below(8));
    const twin = mergeNaively(packets, uso);
    const isSame = writes.length === twin.length && writes.every((write, i) => same(write, twin[i]!));
    if (!isSame) expect(writes).toEqual(twin);
    mustGiveBack(packets, writes);
    packetsIn += packets.length;
    writesOut += writes.length;
  }
  expect(writesOut).toBeLessThan(packetsIn * 0.8);
  record({ what: "packets merged as the naive merger does, and split again", count: packetsIn });
});
