// A gateway's kernel forwarding in real network namespaces: packets out of a TUN device reach the site behind it under
// the gateway's own address, and nothing else passes; afterwards all is as it was.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, describe, expect, test } from "vitest";
import { formatAddress, parsePrefix } from "../../src/base/address.ts";
import { type ForwardHostPlan, HostForward } from "../../src/peer/tun/host-forward.ts";
import { undoLeftovers } from "../../src/peer/tun/undo.ts";
import { decodePacket, PacketInfo } from "../../src/wire/packet.ts";
import { inNamespace } from "../inside-namespace.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { address } from "../peer/world.ts";
import { Program, until } from "../scripts/program.ts";
import { udp } from "../wire/packets.ts";
import { type NamespaceTools, namespaceTools, readSysctl } from "./namespace-tools.ts";
import { PlainTun } from "./plain-tun.ts";

const PORT = 7000;
const CALLER = { 4: "10.99.0.9", 6: "fd00:17:0:1::9" } as const;
const PLAN: ForwardHostPlan = {
  device: "wb0",
  ownAddresses: ["10.99.0.6", "fd00:17:0:1::6"].map(address),
  overlay: ["10.99.0.0/16", "fd00:17::/48"].map((text) => parsePrefix(text)!),
  served: ["10.20.0.0/24", "fd20::/64", "10.20.0.0/25"].map((text) => parsePrefix(text)!),
};
const KEYS = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] as const;

const ECHO = `
  for (const type of ["udp4", "udp6"]) {
    const socket = require("node:dgram").createSocket({ type, ipv6Only: type === "udp6" });
    socket.on("message", (bytes, from) => {
      console.log(from.address + " " + bytes);
      socket.send(bytes, from.port, from.address);
    });
    socket.bind(${PORT}, () => console.log("ready " + type));
  }`;
const SEND = `const s = require("node:dgram").createSocket(process.argv[1].includes(":") ? "udp6" : "udp4");
  s.send("in", ${PORT}, process.argv[1], () => s.close());`;

const folder = mkdtempSync(join(tmpdir(), "wirebadge-forward-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const logger = { info: () => undefined, warn: () => undefined };
const optionsOf = (tools: NamespaceTools) => ({ journalFolder: folder, logger, tools });

interface Scene {
  readonly gateway: Namespace;
  readonly site: Namespace;
  readonly tun: PlainTun;
  readonly tools: NamespaceTools;
  readonly atSite: Program;
  readonly atGateway: Program;
}

async function echo(name: string, namespace: Namespace): Promise<Program> {
  const program = new Program(name, process.execPath, ["-e", ECHO], { namespace });
  await until(name, () => program.lines.length === 2);
  return program;
}

/** TUN in "gateway", which has the site behind it: 10.20.0.5 and, not served, 10.30.0.5. */
async function scene(lab: Lab): Promise<Scene> {
  const [gateway, site] = [lab.namespace("gateway"), lab.namespace("site")];
  lab.link(
    { namespace: gateway, addresses: ["10.20.0.1/24", "10.30.0.1/24", "fd20::1/64"] },
    { namespace: site, addresses: ["10.20.0.5/24", "10.30.0.5/24", "fd20::5/64"] },
  );
  const tun = inNamespace(gateway, () => PlainTun.open(PLAN.device));
  for (const own of PLAN.ownAddresses.map(formatAddress))
    gateway.addAddress("wb0", `${own}/${own.includes(":") ? 128 : 32}`);
  gateway.ip("link", "set", "wb0", "mtu", "1420", "up");
  gateway.ip("route", "add", "10.99.0.0/16", "dev", "wb0");
  gateway.ip("-6", "route", "add", "fd00:17::/48", "dev", "wb0");
  site.addRoute("10.99.0.0/16", "10.20.0.1");
  site.addRoute("fd00:17::/48", "fd20::1");
  const [atSite, atGateway] = await Promise.all([echo("site", site), echo("gateway", gateway)]);
  return { gateway, site, tun, tools: namespaceTools(gateway), atSite, atGateway };
}

/** What comes out of the device within a moment: "SOURCE>DESTINATION" of UDP packets. */
async function read({ tun }: Scene, patienceMs: number): Promise<string[]> {
  const found: string[] = [];
  const bytes = new Uint8Array(65_536);
  const info = new PacketInfo();
  const endMs = performance.now() + patienceMs;
  while (performance.now() < endMs && found.length === 0) {
    for (let length = tun.read(bytes); length > 0; length = tun.read(bytes)) {
      if (decodePacket(bytes, 0, length, info) !== undefined || info.protocol !== 17) continue;
      const end = (w0: number, w1: number, w2: number, w3: number): string =>
        formatAddress({ w0: w0 >>> 0, w1: w1 >>> 0, w2: w2 >>> 0, w3: w3 >>> 0 });
      found.push(
        `${end(info.source0, info.source1, info.source2, info.source3)}>` +
          end(info.destination0, info.destination1, info.destination2, info.destination3),
      );
    }
    await delay(10);
  }
  return found;
}

/** Of a caller's datagram to there: what came back out of the device. */
async function call(at: Scene, to: string, patienceMs = 400): Promise<string[]> {
  const from = CALLER[to.includes(":") ? 6 : 4];
  at.tun.write(udp(from, to, 40_000, PORT, Buffer.from(`to ${to}`)));
  return await read(at, patienceMs);
}

const forwarding = ({ gateway }: Scene): string => KEYS.map((key) => readSysctl(gateway, key)).join("");
const tables = async ({ gateway }: Scene): Promise<string> =>
  (await gateway.run(requireTool("nft"), ["list", "tables"])).stdout.trim();

describe.runIf(needs("netns", "tun", "nft"))("kernel forwarding of a gateway", () => {
  test("what is served is reached under the gateway's address; nothing else passes, either way", async () => {
    await using lab = new Lab();
    const at = await scene(lab);
    expect(await call(at, "10.20.0.5")).toEqual([]); // before: this host forwards nothing
    const forward = await HostForward.up(PLAN, optionsOf(at.tools));
    expect(forwarding(at)).toBe("11");
    for (const [to, own] of [
      ["10.20.0.5", "10.20.0.1"],
      ["fd20::5", "fd20::1"],
    ] as const) {
      expect(await call(at, to, 3_000)).toEqual([`${to}>${CALLER[to.includes(":") ? 6 : 4]}`]);
      expect(at.atSite.lines).toContain(`${own} to ${to}`);
    }
    for (const to of ["10.30.0.5", "10.20.0.1", "fd20::1", "10.99.0.77"])
      expect([to, await call(at, to)]).toEqual([to, []]);
    expect(at.atSite.lines.filter((line) => line.includes("10.30"))).toEqual([]);
    expect(at.atGateway.lines.filter((line) => line.includes("to "))).toEqual([]);
    expect(await call(at, "10.99.0.6", 3_000)).toEqual([`10.99.0.6>${CALLER[4]}`]); // the host itself
    for (const to of [CALLER[4], CALLER[6]]) {
      await at.site.run(process.execPath, ["-e", SEND, to]);
      expect(await read(at, 300)).toEqual([]); // nobody gets into the overlay by this host
    }
    await forward.update({ ...PLAN, served: [parsePrefix("10.30.0.0/24")!] });
    expect(await call(at, "10.30.0.5", 3_000)).toEqual([`10.30.0.5>${CALLER[4]}`]);
    expect(await call(at, "10.20.0.5")).toEqual([]);
    await forward.down();
    expect([forwarding(at), await tables(at), readdirSync(folder)]).toEqual(["00", "", []]);
    at.tun.close();
  });

  test("a host that was no router becomes none for others; one that was stays one", async () => {
    await using lab = new Lab();
    const at = await scene(lab);
    const third = lab.namespace("third");
    lab.link({ namespace: at.gateway, addresses: ["10.40.0.1/24"] }, { namespace: third, addresses: ["10.40.0.5/24"] });
    at.site.addRoute("10.40.0.0/24", "10.20.0.1");
    third.addRoute("10.20.0.0/24", "10.40.0.1");
    const ping = async (): Promise<number | null> =>
      (await at.site.run(requireTool("ping"), ["-c", "1", "-W", "1", "10.40.0.5"], { check: false })).code;
    let forward = await HostForward.up(PLAN, optionsOf(at.tools));
    expect(await ping()).toBe(1);
    await forward.down();
    at.gateway.setSysctl(KEYS[0], "1");
    forward = await HostForward.up(PLAN, optionsOf(at.tools));
    expect(await ping()).toBe(0);
    await forward.down();
    expect(forwarding(at)).toBe("10");
    at.tun.close();
  });

  test("kill -9: the next start undoes it; of two devices the last puts the setting back", async () => {
    await using lab = new Lab();
    const at = await scene(lab);
    const gone = { ...at.tools.place(), pid: 1, start: "9".repeat(19) };
    await HostForward.up(PLAN, optionsOf({ ...at.tools, place: () => gone }));
    const other = inNamespace(at.gateway, () => PlainTun.open("wb1"));
    const forward = await HostForward.up({ ...PLAN, device: "wb1" }, optionsOf(at.tools));
    expect(await undoLeftovers(folder, at.tools)).toMatchObject({ undone: [{ device: "wb0" }], left: [] });
    expect([forwarding(at), await tables(at)]).toEqual(["11", "table inet wirebadge-forward-wb1"]);
    await forward.down();
    expect([forwarding(at), await tables(at), readdirSync(folder)]).toEqual(["00", "", []]);
    other.close();
    at.tun.close();
  });

  test("a step that fails takes back those before it; an IPv6 route of a router's is not put at risk", async () => {
    await using lab = new Lab();
    const at = await scene(lab);
    at.tools.fail = (what) => (what.startsWith("net.ipv6") ? "EROFS" : undefined);
    await expect(HostForward.up(PLAN, optionsOf(at.tools))).rejects.toMatchObject({ code: "FORBIDDEN" });
    at.tools.fail = undefined;
    expect([forwarding(at), await tables(at), readdirSync(folder)]).toEqual(["00", "", []]);
    at.gateway.ip("-6", "route", "add", "default", "via", "fd20::5", "proto", "ra");
    await expect(HostForward.up(PLAN, optionsOf(at.tools))).rejects.toMatchObject({
      code: "CONFLICT",
      hint: expect.stringContaining("accept_ra=2"),
    });
    expect([forwarding(at), await tables(at)]).toEqual(["00", ""]);
    at.gateway.setSysctl("net.ipv6.conf.eth0.accept_ra", "2");
    const forward = await HostForward.up(PLAN, optionsOf(at.tools));
    await forward.down();
    at.tools.missing.add("nft");
    await expect(HostForward.up(PLAN, optionsOf(at.tools))).rejects.toMatchObject({ code: "NATIVE_UNAVAILABLE" });
    at.tun.close();
  });
});
