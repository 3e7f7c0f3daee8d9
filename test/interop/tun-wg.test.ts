// `wirebadge wg --tun` over real TUN devices in network namespaces: data both ways by hash, beside itself and other
// implementations; and its end on every way out.
import { readdirSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Lab } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { record, scale } from "../proof/form.ts";
import { until } from "../scripts/program.ts";
import { fetchedHash } from "./fetched.ts";
import { hashOfBlob } from "./http-target.ts";
import { FailingDataThread } from "./planted.ts";
import { A, B, type ConfigOptions, configOf, deviceOf, joined, serve, startEnd, TunEnd } from "./tun-end.ts";

const BLOB_BYTES = scale(30_000_000, 500_000_000);
const END_MAX_MS = 1_500;

async function bothWays(lab: Lab, kind: Parameters<typeof startEnd>[0], config: ConfigOptions): Promise<void> {
  const { a, b } = joined(lab);
  await using disposer = new AsyncDisposableStack();
  for (const [end, spec, namespace] of [[kind, B, b] as const, ["wirebadge", A, a] as const]) {
    disposer.use(await startEnd(end, spec, namespace, config));
    await serve(namespace);
  }
  const expected = hashOfBlob(BLOB_BYTES);
  for (const family of [4, 6] as const) {
    expect(await fetchedHash(a, B.inside[family], 8_000, BLOB_BYTES), `down over IPv${family}`).toBe(expected);
    expect(await fetchedHash(b, A.inside[family], 8_000, BLOB_BYTES), `up over IPv${family}`).toBe(expected);
  }
  const both = await Promise.all([
    fetchedHash(a, B.inside[4], 8_000, BLOB_BYTES),
    fetchedHash(b, A.inside[6], 8_000, BLOB_BYTES),
  ]);
  expect(both, "both ways at once").toEqual([expected, expected]);
  record({ what: `bytes each way by hash at full rate, wg --tun beside ${kind}`, count: 3 * BLOB_BYTES });
}

describe.runIf(needs("root", "tun", "netns", "curl"))("wirebadge wg --tun", () => {
  test.each([4, 6] as const)("carries 30 MB each way to itself, by hash, IPv%i outside", async (family) => {
    await using lab = new Lab();
    await bothWays(lab, "wirebadge", { family });
  });

  test("carries packets of a small MTU and of a large one", async () => {
    for (const mtu of [1280, 1500]) {
      await using lab = new Lab();
      await bothWays(lab, "wirebadge", { mtu });
    }
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it within 1.5 s, and nothing is left", async (signal) => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    const rules = a.ip("rule", "show");
    await using there = await startEnd("wirebadge", B, b, {});
    const end = await TunEnd.start(A, a, configOf(A, B));
    await a.run(requireTool("ping"), ["-c", "1", "-W", "5", B.inside[4]]);
    expect(a.ip("link", "show", "dev", deviceOf(A))).toContain("mtu 1420");
    const startedMs = performance.now();
    end.program.child.kill(signal);
    expect(await end.program.exited).toBe(0);
    expect(performance.now() - startedMs).toBeLessThan(END_MAX_MS);
    expect(a.ip("route", "show", "table", "all")).not.toContain(deviceOf(A));
    expect(a.ip("rule", "show")).toBe(rules);
    expect(there.program.alive).toBe(true);
  });

  test.each([
    ["process.exit", "process.exit(7)", 7],
    ["an uncaught error", "throw new Error('planted')", 1],
  ] as const)("%s of the main thread ends it within 1.5 s, device and all", async (_what, statement, code) => {
    await using lab = new Lab();
    const { a } = joined(lab);
    const planted = `if (require("node:worker_threads").isMainThread) process.on("SIGUSR2", () => { ${statement}; });`;
    await using end = await TunEnd.start(A, a, configOf(A, B), "wbta", planted);
    expect(a.ip("link", "show")).toContain("wbta");
    const startedMs = performance.now();
    end.program.child.kill("SIGUSR2");
    expect(await end.program.exited).toBe(code);
    expect(performance.now() - startedMs).toBeLessThan(END_MAX_MS);
    expect(a.ip("link", "show")).not.toContain("wbta");
  });

  test("a data thread that fails is started again, with its sessions made anew; not for ever", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    using planted = new FailingDataThread();
    await using end = await TunEnd.start(A, a, configOf(A, B), "wbta", planted.script);
    const ping = () => a.run(requireTool("ping"), ["-c", "1", "-W", "2", B.inside[4]], { check: false });
    expect((await ping()).code).toBe(0);
    const descriptors = (): number => readdirSync(`/proc/${end.program.pid}/fd`).length;
    const before = descriptors();
    for (let failures = 1; failures <= 3; failures++) {
      planted.fail();
      await until("a new start", () => end.program.output.split("data-thread-restart").length > failures);
      await until("an answer", async () => (await ping()).code === 0);
    }
    expect(descriptors()).toBeLessThanOrEqual(before);
    planted.fail();
    expect(await end.program.exited).toBe(2);
    expect(end.program.output).toContain("planted");
  });

  test("the device taken away ends it with the reason", async () => {
    await using lab = new Lab();
    const { a } = joined(lab);
    await using end = await TunEnd.start(A, a, configOf(A, B));
    a.ip("link", "del", deviceOf(A));
    const code = await Promise.race([end.program.exited, delay(10_000, "still there")]);
    expect(code).toBe(2);
    expect(end.program.output).toMatch(/TUN device is gone/);
  });

  test("a device that goes down and comes up again carries packets as before", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    await using end = await TunEnd.start(A, a, configOf(A, B));
    const ping = (count: string) =>
      a.run(requireTool("ping"), ["-c", count, "-i", "0.2", "-W", "1", B.inside[4]], { check: false });
    expect((await ping("2")).code).toBe(0);
    a.ip("link", "set", deviceOf(A), "down");
    await b.run(requireTool("ping"), ["-c", "2", "-i", "0.2", "-W", "1", A.inside[4]], { check: false });
    a.ip("link", "set", deviceOf(A), "up");
    a.ip("route", "replace", "10.9.0.0/24", "dev", deviceOf(A));
    await until("an answer", async () => (await ping("1")).code === 0);
    expect(end.program.alive).toBe(true);
  });
});

describe.runIf(needs("root", "tun", "netns", "curl", "wireguard-go", "wg"))("beside wireguard-go", () => {
  test.each([4, 6] as const)("carries 30 MB each way, by hash, IPv%i outside", async (family) => {
    await using lab = new Lab();
    await bothWays(lab, "wireguard-go", { family });
  });
});

describe.runIf(needs("root", "tun", "netns", "curl", "boringtun-cli", "wg"))("beside boringtun", () => {
  test.each([4, 6] as const)("carries 30 MB each way, by hash, IPv%i outside", async (family) => {
    await using lab = new Lab();
    await bothWays(lab, "boringtun-cli", { family });
  });
});
