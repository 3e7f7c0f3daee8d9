// `up --tun --ip-forward`: a gateway whose kernel forwards. What the dial rules refuse is refused here as well: the
// addresses of test/scripts/dial-rules.test.ts again, with a real listener behind each that the gateway's machine does
// reach.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocksReplyError } from "../../src/cli/socks-client.ts";
import type { Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { GROUPS, HOST, MAPPED, NEIGHBOUR, NO_UNICAST, OWN, SITE, V4_MAPPED } from "../scripts/dial-addresses.ts";
import type { Recorder, TestPeer } from "../scripts/network.ts";
import { until } from "../scripts/program.ts";
import { fetchedHash } from "./fetched.ts";
import { hashOfBlob } from "./http-target.ts";
import { readSysctl } from "./namespace-tools.ts";
import { deviceName, serveBlobs, UpScene } from "./tun-up-scene.ts";

const PORT = 8080;
const CLOSED = 8081;
const DENIED = 2; // SOCKS reply: not allowed by the rules
const UNREACHABLE = 4;
const BLOB_BYTES = 10_000_000;
const VIA = ["node:gw"];
const ALL = [`0.0.0.0/0 tcp:${PORT},8000`, `::/0 tcp:${PORT},8000`];
const POLICY = {
  services: { staging: { at: `127.0.0.1 tcp:${PORT}`, via: VIA } },
  routes: { "0.0.0.0/0": { via: VIA }, "::/0": { via: VIA }, "10.55.0.0/24": { via: VIA } },
  grants: [
    { id: "coder", from: "agent:coder", to: [...ALL, "service:staging"] },
    { id: "a", from: "node:a", to: "10.55.0.0/24 tcp:8000" },
  ],
};

describe.runIf(needs("root", "tun", "netns", "nft", "ipv6", "curl"))("a gateway whose kernel forwards", () => {
  let scene: UpScene;
  let gw: Namespace;
  let own: Recorder;
  let neighbour: Recorder;
  let gateway: TestPeer;
  let coder: TestPeer;

  beforeAll(async () => {
    scene = await UpScene.start(["gw", "coder", "a", "site"], POLICY);
    gw = scene.machine("gw");
    const site = scene.machine("site");
    const [device] = scene.lab.link(
      { namespace: gw, addresses: [`${HOST}/24`, "fd55::1/64"] },
      { namespace: site, addresses: [`${SITE}/24`, "fd55::2/64"] },
    );
    for (const address of [...NEIGHBOUR, ...MAPPED]) {
      const isV6 = address.includes(":");
      site.addAddress("lo", `${address}/${isV6 ? 128 : 32}`);
      gw.ip(...(isV6 ? ["-6"] : []), "route", "add", address, "via", isV6 ? "fd55::2" : SITE, "dev", device);
    }
    own = await scene.network.service("own", { namespace: gw, host: "::", port: PORT });
    neighbour = await scene.network.service("neighbour", { namespace: site, host: "::", port: PORT });
    await serveBlobs(site, 8_000);
    const routes = Object.keys(POLICY.routes).flatMap((route) => ["--route", route]);
    const words = ["--tun", deviceName("fg"), "--ip-forward", ...routes, "--serve", `staging=127.0.0.1:${PORT}`];
    gateway = await scene.network.join("node:gw", words, { namespace: gw });
    coder = await scene.network.join("agent:coder", ["--socks"], { namespace: scene.machine("coder") });
  }, 120_000);

  afterAll(() => scene?.[Symbol.asyncDispose]());

  async function replyTo(host: string, port = PORT): Promise<number> {
    try {
      (await coder.connect(host, port)).destroy();
      return 0;
    } catch (error) {
      if (error instanceof SocksReplyError) return error.reply;
      throw error;
    }
  }

  test("what is routed is reached under the gateway's own address, past its userspace", async () => {
    for (const [to, from] of [
      [SITE, HOST],
      ["fd55::2", "fd55::1"],
    ] as const) {
      const before = neighbour.received.length;
      expect(await coder.echo(to, PORT, `to ${to}`)).toBe(`to ${to}`);
      await until("its arrival", () => neighbour.received.slice(before).some((row) => row.from.includes(from)));
    }
    const { counters } = await gateway.status();
    expect([counters["gateway-tcp-flows"], counters["loop-to-stack"]]).toEqual([undefined, undefined]);
  });

  test("10 MB by hash from another host's kernel", async () => {
    const words = ["--tun", deviceName("fa")];
    const node = await scene.network.join("node:a", words, { namespace: scene.machine("a") });
    expect(await fetchedHash(scene.machine("a"), SITE, 8_000, BLOB_BYTES)).toBe(hashOfBlob(BLOB_BYTES));
    await node.program.end();
  });

  test("none of the refused addresses is reached, each is denied, and nothing arrives", async () => {
    const found: string[] = [];
    const arrivals = (): number => own.received.length + neighbour.received.length;
    for (const host of [...OWN, ...NEIGHBOUR, ...MAPPED, ...V4_MAPPED, ...GROUPS, gateway.address]) {
      const before = arrivals();
      const reply = await replyTo(host);
      if (reply !== (NO_UNICAST.includes(host) ? UNREACHABLE : DENIED)) found.push(`${host}: reply ${reply}`);
      if (arrivals() > before) found.push(`${host}: arrived`);
    }
    expect(found).toEqual([]);
    const denial = (await gateway.denials()).findLast(({ destination }) => destination === HOST);
    expect(denial).toMatchObject({ reason: "DIAL_REFUSED", ruleId: "OWN_ADDRESS", hop: "destination" });
  });

  test("services stay with the userspace gateway; what the policy does not grant is denied as ever", async () => {
    expect(await coder.echo("staging", PORT, "the service")).toBe("the service");
    await own.receives("the service");
    expect(await replyTo(SITE, CLOSED)).toBe(DENIED);
  });

  test("a policy that closes the route ends a live connection at its next packet", async () => {
    const socket = await coder.connect(SITE, PORT);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.on("error", () => undefined).resume();
    await scene.network.setPolicy({ ...POLICY, grants: POLICY.grants.slice(1) });
    const speaking = setInterval(() => socket.write("still there?"), 50);
    await closed;
    clearInterval(speaking);
    expect(await replyTo(SITE)).toBe(DENIED);
    await scene.network.setPolicy(POLICY);
  });

  test("its end leaves the kernel as it was", async () => {
    const nft = async (): Promise<string> => (await gw.run(requireTool("nft"), ["list", "tables"])).stdout;
    expect([readSysctl(gw, "net.ipv4.ip_forward"), await nft()]).toEqual(["1", expect.stringContaining("forward")]);
    await gateway.program.end();
    expect([readSysctl(gw, "net.ipv4.ip_forward"), await nft()]).toEqual(["0", ""]);
    expect(readSysctl(gw, "net.ipv6.conf.all.forwarding")).toBe("0");
  });
});
