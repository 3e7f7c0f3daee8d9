// One end of a tunnel as a process of its own, to be run inside a namespace: a Device on a dgram socket that answers
// echo requests and, when told to, sends one of each family every second. Talks JSON lines on stdout: {"ready":port},
// then a report every second.
import { createSocket } from "node:dgram";
import { type Endpoint, formatAddress, isV4, parseAddress, parseEndpoint } from "../../src/base/address.ts";
import { fromBase64, readU16, writeU16, writeU32 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { checksumOf, foldChecksum, sumBytes } from "../../src/wire/checksum.ts";
import { Device } from "../../src/wireguard/device.ts";
import type { DeviceSink, MessageKind, Tunnel } from "../../src/wireguard/tunnel.ts";

export interface EndOptions {
  readonly crypto: "native" | "portable";
  readonly family: "udp4" | "udp6";
  /** Base64. */
  readonly privateKey: string;
  readonly peerPublicKey: string;
  readonly presharedKey?: string;
  /** Of the other end; absent: learned from its first message. */
  readonly endpoint?: string;
  /** Source and destination of the echo requests to send, one pair for each family. */
  readonly pings: readonly (readonly [source: string, destination: string])[];
}

export interface EndReport {
  readonly counters: Readonly<Record<string, number>>;
  readonly pingsSent: number;
  readonly pongsReceived: number;
  readonly echoesAnswered: number;
  readonly endpoint: string | undefined;
  readonly sessions: readonly string[];
}

const PACKET_AT = 16;
const options = JSON.parse(process.argv[2] ?? "") as EndOptions;
const clock = new SystemClock();
const socket = createSocket({ type: options.family, ipv6Only: options.family === "udp6" });
const crypto = options.crypto === "native" ? chooseCrypto({ require: "native" }).crypto : new PortableCrypto();
const privateKey = fromBase64(options.privateKey)!;
const sessions: string[] = [];
let pingsSent = 0;
let pongsReceived = 0;
let echoesAnswered = 0;
let timer: NodeJS.Timeout | undefined;

const sink: DeviceSink<string> = {
  sendDatagram(
    _nowMs: number,
    tunnel: Tunnel<string> | undefined,
    to: Endpoint | undefined,
    _kind: MessageKind,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const endpoint = to ?? tunnel?.endpoint;
    if (endpoint === undefined) return;
    socket.send(Buffer.from(buffer.slice(offset, offset + length)), endpoint.port, formatAddress(endpoint.address));
  },
  sessionStarted: (_nowMs, _tunnel, role) => void sessions.push(role),
  handshakeFailed: () => void sessions.push("failed"),
  endpointChanged: () => undefined,
};

const device = new Device<string>({
  crypto,
  random: osRandom,
  keyPair: { privateKey, publicKey: crypto.publicKey(privateKey) },
  sink,
  mtuBytes: 1420,
});
const endpoint = options.endpoint === undefined ? undefined : parseEndpoint(options.endpoint);
const added = device.addPeer(clock.nowMs(), {
  owner: "wireguard-go",
  publicKey: fromBase64(options.peerPublicKey)!,
  ...(options.presharedKey === undefined ? {} : { presharedKey: fromBase64(options.presharedKey)! }),
  ...(endpoint === undefined ? {} : { endpoint }),
});
if (typeof added === "string") throw new Error(added);
const tunnel = added;

function arm(): void {
  clearTimeout(timer);
  const delayMs = device.nextDeadlineMs() - clock.nowMs();
  if (delayMs === Number.POSITIVE_INFINITY) return;
  timer = setTimeout(
    () => {
      device.handleTimeout(clock.nowMs());
      arm();
    },
    Math.max(0, Math.ceil(delayMs)),
  );
}

/** RFC 4443 §2.3: with the pseudo-header, for which the addresses of the packet itself serve. */
function checksumIcmp6(buffer: Uint8Array, at: number, length: number): number {
  return foldChecksum(sumBytes(buffer, at + 40, length - 40, sumBytes(buffer, at + 8, 32, length - 40 + 58)));
}

function swap(buffer: Uint8Array, a: number, b: number, length: number): void {
  const first = buffer.slice(a, a + length);
  buffer.copyWithin(a, b, b + length);
  buffer.set(first, b);
}

/** Turns an echo request into its reply, in place, and sends it; counts replies to our own. */
function handlePacket(buffer: Uint8Array, at: number, padded: number): void {
  const v4 = buffer[at]! >> 4 === 4;
  const length = v4 ? readU16(buffer, at + 2) : readU16(buffer, at + 4) + 40;
  const headerBytes = v4 ? 20 : 40;
  if (length > padded || buffer[v4 ? at + 9 : at + 6] !== (v4 ? 1 : 58)) return;
  const icmpAt = at + headerBytes;
  const sum = v4 ? checksumOf(buffer, icmpAt, length - headerBytes) : checksumIcmp6(buffer, at, length);
  if (sum !== 0) throw new Error("a packet came out of the tunnel damaged");
  const type = buffer[icmpAt];
  if (type === (v4 ? 0 : 129)) pongsReceived++;
  if (type !== (v4 ? 8 : 128)) return;
  echoesAnswered++;
  if (v4) swap(buffer, at + 12, at + 16, 4);
  else swap(buffer, at + 8, at + 24, 16);
  buffer[icmpAt] = v4 ? 0 : 129;
  writeU16(buffer, icmpAt + 2, 0);
  writeU16(
    buffer,
    icmpAt + 2,
    v4 ? checksumOf(buffer, icmpAt, length - headerBytes) : checksumIcmp6(buffer, at, length),
  );
  const room = new Uint8Array(length + 48);
  room.set(buffer.subarray(at, at + length), PACKET_AT);
  device.send(clock.nowMs(), tunnel, room, PACKET_AT, length);
}

function sendPing(source: string, destination: string): void {
  const [from, to] = [parseAddress(source)!, parseAddress(destination)!];
  const v4 = isV4(from);
  const headerBytes = v4 ? 20 : 40;
  const length = headerBytes + 8 + 56;
  const buffer = new Uint8Array(length + 48);
  const at = PACKET_AT;
  if (v4) {
    buffer.set([0x45, 0, 0, length, 0, 0, 0x40, 0, 64, 1], at);
    writeU32(buffer, at + 12, from.w3);
    writeU32(buffer, at + 16, to.w3);
    writeU16(buffer, at + 10, checksumOf(buffer, at, 20));
  } else {
    buffer.set([0x60, 0, 0, 0, 0, length - 40, 58, 64], at);
    for (const [i, word] of [from.w0, from.w1, from.w2, from.w3, to.w0, to.w1, to.w2, to.w3].entries()) {
      writeU32(buffer, at + 8 + 4 * i, word);
    }
  }
  const icmpAt = at + headerBytes;
  buffer[icmpAt] = v4 ? 8 : 128;
  writeU16(buffer, icmpAt + 6, ++pingsSent);
  writeU16(
    buffer,
    icmpAt + 2,
    v4 ? checksumOf(buffer, icmpAt, length - headerBytes) : checksumIcmp6(buffer, at, length),
  );
  device.send(clock.nowMs(), tunnel, buffer, at, length);
}

function report(): void {
  const line: EndReport = {
    counters: device.counters,
    pingsSent,
    pongsReceived,
    echoesAnswered,
    endpoint: tunnel.endpoint === undefined ? undefined : formatAddress(tunnel.endpoint.address),
    sessions,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

socket.on("message", (datagram, from) => {
  const bytes = new Uint8Array(datagram.buffer, datagram.byteOffset, datagram.length); // a Buffer's slice() is a view
  const address = parseAddress(from.address);
  if (address === undefined) return;
  const received = device.receive(clock.nowMs(), { address, port: from.port }, bytes, 0, bytes.length);
  if (received.kind === "DATA") handlePacket(bytes, received.offset, received.length);
  arm();
});
socket.bind(51_820, () => {
  process.stdout.write(`${JSON.stringify({ ready: socket.address().port })}\n`);
  setInterval(() => {
    for (const [source, destination] of options.pings) sendPing(source, destination);
    arm();
    report();
  }, 1000);
});
