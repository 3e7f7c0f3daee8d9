// Memory of the start, given back: pages that the program's file has, no others, and the program goes on.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { unwrittenMappings } from "../../src/io/ffi/lean-memory.ts";
import { needs } from "../needs.ts";

const mapping = (head: string, anonymousKb: number): string =>
  `${head}\nSize:  100 kB\nRss:  100 kB\nAnonymous:  ${anonymousKb} kB\nVmFlags: rd ex\n`;
const smaps = [
  mapping("00400000-01000000 r--p 00000000 fe:00 1234                               /usr/bin/node", 0),
  mapping("01000000-03000000 r-xp 00c00000 fe:00 1234                               /usr/bin/node", 0),
  mapping("03000000-03100000 r--p 02c00000 fe:00 1234                               /usr/bin/node", 56),
  mapping("03100000-03200000 rw-p 02d00000 fe:00 1234                               /usr/bin/node", 0),
  mapping("7f0000000000-7f0000100000 r-xp 00000000 fe:00 99                         /usr/lib/libc.so.6", 0),
  mapping("7f0000100000-7f0000200000 r-xp 00000000 00:00 0", 0),
  mapping("7fff00000000-7fff00001000 r-xp 00000000 00:00 0                          [vdso]", 0),
].join("");

describe("the mappings that may be dropped", () => {
  test("are the file's own that can't be written to and hold nothing of their own", () => {
    expect(unwrittenMappings(smaps, "/usr/bin/node")).toEqual([
      { at: 0x400000, bytes: 0xc00000 },
      { at: 0x1000000, bytes: 0x2000000 },
    ]);
  });

  test("are none of another file's", () => {
    expect(unwrittenMappings(smaps, "/usr/bin/nod")).toEqual([]);
    expect(unwrittenMappings("", "/usr/bin/node")).toEqual([]);
  });

  test.runIf(needs("linux"))("are there in a real process", () => {
    expect(unwrittenMappings(readFileSync("/proc/self/smaps", "latin1"), process.execPath).length).toBeGreaterThan(0);
  });
});

test.runIf(needs("linux"))("a process that gave them back is smaller and goes on", () => {
  const module = fileURLToPath(new URL("../../src/io/ffi/lean-memory.ts", import.meta.url));
  const script = `
    import { createHash } from "node:crypto";
    const { giveBack } = await import(${JSON.stringify(module)});
    const told = [];
    const before = process.memoryUsage.rss();
    const left = giveBack({ debug: (fields) => told.push(fields) });
    const hash = createHash("sha256").update(JSON.stringify({ still: "here" })).digest("hex");
    console.log(JSON.stringify({ before, after: left, hash, told }));`;
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  expect(run.stderr.replace(/\(.*Warning.*|\(Use.*/g, "").trim()).toBe("");
  const { before, after, hash, told } = JSON.parse(run.stdout);
  expect(told).toEqual([]);
  expect(hash).toMatch(/^[0-9a-f]{64}$/);
  expect(before - after).toBeGreaterThan(8_000_000);
});

test.runIf(needs("linux"))(
  "what grew is given back at looks that come ever later without load, and hold no process up",
  () => {
    const module = fileURLToPath(new URL("../../src/io/ffi/lean-memory.ts", import.meta.url));
    const script = `
    const looks = [];
    globalThis.setTimeout = (look, ms) => ({ unref: () => void looks.push({ look, ms }) });
    const { keepMemoryLean } = await import(${JSON.stringify(module)});
    let rss = 100_000_000;
    let asked = 0; // once to see whether it grew, once more for what is left after it was given back
    process.memoryUsage.rss = () => (asked++, rss);
    const logger = { debug: (fields) => { throw new Error(JSON.stringify(fields)); } };
    keepMemoryLean(logger);
    const all = [];
    let usedMs = 0;
    process.cpuUsage = (before) => ({ user: 1_000 * (usedMs - (before?.user ?? 0) / 1_000), system: 0 });
    for (let i = 0; i < 12; i++) {
      const { look, ms } = looks.at(-1);
      asked = 0;
      if (i === 4) rss += 4_000_000;
      if (i === 8) usedMs += 0.1 * ms - 1;
      if (i === 9) usedMs += 0.1 * ms;
      look();
      all.push({ ms, isGivenBack: asked === 2 });
    }
    console.log(JSON.stringify(all));`;
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
    const looks = JSON.parse(run.stdout) as { ms: number; isGivenBack: boolean }[];
    expect(looks.map(({ ms }) => ms / 1_000)).toEqual([10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 10, 20]);
    expect(looks.map(({ isGivenBack }) => isGivenBack).indexOf(true)).toBe(4);
    expect(looks.filter(({ isGivenBack }) => isGivenBack)).toHaveLength(1);
  },
);
