// What a machine does to a program: a full disk, a read-only one, a taken port, no more file descriptors, no name
// server. Each time an error that says what, where and how to mend it, nothing half done, and work goes on when the
// fault is gone.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { needs } from "../needs.ts";
import { exchange, TestNetwork, type TestPeer, WIREBADGE } from "./network.ts";
import { type Program, until } from "./program.ts";
import { SmallDisk } from "./small-disk.ts";

let network: TestNetwork;
beforeEach(async () => {
  network = await TestNetwork.start();
}, 120_000);
afterEach(() => network.close());

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** The error that the program ends with, after exit code 2. */
async function failureOf(program: Program): Promise<Failure> {
  expect(`${await program.exited}`, program.tail).toBe("2");
  const said = program.records.find((value) => value["error"] !== undefined);
  return said?.["error"] as Failure;
}

function run(name: string, words: readonly string[], stdin?: string): Program {
  return network.start(name, words[0]!, words.slice(1), stdin === undefined ? {} : { stdin });
}

const wirebadge = (...words: readonly string[]): string[] => [process.execPath, WIREBADGE, ...words, "--json"];
const ready = (program: Program): Promise<Record<string, unknown>> =>
  program.event("ready line", (value) => (value["event"] === "ready" ? value : undefined));

describe.runIf(needs("linux", "root", "netns"))("a disk", () => {
  const coordinatorAt = (disk: SmallDisk): Program =>
    run(
      "coordinator on the disk",
      disk.inside(
        ...wirebadge("coordinator", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
        ...["--data", join(disk.path, "data")],
      ),
    );

  test("that is full under the coordinator: a change is refused and says why, and it goes on later", async () => {
    const disk = await SmallDisk.make(network);
    const data = join(disk.path, "data");
    let coordinator = coordinatorAt(disk);
    let url = String((await ready(coordinator))["adminUrl"]);
    const admin = (...words: readonly string[]): Program =>
      run(words.join(" "), disk.inside(...wirebadge(...words, "--url", url, "--data", data)));
    const create = (as: string): Program => admin("token", "create", "--as", as);
    expect(await create("agent:before").exited).toBe(0);
    disk.fill();
    const refused = await failureOf(create("agent:during"));
    expect(refused).toMatchObject({ code: "STORE_FAILED", hint: expect.stringMatching(/make room/) });
    expect(refused.message).toMatch(/network\.db has no room: the disk is full/);
    const list = admin("identity", "list");
    expect(await list.exited).toBe(0);
    expect(list.output).toContain("agent:before");
    expect(list.output).not.toContain("agent:during");
    disk.empty();
    expect(await create("agent:after").exited).toBe(0);
    disk.fill();
    expect(await coordinator.end()).toBe(0);
    const late = await failureOf(coordinatorAt(disk));
    expect(late.code).toMatch(/STORE_FAILED/);
    expect(late.message).toMatch(/disk is full|can't be opened/);
    disk.empty();
    coordinator = coordinatorAt(disk);
    url = String((await ready(coordinator))["adminUrl"]);
    const again = admin("identity", "list");
    await again.exited;
    expect(again.output).toContain("agent:after");
    expect(again.output).not.toContain("agent:during");
  });

  test("that is full under a peer: no new badge without a place for it; a known one goes on", async () => {
    const disk = await SmallDisk.make(network);
    const state = join(disk.path, "coder");
    const up = (token?: string): Program =>
      run("agent:coder", disk.inside(...wirebadge("up", "--state", state, "--token-file", "-")), token);
    const token = await network.token("agent:coder");
    disk.fill();
    const refused = await failureOf(up(token));
    expect(refused).toMatchObject({ code: "STATE_UNREADABLE", hint: expect.stringMatching(/make room/) });
    expect(refused.message).toMatch(/can't be written \(ENOSPC\)/);
    expect(readdirSync(disk.outside(state))).toEqual([]); // no half state
    expect((await network.admin(["session", "list"]))["sessions"]).toEqual([]);
    disk.empty();
    const first = up(token);
    const { session } = await ready(first);
    const before = readFileSync(disk.outside(join(state, "state.json")), "utf8");
    disk.fill();
    await network.coordinator.kill();
    await network.startCoordinator(); // its new bookmark can't be written
    await first.event("complaint", (value) => value["event"] === "state-problem" || undefined);
    expect(first.alive).toBe(true);
    expect(readFileSync(disk.outside(join(state, "state.json")), "utf8")).toBe(before);
    await until("the peer at the coordinator", async () => {
      const { sessions } = await network.admin(["session", "list"]);
      return (sessions as { connected: boolean }[])[0]?.connected || undefined;
    });
    disk.empty();
    await first.kill();
    expect((await ready(up(token)))["session"]).toBe(session);
  });

  test("that is read-only: neither starts, each names its folder, nothing is made", async () => {
    const disk = await SmallDisk.make(network);
    disk.remount("ro");
    const words = wirebadge("up", "--state", join(disk.path, "x"), "--token-file", "-");
    const peer = await failureOf(run("agent:x", disk.inside(...words), await network.token("agent:x")));
    expect(peer).toMatchObject({ code: "STATE_UNREADABLE", hint: expect.stringMatching(/folder/) });
    expect(peer.message).toContain(join(disk.path, "x"));
    const coordinator = await failureOf(coordinatorAt(disk));
    expect(coordinator).toMatchObject({ code: "STATE_UNREADABLE", hint: expect.stringMatching(/--data/) });
    expect(readdirSync(disk.outside(disk.path))).toEqual([]);
    expect((await network.admin(["session", "list"]))["sessions"]).toEqual([]);
  });

  test("no name server: it says which name, and the peer is back by itself once the name is", async () => {
    const hosts = join(network.folder, "hosts");
    const here = "127.0.0.1 localhost mesh.test\n";
    writeFileSync(hosts, here);
    writeFileSync(join(network.folder, "resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    const bind = (name: string): string => `mount --bind ${join(network.folder, name)} /etc/${name}`;
    const disk = await SmallDisk.make(network, `${bind("hosts")} && ${bind("resolv.conf")}`);
    const words = ["--listen", "127.0.0.1:0", "--url", "http://mesh.test:1", "--admin-listen", "127.0.0.1:0"];
    await network.coordinator.end();
    const port = new URL(network.url).port;
    words[1] = `127.0.0.1:${port}`;
    words[3] = `http://mesh.test:${port}`;
    const start = async (): Promise<Program> => {
      const one = run("coordinator", wirebadge("coordinator", ...words, "--data", network.dataFolder));
      network.useCoordinator(one, await ready(one));
      return one;
    };
    const coordinator = await start();
    const up = wirebadge("up", "--state", join(network.folder, "named"), "--token-file", "-");
    const peer = run("agent:named", disk.inside(...up), await network.token("agent:named"));
    await ready(peer);
    writeFileSync(hosts, "127.0.0.1 localhost\n");
    await coordinator.kill();
    await start();
    const said = await peer.event("complaint", (value) =>
      value["event"] === "control-problem" &&
      /mesh\.test/.test(String(value["msg"])) &&
      /EAI_AGAIN|ENOTFOUND/.test(String(value["msg"]))
        ? value
        : undefined,
    );
    expect(said).toMatchObject({ code: "COORDINATOR_UNREACHABLE", final: false });
    writeFileSync(hosts, here);
    await until("the peer at the coordinator", async () => {
      const { sessions } = await network.admin(["session", "list"]);
      return (sessions as { connected: boolean }[])[0]?.connected || undefined;
    });
  });

  test("file descriptors used up by strangers: the coordinator neither dies nor spins, peers join later", async () => {
    await network.coordinator.end();
    const words = wirebadge(
      "coordinator",
      "--listen",
      "127.0.0.1:0",
      "--admin-listen",
      "127.0.0.1:0",
      "--data",
      network.dataFolder,
    );
    const coordinator = run("coordinator", ["prlimit", "--nofile=64:64", ...words]);
    network.useCoordinator(coordinator, await ready(coordinator));
    const token = await network.token("agent:late");
    const strangers: Socket[] = [];
    for (let n = 0; n < 120; n++) {
      const socket = connect(Number(new URL(network.url).port), "127.0.0.1");
      socket.on("error", () => undefined); // closed for want of a descriptor
      strangers.push(socket);
    }
    await until("no descriptor left", () => readdirSync(`/proc/${coordinator.pid}/fd`).length >= 63 || undefined);
    const before = cpuTicks(coordinator.pid);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(cpuTicks(coordinator.pid) - before).toBeLessThan(50); // of 100 a second
    expect(coordinator.alive).toBe(true);
    for (const socket of strangers) socket.destroy();
    const late: TestPeer = network.peer("agent:late");
    await late.up(token);
    expect(late.session).toMatch(/^s_/);
  });
});

test.runIf(needs("linux", "root"))("file descriptors used up at a gateway: dials fail, flows go on", async () => {
  const service = await network.service("echo");
  await network.setPolicy({
    services: { echo: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw"] } },
    grants: [{ from: "kind:agent", to: "service:echo" }],
  });
  const up = wirebadge(
    "up",
    "--state",
    join(network.folder, "gw"),
    "--token-file",
    "-",
    "--serve",
    `echo=${service.at}`,
  );
  const gateway = run("node:gw", ["prlimit", "--nofile=64:64", ...up], await network.token("node:gw"));
  await ready(gateway);
  const coder = await network.join("agent:coder", ["--socks"]);
  await coder.echo("echo", service.port, "first");
  const opened = await Promise.allSettled(Array.from({ length: 60 }, () => coder.connect("echo", service.port)));
  const sockets = opened.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  if (!gateway.alive) throw new Error(gateway.tail);
  expect(sockets.length, `${readdirSync(`/proc/${gateway.pid}/fd`).length} in use`).toBeGreaterThan(5);
  expect(sockets.length).toBeLessThan(60);
  expect(await exchange(sockets[0]!, "still here")).toBe("still here");
  expect(gateway.alive).toBe(true);
  for (const socket of sockets) socket.destroy();
  await until("a new connection", () => coder.echo("echo", service.port, "again").catch(() => undefined));
  expect(gateway.alive).toBe(true);
});

/** User and system time, in hundredths of a second. */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

test("a port that is taken is named with its option, and nothing is left behind", async () => {
  const taken = createServer();
  const port = await listening(taken);
  const at = `127.0.0.1:${port}`;
  const data = join(network.folder, "second");
  const listens = { "--listen": "127.0.0.1:0", "--admin-listen": "127.0.0.1:0", "--data": data };
  for (const option of ["--listen", "--admin-listen"] as const) {
    const words = Object.entries({ ...listens, [option]: at }).flat();
    const refused = await failureOf(run("coordinator", wirebadge("coordinator", ...words)));
    expect(refused).toMatchObject({ code: "PORT_TAKEN", hint: expect.stringContaining(option) });
    expect(refused.message).toContain(at);
  }
  const token = await network.token("agent:x");
  const state = join(network.folder, "x");
  const up = (...words: readonly string[]): Program =>
    run("agent:x", wirebadge("up", "--state", state, "--token-file", "-", ...words), token);
  const socks = await failureOf(up("--socks", at));
  expect(socks).toMatchObject({ code: "PORT_TAKEN" });
  expect(socks.message).toContain(String(port));
  const other = await network.join("agent:other");
  const udpPort = (await other.status()).listenPort;
  const udp = await failureOf(up("--listen-port", String(udpPort)));
  expect(udp).toMatchObject({ code: "PORT_TAKEN", hint: expect.stringContaining("--listen-port") });
  expect(existsSync(join(state, "peer.pid"))).toBe(false); // no lock is left
  await ready(up()); // the same session, with what was free
  const { sessions } = await network.admin(["session", "list"]);
  expect((sessions as { identity: string }[]).filter(({ identity }) => identity === "agent:x")).toHaveLength(1);
  taken.close();
});

function listening(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const bound = server.address();
      resolve(typeof bound === "object" ? (bound?.port ?? 0) : 0);
    });
  });
}
