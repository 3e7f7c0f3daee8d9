// Packets cut on their way, and what can be forged with that: pieces out of order and twice, overlapping, tiny, without
// end.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { concatBytes, writeU16 } from "../../../src/base/bytes.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import { writeIpv6FragmentHeader } from "../../../src/wire/ipv6.ts";
import { decodePacket, PacketInfo } from "../../../src/wire/packet.ts";
import { fixIpv4Checksum, ipv4, udp } from "../../wire/packets.ts";
import { carry } from "./ends.ts";
import { type Family, STACK, type World } from "./world.ts";

const PIECE_BYTES = 480;
const MORE = 0x2000;
let lastId = 0;

/** A fragment of the packet: `length` bytes of its payload from `from` on (a multiple of 8). */
function piece(packet: Uint8Array, from: number, length: number, id: number): Uint8Array {
  const isV4 = packet[0]! >>> 4 === 4;
  const headBytes = isV4 ? 20 : 40;
  const payload = packet.subarray(headBytes);
  const part = payload.subarray(from, from + length);
  const more = from + part.length < payload.length;
  if (isV4) {
    const cut = concatBytes(packet.subarray(0, 20), part);
    writeU16(cut, 2, cut.length);
    writeU16(cut, 4, id & 0xffff);
    writeU16(cut, 6, (more ? MORE : 0) | (from / 8));
    return fixIpv4Checksum(cut);
  }
  const header = new Uint8Array(8);
  writeIpv6FragmentHeader(header, 0, packet[6]!, from, more, id);
  const cut = concatBytes(packet.subarray(0, 40), header, part);
  writeU16(cut, 4, cut.length - 40);
  cut[6] = 44;
  return cut;
}

function cut(packet: Uint8Array): Uint8Array[] {
  const id = ++lastId;
  const payloadBytes = packet.length - (packet[0]! >>> 4 === 4 ? 20 : 40);
  const pieces: Uint8Array[] = [];
  for (let from = 0; from < payloadBytes; from += PIECE_BYTES) pieces.push(piece(packet, from, PIECE_BYTES, id));
  return pieces;
}

/** Cuts what is large in both directions; shuffles the pieces, doubles some, and now and then forges an overlap. */
function cutting(world: World): void {
  const random = new SeededRandom(world.spec.seed);
  const info = new PacketInfo();
  world.wire.tap = (to, bytes) => {
    const isCut = decodePacket(bytes, 0, bytes.length, info) === undefined && info.protocol === 6 && bytes.length > 600;
    if (!isCut) return undefined;
    const pieces = cut(bytes);
    for (let i = pieces.length - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [pieces[i], pieces[j]] = [pieces[j]!, pieces[i]!];
    }
    if (random.chance(0.2)) pieces.splice(1, 0, pieces[0]!.slice());
    if (to === "stack" && random.chance(0.02)) pieces.splice(1, 0, piece(bytes, PIECE_BYTES - 8, 64, lastId));
    return pieces;
  };
}

/** Beginnings without an end from one address, and scraps that hold no whole header. */
async function incomplete(world: World): Promise<unknown> {
  const poisoned = world.stack.counters["FRAGMENTED_DATAGRAMS"] ?? 0; // of the overlaps before
  const whole = udp("10.97.0.1", STACK.v4, 9, 53, new Uint8Array(2_000));
  for (let i = 0; i < 1_000; i++) world.inject("stack", piece(whole, 0, 800, 10_000 + i));
  const held = (world.stack.counters["FRAGMENTED_DATAGRAMS"] ?? 0) - poisoned;
  const tiny = ipv4("10.97.0.2", STACK.v4, new Uint8Array(64), { protocol: 6 });
  world.inject("stack", piece(tiny, 0, 8, 1));
  world.inject("stack", piece(tiny, 8, 8, 1));
  const child = spawn("ping", ["-c", "2", "-i", "0.2", "-W", "2", "-s", "5000", STACK.v4], { stdio: "ignore" });
  const [code] = (await once(child, "close")) as [number];
  return { held, pingInSpite: code === 0 };
}

const transfer = (family: Family, opener: "kernel" | "stack", port: number) => (world: World) =>
  carry(world, { family, opener, port, upBytes: 200_000, downBytes: 200_000 });

export const fragments = {
  together: {
    start: async (world: World) => cutting(world),
    "cut v4, kernel opens": transfer("v4", "kernel", 7_500),
    "cut v4, stack opens": transfer("v4", "stack", 7_510),
    "cut v6, kernel opens": transfer("v6", "kernel", 7_520),
    "cut v6, stack opens": transfer("v6", "stack", 7_530),
  },
  inOrder: { incomplete },
};
