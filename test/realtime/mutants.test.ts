// Each guard of the filter, the inbound path, signed leases and the replay window is taken out, one at a time: a test
// misses it. A process of low priority, beside the tests that wait; `npm run proof` takes all sources.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setPriority } from "node:os";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../mutants/main.ts", import.meta.url));

test("each guard of the core that is taken out is missed by a test, or excused with a reason", async () => {
  const child = spawn(process.execPath, [MAIN, "--core", "--workers", "1"], { stdio: ["ignore", "pipe", "inherit"] });
  setPriority(child.pid!, 10);
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const [code] = await once(child, "close");
  process.stdout.write(output);
  const [missed, not] = /^(\d+) guards missed by a test, (\d+) not/m.exec(output)?.slice(1).map(Number) ?? [];
  expect(output.split("\n").slice(-20).join("\n")).toContain("guards missed");
  expect({ code, not }).toEqual({ code: 0, not: 0 });
  expect(missed).toBeGreaterThan(50);
});
