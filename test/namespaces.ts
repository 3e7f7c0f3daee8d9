// Network namespaces for tests of real parts: each lab makes its own, under names that hold the pid of the test's
// process and a counter, so that labs live side by side; close() ends every process in them and deletes them, also
// after a failure. What a killed test process has left behind is deleted by the next lab. Needs `needs("netns")`, for
// masquerading also "nft".
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { requireTool } from "./needs.ts";

const PREFIX = "wb";
const END_WAIT_MS = 3_000;

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

function ip(...args: readonly string[]): string {
  const run = spawnSync(requireTool("ip"), args, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`ip ${args.join(" ")}: ${run.stderr.trim() || run.error?.message}`);
  return run.stdout;
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
};

/** The namespaces of labs whose test process is gone. */
function leftBehind(): string[] {
  const names = ip("netns", "list")
    .split("\n")
    .map((line) => line.split(" ")[0] ?? "");
  return names.filter((name) => {
    const owner = /^wb-(\d+)-/.exec(name)?.[1];
    return owner !== undefined && Number(owner) !== process.pid && !isAlive(Number(owner));
  });
}

function pidsIn(name: string): number[] {
  const run = spawnSync(requireTool("ip"), ["netns", "pids", name], { encoding: "utf8" });
  return run.stdout.split("\n").filter(Boolean).map(Number);
}

/** Ends what still runs inside, and the namespace with its interfaces and rules. Says what went wrong; never throws. */
function remove(name: string): string[] {
  for (const pid of pidsIn(name)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") return [`${name}: pid ${pid}: ${String(error)}`];
    }
  }
  const run = spawnSync(requireTool("ip"), ["netns", "del", name], { encoding: "utf8" });
  return run.status === 0 ? [] : [run.stderr.trim()];
}

/** One network namespace: a machine of its own as far as networking goes. */
export class Namespace {
  readonly name: string;
  readonly #children = new Set<ChildProcess>();
  #interfaces = 0;

  constructor(name: string) {
    this.name = name;
    ip("netns", "add", name);
    this.ip("link", "set", "lo", "up");
  }

  /** `ip -n NAME …` */
  ip(...args: readonly string[]): string {
    return ip("-n", this.name, ...args);
  }

  nextInterface(): string {
    return `eth${this.#interfaces++}`;
  }

  /** "10.1.0.1/24" or "fd00::1/64"; usable at once (no duplicate address detection). */
  addAddress(device: string, address: string): void {
    this.ip("addr", "add", address, "dev", device, ...(address.includes(":") ? ["nodad"] : []));
  }

  /** `addRoute("default", "10.1.0.254")` */
  addRoute(destination: string, via: string): void {
    this.ip(...(via.includes(":") ? ["-6"] : []), "route", "add", destination, "via", via);
  }

  /**
   * Returns once that address of a neighbour answers. A veth pair is ready for IPv6 only when the kernel's link watch
   * has run: up to some seconds on a busy machine, in which what is sent there comes back as unreachable.
   */
  awaitNeighbour(address: string): void {
    const ping = ["ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", "20", address];
    const run = spawnSync(requireTool("ip"), ["netns", "exec", this.name, ...ping], { encoding: "utf8" });
    if (run.status !== 0) throw new Error(`${address} does not answer ${this.name}: ${run.stderr || run.stdout}`);
  }

  /** Runs to its end. Throws on a code other than 0 unless `check` is false. */
  async run(
    command: string,
    args: readonly string[],
    options: { check?: boolean; input?: string; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
  ): Promise<Outcome> {
    const child = this.spawn(command, args, { stdio: "pipe", ...(options.env ? { env: options.env } : {}) });
    const parts = { stdout: "", stderr: "" };
    child.stdout?.setEncoding("utf8").on("data", (text: string) => (parts.stdout += text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (parts.stderr += text));
    child.stdin?.on("error", () => undefined).end(options.input ?? "");
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
    const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
    clearTimeout(timer);
    if (options.check !== false && code !== 0)
      throw new Error(`${command} ${args.join(" ")}: ${code ?? signal}: ${parts.stderr || parts.stdout}`);
    return { code, signal, ...parts };
  }

  /** Starts a process inside; close() of the lab ends it. Its pid is the command's own. */
  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const child = spawn(requireTool("ip"), ["netns", "exec", this.name, command, ...args], options);
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  setSysctl(key: string, value: string): void {
    this.#write(`/proc/sys/${key.replaceAll(".", "/")}`, value);
  }

  /** Of all its sysctls and devices, which an ip-netns(8) process alone sees. */
  #write(path: string, value: string): void {
    const args = ["netns", "exec", this.name, "sh", "-c", 'printf %s "$2" > "$1"', "sh", path, value];
    const run = spawnSync(requireTool("ip"), args, { encoding: "utf8" });
    if (run.status !== 0) throw new Error(`${path}: ${run.stderr.trim()}`);
  }

  /**
   * What comes in there goes through one CPU's queue: else packets that two CPUs send a moment after each other may
   * overtake each other.
   */
  keepOrder(device: string): void {
    this.#write(`/sys/class/net/${device}/queues/rx-0/rps_cpus`, "1");
  }

  /** Forwards packets between its interfaces. */
  enableForwarding(): void {
    this.setSysctl("net.ipv4.ip_forward", "1");
    this.setSysctl("net.ipv6.conf.all.forwarding", "1");
  }

  /** What leaves by this interface carries its address: a home router's NAT (address- and port-dependent filtering). */
  masquerade(device: string): void {
    this.enableForwarding();
    this.nft(`table inet nat {
      chain postrouting { type nat hook postrouting priority srcnat; oifname "${device}" masquerade; }
    }
    table inet filter {
      chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "${device}" ct state != { established, related } drop
      }
    }`);
  }

  /** Loads a ruleset into this namespace. */
  nft(ruleset: string): void {
    const args = ["netns", "exec", this.name, requireTool("nft"), "-f", "-"];
    const run = spawnSync(requireTool("ip"), args, { encoding: "utf8", input: ruleset });
    if (run.status !== 0) throw new Error(`nft: ${run.stderr.trim()}`);
  }

  /** Ends the processes that were started here: SIGTERM, then SIGKILL. */
  async endProcesses(): Promise<void> {
    const gone = [...this.#children].map((child) => {
      child.kill("SIGTERM");
      return once(child, "exit");
    });
    const patience = new AbortController();
    const late = delay(END_WAIT_MS, undefined, { signal: patience.signal }).catch(() => undefined);
    await Promise.race([Promise.allSettled(gone), late]);
    patience.abort();
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.allSettled(gone);
  }
}

export interface LinkEnd {
  readonly namespace: Namespace;
  /** Addresses with prefix lengths. */
  readonly addresses: readonly string[];
}

/**
 * `await using lab = new Lab();`
 * `const [a, b] = [lab.namespace("a"), lab.namespace("b")];`
 * `lab.link({ namespace: a, addresses: ["10.1.0.1/24"] }, { namespace: b, addresses: ["10.1.0.2/24"] });`
 */
export class Lab {
  static readonly #open = new Set<Lab>();
  readonly #id = `${PREFIX}-${process.pid}-${randomBytes(3).toString("hex")}`;
  readonly #namespaces: Namespace[] = [];

  constructor() {
    for (const name of leftBehind()) remove(name);
    if (Lab.#open.size === 0) process.once("exit", Lab.#removeAll);
    Lab.#open.add(this);
  }

  namespace(label: string): Namespace {
    const made = new Namespace(`${this.#id}-${label}`);
    this.#namespaces.push(made);
    return made;
  }

  /** A veth pair. Gives the interfaces' names, in the order of the ends. */
  link(one: LinkEnd, other: LinkEnd): [string, string] {
    const names: [string, string] = [one.namespace.nextInterface(), other.namespace.nextInterface()];
    const peer = ["peer", "name", names[1], "netns", other.namespace.name];
    ip("link", "add", "name", names[0], "netns", one.namespace.name, "type", "veth", ...peer);
    for (const [end, name] of [[one, names[0]] as const, [other, names[1]] as const]) {
      for (const address of end.addresses) end.namespace.addAddress(name, address);
      end.namespace.ip("link", "set", name, "up");
    }
    return names;
  }

  /** A switch in a namespace of its own, with one port for each end. Gives the ends' interface names. */
  bridge(label: string, ends: readonly LinkEnd[]): string[] {
    const middle = this.namespace(label);
    middle.ip("link", "add", "name", "br0", "type", "bridge");
    middle.ip("link", "set", "br0", "up");
    return ends.map((end) => {
      const [name, port] = this.link(end, { namespace: middle, addresses: [] });
      middle.ip("link", "set", port, "master", "br0");
      return name;
    });
  }

  /** Ends all processes and deletes all namespaces of this lab; throws if anything stayed. */
  async close(): Promise<void> {
    await Promise.all(this.#namespaces.map((namespace) => namespace.endProcesses()));
    const errors = this.#remove();
    if (errors.length > 0) throw new Error(`left behind: ${errors.join("; ")}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #remove(): string[] {
    Lab.#open.delete(this);
    return this.#namespaces.splice(0).flatMap((namespace) => remove(namespace.name));
  }

  static #removeAll(): void {
    for (const lab of Lab.#open) lab.#remove();
  }
}

/** The names of all namespaces of this process's labs, as the kernel lists them. */
export function namespacesOfThisProcess(): string[] {
  return readdirSync("/run/netns").filter((name) => name.startsWith(`${PREFIX}-${process.pid}-`));
}
