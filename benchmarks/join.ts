// A whole network of processes on loopback: how long `wirebadge up` takes from exec to its ready line, and to the first
// byte of a private service through a forward.
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { BenchResult } from "./result.ts";
import { end, freePort, median, type Started, startWirebadge } from "./tunnel.ts";

const WIREBADGE = fileURLToPath(new URL("../bin/wirebadge", import.meta.url));
const RUNS = 5;
const run_ = promisify(execFile);

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
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-bench-"));
  const data = join(folder, "data");
  const service = createServer((socket) => socket.end("x")).listen(0, "127.0.0.1");
  await once(service, "listening");
  const { port } = service.address() as AddressInfo;
  const started: Started[] = [];
  try {
    const coordinator = await startWirebadge([
      "coordinator",
      "--data",
      data,
      "--listen",
      "127.0.0.1:0",
      "--admin-listen",
      "127.0.0.1:0",
    ]);
    started.push(coordinator);
    const admin = async (words: readonly string[], stdin = ""): Promise<Record<string, unknown>> => {
      const asked = run_(process.execPath, [
        WIREBADGE,
        ...words,
        "--url",
        String(coordinator.ready["adminUrl"]),
        "--data",
        data,
        "--json",
      ]);
      asked.child.stdin?.end(stdin);
      return JSON.parse((await asked).stdout) as Record<string, unknown>;
    };
    const policy = {
      services: { echo: { at: `127.0.0.1 tcp:${port}`, via: ["node:gateway"] } },
      grants: [{ id: "all-agents", from: "kind:agent", to: "service:echo" }],
    };
    await admin(["policy", "set", "-"], JSON.stringify(policy));
    const gatewayToken = String((await admin(["token", "create", "--as", "node:gateway"]))["token"]);
    started.push(
      await startWirebadge(
        ["up", "--token-file", "-", "--state", join(folder, "gateway"), "--serve", `echo=127.0.0.1:${port}`],
        gatewayToken,
      ),
    );
    const ready: number[] = [];
    const first: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const token = String((await admin(["token", "create", "--as", `agent:bench-${i}`]))["token"]);
      const forward = await freePort();
      const startMs = performance.now();
      const agent = await startWirebadge(
        [
          "up",
          "--token-file",
          "-",
          "--state",
          join(folder, `agent-${i}`),
          "--forward",
          `127.0.0.1:${forward}=echo:${port}`,
        ],
        token,
      );
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
    for (const { child } of started.reverse()) await end(child);
    service.close();
    rmSync(folder, { recursive: true });
  }
}
