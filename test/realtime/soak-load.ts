// Mixed load on a network of real processes, from the test's own: short connections, one bulk stream, idle ones, denied
// attempts, policies, and agents that come and go. Everything that was begun is counted, and ends with stop().
import { createServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { SocksReplyError } from "../../src/cli/socks-client.ts";
import { exchange, type TestNetwork, type TestPeer } from "../scripts/network.ts";

export interface Rates {
  readonly connectionsPerSecond: number;
  readonly bulkBytesPerSecond: number;
  readonly joinEveryMs: number;
}

const IDLE_CONNECTIONS = 5;
const BULK_EVERY_MS = 50;
/** Begun and not ended: a busy machine gets less load, not a longer queue. */
const AT_ONCE_MAX = 4;
let guests = 0;

/** A service that answers each byte with itself, in this process. */
export async function startEcho(): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, port: (server.address() as { port: number }).port };
}

export class MixedLoad {
  readonly counts = { short: 0, denied: 0, bulkBytes: 0, policies: 0, joins: 0, failed: 0 };
  readonly failures: string[] = [];
  readonly #network: TestNetwork;
  readonly #agent: TestPeer;
  readonly #port: number;
  readonly #policyOf: (version: number) => unknown;
  readonly #running: Promise<void>[] = [];
  readonly #sockets = new Set<Socket>();
  #isOver = false;

  /** `policyOf`: documents that differ in what doesn't concern the load. */
  constructor(network: TestNetwork, agent: TestPeer, port: number, policyOf: (version: number) => unknown) {
    this.#network = network;
    this.#agent = agent;
    this.#port = port;
    this.#policyOf = policyOf;
  }

  async start(rates: Rates): Promise<void> {
    this.#every(1_000 / rates.connectionsPerSecond, () => this.#short());
    this.#every(1_000, () => this.#denied(), 1);
    this.#every(4_000, () => this.#newPolicy(), 1);
    this.#every(rates.joinEveryMs, () => this.#joinAndLeave(), 1);
    for (let i = 0; i < IDLE_CONNECTIONS; i++) this.#idle(await this.#connect());
    this.#running.push(this.#bulk(await this.#connect(), rates.bulkBytesPerSecond));
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
    for (const socket of this.#sockets) socket.destroy();
  }

  /** At that pace, so many at once; a failure is noted, and the load goes on. */
  #every(everyMs: number, act: () => Promise<void>, atOnceMax = AT_ONCE_MAX): void {
    const work = async (): Promise<void> => {
      const open = new Set<Promise<void>>();
      for (let nextMs = performance.now() + everyMs; !this.#isOver; nextMs += everyMs) {
        nextMs = Math.max(nextMs, performance.now()); // what a busy machine did not do is not made up for
        await delay(nextMs - performance.now());
        if (open.size >= atOnceMax) await Promise.race(open);
        if (this.#isOver) break;
        const one = act()
          .catch((error: unknown) => this.#failed(error))
          .finally(() => open.delete(one));
        open.add(one);
      }
      await Promise.all(open);
    };
    this.#running.push(work());
  }

  #failed(error: unknown): void {
    this.counts.failed++;
    this.failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }

  async #connect(): Promise<Socket> {
    const socket = await this.#agent.connect("echo", this.#port);
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy()).on("close", () => this.#sockets.delete(socket));
    return socket;
  }

  async #short(): Promise<void> {
    const text = `short ${this.counts.short}`.padEnd(200, ".");
    if ((await this.#agent.echo("echo", this.#port, text)) !== text) throw new Error(`other bytes than ${text}`);
    this.counts.short++;
  }

  async #denied(): Promise<void> {
    try {
      (await this.#agent.connect("closed", this.#port)).destroy();
    } catch (error) {
      if (!(error instanceof SocksReplyError)) throw error;
      this.counts.denied++;
      return;
    }
    throw new Error("a connection without a grant was opened");
  }

  #idle(socket: Socket): void {
    this.#every(
      7_000,
      async () => {
        if ((await exchange(socket, "still here")) !== "still here") throw new Error("an idle connection lost bytes");
      },
      1,
    );
  }

  /** One stream that never ends; what comes back is counted and must be what went out. */
  async #bulk(socket: Socket, bytesPerSecond: number): Promise<void> {
    const chunk = Buffer.alloc(Math.ceil((bytesPerSecond * BULK_EVERY_MS) / 1000), "0123456789abcdef");
    let at = 0;
    socket.on("data", (bytes: Buffer) => {
      if (bytes[0] !== chunk[at % chunk.length]) this.#failed(new Error(`other bytes at ${at} of the bulk stream`));
      at += bytes.length;
      this.counts.bulkBytes += bytes.length;
    });
    while (!this.#isOver) {
      if (socket.destroyed) return this.#failed(new Error("the bulk stream ended"));
      if (socket.writableLength < 4 * chunk.length) socket.write(chunk);
      await delay(BULK_EVERY_MS);
    }
  }

  async #newPolicy(): Promise<void> {
    await this.#network.api("PUT", "/v1/policy", { text: JSON.stringify(this.#policyOf(this.counts.policies + 1)) });
    this.counts.policies++;
  }

  /** An agent of its own for a few moments; then its process is ended and its session taken back. */
  async #joinAndLeave(): Promise<void> {
    const agent = await this.#network.join(`agent:guest-${guests++}`, ["--socks"]);
    this.counts.joins++;
    await agent.echo("echo", this.#port, "a guest");
    await agent.program.end();
    await this.#network.api("POST", "/v1/revocations", { selector: `session:${agent.session}` });
  }
}
