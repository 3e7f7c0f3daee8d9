// A flood of handshake messages from many addresses: whole IP packets through raw sockets, in batches of one system
// call, so that one process sends tens of thousands a second beside its victim. A process of its own; its one argument
// is FloodOptions as JSON. Says {"ready":true}, begins at a line on stdin, and ends with a FloodReport.
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { type Address, isV4, makeV4, parseAddress } from "../../src/base/address.ts";
import { fromBase64, writeU16, writeU32, writeU32Le } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { koffi } from "../../src/io/ffi/koffi.ts";
import { foldChecksum, sumBytes } from "../../src/wire/checksum.ts";
import { INITIATION_BYTES, RESPONSE_BYTES } from "../../src/wire/wireguard.ts";
import { CookieAsker } from "../../src/wireguard/cookies.ts";

export interface FloodOptions {
  /** Of the victim, base64: what mac1 needs, and all that it needs. */
  readonly publicKey: string;
  /** Of the victim, one of each family that is used. */
  readonly to: readonly string[];
  readonly port: number;
  /**
   * Right mac1 and garbage behind it: initiations that cost a Diffie–Hellman each; responses to nobody, which cost
   * none. Or initiations with a wrong mac1.
   */
  readonly kind: "initiation" | "response" | "wrong-mac1";
  /** Addresses: half of them IPv4, half IPv6 in a /64 each, if there are two targets. Infinity: another each time. */
  readonly sources: number;
  readonly perSecond: number;
  readonly forMs: number;
}

export interface FloodReport {
  readonly sent: number;
  readonly perSecond: number;
  readonly sources: number;
}

const BATCH = 32;
const MESSAGES = 20_000; // then the same again, in the same order
const HEADER_BYTES = 64; // struct mmsghdr

interface Libc {
  socket(family: number, type: number, protocol: number): number;
  sendmmsg(fd: number, messages: bigint | number, count: number, flags: number): number;
}

/** `number` counts from 0; IPv4 in 10.66.0.0/15, IPv6 with a /64 each in fd66::/16. */
export function floodSource(number: number, v4: boolean): Address {
  return v4 ? makeV4(0x0a420000 + number + 1) : { w0: 0xfd660000 | 0, w1: number, w2: 0, w3: 1 };
}

function ipv4Packet(from: Address, to: Address, port: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(28 + payload.length);
  bytes.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
  writeU16(bytes, 2, bytes.length);
  writeU32(bytes, 12, from.w3);
  writeU32(bytes, 16, to.w3);
  writeU16(bytes, 10, foldChecksum(sumBytes(bytes, 0, 20, 0)));
  writeU16(bytes, 20, 40_000);
  writeU16(bytes, 22, port);
  writeU16(bytes, 24, 8 + payload.length); // no checksum: IPv4 may leave it out
  bytes.set(payload, 28);
  return bytes;
}

function ipv6Packet(from: Address, to: Address, port: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(48 + payload.length);
  const length = 8 + payload.length;
  bytes.set([0x60, 0, 0, 0, 0, length, 17, 64]);
  for (const [i, word] of [from.w0, from.w1, from.w2, from.w3, to.w0, to.w1, to.w2, to.w3].entries()) {
    writeU32(bytes, 8 + 4 * i, word);
  }
  writeU16(bytes, 40, 40_000);
  writeU16(bytes, 42, port);
  writeU16(bytes, 44, length);
  bytes.set(payload, 48);
  writeU16(bytes, 46, foldChecksum(sumBytes(bytes, 40, length, sumBytes(bytes, 8, 32, length + 17))) || 0xffff);
  return bytes;
}

function makeMessage(options: FloodOptions, asker: CookieAsker, random: SeededRandom): Uint8Array {
  const isResponse = options.kind === "response";
  const bytes = new Uint8Array(isResponse ? RESPONSE_BYTES : INITIATION_BYTES);
  random.fill(bytes);
  writeU32Le(bytes, 0, isResponse ? 2 : 1);
  bytes.fill(0, bytes.length - 16);
  if (options.kind !== "wrong-mac1") asker.addMacs(0, bytes);
  return bytes;
}

/** One family's packets, as sendmmsg wants them: headers that point into memory that stays where it is. */
class Salvo {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #memory: Uint8Array[];
  readonly #base: number;
  readonly #count: number;
  #next = 0;

  constructor(libc: Libc, v4: boolean, to: Address, packets: readonly Uint8Array[]) {
    this.#libc = libc;
    this.#fd = libc.socket(v4 ? 2 : 10, 3, 255); // raw, with headers of our own
    if (this.#fd < 0) throw new Error(`no raw socket (errno ${koffi().errno()}): root is needed`);
    this.#count = packets.length;
    const target = new Uint8Array(32);
    writeU16(target, 0, 0);
    target[0] = v4 ? 2 : 10;
    if (v4) writeU32(target, 4, to.w3);
    else for (const [i, word] of [to.w0, to.w1, to.w2, to.w3].entries()) writeU32(target, 8 + 4 * i, word);
    const size = packets[0]!.length;
    const bytes = new Uint8Array(size * packets.length);
    const vectors = new Uint8Array(16 * packets.length);
    const headers = new Uint8Array(HEADER_BYTES * packets.length);
    this.#memory = [target, bytes, vectors, headers];
    const [targetAt, bytesAt, vectorsAt, headersAt] = this.#memory.map((array) => Number(koffi().address(array)));
    const vectorView = new DataView(vectors.buffer);
    const headerView = new DataView(headers.buffer);
    for (const [i, packet] of packets.entries()) {
      bytes.set(packet, i * size);
      vectorView.setBigUint64(16 * i, BigInt(bytesAt! + i * size), true);
      vectorView.setBigUint64(16 * i + 8, BigInt(size), true);
      headerView.setBigUint64(HEADER_BYTES * i, BigInt(targetAt!), true);
      headerView.setUint32(HEADER_BYTES * i + 8, v4 ? 16 : 28, true);
      headerView.setBigUint64(HEADER_BYTES * i + 16, BigInt(vectorsAt! + 16 * i), true);
      headerView.setBigUint64(HEADER_BYTES * i + 24, 1n, true);
    }
    this.#base = headersAt!;
  }

  /** Up to BATCH; gives how many left. */
  fire(): number {
    const count = Math.min(BATCH, this.#count - this.#next);
    const sent = this.#libc.sendmmsg(this.#fd, this.#base + HEADER_BYTES * this.#next, count, 0);
    this.#next = (this.#next + count) % this.#count; // what the kernel had no room for is not sent again
    return Math.max(0, sent);
  }

  get bytes(): number {
    return this.#memory.reduce((sum, array) => sum + array.length, 0);
  }
}

async function main(): Promise<void> {
  const options = JSON.parse(process.argv[2] ?? "") as FloodOptions;
  const library = koffi().load(null);
  const libc: Libc = {
    socket: library.func("int socket(int family, int type, int protocol)"),
    sendmmsg: library.func("int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)"),
  };
  const asker = new CookieAsker(new PortableCrypto(), fromBase64(options.publicKey)!);
  const random = new SeededRandom(options.sources + options.port);
  const sourcesEach = options.sources / options.to.length;
  const salvos = options.to.map((text) => {
    const to = parseAddress(text)!;
    const v4 = isV4(to);
    const packets = Array.from({ length: MESSAGES / options.to.length }, (_, i) => {
      const from = floodSource(i % sourcesEach, v4);
      return (v4 ? ipv4Packet : ipv6Packet)(from, to, options.port, makeMessage(options, asker, random));
    });
    return new Salvo(libc, v4, to, packets);
  });
  process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
  await once(process.stdin, "data");
  process.stdin.unref?.();
  const startMs = performance.now();
  let tried = 0;
  let sent = 0;
  let elapsedMs = 0;
  for (; elapsedMs < options.forMs; elapsedMs = performance.now() - startMs) {
    // Behind by more than 50 ms (a busy machine): what was missed is not made up for by a burst.
    const due = Math.floor((elapsedMs * options.perSecond) / 1_000);
    tried = Math.max(tried, due - options.perSecond / 20);
    for (; tried < due; tried += BATCH) sent += salvos[(tried / BATCH) & 1 && salvos.length > 1 ? 1 : 0]!.fire();
    await delay(1);
  }
  const perSecond = Math.round((sent * 1_000) / elapsedMs);
  const report: FloodReport = { sent, perSecond, sources: Math.min(options.sources, MESSAGES) };
  process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exit(0);
}

if (process.argv[1] === import.meta.filename) await main();
