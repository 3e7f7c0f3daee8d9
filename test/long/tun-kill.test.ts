// kill -9 of either end of a tunnel over TUN devices, under transfers both ways: the other end goes on, traffic is back
// within a bound once the killed one is started again, and at the end nothing of either is left on its host.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { UAPI_FOLDER } from "../../src/peer/tun/uapi-server.ts";
import { fetchedHash } from "../interop/fetched.ts";
import { hashOfBlob } from "../interop/http-target.ts";
import type { Stock } from "../interop/stock-wireguard.ts";
import { A, B, configOf, deviceOf, type EndSpec, joined, serve, startEnd, TunEnd } from "../interop/tun-end.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { LONG, record, scale } from "../proof/form.ts";
import { until } from "../scripts/program.ts";

const ROUNDS = scale(1, 10);
const BLOB_BYTES = 2_000_000;
/**
 * Who was killed speaks first: a handshake, and the time a busy machine takes. Who lives on notices after 15 s without
 * an answer that its session is gone (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT), and tries anew, at worst once in vain.
 */
const BACK_WITHIN_MS = { speaks: 10_000, listens: 30_000 } as const;
const GROWN_MAX_MB = 40; // of the one that lives on: what waits for a peer that is gone is bounded
const JOURNALS = "/run/wirebadge";

/** All addresses go into the tunnel, so that there is something beyond the device to leave behind. */
const toAll = (text: string): string => text.replace(/AllowedIPs = .*/, "AllowedIPs = 0.0.0.0/0, ::/0");

const residentMb = (pid: number): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;

async function hostOf(namespace: Namespace): Promise<string> {
  const parts = [
    namespace.ip("-4", "rule"),
    namespace.ip("-6", "rule"),
    namespace.ip("-4", "route", "show", "table", "all"),
    namespace.ip("-6", "route", "show", "table", "all"),
    namespace.ip("-o", "link"),
    (await namespace.run(requireTool("nft"), ["list", "ruleset"])).stdout,
  ];
  const lines = parts.join("---\n").split("\n");
  return lines.filter((line) => !/fe80::|ff00::/.test(line)).join("\n");
}

/** Again and again until `stop`: what goes on meanwhile. Failures are what this is about. */
class Load {
  #running = true;
  readonly #done: Promise<unknown>;
  bytes = 0;

  constructor(ways: readonly (readonly [Namespace, string])[]) {
    this.#done = Promise.all(ways.map(([namespace, host]) => this.#pour(namespace, host)));
  }

  async #pour(namespace: Namespace, host: string): Promise<void> {
    const url = `http://${host}:8000/blob/${BLOB_BYTES}`;
    while (this.#running) {
      const args = ["-sS", "--fail", "--max-time", "2", "--limit-rate", "20M", "-o", "/dev/null", url];
      const ran = await namespace.run(requireTool("curl"), args, { check: false });
      if (ran.code === 0) this.bytes += BLOB_BYTES;
    }
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#done;
  }
}

async function backAfter(namespace: Namespace, host: string, patienceMs: number): Promise<number> {
  const startedMs = performance.now();
  const ping = ["-c", "1", "-W", "1", host];
  const answered = async () => (await namespace.run(requireTool("ping"), ping, { check: false })).code === 0;
  await until(`an answer of ${host}`, answered, patienceMs);
  return performance.now() - startedMs;
}

/** Ours in "a" is killed again and again, the end in "b" lives on. */
async function killOurs(kind: "wirebadge" | Stock, speaker: keyof typeof BACK_WITHIN_MS): Promise<void> {
  await using lab = new Lab();
  const { a, b } = joined(lab);
  await Promise.all([serve(a), serve(b)]);
  const before = await hostOf(a);
  await using there = await startEnd(kind, B, b, {});
  const livesOn = there instanceof TunEnd ? there.program.pid : undefined;
  const config = toAll(configOf(A, B));
  let end = await TunEnd.start(A, a, config);
  await backAfter(a, B.inside[4], 20_000);
  const startMb = livesOn === undefined ? 0 : residentMb(livesOn);
  let worstMs = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const load = new Load([
      [a, B.inside[4]],
      [b, A.inside[4]],
    ]);
    await until("some load", () => load.bytes > 2 * BLOB_BYTES);
    await end.program.kill();
    await delay(1_000);
    expect(a.ip("rule")).toContain("fwmark"); // what it had no chance to undo
    if (speaker === "listens") await load.stop();
    await end[Symbol.asyncDispose]();
    end = await TunEnd.start(A, a, config);
    const [namespace, host] = speaker === "speaks" ? [a, B.inside[4]] : [b, A.inside[4]];
    worstMs = Math.max(worstMs, await backAfter(namespace, host, BACK_WITHIN_MS[speaker]));
    await load.stop();
    expect(await fetchedHash(a, B.inside[4], 8_000, BLOB_BYTES, { maxSeconds: 60 })).toBe(hashOfBlob(BLOB_BYTES));
    expect(await fetchedHash(b, A.inside[4], 8_000, BLOB_BYTES, { maxSeconds: 60 })).toBe(hashOfBlob(BLOB_BYTES));
  }
  if (there instanceof TunEnd) {
    expect(there.program.alive).toBe(true);
    expect(there.program.output).not.toContain("data-thread-restart");
    expect(residentMb(livesOn!) - startMb).toBeLessThan(GROWN_MAX_MB);
  }
  expect(await end.program.end()).toBe(0);
  await end[Symbol.asyncDispose]();
  expectNothingLeft(A);
  expect(await hostOf(a)).toBe(before);
  const figure = `back ≤ ${(worstMs / 1_000).toFixed(1)} s`;
  record({ what: `kill -9 of wg --tun beside ${kind}, under load; it ${speaker} first`, count: ROUNDS, figure });
}

function expectNothingLeft(end: EndSpec): void {
  expect(existsSync(join(UAPI_FOLDER, `${deviceOf(end)}.sock`))).toBe(false);
  const journals = existsSync(JOURNALS) ? readdirSync(JOURNALS) : [];
  expect(journals.filter((name) => name.includes(deviceOf(end)))).toEqual([]);
}

const all = needs("root", "tun", "netns", "ping", "curl", "wg", "nft", "wireguard-go", "boringtun-cli");

const KILLED = [
  ["wirebadge", "listens"],
  ["wireguard-go", "speaks"],
  ...(LONG
    ? ([
        ["wirebadge", "speaks"],
        ["boringtun-cli", "listens"],
      ] as const)
    : []),
] as const;
const LIVES_BESIDE = LONG ? (["wireguard-go", "boringtun-cli"] as const) : (["wireguard-go"] as const);

describe.runIf(all)("kill -9 under load", () => {
  test.each(KILLED)("of ours beside %s; it %s first once it is back", killOurs);

  test.each(LIVES_BESIDE)("of %s beside ours, which lives on", async (stock) => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await Promise.all([serve(a), serve(b)]);
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    let there = await startEnd(stock, B, b, {});
    await backAfter(a, B.inside[4], 20_000);
    const startMb = residentMb(ours.program.pid);
    for (let round = 0; round < ROUNDS; round++) {
      const load = new Load([
        [a, B.inside[4]],
        [b, A.inside[4]],
      ]);
      await until("some load", () => load.bytes > 2 * BLOB_BYTES);
      await there.kill();
      await delay(2_000); // ours goes on sending to nobody
      there = await startEnd(stock, B, b, {});
      await backAfter(a, B.inside[4], BACK_WITHIN_MS.listens);
      await load.stop();
      expect(await fetchedHash(a, B.inside[4], 8_000, BLOB_BYTES, { maxSeconds: 60 })).toBe(hashOfBlob(BLOB_BYTES));
    }
    expect(ours.program.output).not.toContain("data-thread-restart");
    expect(residentMb(ours.program.pid) - startMb).toBeLessThan(GROWN_MAX_MB);
    expect(await ours.program.end()).toBe(0);
    expectNothingLeft(A);
  });
});
