// The `wirebadge` command in processes of its own: a coordinator, peers, questions to them, and how each ends.
import { spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toBase64, toBase64Url, toHex } from "../../src/base/bytes.ts";
import { type Child, type CommandOutcome, Processes, WIREBADGE } from "../../src/cli/quickstart/processes.ts";
import { parseJoinToken } from "../../src/control/token.ts";

const READY_MS = 60_000;
const CLEAN_END_MS = 2_500; // 1.5 s, and what a busy machine takes for itself

const processes = new Processes();
const data = join(processes.folder, "data");
const previousState = process.env["XDG_STATE_HOME"];
let adminUrl = "";
let coordinator: Child | undefined;

const readyLine = (value: Record<string, unknown>): Record<string, unknown> | undefined =>
  value["event"] === "ready" ? value : undefined;
const admin = (...words: string[]): Promise<CommandOutcome> =>
  processes.command([...words, "--url", adminUrl, "--data", data]);
const state = (name: string): string => join(processes.folder, name);

async function makeToken(...words: string[]): Promise<string> {
  const { stdout, stderr, code } = await admin("token", "create", ...words);
  expect(code, stderr).toBe(0);
  return stdout;
}

function up(name: string, token: string | undefined, ...words: string[]): Child {
  const argv = [WIREBADGE, "up", "--state", state(name), "--json", ...words];
  return token === undefined
    ? processes.start(name, argv)
    : processes.start(name, [...argv, "--token-file", "-"], { stdin: token });
}

/** Sends the signal; how it ended and after how many milliseconds. */
async function end(child: Child, signal: NodeJS.Signals): Promise<{ code: number | null; tookMs: number }> {
  const startedMs = performance.now();
  child.process.kill(signal);
  return { code: await child.exited, tookMs: performance.now() - startedMs };
}

beforeAll(async () => {
  process.env["XDG_STATE_HOME"] = join(processes.folder, "xdg-state");
  const words = ["coordinator", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data", data, "--json"];
  coordinator = processes.start("coordinator", [WIREBADGE, ...words, "--log", "trace"]);
  const ready = await coordinator.event("ready line", READY_MS, readyLine);
  adminUrl = String(ready["adminUrl"]);
  const policy = join(processes.folder, "policy.ts");
  writeFileSync(
    policy,
    'import { definePolicy } from "wirebadge/policy";\n' +
      'const agent: string = "agent:one";\n' +
      'export default definePolicy({ grants: [{ id: "pings", from: agent, to: "node:gateway icmp" }] });\n',
  );
  const set = await admin("policy", "set", policy);
  expect([set.code, set.stderr]).toEqual([0, ""]);
}, 120_000);

afterAll(async () => {
  await processes.cleanUp();
  if (previousState === undefined) delete process.env["XDG_STATE_HOME"];
  else process.env["XDG_STATE_HOME"] = previousState;
}, 60_000);

describe("a peer from the command line", () => {
  it("joins, answers for itself with exit codes, and is the same session after kill -9", async () => {
    const agent = up("one", await makeToken("--as", "agent:one"));
    const ready = await agent.event("ready line", READY_MS, readyLine);
    expect(ready).toMatchObject({ identity: "agent:one", session: expect.stringMatching(/^s_[0-9a-z]{16}$/) });
    const ask = (...words: string[]): Promise<CommandOutcome> => processes.command([...words, "--state", state("one")]);

    expect((await ask("can", "node:gateway icmp")).code).toBe(1); // granted, but there is no such node yet
    const denied = await ask("can", "service:none", "--json");
    expect([denied.code, JSON.parse(denied.stdout)]).toMatchObject([1, { allowed: false, reason: "NO_GRANT" }]);
    expect((await processes.command(["can", "service:none", "--state", state("nobody")])).code).toBe(2);

    const gateway = up("gateway", await makeToken("--as", "node:gateway"));
    await gateway.event("ready line", READY_MS, readyLine);
    await expect.poll(async () => (await ask("can", "node:gateway icmp")).code, { timeout: 20_000 }).toBe(0);
    const ping = await ask("ping", "node:gateway");
    expect([ping.code, ping.stdout]).toEqual([0, expect.stringMatching(/^node:gateway \(.*\) answered in .* ms/)]);

    expect((await end(agent, "SIGKILL")).code).toBeNull();
    const again = up("one", undefined);
    expect(await again.event("ready line", READY_MS, readyLine)).toMatchObject({ session: ready["session"] });
    expect((await ask("ping", "node:gateway")).code).toBe(0);
    for (const [child, signal] of [
      [again, "SIGINT"],
      [gateway, "SIGTERM"],
    ] as const) {
      const { code, tookMs } = await end(child, signal);
      expect(code, child.tail).toBe(0);
      expect(tookMs).toBeLessThan(CLEAN_END_MS);
    }
  });

  it("without --state is found when it is the only one, and listed when it isn't", async () => {
    expect((await processes.command(["status"])).stderr).toContain("error PEER_NOT_RUNNING");
    const start = async (name: string): Promise<Child> => {
      const token = await makeToken("--as", `agent:${name}`);
      const child = processes.start(name, [WIREBADGE, "up", "--token-file", "-", "--json"], { stdin: token });
      await child.event("ready line", READY_MS, readyLine);
      return child;
    };
    const first = await start("first");
    expect((await processes.command(["status"])).stdout).toMatch(/^identity +agent:first$/m);
    const second = await start("second");
    const both = await processes.command(["status"]);
    expect(both.code).toBe(2);
    expect(both.stderr).toMatch(/^error PEER_AMBIGUOUS: .*\nhint: .*agent:first.*agent:second/);
    for (const child of [first, second]) expect((await end(child, "SIGINT")).code).toBe(0);
  });

  it("ends with SESSION_REVOKED when it is revoked, and can't come back", async () => {
    const agent = up("revoked", await makeToken("--as", "agent:revoked"));
    await agent.event("ready line", READY_MS, readyLine);
    expect((await admin("revoke", "agent:revoked")).stdout).toMatch(/^revoked agent:revoked: 1 session ended/);
    expect(await agent.exited).toBe(2);
    expect(agent.tail).toContain('"code":"SESSION_REVOKED"');
    const again = up("revoked", undefined);
    expect(await again.exited).toBe(2);
    expect(again.tail).toContain('"code":"SESSION_REVOKED"');
  });
});

describe("output", () => {
  it("into a pipe that nobody reads any more is no error: neither for a question nor for what stays", async () => {
    const { stderr, status } = spawnSync(
      "sh",
      ["-c", `"$0" "$1" token --help | head -1`, process.execPath, WIREBADGE],
      {
        encoding: "utf8",
      },
    );
    expect([status, stderr]).toEqual([0, ""]);
    const token = await makeToken("--as", "agent:piped");
    const words = [WIREBADGE, "up", "--token-file", "-", "--state", state("piped"), "--log", "trace"];
    const child = spawn(process.execPath, words, { stdio: ["pipe", "pipe", "pipe"] });
    if (child.pid !== undefined) processes.tellGuard("started", child.pid);
    child.stdout.destroy();
    child.stderr.destroy();
    child.stdin.end(token);
    const ready = async (): Promise<number | null> =>
      (await processes.command(["status", "--state", state("piped")])).code;
    await expect.poll(ready, { timeout: READY_MS }).toBe(0);
    expect(child.exitCode).toBeNull();
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  });

  it("of a refused token in an argument holds no part of it", async () => {
    const token = (await makeToken("--as", "agent:argument")).trim();
    const refused = await processes.command(["up", "--token", token]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain("--token-file");
    expect(refused.stdout + refused.stderr).not.toContain(token.slice(20, 60));
  });
});

describe("a canary token", () => {
  it(
    "is in no log, argument, environment or file but its own state, after joining with " + "everything logged",
    async () => {
      const text = (await makeToken("--as", "agent:canary")).trim();
      const { secret } = parseJoinToken(text);
      const forms = [text, toHex(secret), toBase64(secret).replace(/=+$/, ""), toBase64Url(secret)];
      const words = [WIREBADGE, "up", "--state", state("canary"), "--json", "--log", "trace"];
      const child = processes.start("canary", [...words, "--token-file", "-", "--socks"], { stdin: text });
      await child.event("ready line", READY_MS, readyLine);
      await delay(200); // what it logs after the ready line
      const holds = (bytes: Buffer): boolean =>
        bytes.includes(Buffer.from(secret)) || forms.some((form) => bytes.includes(form));
      expect(holds(Buffer.from(`x${text}y`)) && holds(Buffer.from(secret))).toBe(true);

      const { pid } = child.process;
      for (const name of ["cmdline", "environ"]) expect(holds(readFileSync(`/proc/${pid}/${name}`))).toBe(false);
      for (const logged of [child.tail, coordinator?.tail ?? ""]) {
        expect(logged).not.toBe("");
        expect(holds(Buffer.from(logged))).toBe(false);
      }
      const found = readdirSync(processes.folder, { recursive: true, encoding: "utf8" })
        .map((name) => join(processes.folder, name))
        .filter((path) => statSync(path).isFile() && holds(readFileSync(path)));
      expect(found.filter((path) => path !== join(state("canary"), "state.json"))).toEqual([]);
      expect((await end(child, "SIGTERM")).code).toBe(0);
    },
  );
});

describe("the coordinator's own end", () => {
  it.each(["SIGINT", "SIGTERM"] as const)("%s ends it cleanly, with exit code 0", async (signal) => {
    const words = [WIREBADGE, "coordinator", "--data", state(`data-${signal}`), "--json"];
    const listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    const child = processes.start("other", [...words, ...listen]);
    await child.event("ready line", READY_MS, readyLine);
    const { code, tookMs } = await end(child, signal);
    expect(code, child.tail).toBe(0);
    expect(tookMs).toBeLessThan(CLEAN_END_MS);
  });

  it("is refused a data folder that another one has", async () => {
    const words = ["coordinator", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    const { code, stderr } = await processes.command(words);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error STATE_LOCKED: /m);
  });
});
