// Other implementations of WireGuard, real ones, each in a namespace: wireguard-go (newest, and Debian's build of
// 2022) and boringtun-cli, in the foreground, configured by wg(8).
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { UAPI_FOLDER } from "../../src/peer/tun/uapi-server.ts";
import type { Namespace } from "../namespaces.ts";
import { requireTool } from "../needs.ts";

export type Stock = "wireguard-go" | "wireguard-go-debian" | "boringtun-cli";

const STARTS_MAX = 4;

let count = 0;

export interface StockOptions {
  /** As `wg setconf` takes it. */
  readonly config: string;
  /** Of its interface, with prefix lengths. */
  readonly addresses: readonly string[];
  readonly mtu?: number;
  /** Which of them; wireguard-go when absent. */
  readonly stock?: Stock;
  /** Keep what it says in its most talkative mood, for `said`. */
  readonly talkative?: boolean;
}

/** One running implementation with its interface. */
export class StockEnd implements AsyncDisposable {
  /** Of its interface. */
  readonly name: string;
  readonly #stock: Stock;
  readonly #namespace: Namespace;
  readonly #child: ChildProcess;
  #log = "";

  constructor(stock: Stock, namespace: Namespace, name: string, child: ChildProcess) {
    this.#stock = stock;
    this.#namespace = namespace;
    this.name = name;
    this.#child = child;
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#log = (this.#log + text).slice(-1_000_000);
    });
  }

  /** Whether it said so; of one that is talkative. */
  said(what: RegExp): boolean {
    return what.test(this.#log);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** kill -9; what it leaves of itself is swept away. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
    await rm(join(UAPI_FOLDER, `${this.name}.sock`), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  /** `set("listen-port", "51899")`, as `wg set NAME …` takes it. */
  async set(...args: readonly string[]): Promise<void> {
    await this.#namespace.run(requireTool("wg"), ["set", this.name, ...args]);
  }

  /** As `set`, for settings that wg(8) reads from a file: `#` stands for the file that holds `secret`. */
  async setSecret(secret: string, ...args: readonly string[]): Promise<void> {
    await withFile(secret, (file) => this.set(...args.map((arg) => (arg === "#" ? file : arg))));
  }

  /** `show("endpoints")` → public key → what wg(8) shows of that peer. */
  async show(what: "latest-handshakes" | "endpoints" | "transfer" | "allowed-ips"): Promise<Map<string, string>> {
    const shown = await this.#namespace.run(requireTool("wg"), ["show", this.name, what]);
    const rows = shown.stdout.split("\n").filter(Boolean);
    return new Map(rows.map((row) => [row.slice(0, row.indexOf("\t")), row.slice(row.indexOf("\t") + 1)]));
  }

  /**
   * Of its only peer, in seconds of the clock; of wireguard-go 0 before the first. boringtun 0.7.1 gives the seconds
   * since then where the protocol wants the time (device/api.rs, time_since_last_handshake).
   */
  async latestHandshake(): Promise<number> {
    const [at] = (await this.show("latest-handshakes")).values();
    return this.#stock === "boringtun-cli" ? Date.now() / 1000 - Number(at) : Number(at);
  }
}

/** A file, since wg(8) can't open a socket, which a child's stdin is. */
async function withFile(text: string, work: (file: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-stock-"));
  try {
    const file = join(folder, "wg.conf");
    await writeFile(file, text, { mode: 0o600 });
    await work(file);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** It ended in its own time, before it could be set. */
class EndedAtStart extends Error {}

/**
 * Up when it resolves. boringtun now and then ends at its start, with exit code 0 and no word, where somebody already
 * sends to its port; wireguard-go was seen to, with 1, on a busy machine. It is started again, and its words are told.
 */
export async function startStock(namespace: Namespace, options: StockOptions): Promise<StockEnd> {
  for (let start = 1; ; start++) {
    try {
      return await startOnce(namespace, options);
    } catch (error) {
      if (!(error instanceof EndedAtStart) || start === STARTS_MAX) throw error;
      process.stderr.write(`start ${start}: ${error.message}\n`);
    }
  }
}

async function startOnce(namespace: Namespace, options: StockOptions): Promise<StockEnd> {
  const stock = options.stock ?? "wireguard-go";
  // its control socket lies in a folder that all namespaces share
  const name = `wbs${process.pid % 100_000}x${count++}`;
  const args = stock === "boringtun-cli" ? ["--foreground", "--disable-drop-privileges", name] : ["-f", name];
  const talkative = options.talkative === true;
  const child = namespace.spawn(requireTool(stock), args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LOG_LEVEL: talkative ? "verbose" : "error", WG_LOG_LEVEL: talkative ? "debug" : "error" },
  });
  let errors = "";
  for (const stream of talkative ? [child.stderr] : [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      errors = (errors + text).slice(-4_000);
    });
  }
  await withFile(options.config, async (file) => {
    for (let tries = 0; ; tries++) {
      const set = await namespace.run(requireTool("wg"), ["setconf", name, file], { check: false });
      if (set.code === 0) break;
      const said = `${stock} did not come up (exit ${child.exitCode}): ${set.stderr} ${errors}`;
      if (child.exitCode !== null) throw new EndedAtStart(said);
      if (tries === 300 || child.signalCode !== null) throw new Error(said);
      await delay(100);
    }
  });
  for (const address of options.addresses) namespace.addAddress(name, address);
  namespace.ip("link", "set", name, "mtu", String(options.mtu ?? 1420), "up");
  return new StockEnd(stock, namespace, name, child);
}

/** wireguard-go, for who needs its interface's name alone. */
export async function startWireguardGo(namespace: Namespace, options: StockOptions): Promise<string> {
  return (await startStock(namespace, options)).name;
}
