// Real wireguard-go in a namespace, configured by wg(8).
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Namespace } from "../namespaces.ts";
import { requireTool } from "../needs.ts";

let count = 0;

export interface StockOptions {
  /** As `wg setconf` takes it. */
  readonly config: string;
  /** Of its interface, with prefix lengths. */
  readonly addresses: readonly string[];
  readonly mtu?: number;
}

/** In the foreground, its interface up. Gives the interface's name. */
export async function startWireguardGo(namespace: Namespace, options: StockOptions): Promise<string> {
  // its control socket lies in a folder that all namespaces share
  const name = `wbs${process.pid % 100_000}x${count++}`;
  const child = namespace.spawn(requireTool("wireguard-go"), ["-f", name], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, LOG_LEVEL: "error" },
  });
  let errors = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  // A file, since wg(8) can't open a socket, which a child's stdin is.
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-stock-"));
  const file = join(folder, "wg.conf");
  await writeFile(file, options.config, { mode: 0o600 });
  for (let tries = 0; ; tries++) {
    const set = await namespace.run(requireTool("wg"), ["setconf", name, file], { check: false });
    if (set.code === 0) break;
    if (tries === 100) throw new Error(`wireguard-go did not come up: ${set.stderr} ${errors}`);
    await delay(100);
  }
  await rm(folder, { recursive: true });
  for (const address of options.addresses) namespace.addAddress(name, address);
  namespace.ip("link", "set", name, "mtu", String(options.mtu ?? 1420), "up");
  return name;
}
