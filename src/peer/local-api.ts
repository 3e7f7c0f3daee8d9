// The running peer's local API: HTTP over peer.sock in the 0700 state folder. It only reads (and pings): there is no
// admin surface on it. A browser can't reach it: no TCP, one Host, no Origin.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { ERROR_CODES, WirebadgeError } from "../base/errors.ts";
import { LOCAL_API_BODY_MAX_BYTES, LOCAL_API_CLIENTS_MAX } from "../base/limits.ts";
import { KIB, SECOND_MS } from "../base/units.ts";
import {
  canSchema,
  denialsSchema,
  type EntryPoint,
  LOCAL_API_HOST,
  LOCAL_API_PATHS,
  type LocalApiHost,
  type Problem,
  pingRequestSchema,
  pingSchema,
  statusSchema,
  whoisSchema,
} from "./local-api-schema.ts";
import { openUnixSocket } from "./local-listener.ts";

const HEADERS_MAX_BYTES = 8 * KIB;
const QUERY_MAX_CHARACTERS = 1_024;
const REQUEST_MAX_MS = 10 * SECOND_MS;
const PING_MAX_MS = 15 * SECOND_MS;

interface Route {
  readonly method: "GET" | "POST";
  /** The one query parameter that it takes, which must be there. */
  readonly parameter: string | undefined;
  answer(host: LocalApiHost, parameter: string, body: unknown, signal: AbortSignal): unknown;
}

const ROUTES: Readonly<Record<string, Route>> = {
  [LOCAL_API_PATHS.status]: {
    method: "GET",
    parameter: undefined,
    answer: async (host) => statusSchema.parse(await host.status()),
  },
  [LOCAL_API_PATHS.whois]: {
    method: "GET",
    parameter: "of",
    answer: (host, of) => whoisSchema.parse(host.whois(of)),
  },
  [LOCAL_API_PATHS.can]: {
    method: "GET",
    parameter: "dest",
    answer: (host, destination) => canSchema.parse(host.can(destination)),
  },
  [LOCAL_API_PATHS.denials]: {
    method: "GET",
    parameter: undefined,
    answer: (host) => denialsSchema.parse(host.denials()),
  },
  [LOCAL_API_PATHS.ping]: {
    method: "POST",
    parameter: undefined,
    answer: async (host, _parameter, body, signal) => {
      const request = pingRequestSchema.safeParse(body);
      if (!request.success) throw usage("the body is not a ping request", 'send {"name": "gw-1"}');
      return pingSchema.parse(await host.ping(request.data.name, signal));
    },
  },
};

function usage(message: string, hint: string): WirebadgeError {
  return new WirebadgeError("USAGE", message, { hint });
}

/** What every request must be before its path is looked at. */
function checkRequest(request: IncomingMessage): void {
  const hosts = request.headersDistinct["host"];
  if (hosts?.length !== 1 || hosts[0] !== LOCAL_API_HOST) {
    throw new WirebadgeError("FORBIDDEN", "the Host header is not this API's", {
      hint: `send Host: ${LOCAL_API_HOST}`,
    });
  }
  if (request.headers.origin !== undefined) {
    throw new WirebadgeError("FORBIDDEN", "requests of web pages are not answered", { hint: "send no Origin header" });
  }
}

async function readBytes(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request) {
      length += chunk.length;
      if (length > LOCAL_API_BODY_MAX_BYTES) {
        throw new WirebadgeError("TOO_LARGE", "the body is too large", { hint: "64 KiB are the most" });
      }
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof WirebadgeError) throw error;
    throw usage("the body ended early", "send all of it"); // its client went away: no failure of ours
  }
  return Buffer.concat(chunks);
}

async function readBody(request: IncomingMessage, route: Route): Promise<unknown> {
  const bytes = await readBytes(request);
  if (route.method === "GET") {
    if (bytes.length > 0) throw usage("a GET has no body", "leave it out");
    return undefined;
  }
  if (request.headers["content-type"] !== "application/json") {
    throw usage("the body is not said to be JSON", "send Content-Type: application/json");
  }
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    throw usage("the body is not JSON", "check its quotes and braces");
  }
}

function readParameter(route: Route, url: URL): string {
  const names = [...url.searchParams.keys()];
  if (route.parameter === undefined) {
    if (names.length > 0) throw usage("this path takes no parameter", "leave it out");
    return "";
  }
  const value = url.searchParams.get(route.parameter);
  if (names.length !== 1 || value === null || value === "" || value.length > QUERY_MAX_CHARACTERS) {
    throw usage(`this path takes one parameter, ${route.parameter}`, `add ?${route.parameter}=…`);
  }
  return value;
}

function problemOf(error: unknown): Problem {
  const known = error instanceof WirebadgeError;
  const code = known ? error.code : "INTERNAL";
  return {
    type: `urn:wirebadge:error:${code}`,
    title: known ? error.message : "the peer failed to answer", // what failed inside is for its log, not for a client
    status: ERROR_CODES[code][1],
    code,
    ...(known && error.hint !== undefined ? { hint: error.hint } : {}),
  };
}

function send(response: ServerResponse, status: number, type: string, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    "content-type": type,
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    connection: "close",
  });
  response.end(text);
}

export interface LocalApiOptions {
  readonly host: LocalApiHost;
  /** In a folder that is the peer's alone. */
  readonly path: string;
  /** Our own failure while answering: for the log. */
  readonly onFailure: (error: unknown) => void;
}

export class LocalApiServer {
  readonly #server: Server;
  readonly #options: LocalApiOptions;

  private constructor(server: Server, options: LocalApiOptions) {
    this.#server = server;
    this.#options = options;
  }

  /** @throws USAGE when the folder is open to others, PORT_TAKEN when another process answers there */
  static async open(options: LocalApiOptions): Promise<LocalApiServer> {
    const server = createServer({
      maxHeaderSize: HEADERS_MAX_BYTES,
      headersTimeout: REQUEST_MAX_MS,
      requestTimeout: REQUEST_MAX_MS,
      connectionsCheckingInterval: SECOND_MS,
      requireHostHeader: true,
    });
    server.maxConnections = LOCAL_API_CLIENTS_MAX;
    const api = new LocalApiServer(server, options);
    server.on("request", (request, response) => void api.#serve(request, response));
    server.on("clientError", (_error, socket) => socket.destroy());
    await openUnixSocket(server, options.path);
    return api;
  }

  get entryPoint(): EntryPoint {
    return { kind: "local-api", listen: this.#options.path, protection: "folder" };
  }

  /** It no longer keeps the process alive. */
  unref(): void {
    this.#server.unref();
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const controller = new AbortController();
    response.once("close", () => controller.abort());
    try {
      checkRequest(request);
      const url = URL.parse(request.url ?? "/", `http://${LOCAL_API_HOST}`);
      const route = url !== null && Object.hasOwn(ROUTES, url.pathname) ? ROUTES[url.pathname] : undefined;
      if (url === null || route === undefined)
        throw new WirebadgeError("NOT_FOUND", "there is no such path", { hint: "see /v1/status" });
      if (request.method !== route.method)
        throw new WirebadgeError("METHOD_NOT_ALLOWED", `this path takes ${route.method}`);
      const parameter = readParameter(route, url);
      const body = await readBody(request, route);
      const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(PING_MAX_MS)]);
      send(response, 200, "application/json", await route.answer(this.#options.host, parameter, body, signal));
    } catch (error) {
      if (!(error instanceof WirebadgeError)) this.#options.onFailure(error);
      if (response.destroyed) return;
      const problem = problemOf(error);
      send(response, problem.status, "application/problem+json", problem);
    }
  }
}
