// The network of real processes itself: an agent reaches a service through a gateway, and nothing stays.
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { TestNetwork } from "./network.ts";

test("an agent reaches a service through a gateway, each a process of its own; closing leaves nothing", async () => {
  await using network = await TestNetwork.start(); // also when a step fails
  const service = await network.service("echo");
  await network.setPolicy({
    services: { echo: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw"] } },
    grants: [{ from: "agent:coder", to: "service:echo" }],
  });
  const gateway = await network.join("node:gw", ["--serve", `echo=${service.at}`]);
  const coder = await network.join("agent:coder", ["--socks"]);
  expect(await coder.echo("echo", service.port, "hello")).toBe("hello");
  expect(service.hasReceived("hello")).toBe(true);
  expect((await gateway.status()).identity).toBe("node:gw");
  const pids = [network.coordinator, gateway.program, coder.program, service.program].map(({ pid }) => pid);
  await network.close();
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  expect(existsSync(network.folder)).toBe(false);
});
