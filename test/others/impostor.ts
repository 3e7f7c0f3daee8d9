// A coordinator with the right keys that sends what a test says, and the real control client that talks to it: what a
// peer takes from a coordinator of another version, or from one that was broken into.
import { WebSocketServer } from "ws";
import { toBase64 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { Channel } from "../../src/control/channel.ts";
import { PROTOCOL_VERSION, prologueOf } from "../../src/control/contexts.ts";
import {
  type CoordinatorMessage,
  decodePeerRecord,
  encodeBytesRecord,
  encodeJsonRecord,
  RECORD_DELTA,
  RECORD_NETMAP,
} from "../../src/control/messages.ts";
import type { Netmap, NetmapDelta, NetmapView } from "../../src/control/netmap.ts";
import { signDelta, signNetmap } from "../../src/control/netmap-codec.ts";
import { respond } from "../../src/control/noise-nk.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { ControlClient } from "../../src/peer/control-client.ts";
import { crypto } from "../coordinator/network.ts";

const noiseKey = new Uint8Array(32).fill(1);
const signSeed = new Uint8Array(32).fill(9);
const anyKey = new Uint8Array(32).fill(6);

export class Impostor {
  readonly views: NetmapView[] = [];
  readonly problems: string[] = [];
  /** Types of the records that the client sent. */
  readonly asked: string[] = [];
  readonly #server: WebSocketServer;
  readonly #client: ControlClient;
  readonly #session: string;
  #channel: Channel | undefined;
  #write: (bytes: Uint8Array) => void = () => undefined;
  #wake: (() => void)[] = [];

  private constructor(server: WebSocketServer, session: string) {
    this.#server = server;
    this.#session = session;
    const bound = server.address();
    const port = typeof bound === "object" ? bound?.port : 0;
    this.#client = new ControlClient({
      url: `http://127.0.0.1:${port}`,
      coordinatorKey: crypto.publicKey(noiseKey),
      signSeed: new Uint8Array(32).fill(2),
      wireguardKey: new Uint8Array(32).fill(3),
      session,
      crypto,
      random: new SeededRandom(4),
      clock: new SystemClock(),
      timers: {
        after: (delayMs, fire) => {
          const timer = setTimeout(fire, Math.min(delayMs, delayMs < 10_000 ? 5 : delayMs)); // it comes back at once
          timer.unref();
          return () => clearTimeout(timer);
        },
      },
      software: "test",
    });
    this.#client.on("netmap", (view) => this.#note(() => this.views.push(view)));
    this.#client.on("problem", (error) => this.#note(() => this.problems.push(error.message)));
    server.on("connection", (socket) => {
      let channel: Channel | undefined;
      socket.on("message", (data: Buffer) => {
        if (channel === undefined) {
          const keys = { privateKey: noiseKey, publicKey: crypto.publicKey(noiseKey) };
          const answer = respond(crypto, new SeededRandom(7), prologueOf(PROTOCOL_VERSION), keys, data.subarray(1));
          if (typeof answer === "string") throw new Error(answer);
          socket.send(answer.message2);
          channel = new Channel(crypto, answer.keys, 2 ** 20);
          this.#channel = channel;
          this.#write = (bytes) => socket.send(bytes);
          this.#say({ type: "challenge", key: toBase64(crypto.publicKey(anyKey)) });
          return;
        }
        const record = channel.open(data);
        const message = record === "more" || typeof record === "string" ? record : decodePeerRecord(record);
        if (typeof message === "string") throw new Error(message);
        this.#note(() => this.asked.push(message.type));
      });
    });
  }

  static async start(session: string): Promise<Impostor> {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    await new Promise((resolve) => server.once("listening", resolve));
    return new Impostor(server, session);
  }

  /** The client has asked to come in, and is welcome. */
  async connected(): Promise<void> {
    this.asked.length = 0;
    this.#client.start();
    await this.heard(() => this.asked.includes("resume"));
    this.#say({
      type: "welcome",
      session: this.#session,
      identity: "node:x",
      signKey: toBase64(crypto.signPublicKey(signSeed)),
      epoch: 1,
      timeMs: Date.now(),
      leaseMs: 60_000,
      probe: { id: toBase64(new Uint8Array(8)), key: toBase64(anyKey) },
      software: "impostor",
    });
  }

  sendNetmap(netmap: Netmap): void {
    this.#send(encodeBytesRecord(RECORD_NETMAP, signNetmap(crypto, signSeed, this.#session, netmap)));
  }

  sendDelta(delta: NetmapDelta, forge?: "key" | "session" | "context"): void {
    const seed = forge === "key" ? anyKey : signSeed;
    const session = forge === "session" ? "s_0000000000000000" : this.#session;
    const netmap = { epoch: delta.epoch, revision: delta.revision, entries: delta.set };
    const signed =
      forge === "context" ? signNetmap(crypto, seed, session, netmap) : signDelta(crypto, seed, session, delta);
    this.#send(encodeBytesRecord(RECORD_DELTA, signed));
  }

  /** Resolves once the condition holds, looked at after all that the client says or tells. */
  async heard(condition: () => boolean): Promise<void> {
    const endMs = performance.now() + 5_000;
    while (!condition()) {
      if (performance.now() > endMs) throw new Error(`heard in vain: ${this.problems.join("; ")}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 500);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  async end(): Promise<void> {
    await this.#client.stop();
    for (const client of this.#server.clients) client.terminate();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #note(add: () => void): void {
    add();
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }

  #say(message: CoordinatorMessage): void {
    this.#send(encodeJsonRecord(message));
  }

  #send(record: Uint8Array): void {
    const parts = this.#channel!.seal(record);
    if (typeof parts === "string") throw new Error(parts);
    for (const part of parts) this.#write(part);
  }
}
