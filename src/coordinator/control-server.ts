// The listener that peers reach: HTTP that is upgraded to WebSockets at /control, and `GET /health`. Strangers are
// cheap here: a socket that proves nothing within 5 s is closed, and when their table is full the oldest of the source
// that holds most makes room.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { CONTROL_SILENCE_MAX_MS, CONTROL_UNAUTHENTICATED_MAX, CONTROL_UNAUTHENTICATED_MAX_MS } from "../base/limits.ts";
import { NOISE_MESSAGE_MAX_BYTES } from "../control/channel.ts";
import { CLOSE } from "../control/close-codes.ts";
import { CONTROL_PATH } from "../control/contexts.ts";
import { type ConnectionContext, ControlConnection } from "./control-connection.ts";
import { type ListenAddress, listenOn } from "./listen.ts";
import { sourceOf } from "./source-limits.ts";

const SWEEP_EVERY_MS = 500;

/** Sockets that have proved nothing yet, by source, oldest first. */
class Strangers {
  readonly #bySource = new Map<string, Set<ControlConnection>>();
  readonly #limit: number;
  #size = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#size;
  }

  /** Adds one; when the table was full, the one that has to make room. */
  add(connection: ControlConnection): ControlConnection | undefined {
    const victim = this.#size >= this.#limit ? this.#oldestOfTheHeaviest() : undefined;
    if (victim !== undefined) this.remove(victim);
    const set = this.#bySource.get(connection.source);
    if (set === undefined) this.#bySource.set(connection.source, new Set([connection]));
    else set.add(connection);
    this.#size++;
    return victim;
  }

  remove(connection: ControlConnection): void {
    const set = this.#bySource.get(connection.source);
    if (set?.delete(connection) !== true) return;
    this.#size--;
    if (set.size === 0) this.#bySource.delete(connection.source);
  }

  all(): ControlConnection[] {
    return [...this.#bySource.values()].flatMap((set) => [...set]);
  }

  #oldestOfTheHeaviest(): ControlConnection | undefined {
    let heaviest: Set<ControlConnection> | undefined;
    for (const set of this.#bySource.values()) if (set.size > (heaviest?.size ?? 0)) heaviest = set;
    return heaviest?.values().next().value;
  }
}

export class ControlServer {
  readonly #context: ConnectionContext;
  readonly #http: Server;
  readonly #webSockets: WebSocketServer;
  readonly #strangers: Strangers;
  readonly #admitted = new Set<ControlConnection>();
  #sweep: NodeJS.Timeout | undefined;
  #open = false;

  constructor(context: ConnectionContext, strangersMax: number = CONTROL_UNAUTHENTICATED_MAX) {
    this.#context = context;
    this.#strangers = new Strangers(strangersMax);
    this.#http = createServer(
      {
        headersTimeout: CONTROL_UNAUTHENTICATED_MAX_MS,
        requestTimeout: CONTROL_UNAUTHENTICATED_MAX_MS,
        connectionsCheckingInterval: SWEEP_EVERY_MS,
        keepAliveTimeout: CONTROL_UNAUTHENTICATED_MAX_MS,
        maxHeaderSize: 8_192,
      },
      (request, response) => this.#onRequest(request, response),
    );
    this.#http.maxConnections = 65_536;
    this.#webSockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false, // sealed bytes don't shrink, and its buffers are what strangers would cost
      maxPayload: NOISE_MESSAGE_MAX_BYTES,
      skipUTF8Validation: true,
    });
    this.#http.on("upgrade", (request, socket, head) => this.#onUpgrade(request, socket, head));
    this.#http.on("clientError", (_error, socket) => {
      context.counters.add("http-bad-request");
      socket.destroy();
    });
  }

  get strangers(): number {
    return this.#strangers.size;
  }

  /** Takes the port, and answers 503 until `open`. Resolves with the bound port. */
  async bind(at: ListenAddress): Promise<number> {
    const port = await listenOn(this.#http, "--listen", at);
    this.#sweep = setInterval(() => this.#onSweep(), SWEEP_EVERY_MS);
    this.#sweep.unref();
    return port;
  }

  /** From here on peers are served. */
  open(): void {
    this.#open = true;
  }

  async stop(): Promise<void> {
    this.#open = false;
    clearInterval(this.#sweep);
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    for (const connection of [...this.#admitted, ...this.#strangers.all()]) connection.close(CLOSE.stopping);
    this.#http.closeAllConnections();
    await closed;
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const health = request.url === "/health" || request.url?.endsWith("/health") === true;
    response.statusCode = health ? 200 : 426;
    response.setHeader("content-type", "application/json");
    if (!health) response.setHeader("upgrade", "websocket");
    response.end(health ? '{"status":"ok"}\n' : '{"error":"this is the control channel: WebSockets only"}\n');
  }

  #onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const path = request.url?.split("?", 1)[0] ?? "";
    if (!this.#open || !path.endsWith(CONTROL_PATH)) {
      this.#context.counters.add("http-other-path");
      const status = this.#open ? "404 Not Found" : "503 Service Unavailable";
      socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    const source = sourceOf(request.socket.remoteAddress);
    this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => this.#onWebSocket(webSocket, source));
  }

  #onWebSocket(webSocket: WebSocket, source: string): void {
    const connection = new ControlConnection(this.#context, webSocket, source, () => {
      this.#strangers.remove(connection);
      this.#admitted.add(connection);
    });
    webSocket.once("close", () => {
      this.#strangers.remove(connection);
      this.#admitted.delete(connection);
    });
    const victim = this.#strangers.add(connection);
    if (victim !== undefined) {
      this.#context.counters.add("control-strangers-full");
      victim.close(CLOSE.tooMany);
    }
  }

  #onSweep(): void {
    const nowMs = this.#context.clock.nowMs();
    for (const connection of this.#strangers.all()) {
      if (connection.ended || nowMs - connection.openedMs < CONTROL_UNAUTHENTICATED_MAX_MS) continue;
      this.#context.counters.add("control-silent");
      connection.close(CLOSE.silent);
    }
    for (const connection of this.#admitted) {
      if (connection.ended || nowMs - connection.heardMs < CONTROL_SILENCE_MAX_MS) continue;
      this.#context.counters.add("control-peer-silent");
      connection.close(CLOSE.silent);
    }
  }
}
