// `wirebadge up --tun` between real processes in network namespaces: the kernel's own TCP through the policy, what it
// does not grant, wg(8) beside it, an agent without a device, and how it ends.
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UAPI_FOLDER } from "../../src/peer/tun/uapi-server.ts";
import type { Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import type { Recorder, TestPeer } from "../scripts/network.ts";
import { cleanEnvironment, until } from "../scripts/program.ts";
import { fetchedHash } from "./fetched.ts";
import { hashOfBlob } from "./http-target.ts";
import { chatter, connects, deviceName, serveBlobs, UpScene } from "./tun-up-scene.ts";

const BLOB_BYTES = 20_000_000;
const AT_ONCE_MS = 1_000;
const OPEN = 8_000;
const CLOSED = 9_000;

const GRANTS = [
  { id: "a-uses-b", from: "node:a", to: ["node:b tcp:8000", "node:b icmp", "node:b tcp:7000"] },
  { id: "b-uses-a", from: "node:b", to: "node:a tcp:8000" },
  { id: "coder-uses-b", from: ["agent:coder", "node:old"], to: "node:b tcp:8000" },
];

let scene: UpScene;
let a: Namespace;
let b: Namespace;
let nodeA: TestPeer;
let nodeB: TestPeer;
const [deviceA, deviceB] = [deviceName("a"), deviceName("b")];
const v4Of = (peer: TestPeer): string => peer.addresses.find((address) => !address.includes(":"))!;

/** All of the host's addresses and routes but link-local ones, which the cable has a moment later. */
function hostOf(namespace: Namespace): string {
  const all = [["-4", "route"], ["-6", "route"], ["-4", "rule"], ["-6", "rule"], ["addr"]].map((words) =>
    namespace.ip(...words, "show", ...(words.includes("route") ? ["table", "all"] : [])),
  );
  return all
    .join("\n")
    .split("\n")
    .filter((line) => !line.includes("fe80::") && !line.includes("valid_lft"))
    .map((line) => line.replace(/qdisc \w+/, "")) // a device that was up once has another
    .join("\n");
}

async function pings(from: Namespace, host: string): Promise<string> {
  return (await from.run(requireTool("ping"), ["-c", "1", "-W", "3", host], { check: false })).stdout;
}

describe.runIf(needs("root", "tun", "netns", "curl", "ping", "wg", "setpriv"))("wirebadge up --tun", () => {
  let before: string;

  beforeAll(async () => {
    scene = await UpScene.start(["a", "b", "coder"], { grants: GRANTS });
    [a, b] = [scene.machine("a"), scene.machine("b")];
    before = hostOf(a);
    nodeB = await scene.network.join("node:b", ["--tun", deviceB], { namespace: b });
    nodeA = await scene.network.join("node:a", ["--tun", deviceA], { namespace: a });
    for (const namespace of [a, b]) for (const port of [OPEN, CLOSED]) await serveBlobs(namespace, port);
  }, 120_000);

  afterAll(() => scene?.[Symbol.asyncDispose]());

  test("the ready line and status name the device and say whose badge it is", async () => {
    const ready = nodeA.program.records.find((record) => record["event"] === "ready");
    expect(ready).toMatchObject({ tun: deviceA, note: "every process of this host shares this badge" });
    expect((await nodeA.status()).device).toMatchObject({ name: deviceA, mtuBytes: 1420 });
    const { stdout } = await scene.network.command(["status", "--state", nodeA.state]);
    expect(stdout).toMatch(
      new RegExp(`device +${deviceA} \\(MTU 1420; every process of this host shares this badge\\)`),
    );
    const addresses = a.ip("addr", "show", "dev", deviceA);
    for (const address of nodeA.addresses) expect(addresses).toContain(`${address}/`);
    expect(addresses).toContain("mtu 1420");
  });

  test("20 MB of the kernel's TCP each way by hash, over IPv6 and IPv4", async () => {
    const expected = hashOfBlob(BLOB_BYTES);
    for (const [from, to] of [[a, nodeB] as const, [b, nodeA] as const]) {
      for (const host of [to.address, v4Of(to)]) {
        expect(await fetchedHash(from, host, OPEN, BLOB_BYTES), `to ${to.identity} at ${host}`).toBe(expected);
      }
    }
  });

  test("what the policy does not grant fails at once, by reset or ICMP, and is told by its reason", async () => {
    for (const host of [nodeB.address, v4Of(nodeB)]) {
      const { how, ms } = await connects(a, host, CLOSED);
      expect(how).toBe("ECONNREFUSED");
      expect(ms).toBeLessThan(AT_ONCE_MS);
    }
    expect(await pings(a, v4Of(nodeB))).toContain(" 0% packet loss");
    expect(await pings(b, v4Of(nodeA))).toMatch(/Packet filtered|prohibited/i);
    const denial = await until("the denial", async () =>
      (await nodeA.denials()).find(({ port, destination }) => port === CLOSED && destination === nodeB.address),
    );
    expect(denial).toMatchObject({ reason: "NO_GRANT", hop: "source", protocol: "tcp" });
  });

  test("an address of the network that nobody has, or that this peer may not know, is refused at once", async () => {
    const prefix = nodeA.address.split(":").slice(0, 3).join(":");
    const { how, ms } = await connects(a, `${prefix}::dead`, OPEN);
    expect(how).toBe("ECONNREFUSED");
    expect(ms).toBeLessThan(AT_ONCE_MS);
  });

  test("ping of the local API goes through the tunnel, beside the kernel's own", async () => {
    const answer = await nodeA.api.ping("node:b");
    expect(answer).toMatchObject({
      identity: "node:b",
      address: nodeB.address,
      endpoint: expect.stringContaining(":"),
    });
    expect(answer.rttMs).toBeLessThan(5_000);
  });

  test("wg(8) shows peers and bytes and no key of ours, and is refused to set, with a line in the log", async () => {
    await pings(a, v4Of(nodeB));
    const wg = (...words: readonly string[]) => a.run(requireTool("wg"), words, { check: false });
    const status = await nodeA.status();
    const peer = status.peers.find(({ identity }) => identity === "node:b")!;
    const shown = (await wg("show", deviceA, "dump")).stdout.split("\n").map((line) => line.split("\t"));
    expect(shown[0]?.[0]).toBe("(none)"); // the private key
    expect(shown[0]?.[2]).toBe(String(status.listenPort));
    const row = shown.find((fields) => fields[0] === peer.publicKey)!;
    expect(row[1]).toBe("(none)"); // the preshared key
    expect(row[3]).toContain(`${nodeB.address}/128`);
    expect(Math.abs(Number(row[4]) - Date.now() / 1_000)).toBeLessThan(200);
    expect(Number(row[5])).toBeGreaterThan(0);
    expect((await wg("showconf", deviceA)).stdout).not.toMatch(/PrivateKey|PresharedKey/);
    const set = await wg("set", deviceA, "peer", peer.publicKey, "remove");
    expect([set.code === 0, set.stderr]).toEqual([false, expect.stringContaining("Operation not permitted")]);
    expect((await wg("show", deviceA, "peers")).stdout).toContain(peer.publicKey);
    await nodeA.program.event("an audit line", (record) => (record["event"] === "uapi-set-refused" ? true : undefined));
  });

  test("an agent without a device reaches the node's kernel service by SOCKS, only what it was granted", async () => {
    const coder = await scene.network.join("agent:coder", ["--socks"], { namespace: scene.machine("coder") });
    const socket = await coder.connect(nodeB.address, OPEN);
    socket.write("GET /blob/1000 HTTP/1.0\r\n\r\n");
    let text = "";
    socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
    await until("an answer", () => text.includes("200 OK") || undefined);
    socket.destroy();
    await expect(coder.connect(nodeB.address, CLOSED)).rejects.toThrow();
    await coder.program.end();
  });

  test("an agent is refused a device unless --shared, before anything of the host is changed", async () => {
    const device = deviceName("c");
    const namespace = scene.machine("coder");
    const hostBefore = hostOf(namespace);
    const token = await scene.network.token("agent:coder");
    const state = join(scene.network.folder, "shared-agent");
    const words = ["up", "--tun", device, "--state", state];
    const refused = await scene.network.command([...words, "--token-file", "-"], { namespace, stdin: token });
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringMatching(/agent:coder[\s\S]*every process[\s\S]*--shared/),
    ]);
    expect((await scene.network.command(words, { namespace })).stderr).toMatch(/--shared/); // by the state folder alone
    expect(hostOf(namespace)).toBe(hostBefore);
    const shared = scene.network.peer("agent:coder", ["--tun", device, "--shared"], {
      namespace,
      state: "shared-agent",
    });
    await shared.up();
    expect((await connects(namespace, nodeB.address, OPEN)).how).toBe("connected");
    await shared.program.end();
  });

  test("without CAP_NET_ADMIN, and with entry points, the error names the choice", async () => {
    const unprivileged = ["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--", process.execPath];
    const words = ["up", "--tun", "--state", join(scene.network.folder, "none")];
    const bin = join(import.meta.dirname, "../../bin/wirebadge");
    const ran = await a.run(requireTool("setpriv"), [...unprivileged, bin, ...words], { check: false });
    expect([ran.code, ran.stderr]).toEqual([2, expect.stringMatching(/CAP_NET_ADMIN[\s\S]*leave out --tun/)]);
    const socks = await scene.network.command([...words, "--socks"], { namespace: a });
    expect([socks.code, socks.stderr]).toEqual([2, expect.stringMatching(/--socks[\s\S]*leave out --tun/)]);
  });

  test("a host whose IPv6 is switched off has IPv4 alone, and is told so", async () => {
    const namespace = scene.machine("coder");
    for (const which of ["all", "default"]) namespace.setSysctl(`net.ipv6.conf.${which}.disable_ipv6`, "1");
    const old = await scene.network.join("node:old", ["--tun", deviceName("o")], { namespace });
    expect(old.program.records.find((record) => record["event"] === "route-left-out")).toMatchObject({
      why: "no-ipv6",
    });
    expect((await connects(namespace, v4Of(nodeB), OPEN)).how).toBe("connected");
    await old.program.end();
  });

  test("a policy that closes a flow cuts the kernel's live connection at both ends, and opens it again", async () => {
    const recorder: Recorder = await scene.network.service("live", { namespace: b, host: "::", port: 7_000 });
    const client = chatter(a, nodeB.address, 7_000);
    await recorder.receives("n20");
    await scene.network.setPolicy({ grants: GRANTS.slice(1) });
    const setMs = performance.now();
    const ended = await client.event("its end", (record) => (record["event"] === "ended" ? record["code"] : undefined));
    expect(ended).toBe("ECONNRESET");
    expect(performance.now() - setMs).toBeLessThan(2_000);
    await until("the server's end", () => recorder.received.some(({ event }) => event === "closed") || undefined);
    expect((await connects(a, nodeB.address, 7_000)).how).toBe("ECONNREFUSED");
    await scene.network.setPolicy({ grants: GRANTS });
    await until(
      "a new connection",
      async () => (await connects(a, nodeB.address, 7_000)).how === "connected" || undefined,
    );
    await recorder.program.end();
  });

  test("ended by SIGINT it leaves nothing on the host; killed, nothing after the next start and end", async () => {
    await nodeA.program.kill();
    await nodeA.up();
    expect((await connects(a, nodeB.address, OPEN)).how).toBe("connected");
    nodeA.program.child.kill("SIGINT");
    expect(await nodeA.program.exited).toBe(0);
    expect(hostOf(a)).toBe(before);
    expect(existsSync(join(UAPI_FOLDER, `${deviceA}.sock`))).toBe(false);
    expect(readdirSync("/run/wirebadge").filter((name) => name.includes(deviceA))).toEqual([]);
    await nodeA.up();
    expect((await connects(a, nodeB.address, OPEN)).how).toBe("connected");
  });

  test("on a device that was there before, what kill -9 left is undone by the next start; it stays", async () => {
    const device = deviceName("p");
    await nodeA.program.end();
    a.ip("tuntap", "add", "dev", device, "mode", "tun");
    const there = hostOf(a);
    const peer = scene.network.peer("node:a", ["--tun", device], { namespace: a });
    await peer.up();
    await peer.program.kill();
    expect(a.ip("addr", "show", "dev", device)).toContain(peer.address);
    await peer.up();
    expect((await connects(a, nodeB.address, OPEN)).how).toBe("connected");
    await peer.program.end();
    expect(hostOf(a)).toBe(there);
    a.ip("tuntap", "del", "dev", device, "mode", "tun");
    await nodeA.up();
  });

  test("a data thread that fails is started again with all that it was told, and judges as before", async () => {
    const trigger = join(scene.network.folder, "fail");
    const script = join(scene.network.folder, "planted.cjs");
    writeFileSync(
      script,
      `const fs = require("node:fs");
      const now = Date.now;
      const failing = () => {
        if (!fs.existsSync("${trigger}")) return now();
        fs.unlinkSync("${trigger}");
        throw new Error("planted");
      };
      const { isMainThread, workerData } = require("node:worker_threads");
      if (!isMainThread && workerData?.wakeFd !== undefined) Date.now = failing;`,
    );
    await nodeA.program.end();
    const env = { ...cleanEnvironment(), NODE_OPTIONS: `--require ${script}` };
    const peer = scene.network.peer("node:a", ["--tun", deviceA], { namespace: a, env });
    await peer.up();
    expect((await connects(a, nodeB.address, OPEN)).how).toBe("connected");
    writeFileSync(trigger, "");
    await peer.program.event("a new start", (record) => (record["event"] === "data-thread-restart" ? true : undefined));
    // The other end has a session that nobody has any more: by itself it would find out after 15 s.
    const { how, ms } = await connects(b, nodeA.address, OPEN);
    expect(how).toBe("connected");
    expect(ms).toBeLessThan(10_000);
    expect((await connects(a, nodeB.address, OPEN)).how).toBe("connected");
    expect((await connects(a, nodeB.address, CLOSED)).how).toBe("ECONNREFUSED");
    await peer.program.end();
    await nodeA.up();
  });

  test("revoked: its kernel's connection ends within a second at the other end, which is reset", async () => {
    const recorder = await scene.network.service("last", { namespace: b, host: "::", port: 7_000 });
    chatter(a, nodeB.address, 7_000);
    await recorder.receives("n20");
    await scene.network.admin(["revoke", "node:a"]);
    const revokedMs = performance.now();
    await until("the server's end", () => recorder.received.some(({ event }) => event === "closed") || undefined);
    expect(performance.now() - revokedMs).toBeLessThan(AT_ONCE_MS);
    expect(await nodeA.program.exited).toBe(2);
    expect(hostOf(a)).toBe(before);
  });
});
