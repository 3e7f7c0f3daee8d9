// Which addresses a gateway refuses to dial, shown with real processes, interfaces and the system's resolver: the
// gateway runs in a network namespace with a hosts file of its own, and behind every refused address stands a real
// listener that the gateway's machine does reach.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SocksReplyError } from "../../src/cli/socks-client.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs } from "../needs.ts";
import { GROUPS, HOST, MAPPED, NEIGHBOUR, NO_UNICAST, OWN, SITE, V4_MAPPED } from "./dial-addresses.ts";
import { type Recorder, TestNetwork, type TestPeer } from "./network.ts";
import { until } from "./program.ts";

const PORT = 8080;
const DENIED = 2; // SOCKS reply: not allowed by the rules
const UNREACHABLE = 4;
const REFUSED = 5;

describe.runIf(needs("linux", "netns", "ipv6"))("an agent granted everything through a gateway", () => {
  const lab = new Lab();
  let network: TestNetwork;
  let machine: Namespace;
  let hostsFolder: string;
  let own: Recorder;
  let neighbour: Recorder;
  let allowed: Recorder;
  let agent: TestPeer;
  let gateway: TestPeer;
  const names = new Map<string, readonly string[]>();

  /** The name of that list of answers, in the gateway's hosts file. */
  function nameOf(...answers: readonly string[]): string {
    const name = `n${names.size}.example`;
    names.set(name, answers);
    const lines = [...names].flatMap(([known, addresses]) => addresses.map((address) => `${address} ${known}`));
    writeFileSync(join(hostsFolder, "hosts"), `${lines.join("\n")}\n`);
    return name;
  }

  /** Through SOCKS: 0, or the reply that refused it. */
  async function replyTo(host: string, port = PORT): Promise<number> {
    try {
      (await agent.connect(host, port)).destroy();
      return 0;
    } catch (error) {
      if (error instanceof SocksReplyError) return error.reply;
      throw error;
    }
  }

  const arrivals = (): number =>
    [own, neighbour].flatMap(({ received }) => received).filter(({ event }) => event !== "closed").length;

  /** Of each of the names or addresses: another reply than it should be, and what has reached a listener. */
  async function leaks(hosts: readonly string[]): Promise<string[]> {
    const found: string[] = [];
    for (const host of hosts) {
      const before = arrivals();
      const reply = await replyTo(host, PORT);
      if (reply !== (NO_UNICAST.includes(host) ? UNREACHABLE : DENIED)) found.push(`${host}: reply ${reply}`);
      if (arrivals() > before) found.push(`${host}: arrived`);
    }
    return found;
  }

  beforeAll(async () => {
    machine = lab.namespace("machine");
    const site = lab.namespace("site");
    // The system's resolver of that machine: `ip netns exec` puts these files in /etc for what runs there.
    hostsFolder = `/etc/netns/${machine.name}`;
    mkdirSync(hostsFolder, { recursive: true });
    writeFileSync(join(hostsFolder, "hosts"), "");
    writeFileSync(join(hostsFolder, "nsswitch.conf"), "hosts: files\n");
    const [device] = lab.link(
      { namespace: machine, addresses: [`${HOST}/24`, "fd55::1/64"] },
      { namespace: site, addresses: [`${SITE}/24`, "fd55::2/64"] },
    );
    for (const address of [...NEIGHBOUR, ...MAPPED]) {
      const isV6 = address.includes(":");
      site.addAddress("lo", `${address}/${isV6 ? 128 : 32}`);
      machine.ip(...(isV6 ? ["-6"] : []), "route", "add", address, "via", isV6 ? "fd55::2" : SITE, "dev", device);
    }
    network = await TestNetwork.start({ namespace: machine });
    own = await network.service("own", { namespace: machine, host: "::", port: PORT });
    neighbour = await network.service("neighbour", { namespace: site, host: "::", port: PORT });
    allowed = await network.service("allowed", { namespace: machine, host: "127.0.0.1" });
    const callers = ["agent:coder"];
    await network.setPolicy({
      services: {
        staging: { at: `127.0.0.1 tcp:${allowed.port}`, via: ["node:gw"] },
        // Nobody on the gateway's own side has said that this may be reached.
        unsaid: { at: `127.0.0.1 tcp:${PORT}`, via: ["node:gw"] },
        metadata: { at: `169.254.169.254 tcp:${PORT}`, via: ["node:gw"] },
      },
      routes: {
        "0.0.0.0/0": { via: ["node:gw"] },
        "::/0": { via: ["node:gw"] },
        "host:*": { via: ["node:gw"] },
      },
      grants: [
        { from: callers, to: ["0.0.0.0/0 any", "::/0 any", "host:* any"] },
        { from: callers, to: ["service:staging", "service:unsaid", "service:metadata"] },
      ],
    });
    const routes = ["0.0.0.0/0", "::/0", "host:*"].flatMap((route) => ["--route", route]);
    const serves = ["--serve", `staging=${allowed.at}`, "--serve", "unsaid", "--serve", "metadata"];
    gateway = await network.join("node:gw", [...routes, ...serves], { namespace: machine });
    agent = await network.join("agent:coder", ["--socks"], { namespace: machine });
  }, 120_000);

  afterAll(async () => {
    await network?.close();
    await lab.close();
    if (hostsFolder !== undefined) rmSync(hostsFolder, { recursive: true, force: true });
  });

  /** A direct connection from the gateway's machine. */
  async function reaches(address: string, recorder: Recorder): Promise<boolean> {
    const before = recorder.received.length;
    const script = `const s = require("net").connect(${PORT}, ${JSON.stringify(address)}); s.on("connect", () =>
      s.end("direct")); s.on("error", () => process.exit(1)); s.setTimeout(3000, () => process.exit(2))`;
    const run = await machine.run(process.execPath, ["-e", script], { check: false });
    if (run.code !== 0) return false;
    await until("the direct connection", () => recorder.received.length > before || undefined);
    return true;
  }

  test("without the dial rules each refused address would be reached: the gateway's machine reaches them", async () => {
    const unroutable = ["0.1.2.3"]; // Linux itself has no way there
    for (const address of OWN) if (!unroutable.includes(address)) expect(await reaches(address, own)).toBe(true);
    for (const address of [...NEIGHBOUR, ...MAPPED])
      expect([address, await reaches(address, neighbour)]).toEqual([address, true]);
  });

  test("reaches what the gateway may dial: by address and by name", async () => {
    expect(await agent.echo("fd55::2", PORT, "by address")).toBe("by address");
    expect(await agent.echo(SITE, PORT, "by IPv4 address")).toBe("by IPv4 address");
    expect(await agent.echo(nameOf("fd55::2"), PORT, "by name")).toBe("by name");
    expect(await agent.echo(nameOf(SITE), PORT, "by IPv4 name")).toBe("by IPv4 name");
    for (const text of ["by address", "by IPv4 address", "by name", "by IPv4 name"]) await neighbour.receives(text);
  });

  test("reaches none of the refused addresses by address", async () => {
    const all = [...OWN, ...NEIGHBOUR, ...MAPPED, ...V4_MAPPED, ...GROUPS];
    expect(await leaks(all)).toEqual([]);
    expect(await leaks(all.filter((address) => address.includes(":") && !V4_MAPPED.includes(address)))).toEqual([]);
  });

  test("reaches none of them by a name that resolves to one", async () => {
    const all = [...OWN, ...NEIGHBOUR, ...MAPPED, ...V4_MAPPED, ...GROUPS, gateway.address, agent.address];
    expect(await leaks(all.map((address) => nameOf(address)))).toEqual([]);
  });

  test("reaches none of them by a name whose second answer is one: only the others are dialled", async () => {
    const port = 8081; // the neighbour's is closed, here listens the gateway's machine
    const here = await network.service("second", { namespace: machine, host: "::", port });
    expect(await replyTo(nameOf(SITE), port)).toBe(REFUSED); // refused: it was dialled
    for (const answers of [
      [SITE, "127.0.0.1"],
      ["fd55::2", "::1"],
      ["127.0.0.1", SITE],
      [SITE, HOST],
    ]) {
      expect(await replyTo(nameOf(...answers), port)).toBe(REFUSED);
    }
    expect(here.received).toEqual([]);
    expect(await agent.echo(nameOf("127.0.0.1", SITE), PORT, "the other answer")).toBe("the other answer");
    await neighbour.receives("the other answer");
    expect(own.hasReceived("the other answer")).toBe(false);
  });

  test("a denied dial is told to its caller with the rule of the gateway", async () => {
    const name = nameOf("127.0.0.1");
    expect(await replyTo(name)).toBe(DENIED);
    const denial = (await gateway.denials()).findLast(({ destination }) => destination.includes(name));
    expect(denial).toMatchObject({ reason: "DIAL_REFUSED", ruleId: "LOOPBACK", hop: "destination" });
  });

  test("a service at 127.0.0.1:PORT works by the host's own --serve, and opens nothing beside it", async () => {
    expect(await agent.echo("staging", allowed.port, "the service")).toBe("the service");
    await allowed.receives("the service");
    const connections = (): number => allowed.received.filter(({ event }) => event === "opened").length;
    const before = connections();
    expect(await replyTo("127.0.0.1", allowed.port)).toBe(DENIED);
    expect(await replyTo(nameOf("127.0.0.1"), allowed.port)).toBe(DENIED);
    expect(await replyTo(nameOf("::1"), allowed.port)).toBe(DENIED);
    expect(await replyTo("service:staging", PORT)).toBe(DENIED);
    expect(connections()).toBe(before);
  });

  test("a service that only the policy puts at 127.0.0.1 is refused; at another address it is dialled", async () => {
    expect(await leaks(["unsaid"])).toEqual([]);
    expect(await agent.echo("metadata", PORT, "named by the policy")).toBe("named by the policy");
    await neighbour.receives("named by the policy");
  });
});
