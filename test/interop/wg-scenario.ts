// What scenario tests of WireGuard share: keys, configuration files, our program by such a file, curl through it.
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { Namespace, Outcome } from "../namespaces.ts";
import { requireTool } from "../needs.ts";
import { Program, until } from "../scripts/program.ts";

export const WIREBADGE = fileURLToPath(new URL("../../bin/wirebadge", import.meta.url));
const TARGET = fileURLToPath(new URL("http-target.ts", import.meta.url));
const crypto = new PortableCrypto();

/** Both in base64. */
export interface Key {
  readonly privateKey: string;
  readonly publicKey: string;
}

export function newKey(): Key {
  const privateKey = new Uint8Array(randomBytes(32));
  return { privateKey: toBase64(privateKey), publicKey: toBase64(crypto.publicKey(privateKey)) };
}

export function newPresharedKey(): string {
  return toBase64(new Uint8Array(randomBytes(32)));
}

export interface PeerLines {
  readonly publicKey: string;
  readonly presharedKey?: string | undefined;
  readonly allowedIps: string;
  readonly endpoint?: string | undefined;
  /** Seconds. */
  readonly keepalive?: number | undefined;
}

export interface ConfigLines {
  readonly privateKey: string;
  readonly listenPort?: number;
  /** For ours alone: wg(8) takes none. */
  readonly address?: string;
  readonly mtu?: number;
  readonly peers: readonly PeerLines[];
}

/** A configuration file as `wirebadge wg` and, without address and MTU, `wg setconf` take it. */
export function configText(config: ConfigLines): string {
  const lines = [
    "[Interface]",
    `PrivateKey = ${config.privateKey}`,
    ...(config.listenPort === undefined ? [] : [`ListenPort = ${config.listenPort}`]),
    ...(config.address === undefined ? [] : [`Address = ${config.address}`]),
    ...(config.mtu === undefined ? [] : [`MTU = ${config.mtu}`]),
  ];
  for (const peer of config.peers) {
    lines.push("[Peer]", `PublicKey = ${peer.publicKey}`, `AllowedIPs = ${peer.allowedIps}`);
    if (peer.presharedKey !== undefined) lines.push(`PresharedKey = ${peer.presharedKey}`);
    if (peer.endpoint !== undefined) lines.push(`Endpoint = ${peer.endpoint}`);
    if (peer.keepalive !== undefined) lines.push(`PersistentKeepalive = ${peer.keepalive}`);
  }
  return `${lines.join("\n")}\n`;
}

/** `wirebadge wg` with this file; it is ready when this resolves. */
export async function startWirebadge(
  namespace: Namespace,
  config: ConfigLines,
  args: readonly string[],
): Promise<Program> {
  const folder = await mkdtemp(join(tmpdir(), "wirebadge-wg-"));
  try {
    const file = join(folder, "ours.conf");
    await writeFile(file, configText(config), { mode: 0o600 });
    const program = new Program("wirebadge wg", process.execPath, [WIREBADGE, "wg", file, "--json", ...args], {
      namespace,
    });
    await program.event("the ready line", (record) => record["publicKey"]);
    return program;
  } finally {
    await rm(folder, { recursive: true }); // read once, at the start
  }
}

/** http-target.ts, listening on all addresses of the namespace. */
export async function startHttp(namespace: Namespace, port = 8000): Promise<Program> {
  const program = new Program("the HTTP server", process.execPath, [TARGET, "::", String(port)], { namespace });
  await until("its line", () => {
    if (!program.alive) throw new Error(program.tail);
    return program.stdoutLines.length > 0 || undefined;
  });
  return program;
}

/** curl; through SOCKS5 at 127.0.0.1:1080 unless told otherwise. */
export async function curl(
  namespace: Namespace,
  args: readonly string[],
  options: { readonly direct?: boolean; readonly check?: boolean; readonly timeoutMs?: number } = {},
): Promise<Outcome> {
  const socks = options.direct === true ? [] : ["--socks5-hostname", "127.0.0.1:1080"];
  return await namespace.run(requireTool("curl"), ["-sS", "--fail", ...socks, ...args], {
    ...(options.check === undefined ? {} : { check: options.check }),
    timeoutMs: options.timeoutMs ?? 120_000,
  });
}
