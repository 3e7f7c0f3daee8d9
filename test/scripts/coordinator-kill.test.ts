// kill -9 at any moment: what was acknowledged is there after the next start, the audit chain verifies, and numbers
// never go back. Two coordinators are killed beside each other, each with a new data folder after 25 kills.
import { afterAll, beforeAll, expect, test } from "vitest";
import { LONG, record, scale } from "../proof/form.ts";
import { type Bundle, bundle } from "./bundle.ts";
import { KillLane } from "./kill-lane.ts";

const KILLS = scale(100, 500);
const KILLS_OF_A_FOLDER = 25;
const LANES = 2;
const SEED = LONG ? Date.now() % 1_000_000 : 9;

let main: Bundle;
beforeAll(() => {
  main = bundle("test/coordinator/child-main.ts");
});
afterAll(() => main.remove());

test(`${KILLS} kills of a coordinator that is written to lose nothing that was acknowledged`, {
  timeout: 3_000_000,
}, async () => {
  let changes = 0;
  let folder = 0;
  const lane = async (): Promise<void> => {
    while (folder < KILLS / KILLS_OF_A_FOLDER) {
      const one = new KillLane(main.path, SEED + folder++);
      try {
        await one.run(KILLS_OF_A_FOLDER);
        changes += one.changes;
      } finally {
        await one.end();
      }
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  expect(changes).toBeGreaterThan(KILLS);
  record({
    what: "kill -9 of the coordinator while it is written to",
    count: KILLS,
    figure: `${changes} changes kept, seeds from ${SEED}`,
  });
});
