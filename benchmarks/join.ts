// A whole network of processes on loopback: how long `wirebadge up` takes from exec to its ready line, and to the first
// byte of a private service through a forward.
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BenchNetwork } from "./bench-network.ts";
import type { BenchResult } from "./result.ts";
import { end, freePort, median, startWirebadge } from "./tunnel.ts";

const RUNS = 5;

/** Connects until it is answered: the forward opens just before the ready line. */
async function firstByte(port: number): Promise<void> {
  for (let tries = 0; tries < 2_000; tries++) {
    const socket = connect(port, "127.0.0.1");
    const got = await Promise.race([
      once(socket, "data").then(() => true),
      once(socket, "close").then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (got) return;
    await delay(2);
  }
  throw new Error("the service never answered");
}

export async function run(): Promise<BenchResult[]> {
  const service = createServer((socket) => socket.end("x")).listen(0, "127.0.0.1");
  await once(service, "listening");
  const { port } = service.address() as AddressInfo;
  const network = await BenchNetwork.start(port);
  try {
    const ready: number[] = [];
    const first: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const token = await network.token(`agent:bench-${i}`);
      const forward = await freePort();
      const words = ["up", "--token-file", "-", "--state", join(network.folder, `agent-${i}`)];
      const startMs = performance.now();
      const agent = await startWirebadge([...words, "--forward", `127.0.0.1:${forward}=echo:${port}`], token);
      ready.push(performance.now() - startMs);
      await firstByte(forward);
      first.push(performance.now() - startMs);
      await end(agent.child);
    }
    return [
      { name: "`up` from exec to its ready line (enrolment included)", value: median(ready), unit: "ms" },
      { name: "`up` from exec to the first byte of a private service", value: median(first), unit: "ms" },
    ];
  } finally {
    await network.end();
    service.close();
  }
}
