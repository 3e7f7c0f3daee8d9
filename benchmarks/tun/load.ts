// Runs load.pl in a bed's namespaces.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { requireTool } from "../../test/needs.ts";
import { Program, until } from "../../test/scripts/program.ts";
import { type Bed, OVERLAY } from "./bed.ts";
import type { RateProbe } from "./rate-search.ts";

const LOAD = fileURLToPath(new URL("load.pl", import.meta.url));
const DATAGRAM_PORT = "7001";
const CONNECTION_PORT = "7000";
const SERVE_WORKERS = "20"; // more than are ever open at a time

/** Whether this Perl has what load.pl uses: a minimal one lacks Time::HiRes. */
export function canLoad(): boolean {
  return spawnSync(requireTool("perl"), ["-MTime::HiRes", "-MSocket", "-e", "1"]).status === 0;
}

type Report = Readonly<Record<string, number>>;

/** Two namespaces, and where b is for a. */
export interface Ways extends Pick<Bed, "namespaces"> {
  readonly address?: string;
}

async function started(ways: Ways, mode: string, ...words: readonly string[]): Promise<Program> {
  const namespace = ways.namespaces.b;
  const program = new Program(`load ${mode}`, requireTool("perl"), [LOAD, mode, addressOf(ways), ...words], {
    namespace,
  });
  await until(`ready line of load ${mode}`, () => {
    if (!program.alive) throw new Error(`load ${mode} ended: ${program.tail}`);
    return program.stdoutLines.includes("ready");
  });
  return program;
}

const addressOf = ({ address }: Ways): string => address ?? OVERLAY.b;

async function run(ways: Ways, ...words: readonly string[]): Promise<Report> {
  const { stdout } = await ways.namespaces.a.run(requireTool("perl"), [LOAD, ...words]);
  return JSON.parse(stdout) as Report;
}

/** Datagrams from a to b at a paced rate, for `seconds`. */
export async function datagrams(bed: Ways, rate: number, bytes: number, seconds: number): Promise<RateProbe> {
  const receiver = await started(bed, "receive", DATAGRAM_PORT);
  const size = String(bytes);
  const sent = await run(bed, "send", addressOf(bed), DATAGRAM_PORT, String(Math.round(rate)), String(seconds), size);
  const got = await receiver.event("count", (record) => record as Report);
  await receiver.exited;
  const [sentCount, receivedCount] = [sent["sent"]!, got["received"]!];
  return {
    sent: sentCount / sent["seconds"]!,
    // What a queue still held when the sender was done took its time too.
    received: receivedCount / Math.max(sent["seconds"]!, got["seconds"]!),
    lost: sentCount === 0 ? 1 : 1 - receivedCount / sentCount,
  };
}

/** Connections a second from a to b (connect, 1 byte there and back, close), `atATime` of them at once. */
export async function connectionRates(bed: Ways, atATimes: readonly number[], seconds: number): Promise<number[]> {
  const server = await started(bed, "serve", CONNECTION_PORT, SERVE_WORKERS);
  const rates: number[] = [];
  try {
    for (const atATime of atATimes) {
      const report = await run(bed, "connect", addressOf(bed), CONNECTION_PORT, String(atATime), String(seconds));
      if (report["failed"]! > 0) throw new Error(`${report["failed"]} of ${report["done"]} connections failed`);
      rates.push(report["done"]! / report["seconds"]!);
    }
  } finally {
    await server.end();
  }
  return rates;
}
