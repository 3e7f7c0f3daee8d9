// Two stacks on a link with faults, in virtual time: nothing sleeps, every run follows from its seed.
import type { Address } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { NetstackHandler, TcpConnection, TcpHandler } from "../../src/netstack/contract.ts";
import { UserspaceStack, type UserspaceStackOptions } from "../../src/netstack/stack.ts";
import { ip } from "../wire/packets.ts";

export interface Faults {
  loss?: number;
  duplicate?: number;
  corrupt?: number;
  /** Chance of an extra delay of up to 4 times the usual. */
  reorder?: number;
  delayMs?: number;
  /** Larger packets vanish. */
  mtuBytes?: number;
}

interface Flying {
  readonly atMs: number;
  readonly order: number;
  readonly to: End;
  readonly bytes: Uint8Array;
}

export class End {
  readonly stack: UserspaceStack;
  readonly address: Address;
  readonly v4: Address;
  readonly handler: NetstackHandler;
  /** Every packet it sent, before faults. */
  sent: Uint8Array[] = [];
  peer!: End;

  constructor(world: VirtualLink, address: string, v4: string, seed: number, options: Partial<UserspaceStackOptions>) {
    this.address = ip(address);
    this.v4 = ip(v4);
    this.handler = {
      output: (_nowMs, buffer, offset, length) => {
        if (offset < 32 || buffer.length - offset - length < 32) throw new Error("no room around the packet");
        const bytes = buffer.slice(offset, offset + length);
        if (world.keepsSent) this.sent.push(bytes);
        world.carry(this.peer, bytes);
      },
    };
    this.stack = new UserspaceStack({
      random: new SeededRandom(seed),
      mtuBytes: 1420,
      handler: this.handler,
      ...options,
    });
    this.stack.setLocalAddresses([this.address, this.v4]);
  }
}

export class VirtualLink {
  nowMs = 1_000_000;
  faults: Faults;
  keepsSent = true;
  /** Return true to swallow the packet. */
  onPacket: ((to: End, bytes: Uint8Array) => boolean) | undefined;
  readonly a: End;
  readonly b: End;
  readonly random: SeededRandom;
  #flying: Flying[] = [];
  #order = 0;
  turns = 0;

  constructor(faults: Faults = {}, seed = 1, options: Partial<UserspaceStackOptions> = {}) {
    this.faults = faults;
    this.random = new SeededRandom(seed);
    this.a = new End(this, "fd00::a", "10.7.0.1", seed * 2 + 1, options);
    this.b = new End(this, "fd00::b", "10.7.0.2", seed * 2 + 2, options);
    this.a.peer = this.b;
    this.b.peer = this.a;
  }

  carry(to: End, bytes: Uint8Array): void {
    if (this.onPacket?.(to, bytes)) return;
    const { loss = 0, duplicate = 0, corrupt = 0, reorder = 0, delayMs = 5, mtuBytes = 65_535 } = this.faults;
    if (bytes.length > mtuBytes) return;
    for (let copies = this.random.chance(duplicate) ? 2 : 1; copies > 0; copies--) {
      if (this.random.chance(loss)) continue;
      let carried = bytes;
      if (this.random.chance(corrupt)) {
        carried = bytes.slice();
        carried[this.random.below(carried.length)]! ^= 1 << this.random.below(8);
      }
      const late = this.random.chance(reorder) ? this.random.fraction() * 4 * delayMs : 0;
      this.#insert({ atMs: this.nowMs + delayMs + late, order: this.#order++, to, bytes: carried });
    }
  }

  #insert(flying: Flying): void {
    let index = this.#flying.length;
    while (index > 0 && this.#flying[index - 1]!.atMs > flying.atMs) index--;
    this.#flying.splice(index, 0, flying);
  }

  /** A packet from outside, at once. */
  inject(to: End, bytes: Uint8Array): void {
    to.stack.handlePacket(this.nowMs, bytes, 0, bytes.length);
  }

  get inFlight(): number {
    return this.#flying.length;
  }

  /** The next event; false when nothing will happen any more. */
  step(untilMs = Number.POSITIVE_INFINITY): boolean {
    const next = this.#flying[0];
    const dueMs = Math.min(this.a.stack.nextDeadlineMs(), this.b.stack.nextDeadlineMs());
    const atMs = Math.min(next?.atMs ?? Number.POSITIVE_INFINITY, dueMs);
    if (atMs > untilMs || atMs === Number.POSITIVE_INFINITY) return false;
    this.turns++;
    this.nowMs = Math.max(this.nowMs, atMs);
    if (next !== undefined && next.atMs <= dueMs) {
      this.#flying.shift();
      next.to.stack.handlePacket(this.nowMs, next.bytes, 0, next.bytes.length);
      return true;
    }
    for (const { stack } of [this.a, this.b]) {
      if (stack.nextDeadlineMs() > this.nowMs) continue;
      stack.handleTimeout(this.nowMs);
      if (stack.nextDeadlineMs() <= this.nowMs) throw new Error("a deadline stays due: busy loop");
    }
    return true;
  }

  /** Runs until nothing happens within `forMs`. */
  run(forMs: number): void {
    const untilMs = this.nowMs + forMs;
    while (this.step(untilMs));
    this.nowMs = untilMs;
  }

  /** Fails the test rather than spin. */
  runUntil(done: () => boolean, limitMs = 3_600_000): void {
    const untilMs = this.nowMs + limitMs;
    while (!done()) {
      if (!this.step(untilMs)) throw new Error(`nothing more happens at ${this.nowMs} (limit ${untilMs})`);
    }
  }
}

/** Notes what a connection tells its user; reads everything unless told to wait. */
export class Recorder implements TcpHandler {
  readonly #world: VirtualLink;
  connection: TcpConnection | undefined;
  chunks: Uint8Array[] = [];
  receivedBytes = 0;
  events: string[] = [];
  reads = true;
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;

  constructor(world: VirtualLink, connection?: TcpConnection) {
    this.#world = world;
    if (connection !== undefined) this.attach(connection);
  }

  attach(connection: TcpConnection): this {
    this.connection = connection;
    connection.handler = this;
    return this;
  }

  connected(): void {
    this.events.push("connected");
  }

  readable(): void {
    if (this.reads) this.drain();
    this.onReadable?.();
  }

  drain(maxBytes = 1 << 20): void {
    for (;;) {
      const bytes = this.connection?.read(this.#world.nowMs, maxBytes);
      if (bytes === undefined) break;
      this.chunks.push(bytes);
      this.receivedBytes += bytes.length;
    }
    if (this.connection?.remoteEnded && !this.events.includes("ended")) this.events.push("ended");
  }

  writable(): void {
    this.onWritable?.();
  }

  closed(reason: string): void {
    this.events.push(`closed: ${reason}`);
  }

  get received(): Uint8Array {
    const out = new Uint8Array(this.receivedBytes);
    let at = 0;
    for (const chunk of this.chunks) {
      out.set(chunk, at);
      at += chunk.length;
    }
    return out;
  }
}

/** Writes all of it as room comes, then ends if asked. */
export function pour(world: VirtualLink, recorder: Recorder, bytes: Uint8Array, end = true): void {
  let at = 0;
  const more = (): void => {
    const connection = recorder.connection!;
    at += connection.write(world.nowMs, bytes.subarray(at));
    if (at === bytes.length && end) connection.end(world.nowMs);
  };
  recorder.onWritable = more;
  more();
}

export function pattern(length: number, seed = 7): Uint8Array {
  const bytes = new Uint8Array(length);
  new SeededRandom(seed).fill(bytes);
  return bytes;
}

export interface Pair {
  client: Recorder;
  server: Recorder;
}

/** A connection from a to b's port 80, handshake done. */
export function connectPair(world: VirtualLink, family: "v4" | "v6" = "v6"): Pair {
  const { a, b } = world;
  const from = family === "v6" ? a.address : a.v4;
  const to = { address: family === "v6" ? b.address : b.v4, port: 80 };
  const client = new Recorder(world);
  let server: Recorder | undefined;
  b.stack.listenTcp(to, (connection) => {
    server = new Recorder(world, connection);
  });
  const connection = a.stack.connectTcp(world.nowMs, from, to, client);
  if (connection === undefined) throw new Error("table full");
  client.attach(connection);
  world.runUntil(() => client.events.includes("connected") && server !== undefined);
  return { client, server: server! };
}

/** Fast for megabytes, where toEqual is not. */
export function expectSame(actual: Uint8Array, expected: Uint8Array): void {
  if (actual.length !== expected.length) throw new Error(`${actual.length} bytes instead of ${expected.length}`);
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  if (at >= 0) throw new Error(`byte ${at} is ${actual[at]} instead of ${expected[at]}`);
}
