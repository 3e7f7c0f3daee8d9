// The CLI's end of the local API: finds the running peer (the one of --state, else the only one) and asks it.
import { existsSync, readdirSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import type { z } from "zod";
import { ERROR_CODES, type ErrorCode, WirebadgeError } from "../base/errors.ts";
import { LOCAL_API_ANSWER_MAX_BYTES } from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";
import {
  type Can,
  canSchema,
  type Denials,
  denialsSchema,
  LOCAL_API_HOST,
  LOCAL_API_PATHS,
  LOCAL_API_SOCKET,
  type Ping,
  pingSchema,
  problemSchema,
  type Status,
  statusSchema,
  type Whois,
  whoisSchema,
} from "./local-api-schema.ts";
import { errnoOf } from "./real-network.ts";

const ANSWER_MAX_MS = 20 * SECOND_MS;
const LISTING_MAX_MS = 2 * SECOND_MS; // per peer, while they are listed

interface Answer {
  readonly status: number;
  readonly text: string;
}

function notRunning(socketPath: string, cause?: unknown): WirebadgeError {
  return new WirebadgeError("PEER_NOT_RUNNING", `no peer answers at ${socketPath}`, {
    hint: "start it with `wirebadge up`, or point --state at the folder of the one that runs",
    ...(cause === undefined ? {} : { cause }),
  });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}

function exchange(socketPath: string, method: string, path: string, body: unknown, maxMs: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const outgoing = request({
      socketPath,
      method,
      path,
      headers: {
        host: LOCAL_API_HOST,
        ...(text === undefined
          ? {}
          : { "content-type": "application/json", "content-length": String(Buffer.byteLength(text)) }),
      },
      signal: AbortSignal.timeout(maxMs),
    });
    outgoing.once("error", (error) => reject(errorOf(socketPath, error)));
    outgoing.once("response", (response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      response.on("data", (chunk: Buffer) => {
        length += chunk.length;
        if (length > LOCAL_API_ANSWER_MAX_BYTES) response.destroy(new Error("the answer is too large"));
        chunks.push(chunk);
      });
      response.once("error", (error) => reject(errorOf(socketPath, error)));
      response.once("end", () => {
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") });
      });
    });
    outgoing.end(text);
  });
}

function errorOf(socketPath: string, error: Error): WirebadgeError {
  if (error.name === "TimeoutError" || error.name === "AbortError") {
    return new WirebadgeError("TIMEOUT", `the peer at ${socketPath} does not answer`, { cause: error });
  }
  if (errnoOf(error) === "EACCES") {
    return new WirebadgeError("FORBIDDEN", `${socketPath} belongs to another user`, {
      hint: "run the command as the user that runs the peer",
      cause: error,
    });
  }
  return notRunning(socketPath, error);
}

function parse<S extends z.ZodType>(schema: S, answer: Answer): z.infer<S> {
  let json: unknown;
  try {
    json = JSON.parse(answer.text);
  } catch (cause) {
    throw new WirebadgeError("INTERNAL", "the peer's answer is not JSON", { cause });
  }
  if (answer.status !== 200) {
    const problem = problemSchema.safeParse(json);
    const code = problem.success && isErrorCode(problem.data.code) ? problem.data.code : "INTERNAL";
    const title = problem.success ? problem.data.title : `the peer answered ${answer.status}`;
    const hint = problem.success ? problem.data.hint : undefined;
    throw new WirebadgeError(code, title, hint === undefined ? {} : { hint });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new WirebadgeError("PROTOCOL_VERSION", "the running peer is of another version than this command", {
    hint: "restart the peer with this version",
  });
}

/** `const status = await (await LocalApiClient.find(root, flags.state)).status()` */
export class LocalApiClient {
  readonly socketPath: string;

  constructor(folder: string) {
    this.socketPath = join(folder, LOCAL_API_SOCKET);
  }

  /**
   * Of the folder given, else the only running peer under the root.
   * @throws PEER_NOT_RUNNING, PEER_AMBIGUOUS (its hint lists them)
   */
  static async find(root: string, folder: string | undefined): Promise<LocalApiClient> {
    if (folder !== undefined) {
      const client = new LocalApiClient(folder);
      if (!existsSync(client.socketPath)) throw notRunning(client.socketPath);
      return client;
    }
    const running = await listRunningPeers(root);
    const only = running[0];
    if (only === undefined) throw notRunning(join(root, "*", LOCAL_API_SOCKET));
    if (running.length === 1) return new LocalApiClient(only.folder);
    const list = running.map((peer) => `--state ${peer.folder} (${peer.identity ?? "wg"})`).join(", ");
    throw new WirebadgeError("PEER_AMBIGUOUS", `${running.length} peers are running here`, {
      hint: `pick one: ${list}`,
    });
  }

  async status(maxMs = ANSWER_MAX_MS): Promise<Status> {
    return parse(statusSchema, await exchange(this.socketPath, "GET", LOCAL_API_PATHS.status, undefined, maxMs));
  }

  async whois(of: string): Promise<Whois> {
    return parse(whoisSchema, await this.#get(`${LOCAL_API_PATHS.whois}?of=${encodeURIComponent(of)}`));
  }

  async can(destination: string): Promise<Can> {
    return parse(canSchema, await this.#get(`${LOCAL_API_PATHS.can}?dest=${encodeURIComponent(destination)}`));
  }

  async denials(): Promise<Denials> {
    return parse(denialsSchema, await this.#get(LOCAL_API_PATHS.denials));
  }

  async ping(name: string): Promise<Ping> {
    return parse(pingSchema, await exchange(this.socketPath, "POST", LOCAL_API_PATHS.ping, { name }, ANSWER_MAX_MS));
  }

  #get(path: string): Promise<Answer> {
    return exchange(this.socketPath, "GET", path, undefined, ANSWER_MAX_MS);
  }
}

export interface RunningPeer {
  readonly folder: string;
  readonly identity: string | undefined;
}

/** Those that answer, in the order of their folders' names; sockets that a killed process left are passed over. */
export async function listRunningPeers(root: string): Promise<readonly RunningPeer[]> {
  if (!existsSync(root)) return [];
  const folders = readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(root, entry.name, LOCAL_API_SOCKET)))
    .map((entry) => join(root, entry.name))
    .sort();
  const asked = await Promise.all(
    folders.map(async (folder): Promise<RunningPeer | undefined> => {
      try {
        const status = await new LocalApiClient(folder).status(LISTING_MAX_MS);
        return { folder, identity: status.identity };
      } catch (error) {
        if (error instanceof WirebadgeError) return undefined;
        throw error;
      }
    }),
  );
  return asked.filter((peer) => peer !== undefined);
}
