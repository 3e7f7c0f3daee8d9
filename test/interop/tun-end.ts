// One end of a test over TUN devices: a namespace with `wirebadge wg FILE --tun`, or another implementation, and an
// HTTP server behind it (http-target.ts); names, addresses and keys of the two ends.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { Lab, Namespace } from "../namespaces.ts";
import { Program } from "../scripts/program.ts";
import { type Stock, type StockEnd, startStock } from "./stock-wireguard.ts";

const WIREBADGE = fileURLToPath(new URL("../../bin/wirebadge", import.meta.url));
const TARGET = fileURLToPath(new URL("http-target.ts", import.meta.url));
const PORT = 51820;
const presharedKey = toBase64(new Uint8Array(32).fill(7));

export interface EndSpec {
  /** Of the namespace and the device: "a" or "b". */
  readonly name: "a" | "b";
  readonly privateKey: Uint8Array;
  readonly outside: { readonly 4: string; readonly 6: string };
  readonly inside: { readonly 4: string; readonly 6: string };
}

export const A: EndSpec = {
  name: "a",
  privateKey: new Uint8Array(32).fill(0x41),
  outside: { 4: "10.1.0.1", 6: "fd01::1" },
  inside: { 4: "10.9.0.1", 6: "fd09::1" },
};
export const B: EndSpec = {
  name: "b",
  privateKey: new Uint8Array(32).fill(0x42),
  outside: { 4: "10.1.0.2", 6: "fd01::2" },
  inside: { 4: "10.9.0.2", 6: "fd09::2" },
};

/** Its name; UAPI sockets lie in a folder that all namespaces share. */
export const deviceOf = (end: EndSpec): string => `wbt${end.name}${process.pid}`;

export const publicKeyOf = (end: EndSpec): string => toBase64(new PortableCrypto().publicKey(end.privateKey));

/** Two namespaces joined by a cable. */
export function joined(lab: Lab): Readonly<Record<"a" | "b", Namespace>> {
  const [a, b] = [lab.namespace("a"), lab.namespace("b")];
  lab.link(
    { namespace: a, addresses: [`${A.outside[4]}/24`, `${A.outside[6]}/64`] },
    { namespace: b, addresses: [`${B.outside[4]}/24`, `${B.outside[6]}/64`] },
  );
  return { a, b };
}

export interface ConfigOptions {
  readonly family?: 4 | 6;
  readonly mtu?: number;
  /** Lines of [Interface]. */
  readonly more?: string;
  /** For wg(8) alone: what wg-quick adds is left out. */
  readonly plain?: boolean;
}

export function configOf(own: EndSpec, peer: EndSpec, options: ConfigOptions = {}): string {
  const { family = 4, mtu = 1420, more = "", plain = false } = options;
  const host = peer.outside[family];
  const quick = plain ? "" : `Address = ${own.inside[4]}/24, ${own.inside[6]}/64\nMTU = ${mtu}\n${more}`;
  return `[Interface]
PrivateKey = ${toBase64(own.privateKey)}
ListenPort = ${PORT}
${quick}
[Peer]
PublicKey = ${publicKeyOf(peer)}
PresharedKey = ${presharedKey}
AllowedIPs = ${peer.inside[4]}/32, ${peer.inside[6]}/128
Endpoint = ${family === 4 ? host : `[${host}]`}:${PORT}
`;
}

/** `wirebadge wg NAME.conf --tun`: the device is called after the file, by default as `deviceOf` says. */
export class TunEnd implements AsyncDisposable {
  readonly spec: EndSpec;
  readonly namespace: Namespace;
  readonly program: Program;
  readonly folder: string;

  private constructor(spec: EndSpec, namespace: Namespace, program: Program, folder: string) {
    this.spec = spec;
    this.namespace = namespace;
    this.program = program;
    this.folder = folder;
  }

  /** `planted`: a script that runs ahead of the program, in each of its threads. */
  static async start(
    spec: EndSpec,
    namespace: Namespace,
    config: string,
    device = deviceOf(spec),
    planted?: string,
  ): Promise<TunEnd> {
    const folder = mkdtempSync(join(tmpdir(), "wirebadge-tun-"));
    const file = join(folder, `${device}.conf`);
    writeFileSync(file, config, { mode: 0o600 });
    const words = [WIREBADGE, "wg", file, "--tun", "--json"];
    if (planted !== undefined) {
      const script = join(folder, "planted.cjs");
      writeFileSync(script, planted);
      words.unshift("--require", script);
    }
    const program = new Program(`wirebadge ${spec.name}`, process.execPath, words, { namespace });
    const end = new TunEnd(spec, namespace, program, folder);
    await program.event("ready line", (record) => (record["event"] === "ready" ? record : undefined));
    return end;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** An end that speaks WireGuard by itself, ours or another's. */
export function startEnd(
  kind: "wirebadge",
  spec: EndSpec,
  namespace: Namespace,
  config: ConfigOptions,
): Promise<TunEnd>;
export function startEnd(kind: Stock, spec: EndSpec, namespace: Namespace, config: ConfigOptions): Promise<StockEnd>;
export function startEnd(
  kind: "wirebadge" | Stock,
  spec: EndSpec,
  namespace: Namespace,
  config: ConfigOptions,
): Promise<TunEnd | StockEnd>;
export async function startEnd(
  kind: "wirebadge" | Stock,
  spec: EndSpec,
  namespace: Namespace,
  config: ConfigOptions,
): Promise<TunEnd | StockEnd> {
  const peer = spec === A ? B : A;
  if (kind === "wirebadge") return await TunEnd.start(spec, namespace, configOf(spec, peer, config));
  return await startStock(namespace, {
    stock: kind,
    config: configOf(spec, peer, { ...config, plain: true }),
    addresses: [`${spec.inside[4]}/24`, `${spec.inside[6]}/64`],
    mtu: config.mtu ?? 1420,
  });
}

/** An HTTP server that serves blobs and hashes what is put. */
export async function serve(namespace: Namespace): Promise<void> {
  const server = new Program("target", process.execPath, [TARGET, "::", "8000"], { namespace });
  await new Promise<void>((resolve, reject) => {
    server.child.stdout?.once("data", () => resolve());
    void server.exited.then(() => reject(new Error(server.tail)));
  });
}
