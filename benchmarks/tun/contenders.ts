// The programs that are measured, each started at both ends of a bed: Wirebadge as `wirebadge wg FILE --tun`, two other
// WireGuards of user space, and Nebula as it comes (AES-GCM). A program that isn't there is left out with one line.
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { toBase64 } from "../../src/base/bytes.ts";
import { randomBytes } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { startStock } from "../../test/interop/stock-wireguard.ts";
import { type Need, requireTool, toolPath } from "../../test/needs.ts";
import { cleanEnvironment, Program, until } from "../../test/scripts/program.ts";
import { type Bed, OVERLAY, PORT, SIDES, type Side, TUNNEL_MTU, UNDERLAY } from "./bed.ts";

/** CPUID leaf 7: AVX512F, DQ, IFMA, PF, ER, CD, BW and VL taken out. OPENSSL_ia32cap(3) */
export const WITHOUT_AVX512 = ":~0xdc230000";

const TOP = fileURLToPath(new URL("../..", import.meta.url));
let installed: string | undefined;

/** The command as a package has it: compiled. From the sources it would hold the compiler's memory too. */
function wirebadge(): string {
  if (installed === undefined) {
    const folder = mkdtempSync(join(tmpdir(), "wirebadge-package-"));
    process.on("exit", () => rmSync(folder, { recursive: true }));
    const compiler = join(TOP, "node_modules/.bin/tsc");
    execFileSync(compiler, ["-p", join(TOP, "tsconfig.build.json"), "--outDir", join(folder, "dist")]);
    for (const part of ["bin", "package.json"]) cpSync(join(TOP, part), join(folder, part), { recursive: true });
    symlinkSync(join(TOP, "node_modules"), join(folder, "node_modules"));
    installed = join(folder, "bin/wirebadge");
  }
  return installed;
}

export interface StartOptions {
  /** Added to the daemons' environment. */
  readonly env?: NodeJS.ProcessEnv;
  /** Of Wirebadge's Node at end a: `--cpu-prof` and the like. */
  readonly nodeFlags?: readonly string[];
}

/** The daemons of a running pair; the bed ends them. */
export interface Ends {
  readonly pids: Readonly<Record<Side, number>>;
  /** Of end a's daemon, when asked to end; only Wirebadge's is waited for alone. */
  endFirst?(): Promise<void>;
}

export interface Contender {
  readonly name: string;
  readonly needs: readonly Need[];
  readonly aead: string;
  /** Why what is there is not what is to be measured; asked, as the version is, only when its needs are met. */
  unfit?(): string | undefined;
  version(): string;
  /** Up when it resolves, without having sent anything through the tunnel. */
  start(bed: Bed, options?: StartOptions): Promise<Ends>;
  /** One end alone, of a WireGuard. */
  readonly startEnd?: StartEnd;
}

export interface KeyPairText {
  readonly privateKey: string;
  readonly publicKey: string;
}

/** Base64. */
export function newKeyPair(): KeyPairText {
  const secret = randomBytes(osRandom, 32);
  return { privateKey: toBase64(secret), publicKey: toBase64(new PortableCrypto().publicKey(secret)) };
}

export interface WireguardPeer {
  readonly publicKey: string;
  readonly address: string;
  readonly endpoint: string;
  readonly keepaliveSeconds?: number;
}

/** As `wg setconf` takes it. */
export function wireguardConfig(privateKey: string, peers: readonly WireguardPeer[]): string {
  const lines = peers.flatMap(({ publicKey, address, endpoint, keepaliveSeconds }) => [
    "[Peer]",
    `PublicKey = ${publicKey}`,
    `AllowedIPs = ${address}/32`,
    `Endpoint = ${endpoint}`,
    ...(keepaliveSeconds === undefined ? [] : [`PersistentKeepalive = ${keepaliveSeconds}`]),
  ]);
  return ["[Interface]", `PrivateKey = ${privateKey}`, `ListenPort = ${PORT}`, ...lines, ""].join("\n");
}

/** The configurations of a pair, one for each side. */
function pairConfigs(): Record<Side, string> {
  const keys = { a: newKeyPair(), b: newKeyPair() };
  const config = (own: Side, other: Side): string =>
    wireguardConfig(keys[own].privateKey, [
      { publicKey: keys[other].publicKey, address: OVERLAY[other], endpoint: `${UNDERLAY[other]}:${PORT}` },
    ]);
  return { a: config("a", "b"), b: config("b", "a") };
}

/** Starts one end of WireGuard from what `wg setconf` takes. */
export type StartEnd = (bed: Bed, side: Side, config: string, options: StartOptions) => Promise<EndOfPair>;

interface EndOfPair {
  readonly pid: number;
  end?(): Promise<void>;
}

async function startBoth(bed: Bed, options: StartOptions, start: StartEnd): Promise<Ends> {
  const configs = pairConfigs();
  const a = await start(bed, "a", configs.a, options);
  const b = await start(bed, "b", configs.b, { env: options.env ?? {} });
  return { pids: { a: a.pid, b: b.pid }, ...(a.end === undefined ? {} : { endFirst: a.end }) };
}

const wireguard = (startEnd: StartEnd) => ({
  startEnd,
  start: (bed: Bed, options: StartOptions = {}): Promise<Ends> => startBoth(bed, options, startEnd),
});

const startStockEnd =
  (stock: "wireguard-go" | "boringtun-cli"): StartEnd =>
  async (bed, side, config) => {
    const addresses = [`${OVERLAY[side]}/24`];
    return await startStock(bed.namespaces[side], { stock, config, addresses, mtu: TUNNEL_MTU });
  };

/** A file of wg-quick's kind; gone once it has been read. */
const startWirebadgeEnd: StartEnd = async (bed, side, config, options) => {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-bench-"));
  try {
    const file = join(folder, "wg.conf");
    const own = `[Interface]\nAddress = ${OVERLAY[side]}/24\nMTU = ${TUNNEL_MTU}\n`;
    writeFileSync(file, config.replace("[Interface]\n", own), { mode: 0o600 });
    const words = [wirebadge(), "wg", file, "--tun", `${bed.name}${side}`, "--json"];
    const program = new Program("wirebadge", process.execPath, [...(options.nodeFlags ?? []), ...words], {
      namespace: bed.namespaces[side],
      env: { ...cleanEnvironment(), WIREBADGE_LOG: "warn", ...options.env },
    });
    await program.event("the ready line", ({ event }) => (event === "ready" ? event : undefined));
    const end = async (): Promise<void> => void (await program.end());
    return { pid: program.pid, end };
  } finally {
    rmSync(folder, { recursive: true });
  }
};

/** JSON is YAML. */
function nebulaConfig(bed: Bed, folder: string, own: Side, other: Side): string {
  const anybody = [{ port: "any", proto: "any", host: "any" }];
  return JSON.stringify({
    pki: { ca: join(folder, "ca.crt"), cert: join(folder, `${own}.crt`), key: join(folder, `${own}.key`) },
    static_host_map: { [OVERLAY[other]]: [`${UNDERLAY[other]}:${PORT}`] },
    lighthouse: { am_lighthouse: false, hosts: [] },
    listen: { host: UNDERLAY[own], port: PORT },
    tun: { dev: `${bed.name}${own}`, mtu: TUNNEL_MTU },
    logging: { level: "warning" },
    firewall: { outbound: anybody, inbound: anybody },
  });
}

async function startNebula(bed: Bed): Promise<Ends> {
  const folder = mkdtempSync(join(tmpdir(), "wirebadge-bench-"));
  const at = (name: string): string => join(folder, name);
  const cert = (...words: readonly string[]): void => void execFileSync(requireTool("nebula-cert"), words);
  try {
    cert("ca", "-name", "bench", "-out-crt", at("ca.crt"), "-out-key", at("ca.key"));
    const pids = { a: 0, b: 0 };
    for (const side of SIDES) {
      const by = ["-ca-crt", at("ca.crt"), "-ca-key", at("ca.key"), "-name", side, "-ip", `${OVERLAY[side]}/24`];
      cert("sign", ...by, "-out-crt", at(`${side}.crt`), "-out-key", at(`${side}.key`));
      writeFileSync(at(`${side}.yml`), nebulaConfig(bed, folder, side, side === "a" ? "b" : "a"));
      const namespace = bed.namespaces[side];
      const program = new Program("nebula", requireTool("nebula"), ["-config", at(`${side}.yml`)], { namespace });
      await until(`address of nebula's interface`, () => {
        if (!program.alive) throw new Error(`nebula ended: ${program.tail}`);
        return namespace.ip("-4", "-o", "addr", "show", "up").includes(`${OVERLAY[side]}/`);
      });
      pids[side] = program.pid;
    }
    return { pids };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Of a Go program: the main module's, as the toolchain wrote it in; without the toolchain unknown. */
function goVersion(tool: Need): string {
  try {
    const text = execFileSync("go", ["version", "-m", requireTool(tool)], { encoding: "utf8", stdio: "pipe" });
    return /^\tmod\t\S+\t(\S+)/m.exec(text)?.[1] ?? "unknown";
  } catch {
    return "unknown";
  }
}

const lastWord = (text: string): string => text.trim().split(/\s+/).at(-1) ?? "unknown";
const { openssl } = process.versions;

export const OURS = "wirebadge";
export const BASE = "wireguard-go";

/** In the order in which they are started and shown. */
export const CONTENDERS: readonly Contender[] = [
  {
    name: OURS,
    needs: [],
    aead: `ChaCha20-Poly1305 of OpenSSL ${openssl} inside Node`,
    version: () => lastWord(execFileSync(process.execPath, [wirebadge(), "--version"], { encoding: "utf8" })),
    ...wireguard(startWirebadgeEnd),
  },
  {
    name: BASE,
    needs: ["wireguard-go", "wg"],
    aead: "ChaCha20-Poly1305 of golang.org/x/crypto",
    unfit: () =>
      toolPath("wireguard-go") === toolPath("wireguard-go-debian")
        ? "this is Debian's build of 2022, a fifth as fast: set WIREGUARD_GO to a new one"
        : undefined,
    version: () => goVersion("wireguard-go"),
    ...wireguard(startStockEnd("wireguard-go")),
  },
  {
    name: "boringtun",
    needs: ["boringtun-cli", "wg"],
    aead: "ChaCha20-Poly1305 of ring",
    version: () => lastWord(execFileSync(requireTool("boringtun-cli"), ["--version"], { encoding: "utf8" })),
    ...wireguard(startStockEnd("boringtun-cli")),
  },
  {
    name: "nebula",
    needs: ["nebula", "nebula-cert"],
    aead: "AES-256-GCM of Go, its default",
    version: () => goVersion("nebula"),
    start: startNebula,
  },
];
