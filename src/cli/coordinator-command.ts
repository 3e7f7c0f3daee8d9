// `wirebadge coordinator`: runs the coordinator in the foreground.
import { type Command, Option } from "commander";
import { WirebadgeError } from "../base/errors.ts";
import { DEFAULT_ADMIN_LISTEN, DEFAULT_LISTEN } from "../coordinator/options.ts";
import type { Context } from "./admin-command.ts";
import { addBackupCommands } from "./backup-commands.ts";
import {
  addCommand,
  formatHostPort,
  type HostPort,
  isLoopback,
  isUnspecified,
  parseHttpUrl,
  parseListen,
} from "./command.ts";
import { defaultDataFolder } from "./folders.ts";
import { runUntilStopped } from "./lifetime.ts";
import { LOG_LEVELS, type LogLevel, makeLogger } from "./log.ts";

interface Flags {
  readonly listen: HostPort;
  readonly url?: string;
  readonly udp?: string;
  readonly adminListen: HostPort;
  readonly data?: string;
  readonly name?: string;
  readonly log: LogLevel;
}

/** `--log LEVEL`, for the commands that stay. */
export function logOption(): Option {
  return new Option("--log <level>", "how much to log").choices(LOG_LEVELS).default("info").env("WIREBADGE_LOG");
}

export function addCoordinatorCommand(program: Command, context: Context): void {
  const command = addCommand(program, {
    usage: "coordinator",
    summary: "run a network's coordinator in the foreground",
    details:
      "One data folder is one network. The control channel and the UDP probe listen on --listen, the admin " +
      "API on a listener of its own.\n" +
      "Peers prove the coordinator by the key in their token, so plain http:// is enough; a TLS proxy in " +
      "front works as well (--url).",
    examples: [
      "wirebadge coordinator",
      "wirebadge coordinator --listen 0.0.0.0:7470 --url https://mesh.example.com --data /var/lib/wirebadge",
    ],
  });
  command
    .addOption(
      new Option("--listen <host:port>", "where the control channel and the UDP probe listen")
        .argParser(parseListen)
        .default(parseListen(DEFAULT_LISTEN), DEFAULT_LISTEN),
    )
    .option("--url <url>", "how peers reach it, as tokens carry it (default: http:// and --listen)", parseHttpUrl)
    .option(
      "--udp <host:port>",
      "how peers reach the UDP probe (default: the host of --url, the port of --listen)",
      parseProbe,
    )
    .addOption(
      new Option("--admin-listen <host:port>", "where the admin API listens")
        .argParser(parseListen)
        .default(parseListen(DEFAULT_ADMIN_LISTEN), DEFAULT_ADMIN_LISTEN),
    )
    .option("--data <dir>", "keys, records and admin.token (default: ~/.local/share/wirebadge/coordinator)")
    .option("--name <label>", "name of a new network, a DNS label (default: wirebadge)")
    .addOption(logOption())
    .action((flags: Flags) => runCoordinator(context, flags));
  addBackupCommands(command, context);
}

/** HOST:PORT where the host may be a name. */
function parseProbe(text: string): string {
  if (/^(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/.test(text)) return text;
  throw new WirebadgeError("USAGE", "--udp is not HOST:PORT", { hint: "as in mesh.example.com:7470" });
}

async function runCoordinator(context: Context, flags: Flags): Promise<void> {
  const { terminal, runtime } = context;
  if (isUnspecified(flags.listen.host) && flags.url === undefined)
    throw new WirebadgeError("USAGE", `--listen ${formatHostPort(flags.listen)} is no address that a peer can go to`, {
      hint: "say how peers reach it: --url https://mesh.example.com (tokens carry it)",
    });
  const logger = await makeLogger(terminal.surroundings, flags.log);
  if (!isLoopback(flags.adminListen.host))
    logger.warn(
      { adminListen: formatHostPort(flags.adminListen) },
      "the admin API is open to the network, without TLS",
    );
  const start = {
    dataDir: flags.data ?? defaultDataFolder(terminal.surroundings.env),
    listen: formatHostPort(flags.listen),
    url: flags.url,
    udp: flags.udp,
    adminListen: formatHostPort(flags.adminListen),
    networkName: flags.name,
    logger,
  };
  context.exitCode = await runUntilStopped(
    runtime.signals,
    () => runtime.startCoordinator(start),
    ({ url, adminUrl, adminTokenFile, networkId }) => {
      terminal.result({ event: "ready", url, adminUrl, adminTokenFile, network: networkId, pid: process.pid }, () =>
        [
          `ready: coordinator of network ${networkId}`,
          `  peers join at  ${url}`,
          `  admin API      ${adminUrl} (token in ${adminTokenFile})`,
        ].join("\n"),
      );
    },
  );
}
