// A flood of small datagrams, a process of its own: junk that looks like each kind of WireGuard message, in runs that
// the kernel cuts; or packets one by one, as many as it can, as a program of the host sends them. Its one argument is
// PacketFloodOptions as JSON. Ends with a PacketFloodReport.
import { setTimeout as delay } from "node:timers/promises";
import { parseAddress } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { Arena } from "../../src/io/ffi/arena.ts";
import { UdpSocket, udpSocketArenaBytes } from "../../src/io/ffi/udp-socket.ts";

export interface PacketFloodOptions {
  readonly host: string;
  readonly port: number;
  /** Infinity, as null: as many as it can. */
  readonly perSecond: number | null;
  readonly forMs: number;
  /** Else packets of 32 bytes, one by one. */
  readonly junk: boolean;
}

export interface PacketFloodReport {
  readonly sent: number;
}

const RUN = 64;
/** Bytes 0 to 3 of a message, little-endian, and its length: data, initiation, response, cookie reply, none. */
const KINDS = [
  [4, 32],
  [1, 148],
  [2, 92],
  [3, 64],
  [0xeeeeeeee, 64],
  [4, 96],
] as const;
const PLAIN_BYTES = 32;
const TURN_MS = 2;

const options = JSON.parse(process.argv[2] ?? "") as PacketFloodOptions;
const arena = new Arena(udpSocketArenaBytes() + KINDS.length * RUN * 148 + 4_096);
const address = parseAddress(options.host)!;
const socket = UdpSocket.open(arena, { family: options.host.includes(":") ? 6 : 4, port: 0 });
const to = { address, port: options.port };
const random = new SeededRandom(7);
const runs = KINDS.map(([type, length]) => {
  const at = arena.allocateAt(RUN * length);
  random.fill(arena.bytes.subarray(at, at + RUN * length));
  const view = new DataView(arena.buffer);
  for (let i = 0; i < RUN; i++) view.setUint32(at + i * length, type, true);
  return { at, length };
});

let sent = 0;
const startedMs = performance.now();
for (;;) {
  const passedMs = performance.now() - startedMs;
  if (passedMs > options.forMs) break;
  const due = options.perSecond === null ? sent + 4 * RUN : (passedMs / 1_000) * options.perSecond;
  for (let turn = 0; sent < due && turn < 100; turn++, sent += RUN) {
    const { at, length } = runs[turn % runs.length]!;
    if (options.junk) socket.push(at, RUN * length, length, to);
    else for (let i = 0; i < RUN; i++) socket.push(at + i * PLAIN_BYTES, PLAIN_BYTES, PLAIN_BYTES, to);
    socket.flush();
  }
  if (options.perSecond !== null) await delay(TURN_MS);
}
process.stdout.write(`${JSON.stringify({ sent } satisfies PacketFloodReport)}\n`);
