// One run of benchmarks/sdk.ts: a program that joins and asks; its figures go to standard output.
import { once } from "node:events";
import { join } from "../src/sdk/join.ts";
import { median } from "./tunnel.ts";

export interface AgentFigures {
  readonly joinMs: number;
  readonly firstByteMs: number;
  readonly directMs: number;
  readonly overlayMs: number;
  readonly moreMs: number;
}

const WARM_UP = 300;
const ASKED = 1_000;

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

const port = Number(process.argv[2]);
const startMs = performance.now();
const net = await join({ token: process.env["WIREBADGE_TOKEN"] });
const joinMs = performance.now() - startMs;
const socket = net.connect(port, "echo");
socket.write("GET / HTTP/1.0\r\n\r\n");
await once(socket, "data");
const firstByteMs = performance.now() - startMs;
socket.destroy();

const direct = async (): Promise<unknown> => await (await fetch(`http://127.0.0.1:${port}/`)).text();
const overlay = async (): Promise<unknown> => await (await net.fetch(`http://echo:${port}/`)).text();
const [directMs, overlayMs]: [number[], number[]] = [[], []];
for (let i = 0; i < WARM_UP + ASKED; i++) {
  const [one, other] = [await timed(direct), await timed(overlay)];
  if (i < WARM_UP) continue;
  directMs.push(one);
  overlayMs.push(other);
}
const more = median(overlayMs) - median(directMs);
const figures: AgentFigures = {
  joinMs,
  firstByteMs,
  directMs: median(directMs),
  overlayMs: median(overlayMs),
  moreMs: more,
};
process.stdout.write(JSON.stringify(figures));
await net.close();
