// The fuzzer in `npm test`: every target, from a fixed seed, over 100,000 inputs; the corpus again; and the fuzzer
// itself, which must find what is planted.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { record } from "../proof/form.ts";
import { corpusOf, corpusTargets, keep } from "./corpus.ts";
import { type FuzzOptions, fuzz, tryInput } from "./fuzzer.ts";
import { runJob } from "./job.ts";
import { bytesOf, type FuzzTarget, must, textOf } from "./target.ts";
import { splitOf, TARGETS } from "./targets.ts";

const INPUTS = 100_000;
const SEED = 1;
const SPLIT = splitOf(INPUTS);
let total = 0;

test.each(TARGETS)(
  "$name: no throw, no hang, every invariant, and as deep as it should",
  { timeout: 120_000 },
  async (target) => {
    const inputs = SPLIT.get(target)!;
    const result = await fuzz(target, { seed: SEED, inputs, corpus: corpusOf(target.name) });
    const { failure } = result;
    const again = `npm run fuzz -- --target ${target.name} --seed ${SEED} --inputs ${inputs}`;
    const input = failure === undefined ? "" : Buffer.from(failure.smallest).toString("base64");
    expect(failure?.message, `${again}, input ${failure?.index}: ${input}`).toBeUndefined();
    expect(target.reaches.filter((outcome) => !result.outcomes.has(outcome))).toEqual([]);
    expect(result.inputs).toBe(inputs);
    total += result.inputs;
  },
);

test("that were 100,000 inputs at least", () => {
  record({ what: "fuzz inputs in npm test", count: total, figure: `${TARGETS.length} targets` });
  console.log(`fuzz: ${total.toLocaleString("en")} inputs over ${TARGETS.length} targets`);
  expect(total).toBeGreaterThanOrEqual(INPUTS);
});

test("every kept input is run again, and belongs to a target", async () => {
  for (const name of corpusTargets()) {
    const target = TARGETS.find((one) => one.name === name);
    expect(target, `corpus/${name} belongs to no target`).toBeDefined();
    for (const input of corpusOf(name)) expect(await tryInput(target!, input), name).toBeUndefined();
  }
});

const planted = (run: (text: string) => string): FuzzTarget => ({
  name: "planted",
  share: 1,
  maxBytes: 64,
  seeds: [bytesOf("GET /index")],
  words: ["HTTP"],
  run: (input) => run(textOf(input)),
  reaches: [],
});
const OPTIONS: FuzzOptions = { seed: 7, inputs: 20_000, corpus: [] };

test("a planted throw is found, made smaller, and found again by the same seed", async () => {
  const target = planted((text) => {
    if (text.startsWith("GET") && text.includes("HTTP")) throw new RangeError("planted");
    return text.startsWith("GET") ? "get" : "other";
  });
  const { failure } = await fuzz(target, OPTIONS);
  expect(failure?.message).toContain("RangeError: planted");
  expect(textOf(failure!.smallest)).toBe("GETHTTP");
  expect(await fuzz(target, OPTIONS)).toMatchObject({ failure: { index: failure!.index } });
});

test("a broken invariant and a hang are found", async () => {
  const broken = await fuzz(
    planted((text) => {
      must(!text.includes("//"), "two slashes");
      return "fine";
    }),
    OPTIONS,
  );
  expect(broken.failure?.message).toBe("Broken: two slashes");
  const slow = planted((text) => {
    if (text.includes("xx"))
      for (const startedMs = process.threadCpuUsage().user; process.threadCpuUsage().user < startedMs + 30_000; );
    return "fine";
  });
  const { failure } = await fuzz({ ...slow, words: ["xx"] }, { ...OPTIONS, minimiseMs: 200, slowMs: 15 });
  expect(failure?.message).toBe("Slow: an input takes too long");
});

test("planted growth of the heap is found, and what is let go again is none", { timeout: 60_000 }, async () => {
  const options = { ...OPTIONS, inputs: 8_192 };
  for (const make of [() => new Uint8Array(24_000), () => new Array<number>(3_000).fill(0.5)]) {
    const target = (max: number): FuzzTarget => {
      const kept: unknown[] = [];
      return planted(() => {
        if (kept.length >= max) kept.length = 0;
        kept.push(make());
        return "fine";
      });
    };
    expect((await runJob(target(1_000), options)).failure).toBeUndefined();
    // No bound: an input that the machine made slow is run again, so that there are more of them than asked for.
    const growing = await runJob(target(Number.POSITIVE_INFINITY), options);
    expect(growing.failure?.message).toMatch(/^the heap grew by \d+ MiB/);
  }
});

test("ten million inputs: the shares of dear targets end, the others get the rest", () => {
  const split = splitOf(10_000_000);
  const total = [...split.values()].reduce((sum, inputs) => sum + inputs, 0);
  expect(total).toBeGreaterThanOrEqual(10_000_000);
  expect(total).toBeLessThan(10_000_000 + TARGETS.length);
  for (const target of TARGETS) {
    expect(split.get(target), target.name).toBeGreaterThanOrEqual(SPLIT.get(target)!);
    expect(split.get(target), target.name).toBeLessThanOrEqual(target.most ?? 1_000_000);
  }
  const dear = TARGETS.find(({ most }) => most !== undefined)!;
  expect(splitOf(10_000_000, [dear]).get(dear)).toBe(10_000_000);
});

test("an outcome that was not seen before leads further", async () => {
  const target = planted((text) => `${/^G?E?T?P?O?S?T?/.exec(text)![0].length}`);
  const { outcomes } = await fuzz({ ...target, seeds: [bytesOf("x")], words: ["G", "E", "T", "P", "O", "S"] }, OPTIONS);
  expect(Math.max(...[...outcomes.keys()].map(Number))).toBeGreaterThanOrEqual(4);
});

test("the corpus keeps an input once, under its hash", () => {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-corpus-"));
  try {
    const path = keep("some-target", Uint8Array.of(1, 2, 3), folder);
    expect(keep("some-target", Uint8Array.of(1, 2, 3), folder)).toBe(path);
    expect(corpusOf("some-target", folder)).toEqual([Uint8Array.of(1, 2, 3)]);
    expect(corpusTargets(folder)).toEqual(["some-target"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("npm run fuzz runs targets in threads and ends with its table", () => {
  const main = fileURLToPath(new URL("main.ts", import.meta.url));
  const args = [main, "--target", "end", "--inputs", "2000", "--seed", "3"];
  const run = spawnSync(process.execPath, args, { encoding: "utf8" });
  expect(run.stderr).toBe("");
  expect(run.stdout).toMatch(/endpoint +2,000 .* 0\n\n2,000 inputs, seed 3, 0 failures/);
  expect(run.status).toBe(0);
  expect(spawnSync(process.execPath, [main, "--target", "nothing"], { encoding: "utf8" }).status).toBe(2);
});
