// The programs and kernel files by which a host's network is set up: `ip` of iproute2, `nft`, `resolvectl`,
// /proc/sys/net. Always an argument list, never a shell. All of it acts on the network namespace of this process.
import { spawn } from "node:child_process";
import { accessSync, constants, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { env, geteuid, pid } from "node:process";
import { clearTimeout, setTimeout } from "node:timers";
import { z } from "zod";
import { WirebadgeError } from "../../base/errors.ts";
import { HOST_COMMAND_MAX_MS, HOST_COMMAND_OUTPUT_MAX_BYTES } from "../../base/limits.ts";
import type { Logger } from "../logger.ts";
import { errnoOf } from "../real-network.ts";
import { startOf } from "../state.ts";

export interface Ran {
  /** −1: ended by a signal, or it printed too much. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Which process, in which namespaces, since which boot: whether a journal's writer lives and its rules are here. */
export interface Place {
  readonly bootId: string;
  readonly networkNamespace: string;
  readonly pidNamespace: string;
  readonly pid: number;
  /** Of the process, in clock ticks since boot: tells a reused pid. */
  readonly start: string;
}

export type HostProgram = "ip" | "nft" | "resolvectl";

/** Of whoever changes something on the host. */
export interface HostChangeOptions {
  /** Where what is changed is written down before it is: `journalFolder(process.env)`. */
  readonly journalFolder: string;
  readonly logger: Pick<Logger, "info" | "warn">;
  readonly tools?: HostTools;
}

/** Tests give their own. */
export interface HostTools {
  /** Undefined: the program isn't there. */
  run(program: HostProgram, args: readonly string[], input?: string): Promise<Ran | undefined>;
  has(program: HostProgram): boolean;
  /** `readSysctl("net.ipv4.ip_forward")` is "0" or "1". Throws with an errno `code`. */
  readSysctl(key: string): string;
  writeSysctl(key: string, value: string): void;
  place(): Place;
  /**
   * Is this the network namespace of process 1, and of the services beside it? In another one (`ip netns exec`) they
   * can still be talked to, but what they are told of a device they do to one of their own.
   */
  isOfServices(): boolean;
  /** Undefined: no such process (in our pid namespace). */
  startOf(process: number): string | undefined;
}

const SYSTEM_FOLDERS = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]; // a user's PATH often lacks the first two
const CAP_NET_ADMIN = 12n; // capability.h

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

function find(program: string): string | undefined {
  const folders = (env["PATH"] ?? "").split(delimiter).filter((folder) => folder.startsWith("/"));
  return [...folders, ...SYSTEM_FOLDERS].map((folder) => join(folder, program)).find(isExecutable);
}

function runToEnd(path: string, args: readonly string[], input: string): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { stdio: "pipe", env: { ...env, LC_ALL: "C" }, cwd: "/" });
    const parts = { stdout: "", stderr: "" };
    let tooMuch = false;
    const take = (name: keyof typeof parts, text: string): void => {
      if (parts[name].length + text.length <= HOST_COMMAND_OUTPUT_MAX_BYTES) parts[name] += text;
      else {
        tooMuch = true;
        child.kill("SIGKILL");
      }
    };
    const timer = setTimeout(() => child.kill("SIGKILL"), HOST_COMMAND_MAX_MS);
    child.stdout.setEncoding("utf8").on("data", (text: string) => take("stdout", text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => take("stderr", text));
    child.stdin.on("error", () => undefined); // it ended at the first failing line, without reading the rest
    child.stdin.end(input);
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once("close", (code) => {
      clearTimeout(timer);
      const ended = code ?? -1;
      const stderr = code === null && parts.stderr === "" ? "it took too long, or was killed" : parts.stderr;
      resolve({ code: tooMuch ? -1 : ended, stdout: parts.stdout, stderr });
    });
  });
}

const sysctlPath = (key: string): string => `/proc/sys/${key.replaceAll(".", "/")}`;

/** This host's own. */
export const hostTools: HostTools = {
  async run(program, args, input = "") {
    const path = find(program);
    return path === undefined ? undefined : await runToEnd(path, args, input);
  },
  has: (program) => find(program) !== undefined,
  readSysctl: (key) => readFileSync(sysctlPath(key), "latin1").trim(),
  writeSysctl: (key, value) => writeFileSync(sysctlPath(key), `${value}\n`),
  place: () => ({
    bootId: readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim(),
    networkNamespace: readlinkSync("/proc/self/ns/net"),
    pidNamespace: readlinkSync("/proc/self/ns/pid"),
    pid,
    start: startOf(pid),
  }),
  isOfServices() {
    // Which namespace process 1 is in is root's to know; which devices it has, anybody's.
    try {
      return readlinkSync("/proc/1/ns/net") === readlinkSync("/proc/self/ns/net");
    } catch {
      return devicesOf("/proc/1/net/dev") === devicesOf("/proc/self/net/dev");
    }
  },
  startOf(process) {
    const start = startOf(process);
    return start === "" ? undefined : start;
  },
};

/** Their names, without the counters. */
function devicesOf(path: string): string {
  try {
    return readFileSync(path, "latin1").replace(/:.*/g, "");
  } catch {
    return path;
  }
}

function capabilities(status: string, line: "CapEff" | "CapAmb"): bigint {
  const match = new RegExp(`^${line}:\\s*([0-9a-f]{16})$`, "m").exec(status);
  return match === null ? 0n : BigInt(`0x${match[1]}`);
}

/**
 * Why `ip` may not do what this process asked of it: capabilities of a file (setcap) don't pass to the programs that
 * it starts, ambient ones do (capabilities(7)). `status` is the text of /proc/self/status.
 */
export function privilegeHint(status: string, uid: number): string {
  const has = (line: "CapEff" | "CapAmb"): boolean => ((capabilities(status, line) >> CAP_NET_ADMIN) & 1n) === 1n;
  if (uid === 0 && !has("CapEff")) return "this root lacks CAP_NET_ADMIN: give the container --cap-add NET_ADMIN";
  if (uid !== 0 && has("CapEff") && !has("CapAmb")) {
    return (
      "this program has CAP_NET_ADMIN by its file alone, which `ip` does not inherit: give it as an ambient " +
      "capability, by AmbientCapabilities=CAP_NET_ADMIN in its systemd unit or by setpriv --ambient-caps +net_admin"
    );
  }
  return "run it as root, or with CAP_NET_ADMIN as an ambient capability; without --tun it needs neither";
}

function ownPrivilegeHint(): string {
  let status = "";
  try {
    status = readFileSync("/proc/self/status", "latin1");
  } catch {
    status = ""; // no /proc: the general advice
  }
  return privilegeHint(status, geteuid?.() ?? 0);
}

/** What `ip` or `nft` said, as an error that says how to mend it. */
export function hostFailure(what: string, said: string): WirebadgeError {
  const line = said.split("\n").find((text) => text.trim() !== "" && !text.startsWith("Command failed")) ?? "";
  const reason = line.replace(/^(?:RTNETLINK answers|Error|ip): */, "").trim() || "it failed without a word";
  const message = `${what}: ${reason}`;
  if (/not permitted/i.test(said)) return new WirebadgeError("FORBIDDEN", message, { hint: ownPrivilegeHint() });
  if (/File exists|already assigned/i.test(said)) {
    return new WirebadgeError("CONFLICT", message, {
      hint: "something else on this host has it: take that away, or choose Table = off or a table of its own",
    });
  }
  if (/Permission denied/i.test(said)) {
    return new WirebadgeError("CONFLICT", message, {
      hint: "if it is about IPv6: it is switched off here (net.ipv6.conf.*.disable_ipv6), so leave its addresses out",
    });
  }
  if (/Cannot find device|does not exist/i.test(said)) {
    return new WirebadgeError("CONFLICT", message, { hint: "the device has gone meanwhile: start again" });
  }
  if (/BusyBox|unrecognized option|invalid option/i.test(said)) {
    return new WirebadgeError("NATIVE_UNAVAILABLE", message, {
      hint: `this is not the \`ip\` of iproute2: ${INSTALL}`,
    });
  }
  return new WirebadgeError("INTERNAL", message, { hint: "the words after the colon are the kernel's" });
}

const INSTALL = "install the package iproute2 (iproute on Fedora)";

/** A line that failed in a batch: `Command failed -:3`. */
function failedLine(stderr: string, lines: readonly string[]): string | undefined {
  const match = /^Command failed -:(\d+)/m.exec(stderr);
  return match === null ? undefined : lines[Number(match[1]) - 1];
}

/** Of what is not there there is nothing to undo. */
const GONE =
  /No such (?:file|process|device)|not found|Cannot (?:find device|assign requested address)|does not exist/i;

/** `ip` of iproute2. */
export class IpCommand {
  readonly #tools: HostTools;

  constructor(tools: HostTools) {
    this.#tools = tools;
  }

  /** @throws NATIVE_UNAVAILABLE, FORBIDDEN, CONFLICT, INTERNAL */
  async read(args: readonly string[]): Promise<string> {
    const ran = await this.#run(args);
    if (ran.code !== 0) throw hostFailure(`ip ${args.join(" ")}`, ran.stderr);
    return ran.stdout;
  }

  /** The answer to `ip -j …`. Nothing to list is an empty text. */
  async list<T>(row: z.ZodType<T>, args: readonly string[]): Promise<T[]> {
    const text = await this.read(["-N", "-j", ...args]);
    return rowsOf(row, text, args);
  }

  /** As `list`, but a table that was never made (or IPv6 that the kernel lacks) has no rows. */
  async listIfAny<T>(row: z.ZodType<T>, args: readonly string[]): Promise<T[]> {
    const ran = await this.#run(["-N", "-j", ...args]);
    return ran.code === 0 ? rowsOf(row, ran.stdout, args) : [];
  }

  /** Runs the lines up to the first that fails. @throws what it failed by, naming that line */
  async batch(lines: readonly string[], family: readonly string[] = []): Promise<void> {
    if (lines.length === 0) return;
    const ran = await this.#run([...family, "-batch", "-"], `${lines.join("\n")}\n`);
    if (ran.code === 0) return;
    const what = ["ip", ...family, failedLine(ran.stderr, lines) ?? "-batch -"].join(" ");
    throw hostFailure(what, ran.stderr);
  }

  /** Runs them all, whatever fails. Gives back what failed for another reason than that it isn't there. */
  async undoBatch(lines: readonly string[], family: readonly string[] = []): Promise<string[]> {
    if (lines.length === 0) return [];
    const ran = await this.#run([...family, "-force", "-batch", "-"], `${lines.join("\n")}\n`);
    if (ran.code === 0) return [];
    const said = ran.stderr.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("Command failed"));
    if (said.length === 0) return [`ip ended with ${ran.code}`];
    return said.filter((line) => !GONE.test(line));
  }

  /** What `ip` prints for each line that succeeds. */
  async ask(lines: readonly string[]): Promise<string> {
    if (lines.length === 0) return "";
    return (await this.#run(["-o", "-force", "-batch", "-"], `${lines.join("\n")}\n`)).stdout;
  }

  async #run(args: readonly string[], input?: string): Promise<Ran> {
    let ran: Ran | undefined;
    try {
      ran = await this.#tools.run("ip", args, input);
    } catch (error) {
      throw new WirebadgeError("NATIVE_UNAVAILABLE", `\`ip\` can't be started (${errnoOf(error)})`, { cause: error });
    }
    if (ran !== undefined) return ran;
    throw new WirebadgeError("NATIVE_UNAVAILABLE", "the program `ip` is not there: it sets up the TUN device", {
      hint: `${INSTALL}, or leave --tun out`,
    });
  }
}

function rowsOf<T>(row: z.ZodType<T>, text: string, args: readonly string[]): T[] {
  if (text.trim() === "") return [];
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw hostFailure(`ip -j ${args.join(" ")}`, "invalid option: it does not answer in JSON");
  }
  return z.array(row).parse(json);
}
