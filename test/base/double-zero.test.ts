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

/** How often V8 collects while numbers with a fraction, 16 MB of them, are given to what `make` makes. */
function collectionsWith(make: string): number {
  const script = `
    import { DOUBLE_ZERO } from "../../src/base/double-zero.ts";
    import { TokenBucket } from "../../src/base/token-bucket.ts";
    class Double { at = DOUBLE_ZERO; take(at) { this.at = at; } }
    class Undefined { at; take(at) { this.at = at; } }
    const made = ${make};
    for (let i = 0; i < 1e6; i++) made.take(i + 0.5);`;
  const flags = ["--max-semi-space-size=1", "--trace-gc", "--input-type=module", "-e", script];
  const { stdout } = spawnSync(process.execPath, flags, { cwd: import.meta.dirname, encoding: "utf8" });
  return stdout.match(/Scavenge/g)?.length ?? 0;
}

test("such a field holds fractions without garbage, as a token bucket's do; one of undefined does not", () => {
  const atStart = collectionsWith("{ take() {} }");
  expect(collectionsWith("new Double()") - atStart).toBeLessThan(8); // until it is compiled
  expect(collectionsWith("new TokenBucket(0.5, 0.2, 1)") - atStart).toBeLessThan(8);
  expect(collectionsWith("new Undefined()") - atStart).toBeGreaterThan(12);
});
