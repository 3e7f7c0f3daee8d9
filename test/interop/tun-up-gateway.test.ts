// A gateway that is `up --tun` itself: services and routes end in its userspace stack while its host's own traffic goes
// by the kernel; reached by an agent through SOCKS and by the kernel of another host with a device.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { exchange, type Recorder, type TestPeer } from "../scripts/network.ts";
import { until } from "../scripts/program.ts";
import { fetchedHash } from "./fetched.ts";
import { hashOfBlob } from "./http-target.ts";
import { chatter, connects, deviceName, serveBlobs, UpScene } from "./tun-up-scene.ts";

const BLOB_BYTES = 10_000_000;
const VIA = ["node:gw"];
const SITE = "10.66.0.1"; // behind the gateway's own network
const NAMED = "site.test.internal"; // in the gateway's own hosts file
const AT_ONCE_MS = 1_000;

const POLICY = {
  services: {
    echo: { at: "127.0.0.1 tcp:7001", via: VIA },
    blobs: { at: `${SITE} tcp:8000`, via: VIA },
  },
  routes: { "10.66.0.0/16": { via: VIA }, "host:*": { via: VIA } },
  grants: [
    { id: "coder", from: "agent:coder", to: ["service:echo", "10.66.0.0/16 tcp:8000", "host:* tcp:8000"] },
    { id: "a", from: ["node:a", "node:taken"], to: ["service:echo", "service:blobs", "10.66.0.0/16 tcp:8000"] },
  ],
};

let scene: UpScene;
let hostsFolder = "";
let a: Namespace;
let gw: Namespace;
let echo: Recorder;
let gateway: TestPeer;
let node: TestPeer;
let coder: TestPeer;
const [deviceA, deviceG] = [deviceName("h"), deviceName("g")];

/** Of a service as that peer is told: IPv6. */
async function addressOf(peer: TestPeer, service: string): Promise<string> {
  const { services } = await peer.status();
  return services.find(({ name }) => name === service)!.addresses[0]!;
}

describe.runIf(needs("root", "tun", "netns", "curl"))("a gateway with a device", () => {
  beforeAll(async () => {
    scene = await UpScene.start(["a", "gw", "coder", "site", "taken"], POLICY);
    [a, gw] = [scene.machine("a"), scene.machine("gw")];
    const site = scene.machine("site");
    scene.lab.link({ namespace: gw, addresses: ["10.66.0.254/16"] }, { namespace: site, addresses: [`${SITE}/16`] });
    await serveBlobs(site, 8_000);
    hostsFolder = `/etc/netns/${gw.name}`; // over /etc of what runs there: ip-netns(8)
    mkdirSync(hostsFolder, { recursive: true });
    writeFileSync(`${hostsFolder}/hosts`, `127.0.0.1 localhost\n${SITE} ${NAMED}\n`);
    echo = await scene.network.service("echo", { namespace: gw, port: 7_001 });
    const words = [
      "--serve",
      `echo=127.0.0.1:7001`,
      "--serve",
      "blobs",
      "--route",
      "10.66.0.0/16",
      "--route",
      "host:*",
    ];
    gateway = await scene.network.join("node:gw", ["--tun", deviceG, ...words], { namespace: gw });
    node = await scene.network.join("node:a", ["--tun", deviceA], { namespace: a });
    coder = await scene.network.join("agent:coder", ["--socks"], { namespace: scene.machine("coder") });
  }, 120_000);

  afterAll(async () => {
    await scene?.[Symbol.asyncDispose]();
    rmSync(hostsFolder, { recursive: true, force: true });
  });

  test("serves what it offers, and its own host keeps its own way to it", async () => {
    expect((await gateway.status()).serving.sort()).toEqual([
      "10.66.0.0/16",
      "host:*",
      "service:blobs",
      "service:echo",
    ]);
    expect(gw.ip("route", "show", "10.66.0.0/16")).not.toContain(deviceG);
    expect(a.ip("route", "show", "10.66.0.0/16")).toContain(deviceA);
    expect((await connects(gw, SITE, 8_000)).how).toBe("connected");
  });

  test("an agent reaches a service on the gateway's loopback, and the gateway says who it is", async () => {
    const socket = await coder.connect("echo", 7_001);
    expect(await exchange(socket, "hello")).toBe("hello");
    const { from } = echo.received.find(({ text }) => text === "hello")!;
    expect(await gateway.api.whois(from)).toMatchObject({ identity: "agent:coder", via: "dialled" });
    socket.destroy();
  });

  test("names that only the gateway resolves go to its stack, past the kernel's own ports", async () => {
    for (const host of [SITE, NAMED]) (await coder.connect(host, 8_000)).destroy();
    const named = await coder
      .connect(`${SITE.replaceAll(".", "-")}.nothing.invalid`, 8_000)
      .catch((error: Error) => error);
    expect(String(named)).toMatch(/unreachable|4/); // it was asked, and said that there is no such name
  });

  test("the kernel of another host reaches service and route by hash; what is not granted fails at once", async () => {
    const expected = hashOfBlob(BLOB_BYTES);
    expect(await fetchedHash(a, await addressOf(node, "blobs"), 8_000, BLOB_BYTES)).toBe(expected);
    expect(await fetchedHash(a, SITE, 8_000, BLOB_BYTES)).toBe(expected);
    const { how, ms } = await connects(a, SITE, 8_001);
    expect([how, ms < AT_ONCE_MS]).toEqual(["ECONNREFUSED", true]);
    const counters = (await gateway.status()).counters;
    expect(counters["loop-to-stack"]).toBeGreaterThan(100); // acknowledgements alone
    expect(counters["gateway-tcp-flows"]).toBeGreaterThan(2);
  });

  test("routes follow the policy; one that another device has is left out, and the log says so", async () => {
    const onDevice = (): boolean => a.ip("route", "show", "10.66.0.0/16").includes(deviceA);
    await scene.network.setPolicy({ ...POLICY, routes: { "host:*": { via: VIA } } });
    await until("no route", () => !onDevice() || undefined);
    await scene.network.setPolicy(POLICY);
    await until("the route", () => onDevice() || undefined);
    const namespace = scene.machine("taken");
    namespace.ip("route", "add", "10.66.0.0/16", "via", "10.7.0.1");
    const taken = await scene.network.join("node:taken", ["--tun", deviceName("t")], { namespace });
    expect(taken.program.records.find((record) => record["event"] === "route-left-out")).toMatchObject({
      route: "10.66.0.0/16",
      why: "taken",
    });
    expect((await connects(namespace, await addressOf(taken, "echo"), 7_001)).how).toBe("connected");
    await taken.program.end();
    expect(namespace.ip("route", "show", "10.66.0.0/16")).toContain("via 10.7.0.1");
  });

  test("this host's own processes are no callers of its services: refused at once", async () => {
    const { how, ms } = await connects(gw, await addressOf(node, "echo"), 7_001);
    expect(how).not.toBe("connected");
    expect(ms).toBeLessThan(AT_ONCE_MS);
  });

  test("a policy that closes the service ends the gateway's real socket and the caller's", async () => {
    const client = chatter(a, await addressOf(node, "echo"), 7_001);
    await echo.receives("n20");
    const closed = (): number => echo.received.filter(({ event }) => event === "closed").length;
    const before = closed();
    await scene.network.setPolicy({ ...POLICY, grants: POLICY.grants.slice(0, 1) });
    await until("the service's end", () => closed() > before || undefined);
    await client.event("its end", (record) => (record["event"] === "ended" ? true : undefined));
    await scene.network.setPolicy(POLICY);
  });

  test("revoked while it talks through the gateway: the service sees the end within a second", async () => {
    const client = chatter(a, await addressOf(node, "echo"), 7_001);
    const heard = (): number => echo.received.filter(({ text }) => text?.includes("n30") === true).length;
    const before = heard();
    await until("its line", () => heard() > before || undefined);
    const closed = (): number => echo.received.filter(({ event }) => event === "closed").length;
    const closedBefore = closed();
    await scene.network.admin(["revoke", "node:a"]);
    const revokedMs = performance.now();
    await until("the service's end", () => closed() > closedBefore || undefined);
    expect(performance.now() - revokedMs).toBeLessThan(AT_ONCE_MS);
    client.child.kill("SIGKILL");
  });
});
