// The host's side of a TUN device in real network namespaces: the same rules and routes as stock wg-quick makes, and
// nothing left behind, whatever step fails and wherever a kill -9 strikes.
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { type Prefix, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { HostNetwork, type TunPlan, undoLeftovers } from "../../src/peer/tun/host-network.ts";
import type { InterfaceAddress } from "../../src/peer/tun/route-plan.ts";
import type { HostNetworkEndOptions } from "../interop/host-network-end.ts";
import { type NamespaceTools, namespaceTools, readSysctl } from "../interop/namespace-tools.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { Program } from "../scripts/program.ts";

const END = fileURLToPath(new URL("../interop/host-network-end.ts", import.meta.url));
const SRC_VALID_MARK = "net.ipv4.conf.all.src_valid_mark";
const KEY = "aK8FWhiV1CtKFbKUPssL13P+Tv+c5owmYcU5PCP6yFw=";
const PEER_KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

const prefix = (text: string): Prefix => parsePrefix(text)!;
const interfaceAddress = (text: string): InterfaceAddress => ({
  address: parseAddress(text.split("/")[0]!)!,
  bits: prefix(text).bits,
});

interface FileSettings {
  readonly addresses: readonly string[];
  readonly allowedIps: readonly string[];
  readonly table?: "auto" | "off" | number;
  readonly fwMark?: number;
}

const planOf = (name: string, settings: FileSettings): TunPlan => ({
  name,
  mtuBytes: 1420,
  addresses: settings.addresses.map(interfaceAddress),
  routes: settings.allowedIps.map(prefix),
  table: settings.table ?? "auto",
  fwMark: settings.fwMark ?? 0,
});

const FULL: FileSettings = {
  addresses: ["10.9.0.2/24", "fd09::2/64", "10.8.0.1/32"],
  allowedIps: ["0.0.0.0/0", "::/0", "10.9.0.7/32", "192.168.7.0/24", "fd07::/48"],
};

/** All that this is about, as the kernel's own tools show it. */
async function snapshot(namespace: Namespace): Promise<string> {
  const parts = [
    namespace.ip("-4", "rule"),
    namespace.ip("-6", "rule"),
    namespace.ip("-4", "route", "show", "table", "all"),
    namespace.ip("-6", "route", "show", "table", "all"),
    namespace.ip("-d", "addr").replace(/ (?:valid_lft|preferred_lft).*$|qlen \d+|qdisc \S+|numtxqueues.*$/gm, ""),
    (await namespace.run(requireTool("nft"), ["list", "ruleset"])).stdout,
    `${SRC_VALID_MARK} = ${readSysctl(namespace, SRC_VALID_MARK)}`,
  ];
  return parts.join("---\n");
}

const folder = mkdtempSync(join(tmpdir(), "wirebadge-journal-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const journals = (): string[] => readdirSync(folder);

const warnings: object[] = [];
const logger = { info: () => undefined, warn: (fields: object) => void warnings.push(fields) };
const optionsOf = (tools: NamespaceTools) => ({ journalFolder: folder, logger, tools });

/** A machine with a way out, and a TUN device that stays. */
function host(lab: Lab, label: string, device?: string): Namespace {
  const namespace = lab.namespace(label);
  const far = lab.namespace(`${label}-far`);
  namespace.setSysctl("net.ipv6.conf.default.addr_gen_mode", "1"); // eth0: no link-local address that comes later
  lab.link({ namespace, addresses: ["10.1.0.1/24", "fd01::1/64"] }, { namespace: far, addresses: ["10.1.0.2/24"] });
  namespace.setSysctl("net.ipv6.conf.default.addr_gen_mode", "0");
  namespace.addRoute("default", "10.1.0.2");
  if (device !== undefined) namespace.ip("tuntap", "add", "dev", device, "mode", "tun");
  return namespace;
}

async function wgQuick(namespace: Namespace, name: string, settings: FileSettings): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "wirebadge-wg-quick-"));
  const lines = [
    "[Interface]",
    `PrivateKey = ${KEY}`,
    `Address = ${settings.addresses.join(", ")}`,
    "MTU = 1420",
    ...(settings.table === undefined ? [] : [`Table = ${settings.table}`]),
    ...(settings.fwMark === undefined ? [] : [`FwMark = ${settings.fwMark}`]),
    "[Peer]",
    `PublicKey = ${PEER_KEY}`,
    `AllowedIPs = ${settings.allowedIps.join(", ")}`,
    "",
  ];
  try {
    const path = join(home, `${name}.conf`);
    await writeFile(path, lines.join("\n"), { mode: 0o600 });
    const env = { ...process.env, WG_QUICK_USERSPACE_IMPLEMENTATION: requireTool("wireguard-go") };
    // Its daemon keeps whatever it is given as output.
    const child = namespace.spawn("wg-quick", ["up", path], { stdio: "ignore", env });
    const [code] = (await once(child, "exit")) as [number | null];
    expect(code).toBe(0);
  } finally {
    await rm(home, { recursive: true });
  }
}

/**
 * What wg-quick makes of it, less the link-local address of wireguard-go's device: a WireGuard one has none. Its guard
 * knows the device by its name, ours by its index.
 */
function comparable(text: string): string {
  return text
    .replaceAll("wg-quick-", "wirebadge-")
    .replaceAll("iifname", "iif")
    .replace(/^.*(?:fe80::|ff00::\/8).*\n/gm, "");
}

async function routing(namespace: Namespace): Promise<string> {
  const nft = await namespace.run(requireTool("nft"), ["list", "ruleset"]);
  return comparable(
    [
      namespace.ip("-4", "rule"),
      namespace.ip("-6", "rule"),
      namespace.ip("-4", "route", "show", "table", "all"),
      namespace.ip("-6", "route", "show", "table", "all"),
      nft.stdout,
      readSysctl(namespace, SRC_VALID_MARK),
    ].join("---\n"),
  );
}

const CASES: Readonly<Record<string, FileSettings>> = {
  "a default route of both families": FULL,
  "a default route with a mark of its own": { ...FULL, fwMark: 0x1234 },
  "IPv6's default route alone": { ...FULL, allowedIps: ["::/0", "10.7.0.0/16"] },
  "routes alone, some within others": {
    ...FULL,
    allowedIps: ["10.0.0.0/8", "10.7.0.0/16", "10.7.0.0/24", "10.9.0.128/25", "fd09::5/128", "fd00::/8", "fd02::/64"],
  },
  "a table of its own": { ...FULL, table: 77, fwMark: 5 },
  "no routes": { ...FULL, table: "off", fwMark: 5 },
};

describe.runIf(needs("netns", "tun", "nft", "wg", "wireguard-go"))("beside stock wg-quick", () => {
  for (const [what, settings] of Object.entries(CASES)) {
    test(`${what}: rules, routes, ruleset and sysctl are the same`, async () => {
      await using lab = new Lab();
      const name = `wbq${process.pid}`;
      const theirs = host(lab, "theirs");
      const ours = host(lab, "ours", name);
      await wgQuick(theirs, name, settings);
      const network = await HostNetwork.up(planOf(name, settings), optionsOf(namespaceTools(ours)));
      // "linkdown": no process has our device open.
      expect((await routing(ours)).replaceAll(" linkdown", "")).toBe(await routing(theirs));
      expect(network.mark).toBe(settings.fwMark ?? (settings.allowedIps.includes("::/0") ? 51820 : 0));
      await network.down();
      await rm(join("/var/run/wireguard", `${name}.sock`), { force: true }); // its owner is killed
    });
  }
});

describe.runIf(needs("netns", "tun", "nft"))("the host's side of a TUN device", () => {
  test("a default route, literally; the far end of the outer socket stays outside", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    const tools = namespaceTools(namespace);
    const before = await snapshot(namespace);
    const marks: number[] = [];
    const network = await HostNetwork.up(planOf("wg0", FULL), {
      ...optionsOf(tools),
      setMark(mark) {
        expect(tools.changes.some((line) => line.startsWith("rule") || line.includes("/0"))).toBe(false);
        marks.push(mark);
      },
    });
    expect(namespace.ip("-4", "rule")).toBe(
      [
        "0:\tfrom all lookup local",
        "32764:\tfrom all lookup main suppress_prefixlength 0",
        "32765:\tnot from all fwmark 0xca6c lookup 51820",
        "32766:\tfrom all lookup main",
        "32767:\tfrom all lookup default",
        "",
      ].join("\n"),
    );
    expect(namespace.ip("-6", "rule")).toBe(
      [
        "0:\tfrom all lookup local",
        "32764:\tfrom all lookup main suppress_prefixlength 0",
        "32765:\tnot from all fwmark 0xca6c lookup 51820",
        "32766:\tfrom all lookup main",
        "",
      ].join("\n"),
    );
    expect(namespace.ip("-4", "route", "show", "table", "51820")).toBe("default dev wg0 scope link linkdown \n");
    expect(namespace.ip("-6", "route", "show", "table", "51820")).toBe(
      "default dev wg0 metric 1024 linkdown pref medium\n",
    );
    expect(namespace.ip("-4", "route", "show", "dev", "wg0")).toBe(
      // 10.9.0.7/32 lies in the network of the device's own address: no route of its own.
      ["10.9.0.0/24 proto kernel scope link src 10.9.0.2 linkdown ", "192.168.7.0/24 scope link linkdown ", ""].join(
        "\n",
      ),
    );
    expect(readSysctl(namespace, SRC_VALID_MARK)).toBe("1");
    expect([network.mark, ...marks]).toEqual([51820, 51820]);
    expect(namespace.ip("route", "get", "203.0.113.1")).toContain("dev wg0 table 51820");
    expect(namespace.ip("route", "get", "203.0.113.1", "mark", "51820")).toContain("via 10.1.0.2 dev eth0");
    expect(
      await network.findLoops(["203.0.113.1", "192.168.7.5", "10.1.0.2"].map((text) => parseAddress(text)!)),
    ).toEqual(
      [parseAddress("192.168.7.5")], // inside a route that is no default one: the mark does not help
    );
    expect(statSync(join(folder, journals()[0]!)).mode & 0o777).toBe(0o600);
    await network.down();
    await network.down();
    expect(await snapshot(namespace)).toBe(before);
    expect(journals()).toEqual([]);
  });

  test("a step that fails undoes those before it, whichever it is", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    const before = await snapshot(namespace);
    const whole = namespaceTools(namespace);
    await (await HostNetwork.up(planOf("wg0", FULL), optionsOf(whole))).down();
    const steps = whole.changes.findIndex((line) => line.startsWith("rule del"));
    expect(steps).toBeGreaterThan(14);
    for (let failing = 0; failing < steps; failing++) {
      const tools = namespaceTools(namespace);
      let count = 0;
      tools.fail = () => (count++ === failing ? "RTNETLINK answers: Operation not permitted" : undefined);
      await expect(HostNetwork.up(planOf("wg0", FULL), optionsOf(tools))).rejects.toMatchObject({ code: "FORBIDDEN" });
      expect(await snapshot(namespace), `after failing at ${whole.changes[failing]}`).toBe(before);
      expect(journals()).toEqual([]);
    }
  });

  test("a route that somebody else has is a conflict that names it; theirs stays", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    const before = await snapshot(namespace);
    const plan = planOf("wg0", { ...FULL, allowedIps: ["192.168.7.0/24", "10.1.0.0/24", "0.0.0.0/0"] });
    // The kernel's own route of 10.1.0.0/24 by eth0 stands in the way.
    await expect(HostNetwork.up(plan, optionsOf(namespaceTools(namespace)))).rejects.toMatchObject({
      code: "CONFLICT",
      message: "ip route add 10.1.0.0/24 dev wg0: File exists",
    });
    expect(await snapshot(namespace)).toBe(before);
  });

  test("routes change while it is up; a default route goes whole; a change that fails changes nothing", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    const tools = namespaceTools(namespace);
    const before = await snapshot(namespace);
    const network = await HostNetwork.up(planOf("wg0", { ...FULL, allowedIps: ["192.168.7.0/24"] }), optionsOf(tools));
    const narrow = await snapshot(namespace);
    expect(network.mark).toBe(0);
    await network.updateRoutes(["192.168.8.0/24", "0.0.0.0/0"].map(prefix));
    expect(network.mark).toBe(51820);
    expect(namespace.ip("-4", "route", "show", "dev", "wg0")).toMatch(/^10\.9\.0\.0\/24 .*\n192\.168\.8\.0\/24 .*\n$/);
    expect(namespace.ip("-4", "rule")).toContain("lookup 51820");
    expect(namespace.ip("-6", "rule")).not.toContain("51820");
    const wide = await snapshot(namespace);
    tools.fail = (line) => (line.startsWith("rule add") ? "RTNETLINK answers: Invalid argument" : undefined);
    await expect(network.updateRoutes(["10.7.0.0/16", "::/0"].map(prefix))).rejects.toMatchObject({ code: "INTERNAL" });
    tools.fail = undefined;
    expect(await snapshot(namespace)).toBe(wide);
    await network.updateRoutes([prefix("192.168.7.0/24")]);
    expect(await snapshot(namespace)).toBe(narrow);
    await network.down();
    expect(await snapshot(namespace)).toBe(before);
  });

  test("the second default route takes the next mark; the sysctl goes back when the last of them goes", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    namespace.ip("tuntap", "add", "dev", "wg1", "mode", "tun");
    const before = await snapshot(namespace);
    const tools = namespaceTools(namespace);
    const one = await HostNetwork.up(planOf("wg0", { ...FULL, allowedIps: ["0.0.0.0/0"] }), optionsOf(tools));
    const two = await HostNetwork.up(
      planOf("wg1", { addresses: ["10.6.0.1/32"], allowedIps: ["0.0.0.0/0"] }),
      optionsOf(tools),
    );
    expect([one.mark, two.mark]).toEqual([51820, 51821]);
    await one.down();
    expect(readSysctl(namespace, SRC_VALID_MARK)).toBe("1");
    expect(namespace.ip("-4", "rule")).toContain("32763:\tnot from all fwmark 0xca6d lookup 51821");
    await two.down();
    expect(await snapshot(namespace)).toBe(before);
  });

  test("without nft it says what is missing and goes on; without ip it says what to install", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    const before = await snapshot(namespace);
    const tools = namespaceTools(namespace);
    tools.missing.add("nft");
    warnings.length = 0;
    const network = await HostNetwork.up(planOf("wg0", FULL), optionsOf(tools));
    expect(warnings).toMatchObject([{ event: "no-spoof-guard" }, { event: "no-spoof-guard" }]);
    await network.down();
    expect(await snapshot(namespace)).toBe(before);
    tools.missing.add("ip");
    await expect(HostNetwork.up(planOf("wg0", FULL), optionsOf(tools))).rejects.toMatchObject({
      code: "NATIVE_UNAVAILABLE",
      hint: expect.stringContaining("iproute2"),
    });
  });
});

/** A process with its device, killed. */
async function killed(namespace: Namespace, options: HostNetworkEndOptions): Promise<boolean> {
  const program = new Program("host-network-end", process.execPath, [END, JSON.stringify(options)], { namespace });
  const record = await program.event("its state", (row) => (row["ready"] || row["stalled"] ? row : undefined));
  program.child.kill("SIGKILL");
  await program.exited;
  return (record as Record<string, unknown>)["ready"] === true;
}

describe.runIf(needs("netns", "tun", "nft"))("kill -9", () => {
  for (const ownTun of [true, false]) {
    test(`of a device that ${ownTun ? "ends with" : "outlives"} its process, at any step: all is undone`, async () => {
      await using lab = new Lab();
      const namespace = host(lab, "a", ownTun ? undefined : "wg0");
      const before = await snapshot(namespace);
      let ready = false;
      let stallBefore = 0;
      for (; !ready; stallBefore += ownTun ? 3 : 1) {
        ready = await killed(namespace, { plan: planOf("wg0", FULL), journalFolder: folder, ownTun, stallBefore });
        const tools = inside(namespace);
        if (ready) expect(await snapshot(namespace)).not.toBe(before);
        const report = await undoLeftovers(folder, tools);
        expect(report.left).toEqual([]);
        expect(await snapshot(namespace), `killed before change ${stallBefore}`).toBe(before);
        expect(journals()).toEqual([]);
      }
      expect(stallBefore).toBeGreaterThan(7);
    });
  }

  test("the journals of a living process and of another namespace are left alone", async () => {
    await using lab = new Lab();
    const [a, b] = [host(lab, "a"), host(lab, "b", "wg0")];
    const options: HostNetworkEndOptions = { plan: planOf("wg0", FULL), journalFolder: folder, ownTun: true };
    const program = new Program("host-network-end", process.execPath, [END, JSON.stringify(options)], { namespace: a });
    await program.event("the ready line", (record) => record["ready"]);
    const up = await snapshot(a);
    expect(await undoLeftovers(folder, inside(a))).toEqual({ undone: [], left: [] });
    expect(await snapshot(a)).toBe(up);
    program.child.kill("SIGKILL");
    await program.exited;
    expect(await undoLeftovers(folder, inside(b))).toEqual({ undone: [], left: [] });
    expect(journals()).toHaveLength(1);
    expect(await undoLeftovers(folder, inside(a))).toEqual({ undone: [{ device: "wg0", pid: program.pid }], left: [] });
    expect(journals()).toEqual([]);
  });
});

/** As a process in the namespace sees it: with the kernel's own name for it. */
function inside(namespace: Namespace): NamespaceTools {
  const inode = statSync(join("/run/netns", namespace.name)).ino;
  const tools = namespaceTools(namespace);
  return { ...tools, place: () => ({ ...tools.place(), networkNamespace: `net:[${inode}]` }) };
}

describe.runIf(needs("netns", "tun", "nft", "setpriv"))("privileges", () => {
  const asNobody = (...more: readonly string[]): string[] => [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    ...more,
  ];

  async function run(namespace: Namespace, how: readonly string[], home: string): Promise<Record<string, unknown>> {
    const options: HostNetworkEndOptions = { plan: planOf("wg0", FULL), journalFolder: home, ownTun: false };
    const command = [...how, process.execPath, END, JSON.stringify(options)];
    const program = new Program("host-network-end", requireTool("setpriv"), command, { namespace });
    const record = await program.event("its answer", (row) => (row["ready"] || row["failed"] ? row : undefined));
    program.child.stdin?.write("\n");
    await program.exited;
    return record as Record<string, unknown>;
  }

  test("an ambient CAP_NET_ADMIN is enough for another user; without it he is told so", async () => {
    await using lab = new Lab();
    const namespace = host(lab, "a", "wg0");
    const before = await snapshot(namespace);
    const home = join(folder, "nobody");
    await namespace.run(requireTool("setpriv"), ["--reuid=0", "mkdir", "-m", "700", home]);
    await namespace.run("chown", ["65534:65534", home]);
    await namespace.run("chmod", ["711", folder]);
    const ambient = asNobody("--inh-caps=+net_admin", "--ambient-caps=+net_admin");
    expect(await run(namespace, ambient, home)).toMatchObject({ ready: true, mark: 51820 });
    expect(await snapshot(namespace)).toBe(before);
    expect(await run(namespace, asNobody(), home)).toMatchObject({
      failed: "FORBIDDEN",
      hint: "run it as root, or with CAP_NET_ADMIN as an ambient capability; without --tun it needs neither",
    });
    expect(await snapshot(namespace)).toBe(before);
    rmSync(home, { recursive: true });
  });
});
