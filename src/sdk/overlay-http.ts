// HTTP over the network, by the two ways that Node's programs have: agents for node:http and node:https (axios, got),
// and an undici dispatcher for fetch. TLS is the program's own, end to end: to the overlay it is bytes like all others.
import { type AgentOptions, type ClientRequestArgs, Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent, type RequestOptions } from "node:https";
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Agent as UndiciAgent } from "undici";
import type { ConnectOptions } from "./network.ts";

export type Connect = (options: ConnectOptions) => Socket;
type Created = (error: Error | null, stream: Duplex) => void;
type Failed = (error: Error) => void;

const HTTP_PORT = 80;
const HTTPS_PORT = 443;

function placeOf(options: ClientRequestArgs, port: number): ConnectOptions {
  const timeout = options.timeout === undefined ? {} : { timeout: options.timeout };
  return { host: options.hostname ?? options.host ?? "", port: Number(options.port ?? port), ...timeout };
}

/** What is wrong at once (a network that was left) is the request's error, not its caller's. */
function connected(connect: () => Socket, failed: Failed | undefined): Socket | undefined {
  try {
    return connect();
  } catch (error) {
    if (failed === undefined) throw error;
    process.nextTick(failed, error as Error);
    return undefined;
  }
}

export class OverlayHttpAgent extends HttpAgent {
  readonly #connect: Connect;

  constructor(connect: Connect, options: AgentOptions) {
    super(options);
    this.#connect = connect;
  }

  override createConnection(options: ClientRequestArgs, callback?: Created): Duplex | undefined {
    return connected(() => this.#connect(placeOf(options, HTTP_PORT)), callback as Failed | undefined);
  }
}

/** The certificate is checked against the name that was asked for, which SNI tells: as over any network. */
export class OverlayHttpsAgent extends HttpsAgent {
  readonly #connect: Connect;

  constructor(connect: Connect, options: AgentOptions) {
    super(options);
    this.#connect = connect;
  }

  override createConnection(options: RequestOptions, callback?: Created): Duplex | undefined {
    const socket = connected(() => this.#connect(placeOf(options, HTTPS_PORT)), callback as Failed | undefined);
    if (socket === undefined) return undefined;
    return super.createConnection({ ...options, socket } as RequestOptions, callback) ?? undefined;
  }
}

/** undici is loaded with the first of them: not every program speaks HTTP. */
export function makeDispatcher(connect: Connect): UndiciAgent {
  const undici = createRequire(import.meta.url)("undici") as typeof import("undici");
  const overTls = undici.buildConnector({});
  return new undici.Agent({
    connect: (options, callback) => {
      const isTls = options.protocol === "https:";
      const port = Number(options.port) || (isTls ? HTTPS_PORT : HTTP_PORT);
      const failed: Failed = (error) => callback(error, null);
      const socket = connected(() => connect({ host: options.hostname, port }), failed);
      if (socket === undefined) return;
      socket.once("error", failed);
      socket.once("connect", () => {
        socket.off("error", failed);
        if (isTls) overTls({ ...options, httpSocket: socket }, callback);
        else callback(null, socket);
      });
    },
  });
}
