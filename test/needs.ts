// What a test of real parts needs of the machine. A suite whose needs are not there is left out with one line that says
// so (`describe.runIf(needs("netns", "curl"))(…)`): so `npm test` succeeds with Node and npm alone, and `.ci/run`,
// which installs all of it, fails on any such line.
import { spawnSync } from "node:child_process";
import { accessSync, closeSync, constants, existsSync, openSync, readdirSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { basename, delimiter, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

/** Installing it would take over this machine's own /etc/resolv.conf. */
const UNPACK =
  "apt-get download systemd-resolved libsystemd-shared, dpkg -x both, then SYSTEMD_RESOLVED, RESOLVECTL = their paths";

/** need → what the line says about how to get it. Each key is also the name of a program, but for the first five. */
const INSTALL = {
  linux: "run on Linux",
  ipv6: "give the loopback interface ::1",
  root: "run as root",
  tun: "modprobe tun, and in a container give it /dev/net/tun",
  netns: "apt-get install iproute2, run as root; in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN",
  ip: "apt-get install iproute2",
  nft: "apt-get install nftables",
  wg: "apt-get install wireguard-tools",
  "wireguard-go": "go install golang.zx2c4.com/wireguard@latest, then WIREGUARD_GO=its path",
  "wireguard-go-debian": "apt-get install wireguard-go (the build of 2022)",
  "boringtun-cli": "cargo install boringtun-cli, then BORINGTUN_CLI=its path",
  nebula: "go install github.com/slackhq/nebula/cmd/nebula@latest, then NEBULA=its path",
  "nebula-cert": "go install github.com/slackhq/nebula/cmd/nebula-cert@latest, then NEBULA_CERT=its path",
  curl: "apt-get install curl",
  dig: "apt-get install bind9-dnsutils",
  "systemd-resolved": UNPACK,
  resolvectl: UNPACK,
  "dbus-daemon": "apt-get install dbus",
  unshare: "apt-get install util-linux",
  nsenter: "apt-get install util-linux",
  iperf3: "apt-get install iperf3",
  ping: "apt-get install iputils-ping",
  tshark: "apt-get install tshark",
  setpriv: "apt-get install util-linux",
  perl: "apt-get install perl-base",
  npm: "install Node with npm",
  initdb: "apt-get install postgresql",
  postgres: "apt-get install postgresql",
} as const;

export type Need = keyof typeof INSTALL;

const DEBIAN_WIREGUARD_GO = "/usr/bin/wireguard-go";

/** The programs that go by several names. */
const NAMES: Partial<Record<Need, readonly string[]>> = { "wireguard-go": ["wireguard-go", "wireguard"] };

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** Where a program is: the environment variable of its name (`WIREGUARD_GO`), else the PATH; undefined = nowhere. */
export function toolPath(tool: Need, env: NodeJS.ProcessEnv = process.env): string | undefined {
  const named = env[tool.toUpperCase().replaceAll("-", "_")];
  if (named !== undefined && named !== "") return isExecutable(named) ? named : undefined;
  // The distribution's own build; whatever else is called wireguard-go comes first on the PATH, or by its variable.
  if (tool === "wireguard-go-debian") return isExecutable(DEBIAN_WIREGUARD_GO) ? DEBIAN_WIREGUARD_GO : undefined;
  const path = (env["PATH"] ?? "").split(delimiter);
  const folders = [...path, "/usr/sbin", "/sbin", ...debianPostgres()].filter((folder) => folder !== "");
  for (const folder of folders)
    for (const name of NAMES[tool] ?? [tool]) if (isExecutable(join(folder, name))) return join(folder, name);
  return undefined;
}

/** Debian keeps the programs of each version of the server in a folder of its own. */
function debianPostgres(): string[] {
  const top = "/usr/lib/postgresql";
  return existsSync(top) ? readdirSync(top).map((version) => join(top, version, "bin")) : [];
}

function hasTun(): boolean {
  try {
    closeSync(openSync("/dev/net/tun", "r+"));
    return true;
  } catch {
    return false;
  }
}

/** Only making one shows whether this machine lets us. */
function canMakeNamespaces(env: NodeJS.ProcessEnv): boolean {
  const ip = toolPath("ip", env);
  if (ip === undefined || process.getuid?.() !== 0) return false;
  const name = `wb-${process.pid}-probe`;
  const made = spawnSync(ip, ["netns", "add", name], { stdio: "ignore" }).status === 0;
  return made && spawnSync(ip, ["netns", "del", name], { stdio: "ignore" }).status === 0;
}

function isThere(need: Need, env: NodeJS.ProcessEnv): boolean {
  if (need === "linux") return process.platform === "linux";
  if (need === "ipv6") return networkInterfaces()["lo"]?.some((row) => row.address === "::1") ?? false;
  if (need === "root") return process.getuid?.() === 0;
  if (need === "tun") return hasTun();
  if (need === "netns") return canMakeNamespaces(env);
  return toolPath(need, env) !== undefined;
}

/** The test file that asked, from the call stack. */
function askedBy(): string {
  const frames = (new Error("stack").stack ?? "").split("\n");
  const path = frames.map((frame) => /(?:file:\/\/)?(\/[^\s():]+\.test\.ts)/.exec(frame)?.[1]).find((file) => file);
  return path === undefined ? "unknown" : relative(fileURLToPath(new URL("..", import.meta.url)), path);
}

const said = new Set<string>();

/**
 * True when all of them are there. Else says once, on stderr, which are not:
 * `NEEDS test/interop/nat.test.ts: nft missing (install: apt-get install nftables)`.
 */
export function needs(...all: readonly Need[]): boolean {
  return needsIn(process.env, (line) => process.stderr.write(line), askedBy(), all);
}

/** `needs` with its surroundings given. */
export function needsIn(
  env: NodeJS.ProcessEnv,
  write: (line: string) => void,
  file: string,
  all: readonly Need[],
): boolean {
  const missing = all.filter((need) => !isThere(need, env));
  if (missing.length === 0) return true;
  const how = missing.map((need) => INSTALL[need]).join("; ");
  const line = `NEEDS ${file}: ${missing.join(", ")} missing (install: ${how})\n`;
  if (!said.has(line)) write(line);
  said.add(line);
  return false;
}

/** The program's path, in a suite that `needs` has let run. */
export function requireTool(tool: Need): string {
  const path = toolPath(tool);
  if (path === undefined) throw new Error(`${basename(tool)} is not there: the suite must ask needs("${tool}") first`);
  return path;
}
