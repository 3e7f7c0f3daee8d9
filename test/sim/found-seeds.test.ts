// Seeds that broke something once, each under the name of what it found.
import { expect, test } from "vitest";
import { runSeeds } from "../../src/sim/report.ts";

test.each([
  [287448775, "a never that reaches a service through the `via` list of a node without a session"],
  [407216881, "later fragments behind a denied first one that has the id of an allowed datagram before it"],
] as [number, string][])("seed %i holds: %s", (seed) => {
  expect(runSeeds({ seed, count: 1 }).failed).toBeUndefined();
});
