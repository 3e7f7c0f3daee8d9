// Coordinator and two peers in network namespaces of their own, one peer behind a masquerading NAT with address- and
// port-dependent filtering, no endpoint configured anywhere: they connect directly, whichever of them begins.
//
//   coordinator 192.0.2.1 ─┐
//   public peer 192.0.2.2 ─┼─ switch ─ 192.0.2.3 router (NAT) 10.7.0.1 ─ 10.7.0.2 peer behind it
import { describe, expect, test } from "vitest";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { exchange, TestNetwork, type TestPeer } from "../scripts/network.ts";

const COORDINATOR = "192.0.2.1";
const PUBLIC = "192.0.2.2";
const ROUTER = "192.0.2.3";
const SERVICE_PORT = 8080;

interface Places {
  readonly coordinator: Namespace;
  readonly open: Namespace;
  readonly behind: Namespace;
}

function layOut(lab: Lab): Places {
  const [coordinator, open, router, behind] = ["coord", "open", "router", "behind"].map((name) => lab.namespace(name));
  lab.bridge("switch", [
    { namespace: coordinator!, addresses: [`${COORDINATOR}/24`] },
    { namespace: open!, addresses: [`${PUBLIC}/24`] },
    { namespace: router!, addresses: [`${ROUTER}/24`] },
  ]);
  lab.link({ namespace: router!, addresses: ["10.7.0.1/24"] }, { namespace: behind!, addresses: ["10.7.0.2/24"] });
  behind!.addRoute("default", "10.7.0.1");
  router!.masquerade("eth0");
  return { coordinator: coordinator!, open: open!, behind: behind! };
}

/** The gateway and its service in one place, the agent in the other; the agent reaches the service and says how. */
async function connect(places: Places, at: { gateway: Namespace; agent: Namespace }): Promise<Result> {
  const network = await TestNetwork.start({
    namespace: places.coordinator,
    host: COORDINATOR,
    policy: {
      services: { echo: { at: `127.0.0.1 tcp:${SERVICE_PORT}`, via: ["node:gw"] } },
      grants: [{ from: "agent:coder", to: "service:echo" }],
    },
  });
  const service = await network.service("echo", { namespace: at.gateway, port: SERVICE_PORT });
  const gateway = await network.join("node:gw", ["--serve", `echo=${service.at}`], { namespace: at.gateway });
  const agent = await network.join("agent:coder", ["--socks"], { namespace: at.agent });
  return { network, gateway, agent };
}

interface Result {
  readonly network: TestNetwork;
  readonly gateway: TestPeer;
  readonly agent: TestPeer;
}

async function flows({ agent }: Result): Promise<void> {
  const stream = await agent.connect("echo", SERVICE_PORT);
  expect(await exchange(stream, "hello")).toBe("hello");
  const text = "0123456789abcdef".repeat(20_000);
  expect(await exchange(stream, text)).toBe(text);
  stream.destroy();
}

describe.runIf(needs("root", "netns", "nft"))("behind a masquerading NAT, no endpoint configured", () => {
  test("an agent behind it reaches a public gateway directly", async () => {
    await using lab = new Lab();
    const places = layOut(lab);
    const result = await connect(places, { gateway: places.open, agent: places.behind });
    await using _network = result.network;
    await flows(result);
    const listenPort = (await result.gateway.status()).listenPort;
    expect((await result.agent.status()).peers).toMatchObject([
      { identity: "node:gw", path: "direct", endpoint: `${PUBLIC}:${listenPort}` },
    ]);
    const [seen] = (await result.gateway.status()).peers;
    expect(seen?.path).toBe("direct");
    expect(seen?.endpoint?.startsWith(`${ROUTER}:`)).toBe(true); // as the NAT shows it
  });

  test("a public agent reaches a gateway behind it directly: the coordinator asks the gateway to punch", async () => {
    await using lab = new Lab();
    const places = layOut(lab);
    const result = await connect(places, { gateway: places.behind, agent: places.open });
    await using _network = result.network;
    await flows(result);
    const [seen] = (await result.agent.status()).peers;
    expect(seen).toMatchObject({ identity: "node:gw", path: "direct" });
    expect(seen?.endpoint?.startsWith(`${ROUTER}:`)).toBe(true);
    const listenPort = (await result.agent.status()).listenPort;
    expect((await result.gateway.status()).peers).toMatchObject([
      { identity: "agent:coder", path: "direct", endpoint: `${PUBLIC}:${listenPort}` },
    ]);
  });

  test("the NAT is one: from the same host another port than the one written to gets nothing through", async () => {
    await using lab = new Lab();
    const { open, behind } = layOut(lab);
    const inside = `const s = require("dgram").createSocket("udp4");
      s.on("message", (m) => { process.stdout.write(m + " "); if (String(m) === "asked") process.exit(0); });
      s.bind(7000, () => setInterval(() => s.send("x", 9000, "${PUBLIC}"), 100));`;
    const outside = `const [a, b] = [1, 2].map(() => require("dgram").createSocket("udp4"));
      a.once("message", (m, from) => b.send("unasked", from.port, from.address, () =>
        setTimeout(() => a.send("asked", from.port, from.address, () => process.exit(0)), 500)));
      a.bind(9000, () => b.bind(9001));`;
    const [heard] = await Promise.all([
      behind.run(process.execPath, ["-e", inside]),
      open.run(process.execPath, ["-e", outside]),
    ]);
    expect(heard.stdout.trim()).toBe("asked");
  });
});
