// kill -9 of peers: with the same state folder the same session comes back, and the other end needs no restart. Two
// gateways of one service: when one is killed, new connections go through the other.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Recorder, TestNetwork, type TestPeer } from "../scripts/network.ts";
import { until } from "../scripts/program.ts";

let network: TestNetwork;
let service: Recorder;
beforeEach(async () => {
  network = await TestNetwork.start();
  service = await network.service("echo");
  await network.setPolicy({
    services: { echo: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw-1", "node:gw-2"] } },
    grants: [{ from: "kind:agent", to: "service:echo" }],
  });
});
afterEach(() => network.close());

const serve = (name: string): Promise<TestPeer> => network.join(`node:${name}`, ["--serve", `echo=${service.at}`]);

/** Until one connection in a row of attempts has carried bytes there and back; the time it took. */
async function echoes(peer: TestPeer, text: string): Promise<number> {
  const startMs = performance.now();
  await until(`an answer to ${text}`, async () => {
    try {
      return (await peer.echo("echo", service.port, text)) === text || undefined;
    } catch {
      return undefined;
    }
  });
  return performance.now() - startMs;
}

describe("a peer that was killed", () => {
  test("comes back as the same session, whatever it was doing, and its lock holds nobody up", async () => {
    await serve("gw-1");
    const coder = await network.join("agent:coder", ["--socks"]);
    const { session, addresses } = coder;
    for (const pauseMs of [0, 150, 700]) {
      const busy = coder.echo("echo", service.port, "x".repeat(100_000)).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      await coder.program.kill();
      await busy;
      expect(existsSync(join(coder.state, "peer.pid"))).toBe(true); // left behind
      await coder.up();
      expect(coder.session).toBe(session);
      expect(coder.addresses).toEqual(addresses);
      expect(await coder.echo("echo", service.port, `after ${pauseMs}`)).toBe(`after ${pauseMs}`);
    }
    const sessions = (await network.admin(["session", "list"]))["sessions"] as { identity: string }[];
    expect(sessions.filter(({ identity }) => identity === "agent:coder")).toHaveLength(1);
  });

  test("in the middle of joining: the same token goes on with the same keys", async () => {
    await serve("gw-1");
    const token = await network.token("agent:early");
    const state = join(network.folder, "early");
    for (const pauseMs of [100, 300, 500, 800]) {
      const words = ["up", "--state", state, "--token-file", "-", "--json"];
      const early = network.wirebadge("early", words, { stdin: token });
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      await early.kill();
    }
    const early = network.peer("agent:early", ["--socks"], { state: "early" });
    await early.up(token);
    expect(await early.echo("echo", service.port, "joined")).toBe("joined");
    const sessions = (await network.admin(["session", "list"]))["sessions"] as { identity: string }[];
    expect(sessions.filter(({ identity }) => identity === "agent:early")).toHaveLength(1);
  });

  test("as a gateway serves again after its restart; the agent goes on without one", async () => {
    const gateway = await serve("gw-1");
    const coder = await network.join("agent:coder", ["--socks"]);
    await echoes(coder, "before");
    const { session } = gateway;
    await gateway.program.kill();
    await gateway.up();
    expect(gateway.session).toBe(session);
    const tookMs = await echoes(coder, "after");
    expect(tookMs).toBeLessThan(30_000);
    expect(coder.program.alive).toBe(true);
  });
});

test("of two gateways for one service one is killed: new connections go through the other", async () => {
  const gateways = [await serve("gw-1"), await serve("gw-2")];
  const coder = await network.join("agent:coder", ["--socks"]);
  await echoes(coder, "before");
  const flows = (await coder.status()).peers.map(({ session, rxBytes }) => ({ session, rxBytes }));
  const used = flows.reduce((a, b) => (a.rxBytes > b.rxBytes ? a : b)).session;
  const victim = gateways.find(({ session }) => session === used)!;
  const other = gateways.find(({ session }) => session !== used)!;
  await victim.program.kill();
  const tookMs = await echoes(coder, "after");
  expect(tookMs).toBeLessThan(30_000);
  const through = (await coder.status()).peers.find(({ session }) => session === other.session);
  expect(through?.rxBytes).toBeGreaterThan(0);
});
