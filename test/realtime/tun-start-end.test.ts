// How `wirebadge wg --tun` starts and ends where something is in its way: another of its name, what a killed one has
// left, a user without rights, a route that leads its own datagrams into its device.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { UAPI_FOLDER } from "../../src/peer/tun/uapi-server.ts";
import { A, B, configOf, deviceOf, joined, startEnd, TunEnd } from "../interop/tun-end.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { Program, until } from "../scripts/program.ts";

const WIREBADGE = fileURLToPath(new URL("../../bin/wirebadge", import.meta.url));
const DEVICE = deviceOf(A);
const SOCKET = join(UAPI_FOLDER, `${DEVICE}.sock`);
const CLOCK_TICKS_PER_SECOND = 100;
const CPU_MAX_S = 1;
const NOBODY = ["--reuid=65534", "--regid=65534", "--clear-groups"];

const toAll = (text: string): string => text.replace(/AllowedIPs = .*/, "AllowedIPs = 0.0.0.0/0, ::/0");

/** What the host has of routing, but for link-local addresses, which the cable has a moment later. */
function routing(namespace: Namespace): string {
  const all = (["-4", "-6"] as const).map((family) =>
    [namespace.ip(family, "rule", "show"), namespace.ip(family, "route", "show", "table", "all")].join("\n"),
  );
  const lines = all.join("\n").split("\n");
  return lines.filter((line) => !line.includes("fe80::")).join("\n");
}

/** Of the process and its threads. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
}

/** `wirebadge wg FILE …WORDS`, in a namespace or not, until it ends by itself; its standard error. */
class Start implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "wirebadge-start-"));
  readonly file = join(this.folder, `${DEVICE}.conf`);

  constructor(config = configOf(A, B)) {
    writeFileSync(this.file, config, { mode: 0o600 });
  }

  async refused(words: readonly string[], namespace?: Namespace): Promise<string> {
    const all = [WIREBADGE, "wg", this.file, ...words];
    const program = new Program("wirebadge", process.execPath, all, { namespace, stdin: "" });
    expect(await program.exited).not.toBe(0);
    return program.stderrLines.join("\n");
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

describe.runIf(needs("root", "tun", "netns", "ping", "wg", "nft", "setpriv"))("starts and ends of wg --tun", () => {
  const reaches = async (namespace: Namespace, host = B.inside[4]): Promise<boolean> => {
    const ran = await namespace.run(requireTool("ping"), ["-c", "1", "-W", "1", host], { check: false });
    return ran.code === 0;
  };

  test("what kill -9 left of a default route is undone by the next start, and its socket replaced", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    const before = routing(a);
    await using _there = await startEnd("wirebadge", B, b, {});
    const config = toAll(configOf(A, B));
    const killed = await TunEnd.start(A, a, config);
    await until("an answer", () => reaches(a));
    await killed.program.kill();
    rmSync(killed.folder, { recursive: true });
    expect(a.ip("rule", "show")).toContain("fwmark");
    expect(existsSync(SOCKET)).toBe(true);

    const next = await TunEnd.start(A, a, configOf(A, B));
    expect(a.ip("rule", "show")).not.toContain("fwmark");
    expect((await a.run(requireTool("wg"), ["show", DEVICE, "listen-port"])).stdout.trim()).toBe("51820");
    await until("an answer", () => reaches(a));
    await next[Symbol.asyncDispose]();
    expect(routing(a)).toBe(before);
    expect(existsSync(SOCKET)).toBe(false);
  });

  test("a second of its name is refused, in this namespace and in another, and the first lives on", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using first = await TunEnd.start(A, a, configOf(A, B));
    await using _there = await startEnd("wirebadge", B, b, {});
    using second = new Start();
    expect(await second.refused(["--tun"], a)).toMatch(/in use by another program/);
    const elsewhere = lab.namespace("c");
    const before = routing(elsewhere);
    expect(await second.refused(["--tun"], elsewhere)).toMatch(/another process runs .*: it answers at /);
    expect(routing(elsewhere)).toBe(before);
    expect(elsewhere.ip("link", "show")).not.toContain(DEVICE);
    expect((await a.run(requireTool("wg"), ["show", DEVICE, "listen-port"])).stdout.trim()).toBe("51820");
    await until("an answer", () => reaches(a));
    expect(first.program.alive).toBe(true);
  });

  test("a file whose AllowedIPs lead its endpoint into the device: the log says so", async () => {
    await using lab = new Lab();
    const { a } = joined(lab);
    const loop = `AllowedIPs = ${B.outside[4]}/32`;
    await using end = await TunEnd.start(A, a, configOf(A, B).replace(/AllowedIPs = .*/, loop));
    const warned = await end.program.event("a warning", (row) =>
      row["event"] === "endpoint-loop" ? row["address"] : undefined,
    );
    expect(warned).toBe(B.outside[4]);
  });

  test.each([4, 6] as const)("a route that leads IPv%i datagrams of a live session back: no spin", async (family) => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, { family });
    const config = configOf(A, B, { family, more: "Table = off\n" });
    const end = await TunEnd.start(A, a, config.replace("AllowedIPs = ", `AllowedIPs = 10.1.0.0/24, fd01::/64, `));
    await until("an answer", () => reaches(a));
    a.ip("route", "add", B.outside[family], "dev", DEVICE);
    const before = cpuSeconds(end.program.pid);
    await a.run(requireTool("ping"), ["-q", "-i", "0.02", "-c", "150", "-W", "1", B.inside[4]], { check: false });
    expect(cpuSeconds(end.program.pid) - before).toBeLessThan(CPU_MAX_S);
    expect(await end.program.end()).toBe(0);
    const said = end.program.records.find((row) => row["event"] === "counters");
    const counters = new Map(Object.entries(said?.["counters"] as Record<string, number>));
    expect(counters.get("loop-ownDatagrams")).toBeGreaterThanOrEqual(150);
    await end[Symbol.asyncDispose]();
  });

  test("another user with CAP_NET_ADMIN runs it, warned once of UAPI; else he is told the choice", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    using start = new Start();
    await a.run("chown", ["-R", "65534:65534", start.folder]);
    // In its mount namespace: a device that anybody may open, and no folder for UAPI.
    const shell = (how: readonly string[]): string =>
      [
        "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && mount -t tmpfs -o mode=755 none /run",
        `exec setpriv ${[...NOBODY, ...how].join(" ")} ${process.execPath} ${WIREBADGE} wg ${start.file} --tun --json`,
      ].join(" && ");
    const env = { PATH: process.env["PATH"], XDG_RUNTIME_DIR: start.folder };
    const how = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"];
    const program = new Program("wirebadge", "sh", ["-c", shell(how)], { namespace: a, env });
    await program.event("ready line", (row) => (row["event"] === "ready" ? row : undefined));
    await until("an answer", () => reaches(a));
    const warnings = program.records.filter((row) => row["event"] === "no-uapi");
    expect(warnings).toHaveLength(1);
    expect(warnings[0]!["hint"]).toMatch(/run as root, or have root make it yours: install -d -o USER/);
    expect(await program.end()).toBe(0);
    expect(a.ip("link", "show")).not.toContain(DEVICE);

    const without = new Program("wirebadge", "sh", ["-c", shell([])], { namespace: a, env });
    expect(await without.exited).not.toBe(0);
    expect(without.output).toMatch(/can't be made \(EPERM\).*run as root or with CAP_NET_ADMIN, or leave out --tun/s);
  });

  test("a user who may not open /dev/net/tun is told the choice", async () => {
    using start = new Start();
    await using lab = new Lab();
    const a = lab.namespace("a");
    await a.run("chown", ["-R", "65534:65534", start.folder]);
    const shell = [
      "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200",
      `exec setpriv ${NOBODY.join(" ")} ${process.execPath} ${WIREBADGE} wg ${start.file} --tun`,
    ].join(" && ");
    const ran = await a.run("sh", ["-c", shell], { check: false });
    expect(ran.code).not.toBe(0);
    expect(ran.stderr).toMatch(/no TUN devices here \(EACCES\)/);
    expect(ran.stderr).toMatch(/run as root, or with CAP_NET_ADMIN and .*, or leave out --tun/);
  });
});

describe("words of wg --tun", () => {
  test("a name that is too long, and what the rootless form alone has, are refused", async () => {
    using start = new Start();
    expect(await start.refused(["--tun", "a234567890123456"])).toMatch(/no interface can be called a234567890123456/);
    expect(await start.refused(["--tun", "wb0", "--socks"])).toMatch(/--socks has no use with --tun/);
  });
});
