// Names under `wirebadge up --tun`, between real processes in network namespaces: what a peer's own resolver answers,
// as the policy changes, and what `--dns` tells the real systemd-resolved.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { needs, requireTool } from "../needs.ts";
import { type TestPeer, WIREBADGE } from "../scripts/network.ts";
import { until } from "../scripts/program.ts";
import { SystemdResolved } from "./systemd-resolved.ts";
import { deviceName, serveBlobs, UpScene } from "./tun-up-scene.ts";

const PORT = 8_000;
const HIDDEN = { id: "a-uses-b", from: "node:a", to: "node:b tcp:8000" };
const OPEN = [HIDDEN, { id: "a-uses-echo", from: "node:a", to: "service:echo" }];
const services = { echo: { at: "127.0.0.1 tcp:8000", via: ["node:b"] } };

interface Names {
  readonly zone: string;
  readonly resolver: readonly string[];
  readonly entered: boolean;
  readonly note?: string;
  readonly how?: string;
}

const namesOf = (records: readonly Record<string, unknown>[]): Names =>
  records.find((record) => record["event"] === "ready")!["names"] as Names;

describe.runIf(needs("root", "tun", "netns", "dig", "curl"))("names under wirebadge up --tun", () => {
  let scene: UpScene;
  let nodeA: TestPeer;
  let nodeB: TestPeer;
  let names: Names;

  async function dig(machine: string, ...words: readonly string[]): Promise<string> {
    const args = ["+tries=1", "+time=5", "+nostats", ...words];
    return (await scene.machine(machine).run(requireTool("dig"), args, { check: false })).stdout;
  }
  const short = async (machine: string, ...words: readonly string[]): Promise<string[]> =>
    (await dig(machine, "+short", ...words)).split("\n").filter(Boolean).sort();

  beforeAll(async () => {
    scene = await UpScene.start(["a", "b", "c"], { services, grants: OPEN });
    nodeB = await scene.network.join("node:b", ["--tun", deviceName("nb"), "--serve", "echo=127.0.0.1:8000"], {
      namespace: scene.machine("b"),
    });
    nodeA = await scene.network.join("node:a", ["--tun", deviceName("na")], { namespace: scene.machine("a") });
    await serveBlobs(scene.machine("b"), PORT);
    names = namesOf(nodeA.program.records);
  }, 120_000);

  afterAll(() => scene?.[Symbol.asyncDispose]());

  test("the ready line says under which names, where they are answered, and how to ask for them", async () => {
    expect(names).toMatchObject({ entered: false, how: expect.stringContaining(names.resolver[0]!) });
    expect(names.zone).toMatch(/^[a-z0-9-]+\.internal$/);
    expect(names.resolver).toHaveLength(2);
  });

  test("nodes and services by name, of both families and by UDP and TCP; curl gets there", async () => {
    const v4 = nodeB.addresses.find((address) => !address.includes(":"))!;
    for (const at of names.resolver.map((server) => `@${server}`)) {
      expect(await short("a", at, `b.${names.zone}`, "AAAA")).toEqual([nodeB.address]);
      expect(await short("a", at, "+tcp", `b.${names.zone}`, "A")).toEqual([v4]);
      expect(await short("a", at, `a.${names.zone}`, "AAAA")).toEqual([nodeA.address]);
      expect(await short("a", at, "-x", v4)).toEqual([`b.${names.zone}.`]);
      expect(await dig("a", at, `nobody.${names.zone}`)).toContain("status: NXDOMAIN");
      expect(await dig("a", at, "example.com")).toContain("status: REFUSED");
    }
    const [echo] = await short("a", `@${names.resolver[0]}`, `echo.${names.zone}`, "AAAA");
    const url = `http://[${echo}]:${PORT}/blob/10`;
    expect((await scene.machine("a").run(requireTool("curl"), ["-sS", "--fail", url])).code).toBe(0);
  });

  test("a name that the policy takes away is no name any more, and one that it gives is there", async () => {
    const at = `@${names.resolver[0]}`;
    await scene.network.setPolicy({ services, grants: [HIDDEN] });
    await until("the end of the name", async () => (await dig("a", at, `echo.${names.zone}`)).includes("NXDOMAIN"));
    expect(await short("a", at, `b.${names.zone}`, "AAAA")).toEqual([nodeB.address]);
    await scene.network.setPolicy({ services, grants: OPEN });
    await until("the name", async () => (await short("a", at, `echo.${names.zone}`, "AAAA")).length === 1);
  });

  test("what was asked is counted, and nobody else asks", async () => {
    const counters = (await nodeA.status()).counters;
    expect(counters["names-answered"]).toBeGreaterThan(5);
    expect(counters["names-foreign"]).toBeUndefined();
  });

  test("without systemd-resolved in its namespace --dns says why and changes nothing", async () => {
    const device = deviceName("nc");
    const peer = await scene.network.join("node:c", ["--tun", device, "--dns"], { namespace: scene.machine("c") });
    expect(namesOf(peer.program.records)).toMatchObject({
      entered: false,
      note: expect.stringMatching(/systemd-resolved is not (?:on this host|in this network namespace)/),
      how: expect.any(String),
    });
    await peer.program.end();
    const alone = await scene.network.command(["up", "--dns"], { stdin: "" });
    expect([alone.code, alone.stderr]).toEqual([2, expect.stringContaining("--dns has no use without --tun")]);
  });
});

describe.runIf(
  needs("root", "tun", "netns", "curl", "systemd-resolved", "resolvectl", "dbus-daemon", "unshare", "nsenter"),
)("names under wirebadge up --tun --dns", () => {
  test("programs get there by name, others go where they went; no trace after the end or kill -9", async () => {
    await using scene = await UpScene.start(["a", "b"], { services, grants: OPEN });
    const nodeB = await scene.network.join("node:b", ["--tun", deviceName("db")], { namespace: scene.machine("b") });
    const host = scene.machine("a");
    const resolved = await SystemdResolved.start(host);
    const before = (await resolved.resolvectl("status")).stdout;
    const device = deviceName("da");
    const words = ["up", "--state", join(scene.network.folder, "names"), "--tun", device, "--dns", "--json"];
    const token = await scene.network.token("node:a");
    // A machine of its own also by its process 1: services are asked of that one's namespace.
    const start = async (stdin: string, ...more: readonly string[]) => {
      const unshare = ["--pid", "--fork", "--kill-child", "--mount-proc"];
      const command = [...unshare, process.execPath, WIREBADGE, ...words, ...more];
      const program = resolved.program("up", requireTool("unshare"), command, stdin);
      await program.event("ready line", (record) => (record["event"] === "ready" ? record : undefined));
      return { program, names: namesOf(program.records) };
    };
    const query = async (name: string): Promise<string> =>
      (await resolved.resolvectl("query", "--legend=no", "--cache=no", name)).stdout;

    const first = await start(token, "--token-file", "-");
    expect(first.names).toMatchObject({ entered: true });
    expect(await query(`b.${first.names.zone}`)).toContain(nodeB.address);
    expect(resolved.askedUpstream).toEqual([]);
    await query("example.com");
    expect(new Set(resolved.askedUpstream)).toEqual(new Set(["example.com"]));
    first.program.child.kill("SIGKILL");
    await first.program.exited;
    await until("the device's end", async () => (await resolved.resolvectl("status")).stdout === before);

    const second = await start("");
    expect(await query(`b.${second.names.zone}`)).toContain(nodeB.address);
    const { pid } = second.program; // unshare's own, which waits for its child
    process.kill(Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim()), "SIGTERM");
    expect(await second.program.exited).toBe(0);
    expect((await resolved.resolvectl("status")).stdout).toBe(before);
    expect((await resolved.run("ls", "/run/wirebadge")).stdout).toBe("");
  });
});
