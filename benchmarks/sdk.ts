// The SDK in a program's own process, with coordinator, gateway and service as processes beside it: from join() to the
// first byte, and a small answer by fetch over the network and directly, in turn.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { BenchNetwork } from "./bench-network.ts";
import type { BenchResult } from "./result.ts";
import type { AgentFigures } from "./sdk-agent.ts";
import { median } from "./tunnel.ts";

const AGENT = fileURLToPath(new URL("sdk-agent.ts", import.meta.url));
const RUNS = 5;

async function runAgent(token: string, port: number): Promise<AgentFigures> {
  const child = spawn(process.execPath, [AGENT, String(port)], {
    env: { ...process.env, WIREBADGE_TOKEN: token },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  await once(child, "close");
  return JSON.parse(text) as AgentFigures;
}

export async function run(): Promise<BenchResult[]> {
  const service = createServer((_request, response) => response.end("x")).listen(0, "127.0.0.1");
  await once(service, "listening");
  const { port } = service.address() as AddressInfo;
  const network = await BenchNetwork.start(port);
  try {
    const all: AgentFigures[] = [];
    for (let i = 0; i < RUNS; i++) all.push(await runAgent(await network.token(`agent:bench-${i}`), port));
    const row = (name: string, of: keyof AgentFigures): BenchResult => {
      return { name, value: median(all.map((figures) => figures[of])), unit: "ms" };
    };
    return [
      row("SDK: join() with modules loaded", "joinMs"),
      row("SDK: join() to the first byte of a private service", "firstByteMs"),
      row("SDK: fetch of a small answer, direct, p50", "directMs"),
      row("SDK: the same over the network, p50", "overlayMs"),
      row("SDK: the difference", "moreMs"),
    ];
  } finally {
    await network.end();
    service.close();
  }
}
