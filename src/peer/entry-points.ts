// The local entry points that the command line asks for, opened together and closed together.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toBase64Url } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { randomBytes } from "../base/random.ts";
import { osRandom } from "../io/os-random.ts";
import { ForwardServer, parseForward } from "./forward.ts";
import type { EntryPoint } from "./local-api-schema.ts";
import { type ListenAt, parseListen, type RefusedClient } from "./local-listener.ts";
import type { Logger } from "./logger.ts";
import type { DialError, OverlayDialer } from "./overlay.ts";
import type { OwnerCheck } from "./owner.ts";
import { Socks5Server } from "./socks5.ts";
import type { Turns } from "./turns.ts";

const SOCKS_SOCKET = "socks.sock";
const SOCKS_CREDENTIALS = "socks.credentials";

export interface EntryPointsOptions {
  /** "" asks for a socket in the state folder. */
  readonly socks: string | undefined;
  readonly allowRemote: boolean;
  readonly forwards: readonly string[];
  readonly dialer: OverlayDialer;
  readonly turns: Turns;
  readonly owner: OwnerCheck;
  readonly folder: string;
  readonly logger: Logger;
}

interface Server {
  readonly entryPoint: EntryPoint;
  close(): Promise<void>;
  readonly counters: Readonly<Record<string, number>>;
}

export class EntryPoints {
  readonly #servers: Server[] = [];

  /** All or none. @throws WirebadgeError USAGE, PORT_TAKEN */
  static async open(options: EntryPointsOptions): Promise<EntryPoints> {
    const points = new EntryPoints();
    try {
      if (options.socks !== undefined) points.#servers.push(await openSocks(options, options.socks));
      for (const text of options.forwards) {
        points.#servers.push(await ForwardServer.open({ ...common(options), forward: parseForward(text) }));
      }
      return points;
    } catch (error) {
      await points.close();
      throw error;
    }
  }

  list(): EntryPoint[] {
    return this.#servers.map((server) => server.entryPoint);
  }

  counters(): Record<string, number> {
    const sum: Record<string, number> = {};
    for (const server of this.#servers) {
      for (const [name, count] of Object.entries(server.counters))
        sum[`entry-${name}`] = (sum[`entry-${name}`] ?? 0) + count;
    }
    return sum;
  }

  async close(): Promise<void> {
    await Promise.all(this.#servers.map((server) => server.close()));
    this.#servers.length = 0;
  }
}

function common(options: EntryPointsOptions) {
  const { dialer, turns, owner, logger } = options;
  return {
    dialer,
    turns,
    owner,
    onRefused: (refused: RefusedClient) =>
      logger.warn({ event: "entry-refused", ...refused }, "a local client was refused"),
    onDialError: (error: DialError) =>
      logger.info({ event: "dial", kind: error.kind, denial: error.denialId }, error.message),
  };
}

async function openSocks(options: EntryPointsOptions, text: string): Promise<Server> {
  const at: ListenAt = text === "" ? { path: join(options.folder, SOCKS_SOCKET) } : parseListen("--socks", text);
  const credentials = options.allowRemote && !("path" in at) ? keptCredentials(options.folder) : undefined;
  if (credentials !== undefined) {
    options.logger.info(
      { file: join(options.folder, SOCKS_CREDENTIALS) },
      "SOCKS5 demands the user and password in this file",
    );
  }
  return await Socks5Server.open({
    ...common(options),
    at,
    allowRemote: options.allowRemote,
    ...(credentials === undefined ? {} : { credentials }),
  });
}

/** Made once for a folder: `user:password` in a file of mode 0600. */
function keptCredentials(folder: string): { user: string; password: string } {
  const path = join(folder, SOCKS_CREDENTIALS);
  if (!existsSync(path)) {
    writeFileSync(path, `wirebadge:${toBase64Url(randomBytes(osRandom, 24))}\n`, { mode: 0o600, flag: "wx" });
  }
  const [user, password] = readFileSync(path, "utf8").trim().split(":");
  if (user === undefined || password === undefined || user === "" || password === "") {
    throw new WirebadgeError("STATE_UNREADABLE", `${path} is not USER:PASSWORD`, {
      hint: "remove the file, and another is made at the next start",
    });
  }
  return { user, password };
}
