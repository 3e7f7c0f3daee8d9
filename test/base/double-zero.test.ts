// What DOUBLE_ZERO is for, asked of V8 itself: whether a count that passes 2^31 changes the shape of its object.
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const SCRIPT = `
  import { DOUBLE_ZERO } from "../../src/base/double-zero.ts";
  class Double { count = DOUBLE_ZERO; }
  class Plain { count = 0; }
  const keepsShape = (made) => {
    const [counts, other] = [new made(), new made()];
    counts.count += 1; // as a plain number would
    counts.count += 2 ** 31;
    return %HaveSameMap(counts, other);
  };
  console.log(JSON.stringify({ double: keepsShape(Double), plain: keepsShape(Plain), shown: DOUBLE_ZERO + 0 }));`;

test("a field that began with it keeps its object's shape as the number grows; one that began with 0 does not", () => {
  const run = spawnSync(process.execPath, ["--allow-natives-syntax", "--input-type=module", "-e", SCRIPT], {
    cwd: import.meta.dirname,
    encoding: "utf8",
  });
  expect(run.stderr.replace(/\(.*Warning.*|\(Use.*/g, "").trim()).toBe("");
  expect(JSON.parse(run.stdout)).toEqual({ double: true, plain: false, shown: 0 });
});
