// Two `wirebadge wg` processes on loopback, no root: TCP through a forward, the tunnel and an exposed port to a real
// server, both ways; and the memory of a peer that has done nothing yet. All processes and the load share this
// machine's cores.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { toBase64 } from "../src/base/bytes.ts";
import { randomBytes } from "../src/base/random.ts";
import { PortableCrypto } from "../src/crypto/portable.ts";
import { osRandom } from "../src/io/os-random.ts";
import type { BenchResult } from "./result.ts";

const WIREBADGE = fileURLToPath(new URL("../bin/wirebadge", import.meta.url));
const RUN_MS = 3_000;
const RUNS = 3;
const CHUNK = Buffer.alloc(65_536, 0x5a);

export interface Started {
  readonly child: ChildProcess;
  readonly ready: Record<string, unknown>;
}

/** Starts a command of the CLI with --json; resolves at its ready line. */
export async function startWirebadge(words: readonly string[], stdin?: string): Promise<Started> {
  const child = spawn(process.execPath, [WIREBADGE, ...words, "--json"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, WIREBADGE_LOG: "warn" },
  });
  child.stdin?.end(stdin ?? "");
  let text = "";
  for await (const chunk of child.stdout!.setEncoding("utf8")) {
    text += chunk as string;
    const line = text.split("\n").find((candidate) => candidate.includes('"ready"'));
    if (line !== undefined) return { child, ready: JSON.parse(line) as Record<string, unknown> };
  }
  throw new Error(`${words[0]} ended before it was ready: ${text}`);
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  child.kill("SIGTERM");
  await once(child, "exit");
}

export function freePort(): Promise<number> {
  const server = createServer();
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** KiB of resident memory. */
export function residentKib(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** User and system time of a process so far, in seconds (clock ticks of 10 ms). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Sends for as long as it is asked for bytes ("down"), or counts what it gets ("up"): the first byte says which. */
function loadServer(): Server {
  return createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (first: Buffer) => {
      if (first[0] === 1) {
        const fill = (): void => {
          while (socket.writable && socket.write(CHUNK));
        };
        socket.on("drain", fill);
        fill();
      } else {
        let got = first.length;
        socket.on("data", (chunk: Buffer) => {
          got += chunk.length;
        });
        socket.on("end", () => socket.end(String(got)));
      }
    });
  });
}

interface Load {
  /** MB/s */
  readonly rate: number;
  readonly bytes: number;
}

async function download(port: number): Promise<Load> {
  const socket = connect(port, "127.0.0.1");
  let got = 0;
  socket.on("data", (chunk: Buffer) => {
    got += chunk.length;
  });
  await once(socket, "connect");
  socket.write(Uint8Array.of(1));
  await delay(300);
  const [from, startMs] = [got, performance.now()];
  await delay(RUN_MS);
  const rate = (got - from) / 1e3 / (performance.now() - startMs);
  socket.destroy();
  return { rate, bytes: got };
}

/** By what the receiver says it got. */
async function upload(port: number): Promise<Load> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  const startMs = performance.now();
  socket.write(Uint8Array.of(2));
  while (performance.now() - startMs < RUN_MS) {
    if (!socket.write(CHUNK)) await once(socket, "drain");
  }
  socket.end();
  const [answer] = (await once(socket, "data")) as [Buffer];
  const rate = Number(answer.toString()) / 1e3 / (performance.now() - startMs);
  socket.destroy();
  return { rate, bytes: Number(answer.toString()) };
}

/** So many connections at once. */
async function together(connections: number, load: () => Promise<Load>): Promise<Load> {
  const loads = await Promise.all(Array.from({ length: connections }, load));
  const sum = (of: (one: Load) => number): number => loads.reduce((total, one) => total + of(one), 0);
  return { rate: sum(({ rate }) => rate), bytes: sum(({ bytes }) => bytes) };
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Medians of the rate and of the CPU seconds that both peers spend for 10^9 bytes. */
async function repeat(load: () => Promise<Load>, pids: readonly number[]): Promise<{ rate: number; cpuPerGb: number }> {
  const cpu = (): number => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const runs: { rate: number; cpuPerGb: number }[] = [];
  for (let i = 0; i < RUNS; i++) {
    const before = cpu();
    const { rate, bytes } = await load();
    runs.push({ rate, cpuPerGb: ((cpu() - before) * 1e9) / bytes });
  }
  return { rate: median(runs.map((run) => run.rate)), cpuPerGb: median(runs.map((run) => run.cpuPerGb)) };
}

export async function run(): Promise<BenchResult[]> {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-bench-"));
  const crypto = new PortableCrypto();
  const [a, b] = [randomBytes(osRandom, 32), randomBytes(osRandom, 32)];
  const [portA, portB, forward] = [await freePort(), await freePort(), await freePort()];
  const config = (own: Uint8Array, peer: Uint8Array, number: number, listen: number, remote: number): string => {
    const file = join(folder, `${number}.conf`);
    const text = [
      "[Interface]",
      `PrivateKey = ${toBase64(own)}`,
      `Address = 10.9.0.${number}`,
      `ListenPort = ${listen}`,
      "[Peer]",
      `PublicKey = ${toBase64(crypto.publicKey(peer))}`,
      `AllowedIPs = 10.9.0.${3 - number}`,
      `Endpoint = 127.0.0.1:${remote}`,
    ].join("\n");
    writeFileSync(file, text, { mode: 0o600 });
    return file;
  };
  const server = loadServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const started: Started[] = [];
  try {
    started.push(await startWirebadge(["wg", config(b, a, 2, portB, portA), "--expose", `127.0.0.1:${port}=7000`]));
    started.push(
      await startWirebadge(["wg", config(a, b, 1, portA, portB), "--forward", `127.0.0.1:${forward}=10.9.0.2:7000`]),
    );
    await delay(1_000);
    const idleKib = median(started.map(({ child }) => residentKib(child.pid!)));
    const pids = started.map(({ child }) => child.pid!);
    const results: BenchResult[] = [];
    for (const connections of [1, 8]) {
      const [down, up] = [
        await repeat(() => together(connections, () => download(forward)), pids),
        await repeat(() => together(connections, () => upload(forward)), pids),
      ];
      const of = `${connections} connection${connections === 1 ? "" : "s"}`;
      results.push(
        { name: `rootless TCP between two peers, ${of}, down`, value: down.rate, unit: "MB/s" },
        { name: `rootless TCP between two peers, ${of}, up`, value: up.rate, unit: "MB/s" },
        { name: `CPU of both peers, ${of}, down`, value: down.cpuPerGb, unit: "s/GB" },
        { name: `CPU of both peers, ${of}, up`, value: up.cpuPerGb, unit: "s/GB" },
      );
    }
    return [...results, { name: "memory of an idle peer (RSS)", value: idleKib / 1024, unit: "MiB" }];
  } finally {
    for (const { child } of started) await end(child);
    server.close();
    rmSync(folder, { recursive: true });
  }
}
