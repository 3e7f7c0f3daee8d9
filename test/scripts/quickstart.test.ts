// `npm start` as users run it, in a temporary folder of its own: each step holds; with one thing turned over, the step
// that it concerns doesn't; and whatever ends it, nothing stays.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { needs, requireTool } from "../needs.ts";

const QUICKSTART = fileURLToPath(new URL("../../bin/quickstart", import.meta.url));
const STEPS = ["coordinator", "enrolment", "handshake", "staging", "production", "revocation"];

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

interface Quickstart {
  readonly process: ChildProcess;
  /** Its own temporary folder, empty at first. */
  readonly folder: string;
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  stdout(): string;
  stderr(): string;
}

function quickstart(words: readonly string[], env: NodeJS.ProcessEnv = {}): Quickstart {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-test-"));
  folders.push(folder);
  const child = spawn(process.execPath, [QUICKSTART, ...words], {
    env: { ...process.env, TMPDIR: folder, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk.toString("utf8");
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString("utf8");
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once("close", (code, signal) => resolve({ code, signal })),
  );
  return { process: child, folder, ended, stdout: () => stdout, stderr: () => stderr };
}

/** Processes that have the folder in their arguments, with those arguments and their environment. */
function processesOf(folder: string): { pid: number; args: string; env: string }[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const args = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ");
        const env = readFileSync(`/proc/${name}/environ`, "utf8");
        return args.includes(folder) ? [{ pid: Number(name), args, env }] : [];
      } catch {
        return []; // ended meanwhile
      }
    });
}

async function until(holds: () => boolean, limitMs: number): Promise<boolean> {
  for (const end = performance.now() + limitMs; performance.now() < end; await delay(50)) if (holds()) return true;
  return holds();
}

const nothingStays = (folder: string): boolean => readdirSync(folder).length === 0 && processesOf(folder).length === 0;

interface Summary {
  readonly ok: boolean;
  readonly failed?: string;
  readonly steps: readonly { readonly name: string; readonly ok: boolean; readonly details: Record<string, unknown> }[];
}

describe("npm start -- --once", () => {
  it("holds every step, with what it measured, and leaves nothing behind", async () => {
    const run = quickstart(["--once", "--json"]);
    const { code } = await run.ended;
    const summary = JSON.parse(run.stdout()) as Summary;
    expect(summary, run.stdout()).toMatchObject({ ok: true });
    expect(summary.steps.map((step) => step.name)).toEqual(STEPS);
    const details = Object.fromEntries(summary.steps.map((step) => [step.name, step.details]));
    expect(details["handshake"]).toMatchObject({ path: "direct" });
    expect(details["staging"]).toMatchObject({
      status: 200,
      caller: { identity: "agent:coder", sponsor: "user:ana@example.com" },
    });
    expect(details["production"]).toMatchObject({
      toAuditor: 200,
      denial: { id: expect.stringMatching(/^d_[0-9a-z]{10}$/), reason: "NO_GRANT", policyVersion: 1 },
    });
    expect(details["production"]?.["printedAfterMs"]).toBeLessThan(100);
    expect(details["revocation"]?.["lastByteAfterAcceptedMs"]).toBeLessThan(1_000);
    expect(details["revocation"]?.["bytesDuring"]).toBeGreaterThan(10);
    expect([code, run.stderr()]).toEqual([0, ""]);
    expect(nothingStays(run.folder)).toBe(true);
  });

  it.each([
    ["grant-removed", "staging", "SOCKS reply 2"],
    ["production-granted", "production", "agent:coder reached production"],
    ["revoke-noop", "revocation", "agent:coder's bytes still reach staging"],
    ["staging-down", "staging", "SOCKS reply 5"],
  ])("with %s fails at the step %s, and says why", async (flip, failed, why) => {
    const run = quickstart(["--once"], { WIREBADGE_QUICKSTART_FLIP: flip });
    const { code } = await run.ended;
    expect(code, run.stdout()).toBe(1);
    expect(run.stderr()).toBe(`\nerror: step ${failed} did not hold\n`);
    const lines = run.stdout().split("\n");
    expect(lines.find((line) => line.startsWith("✗"))).toMatch(new RegExp(`^✗ ${failed} `));
    expect(lines.filter((line) => line.startsWith("✓"))).toHaveLength(STEPS.indexOf(failed));
    expect(run.stdout()).toContain(why);
    expect(nothingStays(run.folder)).toBe(true);
  });

  it("refuses what it doesn't know", async () => {
    const run = quickstart(["--twice"]);
    expect((await run.ended).code).toBe(2);
    expect(run.stderr()).toContain("error USAGE: ");
    const flipped = quickstart(["--once"], { WIREBADGE_QUICKSTART_FLIP: "nothing" });
    expect((await flipped.ended).code).toBe(2);
    expect(flipped.stderr()).toContain("WIREBADGE_QUICKSTART_FLIP=nothing is unknown");
  });
});

describe("npm start", () => {
  /** Up to where it stays. */
  async function started(): Promise<Quickstart> {
    const run = quickstart([]);
    expect(await until(() => run.stdout().includes("Ctrl-C ends it") || run.process.exitCode !== null, 120_000)).toBe(
      true,
    );
    expect(run.process.exitCode, run.stdout() + run.stderr()).toBeNull();
    return run;
  }

  it("stays up, with no token in any argument or environment, until Ctrl-C; then nothing stays", async () => {
    const run = await started();
    const processes = processesOf(run.folder);
    expect(processes.length).toBeGreaterThanOrEqual(5);
    for (const { args, env } of processes) expect(args + env).not.toMatch(/wb_[a-z]+_/);
    expect(run.stdout() + run.stderr()).not.toMatch(/wb_[a-z]+_/);
    run.process.kill("SIGINT");
    expect(await run.ended).toEqual({ code: 0, signal: null });
    expect(nothingStays(run.folder)).toBe(true);
  });

  it("leaves nothing behind even when it is killed", async () => {
    const run = await started();
    run.process.kill("SIGKILL");
    expect((await run.ended).signal).toBe("SIGKILL");
    expect(await until(() => nothingStays(run.folder), 10_000)).toBe(true);
  });

  it("ends at once when it is told to in the middle of the check", async () => {
    const run = quickstart([]);
    expect(await until(() => run.stdout().includes("✓ coordinator"), 60_000)).toBe(true);
    run.process.kill("SIGTERM");
    expect((await run.ended).code).toBe(130);
    expect(nothingStays(run.folder)).toBe(true);
  });
});

describe.runIf(needs("netns"))("npm start -- --isolated", () => {
  it("holds every step between network namespaces, and leaves none", async () => {
    const run = quickstart(["--once", "--json", "--isolated"], { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` });
    const { code } = await run.ended;
    expect(JSON.parse(run.stdout()), run.stdout()).toMatchObject({ ok: true });
    expect([code, run.stderr()]).toEqual([0, ""]);
    expect(nothingStays(run.folder)).toBe(true);
    const list = spawn(requireTool("ip"), ["netns", "list"], { stdio: ["ignore", "pipe", "ignore"] });
    let names = "";
    for await (const chunk of list.stdout) names += String(chunk);
    expect(names).not.toContain(`wbqs-${run.process.pid}-`);
  });
});
