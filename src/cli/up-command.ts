// `wirebadge up` and `wirebadge wg`: a peer in the foreground, under a coordinator or from a WireGuard configuration
// file.
import { readFile, stat } from "node:fs/promises";
import { type Command, Option } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import type { Denial } from "../peer/local-api-schema.ts";
import type { Context } from "./admin-command.ts";
import { addCommand, collect, parsePort } from "./command.ts";
import { logOption } from "./coordinator-command.ts";
import { checkEntryOptions, type EntryOptions } from "./entry-options.ts";
import { runUntilStopped } from "./lifetime.ts";
import { type LogLevel, makeLogger } from "./log.ts";
import { formatDenial, formatEntryPoint, formatNames, SHARED_BADGE } from "./peer-format.ts";
import type { Terminal } from "./terminal.ts";

const TOKEN_INPUT_MAX_BYTES = 16_384;
const CONFIG_MAX_BYTES = 1_048_576;

interface EntryFlags {
  readonly socks?: string | true;
  readonly forward?: string[];
  readonly expose?: string[];
  readonly require?: "native";
  readonly log: LogLevel;
}

interface WgFlags extends EntryFlags {
  readonly tun?: string | true;
  readonly ignoreHooks?: boolean;
}

interface UpFlags extends EntryFlags {
  readonly tokenFile?: string;
  readonly state?: string;
  readonly listenPort?: number;
  readonly route?: string[];
  readonly serve?: string[];
  readonly allowRemote?: boolean;
  readonly tun?: string | true;
  readonly shared?: boolean;
  readonly dns?: boolean;
  readonly ipForward?: boolean;
}

export function addUpCommand(program: Command, context: Context): void {
  const command = addCommand(program, {
    usage: "up",
    summary: "join the network and stay until Ctrl-C",
    details:
      "The token comes from --token-file or WIREBADGE_TOKEN, never from the command line. It is needed " +
      "once: the session's keys are kept\n" +
      "in the state folder, and the same identity comes back with them. Prints a ready line when the first " +
      "peer list is in force.\n" +
      "With --tun (Linux, CAP_NET_ADMIN) every process of this host reaches the network through a TUN device, at " +
      "wire speed, and all of them share this badge: an agent's is refused unless --shared. Addresses and routes " +
      "follow the peer list and are undone at the end; the default route is left alone. wg(8) shows the device and " +
      "sets nothing.\n" +
      "Its nodes and services are NAME.NETWORK.internal at a resolver inside the network: the ready line says how to " +
      "ask it, and --dns enters it into systemd-resolved for those names alone, until the end.",
    examples: [
      "wirebadge up --token-file coder.token --socks",
      "wirebadge up --token-file - --serve staging=127.0.0.1:8080 < gateway.token",
      "sudo wirebadge up --token-file node.token --tun --dns",
      "wirebadge up --state ~/agents/coder --forward 5432=staging-db:5432",
    ],
  });
  command
    .option("--token-file <file>", "the enrolment token; - is standard input")
    .option("--state <dir>", "state folder (default: one for each coordinator and identity)")
    .option("--listen-port <n>", "UDP port for WireGuard (default: any free one)", parsePort)
    .option("--route <route>", "offer a CIDR or host:PATTERN as a gateway (repeatable)", collect(String))
    .option(
      "--serve <name[=host:port]>",
      "offer a service as a gateway, or all that the policy gives it (repeatable)",
      collect(String),
    )
    .option("--tun [name]", "make a TUN device for the whole host (default name: the first free of wirebadge0, 1 …)")
    .option("--dns", "with --tun: enter the network's names into systemd-resolved, for its own domains alone")
    .option("--ip-forward", "with --tun and --route: the kernel forwards and masquerades what the routes cover")
    .option("--shared", "with --tun: let every process of this host wear the badge of an agent")
    .option("--allow-remote", "let entry points listen on other addresses than loopback; they then demand credentials");
  addEntryOptions(command).action((flags: UpFlags) => runUp(context, flags));
}

export function addWgCommand(program: Command, context: Context): void {
  const command = addCommand(program, {
    usage: "wg <file>",
    summary: "speak to WireGuard peers by a wg-quick file: no coordinator, no root, everything in the file allowed",
    details:
      "Takes every key of wg(8) and wg-quick(8). Hooks (PreUp and the like) and SaveConfig never run: they " +
      "are refused unless --ignore-hooks.\n" +
      "Names asked for through SOCKS are resolved by the file's DNS servers, through the tunnel.\n" +
      "With --tun (needs CAP_NET_ADMIN) every process of this host reaches the peers over a TUN device, at wire " +
      "speed: addresses and routes are set as wg-quick sets them and undone at the end, the MTU is the file's or " +
      "1420, and its DNS servers are not entered anywhere. " +
      "wg(8) shows and sets it: what is set so stands until the end, makes no routes and is not written to the file.",
    examples: [
      "wirebadge wg home.conf --socks 127.0.0.1:1080",
      "wirebadge wg home.conf --forward 8080=10.0.0.5:80",
      "sudo wirebadge wg home.conf --tun",
    ],
  });
  command
    .option("--tun [name]", "make a TUN device for the whole host (default name: the file's, as home of home.conf)")
    .option("--ignore-hooks", "start although the file has hooks or SaveConfig; they are not run");
  addEntryOptions(command).action((file: string, flags: WgFlags) => runWg(context, file, flags));
}

function addEntryOptions(command: Command): Command {
  return command
    .option("--socks [host:port]", "SOCKS5 entry point (default place: a socket in the state folder)")
    .option(
      "--forward <local=remote>",
      "listen here, connect there: 5432=staging-db:5432 (repeatable)",
      collect(String),
    )
    .option(
      "--expose <local=port>",
      "connections to this overlay port go to a local address: 127.0.0.1:3000=80 (repeatable)",
      collect(String),
    )
    .addOption(new Option("--require <what>", "refuse to start without native crypto and UDP").choices(["native"]))
    .addOption(logOption());
}

/** The options as they go on, checked. */
async function entryOptions(flags: EntryFlags & Partial<UpFlags>): Promise<EntryOptions> {
  const options = {
    routes: flags.route ?? [],
    serves: flags.serve ?? [],
    socks: flags.socks === true ? "" : flags.socks,
    allowRemote: flags.allowRemote === true,
    forwards: flags.forward ?? [],
    exposes: flags.expose ?? [],
  };
  await checkEntryOptions(options);
  return options;
}

async function runUp(context: Context, flags: UpFlags): Promise<void> {
  const { terminal, runtime } = context;
  if (flags.tun !== undefined) refuseWithTun(flags);
  if (flags.dns === true && flags.tun === undefined) {
    throw new WirebadgeError("USAGE", "--dns has no use without --tun: no program of this host reaches those names", {
      hint: "add --tun, or leave out --dns: SOCKS resolves the network's names by itself",
    });
  }
  if (flags.ipForward === true && (flags.tun === undefined || flags.route === undefined)) {
    throw new WirebadgeError("USAGE", "--ip-forward has no use without --tun and --route: nothing would be forwarded", {
      hint: "add both, or leave out --ip-forward: then the gateway dials by itself, and needs no privileges",
    });
  }
  if (flags.shared === true && flags.tun === undefined) {
    throw new WirebadgeError("USAGE", "--shared has no use without --tun", {
      hint: "add --tun, or leave out --shared: without a device the badge is this process's alone",
    });
  }
  const start = {
    ...(await entryOptions(flags)),
    tun: flags.tun === true ? "" : checkedName(flags.tun),
    shared: flags.shared === true,
    dns: flags.dns === true,
    ipForward: flags.ipForward === true,
    token: await readToken(terminal, flags.tokenFile),
    stateDir: flags.state,
    listenPort: flags.listenPort,
    requireNative: flags.require === "native",
    logger: await makeLogger(terminal.surroundings, flags.log),
    onDenial: (denial: Denial) =>
      terminal.note(terminal.json ? JSON.stringify({ event: "denial", ...denial }) : formatDenial(denial)),
  };
  context.exitCode = await runUntilStopped(
    runtime.signals,
    () => runtime.startPeer(start),
    ({ identity, session, addresses, entryPoints, tun, names }) => {
      const device = tun === undefined ? {} : { tun, note: SHARED_BADGE, ...(names === undefined ? {} : { names }) };
      terminal.result({ event: "ready", identity, session, addresses, entryPoints, ...device, pid: process.pid }, () =>
        [
          `ready: ${printable(identity)} ${session} ${addresses.join(" ")}${tun === undefined ? "" : ` on ${tun}`}`,
          ...(tun === undefined ? [] : [`  ${SHARED_BADGE}`]),
          ...(names === undefined ? [] : formatNames(names)),
          ...entryPoints.map(formatEntryPoint),
        ].join("\n"),
      );
    },
  );
}

async function runWg(context: Context, file: string, flags: WgFlags): Promise<void> {
  const { terminal, runtime } = context;
  if (flags.tun !== undefined) refuseWithTun(flags);
  const start = {
    ...(await entryOptions(flags)),
    configText: await readConfig(terminal, file),
    fileName: file,
    tun: flags.tun === true ? "" : flags.tun,
    ignoreHooks: flags.ignoreHooks === true,
    requireNative: flags.require === "native",
    logger: await makeLogger(terminal.surroundings, flags.log),
  };
  context.exitCode = await runUntilStopped(
    runtime.signals,
    () => runtime.startWgMode(start),
    ({ publicKey, addresses, entryPoints, tun }) => {
      const device = tun === undefined ? {} : { tun };
      terminal.result({ event: "ready", publicKey, addresses, entryPoints, ...device, pid: process.pid }, () =>
        [
          `ready: ${publicKey} ${addresses.join(" ")}${tun === undefined ? "" : ` on ${tun}`}`,
          ...entryPoints.map(formatEntryPoint),
        ].join("\n"),
      );
    },
  );
}

/** Of a device. @throws WirebadgeError USAGE */
function checkedName(name: string | undefined): string | undefined {
  if (name === undefined || /^[a-zA-Z0-9_=+.-]{1,15}$/.test(name)) return name;
  throw new WirebadgeError("USAGE", `no interface can be called ${JSON.stringify(name)}`, {
    hint: "give it a name of at most 15 letters, digits and _=+.-: --tun wb0",
  });
}

/** What the kernel's own sockets do there. */
function refuseWithTun({ socks, forward, expose }: EntryFlags): void {
  for (const [option, value] of Object.entries({ socks, forward, expose })) {
    if (value === undefined) continue;
    throw new WirebadgeError("USAGE", `--${option} has no use with --tun: every process reaches the peers by itself`, {
      hint: `leave out --${option}, or leave out --tun for the rootless form`,
    });
  }
}

/** From --token-file, else WIREBADGE_TOKEN, which no child of this process then inherits. */
export async function readToken(terminal: Terminal, file: string | undefined): Promise<string | undefined> {
  const { env, stdin } = terminal.surroundings;
  const fromEnvironment = env["WIREBADGE_TOKEN"];
  delete env["WIREBADGE_TOKEN"];
  if (file === undefined) return fromEnvironment;
  if (file === "-") {
    if (stdin.isTTY === true) terminal.note("paste the token, then press Enter and Ctrl-D");
    return await readAll(stdin);
  }
  await warnIfReadable(terminal, file, "the token");
  return await readFileAs(file, "the token file", "TOKEN_INVALID", TOKEN_INPUT_MAX_BYTES);
}

async function readConfig(terminal: Terminal, file: string): Promise<string> {
  await warnIfReadable(terminal, file, "the private key in it");
  return await readFileAs(file, "the configuration", "CONFIG_INVALID", CONFIG_MAX_BYTES);
}

async function readFileAs(
  path: string,
  what: string,
  code: "TOKEN_INVALID" | "CONFIG_INVALID",
  maxBytes: number,
): Promise<string> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new WirebadgeError(code, `${what} ${path} can't be read (${(error as NodeJS.ErrnoException).code})`, {
      hint: "see that the path is right and that the file is yours to read",
      cause: error,
    });
  }
  if (text.length > maxBytes) throw new WirebadgeError(code, `${what} ${path} is larger than ${maxBytes} bytes`);
  return text;
}

async function readAll(stdin: AsyncIterable<Uint8Array | string>): Promise<string> {
  let text = "";
  for await (const chunk of stdin) {
    text += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("utf8");
    if (text.length > TOKEN_INPUT_MAX_BYTES)
      throw new WirebadgeError("TOKEN_INVALID", "standard input is not a token: too long");
  }
  return text;
}

async function warnIfReadable(terminal: Terminal, path: string, what: string): Promise<void> {
  if (process.platform === "win32") return;
  const mode = await stat(path).then(
    (found) => (found.isFile() ? found.mode : 0),
    () => 0, // reading it will say why not
  );
  if ((mode & 0o077) !== 0)
    terminal.note(
      `warning: ${path} has mode ${(mode & 0o777).toString(8)}: others can read ${what}; chmod 600 ${path}`,
    );
}
