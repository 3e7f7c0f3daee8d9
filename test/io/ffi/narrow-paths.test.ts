import { expect, test } from "vitest";
import { ADDRESSES_REMEMBERED_MAX } from "../../../src/base/limits.ts";
import { NarrowPaths } from "../../../src/io/ffi/narrow-paths.ts";
import { ip } from "../../wire/packets.ts";

const endpoint = (port: number) => ({ address: ip("192.0.2.1"), port });

test("a path is narrow for so many runs, and then is tried again", () => {
  const paths = new NarrowPaths(3);
  const [narrow, other] = [endpoint(1), endpoint(2)];
  expect(paths.has(narrow)).toBe(false);
  paths.add(narrow);
  expect([0, 1, 2, 3].map(() => paths.has(narrow))).toEqual([true, true, true, false]);
  paths.add(narrow);
  expect(paths.has(other)).toBe(false);
  paths.has(narrow);
  paths.add(narrow); // refused again: from the start
  expect([0, 1, 2, 3].map(() => paths.has(narrow))).toEqual([true, true, true, false]);
});

test("as many are remembered as a bound allows", () => {
  const paths = new NarrowPaths(1_000_000);
  const ends = Array.from({ length: ADDRESSES_REMEMBERED_MAX + 1 }, (_, i) => endpoint(i));
  for (const end of ends.slice(0, -1)) paths.add(end);
  expect(ends.filter((end) => paths.has(end))).toHaveLength(ADDRESSES_REMEMBERED_MAX);
  paths.add(ends.at(-1)!);
  expect(ends.filter((end) => paths.has(end))).toEqual([ends.at(-1)]);
});
