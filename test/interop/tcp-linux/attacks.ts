// Somebody who knows the ports of a connection, and more or less of its numbers, forges segments and ICMP errors while
// bytes flow both ways (RFC 5961, RFC 5927); and floods of SYNs.
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { readU16, readU32 } from "../../../src/base/bytes.ts";
import { TCP_BACKLOG_MAX, TCP_BACKLOG_PER_REMOTE_MAX } from "../../../src/base/limits.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import { decodePacket, PacketInfo, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../../src/wire/packet.ts";
import { icmp, tcp } from "../../wire/packets.ts";
import { hashOf, pair, type StackEnd } from "./ends.ts";
import { type Family, KERNEL, STACK, type World } from "./world.ts";

const BLOCK_BYTES = 8 * 1024;

/** What the stack last said of one connection, as the wire saw it. */
class Watch {
  sequence = 0;
  acknowledgment = 0;
  window = 0;
  segment: Uint8Array = new Uint8Array(0);
  largestBytes = 0;
  kernelPort = 0;
  readonly #info = new PacketInfo();

  constructor(world: World, port: number) {
    const before = world.wire.tap;
    world.wire.tap = (to, bytes) => {
      if (to === "kernel") this.#look(bytes, port);
      return before?.(to, bytes);
    };
  }

  /** Of the packets from now on; waits for some with enough to send. */
  async largestNow(): Promise<number> {
    await delay(20);
    this.largestBytes = 0;
    while (this.largestBytes < 500) await delay(5);
    await delay(30); // until a whole block has gone: its last segment is smaller
    return this.largestBytes;
  }

  #look(bytes: Uint8Array, port: number): void {
    const info = this.#info;
    if (decodePacket(bytes, 0, bytes.length, info) !== undefined || info.protocol !== 6) return;
    if (info.sourcePort !== port || (info.tcpFlags & TCP_RST) !== 0) return;
    this.kernelPort = info.destinationPort;
    this.sequence = readU32(bytes, info.transportOffset + 4);
    this.acknowledgment = readU32(bytes, info.transportOffset + 8);
    this.window = readU16(bytes, info.transportOffset + 14);
    if (bytes.length > 500) this.segment = bytes.slice();
    this.largestBytes = Math.max(this.largestBytes, bytes.length);
  }
}

interface Running {
  readonly end: StackEnd;
  readonly watch: Watch;
  /** Ends both directions, and says whether every byte came. */
  stop(): Promise<readonly boolean[]>;
}

/** A connection that carries bytes both ways, a little every few milliseconds, until it is told to stop. */
async function running(world: World, family: Family, port: number): Promise<Running> {
  const watch = new Watch(world, port);
  const { socket, end } = await pair(world, family, "kernel", port);
  const sent = { up: createHash("sha256"), down: createHash("sha256") };
  const random = new SeededRandom(port);
  const block = new Uint8Array(BLOCK_BYTES);
  const pouring = setInterval(() => {
    random.fill(block);
    const taken = end.connection.write(world.nowMs(), block);
    sent.down.update(block.subarray(0, taken));
    if (socket.writableLength > 0) return; // it has not yet taken the last
    socket.write(block.slice());
    sent.up.update(block);
  }, 10);
  const heard = hashOf(socket);
  while (watch.segment.length === 0 || end.receivedBytes === 0) await delay(5);
  const stop = async (): Promise<readonly boolean[]> => {
    clearInterval(pouring);
    end.connection.end(world.nowMs());
    socket.end();
    return [(await end.ended.promise) === sent.up.digest("hex"), (await heard) === sent.down.digest("hex")];
  };
  return { end, watch, stop };
}

/** In and beside the window, but never where a reset must stand to count. */
async function forgedToStack(world: World, family: Family, port: number): Promise<unknown> {
  const { watch, stop, end } = await running(world, family, port);
  const before = world.stack.counters["TCP_CHALLENGE_ACKS"] ?? 0;
  for (let i = 0; i < 20; i++) {
    const next = watch.acknowledgment;
    const about = { sourcePort: watch.kernelPort, destinationPort: port, acknowledgment: watch.sequence };
    const forge = (flags: number, sequence: number, more: object = {}): void =>
      world.inject("stack", tcp(KERNEL[family], STACK[family], { ...about, flags, sequence: sequence >>> 0, ...more }));
    forge(TCP_RST, next + 50_000);
    forge(TCP_RST | TCP_ACK, next - 50_000);
    forge(TCP_RST, next + 2 ** 30);
    forge(TCP_SYN, next + 50_000);
    forge(TCP_SYN, next - 1);
    forge(TCP_SYN | TCP_ACK, next + 2 ** 30);
    forge(TCP_ACK, next + 50_000, { acknowledgment: (watch.sequence + 2 ** 30) >>> 0, data: new Uint8Array(100) });
    forge(TCP_ACK | TCP_FIN, next + 2 ** 30);
    await delay(10);
  }
  const whole = await stop();
  const challenges = (world.stack.counters["TCP_CHALLENGE_ACKS"] ?? 0) - before;
  return { whole, closed: await end.gone.promise, challenged: challenges >= 10 };
}

/** The kernel's answers to forged segments ("challenge ACKs") disturb the stack no more. */
async function forgedToKernel(world: World, family: Family, port: number): Promise<unknown> {
  const { watch, stop, end } = await running(world, family, port);
  for (let i = 0; i < 20; i++) {
    const about = { sourcePort: port, destinationPort: watch.kernelPort, acknowledgment: watch.acknowledgment };
    const forge = (flags: number, ahead: number): void => {
      const sequence = (watch.sequence + ahead) >>> 0;
      world.inject("kernel", tcp(STACK[family], KERNEL[family], { ...about, flags, sequence }));
    };
    forge(TCP_RST, 20_000);
    forge(TCP_SYN, 20_000);
    forge(TCP_SYN | TCP_ACK, -20_000);
    await delay(10);
  }
  return { whole: await stop(), closed: await end.gone.promise };
}

/** At exactly the next byte it counts, in both RFCs. */
async function exactReset(world: World, family: Family, port: number): Promise<unknown> {
  const watch = new Watch(world, port);
  const { socket, end } = await pair(world, family, "kernel", port);
  socket.on("error", () => undefined);
  socket.write("one");
  while (end.receivedBytes < 3) await delay(5);
  await delay(100); // until it has been acknowledged
  const about = { sourcePort: watch.kernelPort, destinationPort: port, sequence: watch.acknowledgment };
  world.inject("stack", tcp(KERNEL[family], STACK[family], { ...about, flags: TCP_RST }));
  const closed = await end.gone.promise;
  socket.destroy();
  return closed;
}

const UNREACHABLE = { v4: [3, [0, 1, 2, 3, 9, 10, 13]], v6: [1, [0, 1, 3, 4, 5, 6]] } as const;
const TOO_BIG = { v4: { type: 3, code: 4, least: 576 }, v6: { type: 2, code: 0, least: 1_280 } } as const;

/** A copy of a segment of ours that claims another sequence number. */
function quoted(segment: Uint8Array, family: Family, ahead: number): Uint8Array {
  const copy = segment.slice(0, 100);
  const at = family === "v4" ? 24 : 44;
  const view = new DataView(copy.buffer);
  view.setUint32(at, (view.getUint32(at) + ahead) >>> 0);
  return copy;
}

/** Errors about the flow end nothing; those that quote what isn't outstanding change nothing. */
async function forgedErrors(world: World, family: Family, port: number): Promise<unknown> {
  const { watch, stop, end } = await running(world, family, port);
  const inject = (type: number, code: number, word: number, body: Uint8Array): void =>
    world.inject("stack", icmp(KERNEL[family], STACK[family], type, code, word, body));
  const [type, codes] = UNREACHABLE[family];
  for (const code of codes) {
    for (const ahead of [0, 2 ** 29, -(2 ** 29)]) inject(type, code, 0, quoted(watch.segment, family, ahead));
    await delay(5);
  }
  const tooBig = TOO_BIG[family];
  for (const ahead of [2 ** 29, -(2 ** 29)]) inject(tooBig.type, tooBig.code, 68, quoted(watch.segment, family, ahead));
  const largestUnmoved = await watch.largestNow();
  // What was sent last is outstanding, for a round trip: 68 is less than anybody may be made to believe.
  let largest = largestUnmoved;
  for (let tries = 0; tries < 100 && largest > tooBig.least; tries++) {
    inject(tooBig.type, tooBig.code, 68, quoted(watch.segment, family, 0));
    largest = await watch.largestNow();
  }
  const whole = await stop();
  return {
    whole,
    closed: await end.gone.promise,
    largestUnmoved,
    cut: largest <= tooBig.least && largest > tooBig.least - 100,
    soft: (world.stack.counters["TCP_ICMP_SOFT_ERRORS"] ?? 0) > 0,
  };
}

const syn = (from: string, sourcePort: number, port: number): Uint8Array =>
  tcp(from, STACK.v4, { sourcePort, destinationPort: port, sequence: 9, flags: TCP_SYN });

/** One address floods: the others get in. Many do: what runs goes on, and when they say no there is room again. */
async function floods(world: World): Promise<unknown> {
  const port = 7_390;
  const established = await running(world, "v4", port + 1);
  const { socket, end } = await pair(world, "v4", "kernel", port);
  socket.destroy();
  end.connection.abort(world.nowMs());
  for (let i = 0; i < 5_000; i++) world.inject("stack", syn("10.97.0.1", 1_000 + i, port));
  const ofOne = world.stack.counters["TCP_BACKLOG"];
  const inSpite = await pair(world, "v4", "kernel", port);
  inSpite.socket.end("in");
  await inSpite.end.ended.promise;
  inSpite.end.connection.end(world.nowMs());
  for (let i = 0; i < 5_000; i++) world.inject("stack", syn(`10.97.${1 + (i >> 8)}.${i & 255}`, 1_000, port));
  const ofAll = world.stack.counters["TCP_BACKLOG"];
  const refused =
    (world.stack.counters["TCP_BACKLOG_FULL"] ?? 0) >= 10_000 - TCP_BACKLOG_MAX - TCP_BACKLOG_PER_REMOTE_MAX;
  const whole = await established.stop();
  for (let i = 0; i < 5_000; i++) world.inject("stack", reset("10.97.0.1", 1_000 + i, port));
  for (let i = 0; i < 5_000; i++) world.inject("stack", reset(`10.97.${1 + (i >> 8)}.${i & 255}`, 1_000, port));
  const left = world.stack.counters["TCP_BACKLOG"];
  const after = await pair(world, "v4", "kernel", port);
  after.socket.destroy();
  return { ofOne, ofAll, refused, whole, left, inSpite: inSpite.end.receivedBytes };
}

/** What a host says to a SYN-ACK that it never asked for. */
const reset = (from: string, sourcePort: number, port: number): Uint8Array =>
  tcp(from, STACK.v4, { sourcePort, destinationPort: port, sequence: 10, flags: TCP_RST });

export const attacks = {
  together: {
    "forged to the stack v4": (world: World) => forgedToStack(world, "v4", 7_300),
    "forged to the stack v6": (world: World) => forgedToStack(world, "v6", 7_301),
    "forged to the kernel v4": (world: World) => forgedToKernel(world, "v4", 7_310),
    "forged to the kernel v6": (world: World) => forgedToKernel(world, "v6", 7_311),
    "an exact reset v4": (world: World) => exactReset(world, "v4", 7_320),
    "an exact reset v6": (world: World) => exactReset(world, "v6", 7_321),
    "forged errors v4": (world: World) => forgedErrors(world, "v4", 7_330),
    "forged errors v6": (world: World) => forgedErrors(world, "v6", 7_331),
  },
  inOrder: { floods },
};
