// Tiny and closed windows, on either side, of either family.
import { setTimeout as delay } from "node:timers/promises";
import { readU16 } from "../../../src/base/bytes.ts";
import { decodePacket, PacketInfo } from "../../../src/wire/packet.ts";
import { blocks, hashOf, hashOfBlocks, pair, pourInto } from "./ends.ts";
import type { End } from "./wire.ts";
import type { Family, World } from "./world.ts";

const STUCK_MS = 1_000;
const PATIENCE_MS = 20_000;
const BYTES = 400_000;

/** Counts the segments of one connection that say "window closed", by who hears it. */
function countClosed(world: World, port: number): Record<End, number> {
  const closed: Record<End, number> = { stack: 0, kernel: 0 };
  const info = new PacketInfo();
  const before = world.wire.tap;
  world.wire.tap = (to, bytes) => {
    const isOurs = decodePacket(bytes, 0, bytes.length, info) === undefined && info.protocol === 6;
    if (isOurs && (info.sourcePort === port || info.destinationPort === port) && (info.tcpFlags & 4) === 0) {
      if (readU16(bytes, info.transportOffset + 14) === 0) closed[to]++;
    }
    return before?.(to, bytes);
  };
  return closed;
}

/** Neither end reads for a while; then both do, and every byte arrives. */
async function bothStuck(world: World, family: Family, opener: "kernel" | "stack", port: number): Promise<unknown> {
  const closed = countClosed(world, port);
  const { socket, end } = await pair(world, family, opener, port);
  end.reads = false;
  socket.pause();
  const poured = pourInto(socket, blocks(BYTES, port));
  end.pour(blocks(BYTES, port + 1));
  for (let waitedMs = 0; (closed.stack === 0 || closed.kernel === 0) && waitedMs < PATIENCE_MS; waitedMs += 50) {
    await delay(50);
  }
  await delay(STUCK_MS);
  const stuckBytes = end.connection.readableBytes;
  end.reads = true;
  end.drain();
  const [down] = await Promise.all([hashOf(socket), poured]);
  return {
    whole: [(await end.ended.promise) === hashOfBlocks(BYTES, port), down === hashOfBlocks(BYTES, port + 1)],
    wasStuck: stuckBytes > 0 && stuckBytes < BYTES,
    bothClosed: closed.stack > 0 && closed.kernel > 0,
  };
}

/** The stack takes a few bytes at a time, seldom: its window opens by little. */
async function sipping(world: World, family: Family, port: number): Promise<unknown> {
  const bytes = 30_000;
  const { socket, end } = await pair(world, family, "kernel", port);
  end.reads = false;
  const poured = pourInto(socket, blocks(bytes, port));
  const sip = setInterval(() => end.sip(700), 5);
  await poured;
  const whole = (await end.ended.promise) === hashOfBlocks(bytes, port);
  clearInterval(sip);
  end.connection.end(world.nowMs());
  return { whole, closed: await end.gone.promise };
}

export const windows = {
  together: {
    "both stuck v4, kernel opens": (world: World) => bothStuck(world, "v4", "kernel", 7_100),
    "both stuck v4, stack opens": (world: World) => bothStuck(world, "v4", "stack", 7_110),
    "both stuck v6, kernel opens": (world: World) => bothStuck(world, "v6", "kernel", 7_120),
    "both stuck v6, stack opens": (world: World) => bothStuck(world, "v6", "stack", 7_130),
    "sipping v4": (world: World) => sipping(world, "v4", 7_140),
    "sipping v6": (world: World) => sipping(world, "v6", 7_150),
  },
};
