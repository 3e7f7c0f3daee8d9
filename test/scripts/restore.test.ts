// Backup and restore between real processes: taken while the coordinator runs, put back after an agent was revoked. The
// agent stays out, others go on in the new epoch, and a file that is no whole backup changes nothing.
import { existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type CommandOutcome, type Recorder, TestNetwork, type TestPeer } from "./network.ts";
import { until } from "./program.ts";

let network: TestNetwork;
let service: Recorder;
let gateway: TestPeer;
let file: string;
beforeEach(async () => {
  network = await TestNetwork.start();
  service = await network.service("echo");
  await network.setPolicy({
    services: { echo: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw"] } },
    grants: [{ from: "kind:agent", to: "service:echo" }],
  });
  gateway = await network.join("node:gw", ["--serve", `echo=${service.at}`]);
  file = join(network.folder, "backup.db");
}, 120_000);
afterEach(() => network.close());

const operator = (words: readonly string[]): Promise<CommandOutcome> =>
  network.command(["coordinator", ...words, "--data", network.dataFolder, "--json"]);

async function answer(words: readonly string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await operator(words);
  expect(`${code} ${code === 0 ? "" : stdout + stderr}`).toBe("0 ");
  return JSON.parse(stdout) as Record<string, unknown>;
}

async function refusal(words: readonly string[]): Promise<string> {
  const { code, stdout } = await operator(words);
  expect(code).toBe(2);
  const { error } = JSON.parse(stdout) as { error: { code: string; hint?: string } };
  expect(error.hint?.length).toBeGreaterThan(10);
  return error.code;
}

async function backup(): Promise<void> {
  const made = await answer(["backup", file, "--url", network.adminUrl]);
  expect(made).toMatchObject({ file, bytes: statSync(file).size });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readdirSync(network.dataFolder).filter((name) => name.startsWith("backup-"))).toEqual([]);
}

async function sessionState(id: string): Promise<string | undefined> {
  const { sessions } = await network.admin(["session", "list", "--all"]);
  return (sessions as { id: string; state: string }[]).find((session) => session.id === id)?.state;
}

async function gatewayBack(epoch: number): Promise<void> {
  await until("the gateway in the new epoch", async () => (await gateway.status()).epoch === epoch || undefined);
}

test("the agent revoked after the backup stays out, though only its gateway remembers; the others go on", async () => {
  const coder = await network.join("agent:coder", ["--socks"]);
  const other = await network.join("agent:other", ["--socks"]);
  expect(await coder.echo("echo", service.port, "before")).toBe("before");
  await backup();
  const before = await answer(["check", file]);
  expect(before).toMatchObject({ activeSessions: 3, epoch: 1 });
  const unused = await network.token("agent:unused");
  await network.admin(["revoke", "agent:coder"]);
  expect(await coder.program.exited).toBe(2);
  const knows = (name: string): boolean => readFileSync(join(gateway.state, "state.json"), "utf8").includes(name);
  await until("the gateway's own record of it", () => knows(coder.session) || undefined);

  // The whole data folder is lost, and the gateway is restarted besides.
  await network.coordinator.kill();
  await gateway.program.kill();
  rmSync(network.dataFolder, { recursive: true });
  const restored = await answer(["restore", file]);
  const epoch = Number(restored["epoch"]);
  expect(epoch).toBeGreaterThan(1);
  expect(await answer(["check"])).toMatchObject({ epoch, activeSessions: 3 }); // the backup knows no better
  await network.startCoordinator();
  await gateway.up();
  await gatewayBack(epoch);
  expect(await sessionState(coder.session)).toBe("revoked");
  await expect(coder.up()).rejects.toThrow("SESSION_REVOKED");
  expect((await gateway.status()).peers.map(({ session }) => session)).toEqual([other.session]);
  await until("the other agent's way", () => other.echo("echo", service.port, "on").catch(() => undefined));
  const late = await network
    .peer("agent:unused")
    .up(unused)
    .catch((error: Error) => error.message);
  expect(late).toMatch(/TOKEN_/); // made after the backup: unknown
  const fresh = await network.join("agent:fresh", ["--socks"]);
  expect(await fresh.echo("echo", service.port, "new")).toBe("new");
  expect((await fresh.status()).epoch).toBe(epoch);
});

test("over the store that is there: what had ended stays ended, it is kept, each restore is an epoch", async () => {
  const coder = await network.join("agent:coder");
  await backup();
  const { token } = await network.admin(["token", "create", "--as", "agent:again", "--uses", "9"]);
  await network.admin(["revoke", "agent:coder"]);
  expect(await refusal(["restore", file])).toBe("STATE_LOCKED"); // it runs
  expect(await refusal(["check"])).toBe("STATE_LOCKED");
  await gateway.program.end();
  await network.coordinator.end();
  expect(await refusal(["restore", file])).toBe("CONFLICT"); // a network is there
  const head = (await answer(["check"]))["auditHead"] as { seq: number; hash: string };
  const first = await answer(["restore", file, "--force"]);
  expect(first).toMatchObject({ sessions: [coder.session] });
  expect(existsSync(String(first["former"]))).toBe(true);
  expect(await refusal(["check", "--head", `${head.seq}:${head.hash}`])).toBe("CONFLICT"); // the log's end is gone
  const second = await answer(["restore", file, "--force"]);
  expect(Number(second["epoch"])).toBeGreaterThan(Number(first["epoch"]));
  await network.startCoordinator();
  expect(await sessionState(coder.session)).toBe("revoked");
  const again = await network
    .peer("agent:again")
    .up(String(token))
    .catch((error: Error) => error.message);
  expect(again).toMatch(/TOKEN_/);
  expect(await network.audit("network.restore")).toHaveLength(1); // the first one's line went with its store
});

test("what is no whole backup is refused, and the folder stays as it was", async () => {
  await backup();
  expect(await refusal(["backup", file])).toBe("CONFLICT"); // nothing is overwritten
  await gateway.program.end();
  await network.coordinator.end();
  const stopped = join(network.folder, "stopped.db");
  await answer(["backup", stopped]);
  expect(await answer(["check", stopped, "--head", await headOf(file)])).toMatchObject({ activeSessions: 1 });
  const names = readdirSync(network.dataFolder);
  const before = await answer(["check"]);
  const text = join(network.folder, "text");
  writeFileSync(text, "hello");
  truncateSync(stopped, Math.floor(statSync(stopped).size / 2));
  for (const wrong of [text, stopped, join(network.folder, "none"), join(network.dataFolder, "network.db")]) {
    expect(await refusal(["restore", wrong, "--force"]), wrong).toBe("STATE_UNREADABLE");
    expect(await refusal(["check", wrong]), wrong).toBe("STATE_UNREADABLE");
  }
  expect(readdirSync(network.dataFolder)).toEqual(names);
  expect(await answer(["check"])).toEqual(before);
});

async function headOf(backedUp: string): Promise<string> {
  const { seq, hash } = (await answer(["check", backedUp]))["auditHead"] as { seq: number; hash: string };
  return `${seq}:${hash}`;
}
