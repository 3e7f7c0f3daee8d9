// The two ends of a transfer: a connection of the userspace stack, and a socket of the kernel. Each can pour bytes that
// follow from a number, and hashes what it reads.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type NetConnectOpts, type Socket } from "node:net";
import { SeededRandom } from "../../../src/base/random.ts";
import type { TcpConnection, TcpHandler } from "../../../src/netstack/contract.ts";
import { address, type Family, KERNEL, STACK, type World } from "./world.ts";

const BLOCK_BYTES = 64 * 1024;

/** The same bytes for whoever asks, block by block. */
export function* blocks(totalBytes: number, seed: number): Generator<Uint8Array> {
  const block = new Uint8Array(BLOCK_BYTES);
  new SeededRandom(seed).fill(block);
  for (let at = 0, n = 0; at < totalBytes; at += block.length, n++) {
    block[n % block.length] = n & 255;
    yield block.slice(0, Math.min(block.length, totalBytes - at));
  }
}

export function hashOfBlocks(totalBytes: number, seed: number): string {
  const hash = createHash("sha256");
  for (const block of blocks(totalBytes, seed)) hash.update(block);
  return hash.digest("hex");
}

/** A stack and its clock. */
export type Place = Pick<World, "nowMs" | "stack">;

/** A connection of the stack that hashes what it reads, and pours what it is told. */
export class StackEnd implements TcpHandler {
  readonly #place: Place;
  readonly #hash = createHash("sha256");
  readonly opened = Promise.withResolvers<void>();
  /** The hash of all that came, once the other end has ended. */
  readonly ended = Promise.withResolvers<string>();
  readonly gone = Promise.withResolvers<string>();
  connection!: TcpConnection;
  receivedBytes = 0;
  /** False: leaves the bytes in the stack's buffer. */
  reads = true;
  onBytes: ((bytes: Uint8Array) => void) | undefined;
  #source: Iterator<Uint8Array> | undefined;
  #rest: Uint8Array | undefined;
  #isEnded = false;

  constructor(place: Place, connection?: TcpConnection) {
    this.#place = place;
    if (connection === undefined) return;
    this.connection = connection;
    connection.handler = this;
  }

  connected(): void {
    this.opened.resolve();
  }

  readable(): void {
    if (this.reads) this.drain();
  }

  drain(): void {
    while (this.sip(65_536));
  }

  /** At most so many bytes. False when there were none. */
  sip(maxBytes: number): boolean {
    const bytes = this.connection.read(this.#place.nowMs(), maxBytes);
    if (bytes !== undefined) {
      this.receivedBytes += bytes.length;
      this.#hash.update(bytes);
      this.onBytes?.(bytes);
    }
    if (this.connection.remoteEnded && !this.#isEnded) {
      this.#isEnded = true;
      this.ended.resolve(this.#hash.digest("hex"));
    }
    return bytes !== undefined;
  }

  /** Then ends its direction. */
  pour(source: Iterator<Uint8Array>): void {
    this.#source = source;
    this.writable();
  }

  writable(): void {
    while (this.#source !== undefined) {
      const bytes = this.#rest ?? (this.#source.next().value as Uint8Array | undefined);
      if (bytes === undefined) {
        this.#source = undefined;
        this.connection.end(this.#place.nowMs());
        return;
      }
      const taken = this.connection.write(this.#place.nowMs(), bytes);
      this.#rest = taken < bytes.length ? bytes.subarray(taken) : undefined;
      if (this.#rest !== undefined) return;
    }
  }

  closed(reason: string): void {
    this.gone.resolve(reason);
    this.opened.resolve();
    this.ended.resolve(`closed: ${reason}`);
  }
}

export function listen(world: World, family: Family, port: number, onEnd: (end: StackEnd) => void): void {
  const local = { address: address(STACK[family]), port };
  world.stack.unlistenTcp(local);
  world.stack.listenTcp(local, (connection) => onEnd(new StackEnd(world, connection)));
}

/** The next connection to that port of the stack. */
export function nextConnection(world: World, family: Family, port: number): Promise<StackEnd> {
  return new Promise((resolve) => listen(world, family, port, resolve));
}

export function dial(world: World, family: Family, port: number): StackEnd {
  const end = new StackEnd(world);
  const remote = { address: address(KERNEL[family]), port };
  const connection = world.stack.connectTcp(world.nowMs(), address(STACK[family]), remote, end);
  if (connection === undefined) throw new Error("the stack's table is full");
  end.connection = connection;
  return end;
}

/** A socket of the kernel, connected; the stack must listen there. */
export async function connectKernel(family: Family, port: number, more: Partial<NetConnectOpts> = {}): Promise<Socket> {
  const socket = connect({ host: STACK[family], port, allowHalfOpen: true, ...more } as NetConnectOpts);
  await once(socket, "connect");
  return socket;
}

/** Both ends of one connection, whoever opens it. */
export async function pair(
  world: World,
  family: Family,
  opener: "kernel" | "stack",
  port: number,
): Promise<{ socket: Socket; end: StackEnd }> {
  if (opener === "kernel") {
    const accepted = nextConnection(world, family, port);
    const socket = await connectKernel(family, port);
    return { socket, end: await accepted };
  }
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(port, KERNEL[family]);
  await once(server, "listening");
  const end = dial(world, family, port);
  const refused = end.gone.promise.then((reason) => Promise.reject(new Error(`not connected: ${reason}`)));
  const [socket] = (await Promise.race([once(server, "connection"), refused])) as [Socket];
  refused.catch(() => undefined); // from here on its end is the caller's to see
  server.close();
  await end.opened.promise;
  return { socket, end };
}

/** Up to the other end's FIN; the socket lives on: a plain `for await` would destroy it, unsent bytes and all. */
export async function hashOf(socket: Socket): Promise<string> {
  const hash = createHash("sha256");
  for await (const bytes of socket.iterator({ destroyOnReturn: false })) hash.update(bytes as Uint8Array);
  return hash.digest("hex");
}

export async function pourInto(
  socket: Socket,
  source: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  for await (const block of source) if (!socket.write(block)) await once(socket, "drain");
  socket.end();
}

export interface Carried {
  readonly ms: number;
  readonly closed: string;
  /** The bytes came over whole: to the stack, to the kernel. */
  readonly whole: readonly [boolean, boolean];
}

/** `upBytes` from the kernel to the stack and `downBytes` back, both at once. */
export async function carry(
  world: World,
  about: { family: Family; opener: "kernel" | "stack"; port: number; upBytes: number; downBytes: number },
): Promise<Carried> {
  const { family, opener, port, upBytes, downBytes } = about;
  const { socket, end } = await pair(world, family, opener, port);
  const startedMs = performance.now();
  end.pour(blocks(downBytes, port));
  const [down, , up] = await Promise.all([
    hashOf(socket),
    pourInto(socket, blocks(upBytes, port + 1)),
    end.ended.promise,
  ]);
  const ms = performance.now() - startedMs;
  const whole = [up === hashOfBlocks(upBytes, port + 1), down === hashOfBlocks(downBytes, port)] as const;
  return { ms, closed: await end.gone.promise, whole };
}
