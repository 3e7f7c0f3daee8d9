// One end of a tunnel as a process of its own, to be run inside a namespace: a Device on a dgram socket that answers
// echo requests and, when told to, sends one of each pair every second. Talks JSON lines: on stdout {"ready":port},
// then a report every second; on stdin an EndCommand a line. our-end.ts starts it.
import { createSocket } from "node:dgram";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { type Endpoint, formatAddress, parseAddress, parseEndpoint } from "../../src/base/address.ts";
import { fromBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { SystemClock, stopwatch } from "../../src/io/clock.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { Device } from "../../src/wireguard/device.ts";
import type { DeviceSink, MessageKind, Tunnel } from "../../src/wireguard/tunnel.ts";
import { classifyEcho, innerLength, makeReply, writeRequest } from "./echo.ts";

/** Keys in base64. */
export interface EndPeer {
  readonly peerPublicKey: string;
  readonly presharedKey?: string;
  /** Of the other end; absent: learned from its first message. */
  readonly endpoint?: string;
}

export interface EndOptions extends EndPeer {
  readonly crypto: "native" | "portable";
  readonly family: "udp4" | "udp6";
  readonly privateKey: string;
  readonly mtuBytes?: number;
  /** What a handshake message costs, by the stopwatch, instead of what it does: a slow machine is soon under load. */
  readonly handshakeCostMs?: number;
  /** Source and destination of the echo requests to send each second. */
  readonly pings: readonly (readonly [source: string, destination: string])[];
}

export type EndCommand =
  /** Other keys or another endpoint for the one peer; another public key makes it another peer. */
  | { readonly kind: "peer"; readonly peer: EndPeer }
  | { readonly kind: "handshake" }
  /** One echo request of each length. */
  | {
      readonly kind: "sweep";
      readonly source: string;
      readonly destination: string;
      readonly from: number;
      readonly to: number;
    }
  /** Packets of these lengths that are none: zeros. */
  | { readonly kind: "junk"; readonly lengths: readonly number[] };

/** How a message was padded that came: to 16 bytes but never over the MTU, not at all, or otherwise. */
export type Padding = "to 16" | "none" | "other";

export interface EndReport {
  readonly counters: Readonly<Record<string, number>>;
  readonly pingsSent: number;
  readonly pongsReceived: number;
  readonly echoesAnswered: number;
  readonly endpoint: string | undefined;
  readonly sessions: readonly string[];
  /** Of messages whose length shows it: not a multiple of 16. */
  readonly paddings: Readonly<Record<Padding, number>>;
  /** Of our data messages, as a datagram. */
  readonly largestSentBytes: number;
  readonly sweepsDone: number;
}

const PACKET_AT = 16;
const PING_BYTES = 84;
const SWEEP_PAUSE_MS = 4;
const options = JSON.parse(process.argv[2] ?? "") as EndOptions;
const mtuBytes = options.mtuBytes ?? 1420;
const clock = new SystemClock();
const socket = createSocket({ type: options.family, ipv6Only: options.family === "udp6", recvBufferSize: 1 << 20 });
const crypto = options.crypto === "native" ? chooseCrypto({ require: "native" }).crypto : new PortableCrypto();
const privateKey = fromBase64(options.privateKey)!;
const sessions: string[] = [];
const paddings: Record<Padding, number> = { "to 16": 0, none: 0, other: 0 };
let pingsSent = 0;
let pongsReceived = 0;
let echoesAnswered = 0;
let largestSentBytes = 0;
let sweepsDone = 0;
let timer: NodeJS.Timeout | undefined;

const sink: DeviceSink<string> = {
  sendDatagram(
    _nowMs: number,
    to_: Tunnel<string> | undefined,
    to: Endpoint | undefined,
    kind: MessageKind,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const endpoint = to ?? to_?.endpoint;
    if (kind === "data") largestSentBytes = Math.max(largestSentBytes, length);
    if (endpoint === undefined) return;
    socket.send(Buffer.from(buffer.slice(offset, offset + length)), endpoint.port, formatAddress(endpoint.address));
  },
  sessionStarted: (_nowMs, _tunnel, role) => void sessions.push(role),
  handshakeFailed: () => void sessions.push("failed"),
  endpointChanged: () => undefined,
};

const keyPair = { privateKey, publicKey: crypto.publicKey(privateKey) };
const { handshakeCostMs } = options;
let spentMs = 0;
const costly = (cost: number) => (): number => {
  spentMs += cost; // asked before and after each message
  return spentMs;
};
const device = new Device<string>({
  crypto,
  random: osRandom,
  keyPair,
  sink,
  mtuBytes,
  stopwatch: handshakeCostMs === undefined ? stopwatch : costly(handshakeCostMs),
});

function setPeer(peer: EndPeer): Tunnel<string> {
  const publicKey = fromBase64(peer.peerPublicKey)!;
  const presharedKey = peer.presharedKey === undefined ? undefined : fromBase64(peer.presharedKey)!;
  const endpoint = peer.endpoint === undefined ? undefined : parseEndpoint(peer.endpoint);
  const known = device.tunnelByKey(publicKey);
  if (known !== undefined) {
    device.updatePeer(clock.nowMs(), known, { presharedKey, ...(endpoint === undefined ? {} : { endpoint }) });
    return known;
  }
  for (const other of [...device.tunnels()]) device.removePeer(other.publicKey);
  const added = device.addPeer(clock.nowMs(), {
    owner: "stock",
    publicKey,
    ...(presharedKey === undefined ? {} : { presharedKey }),
    ...(endpoint === undefined ? {} : { endpoint }),
  });
  if (typeof added === "string") throw new Error(added);
  return added;
}

let tunnel = setPeer(options);

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

function notePadding(length: number, padded: number): void {
  if (length % 16 === 0) return;
  if (padded === Math.min((length + 15) & -16, mtuBytes)) paddings["to 16"]++;
  else paddings[padded === length ? "none" : "other"]++;
}

/** Answers an echo request; counts replies to our own. */
function handlePacket(buffer: Uint8Array, at: number, padded: number): void {
  const length = innerLength(buffer, at);
  if (length > padded) return;
  notePadding(length, padded);
  const what = classifyEcho(buffer, at, length);
  if (what === "reply") pongsReceived++;
  if (what !== "request") return;
  echoesAnswered++;
  makeReply(buffer, at, length);
  const room = new Uint8Array(length + 48);
  room.set(buffer.subarray(at, at + length), PACKET_AT);
  device.send(clock.nowMs(), tunnel, room, PACKET_AT, length);
}

function sendPing(source: string, destination: string, length = PING_BYTES): void {
  const buffer = new Uint8Array(length + 48);
  writeRequest(buffer, PACKET_AT, length, { source, destination, sequence: ++pingsSent });
  device.send(clock.nowMs(), tunnel, buffer, PACKET_AT, length);
}

async function obey(command: EndCommand): Promise<void> {
  if (command.kind === "peer") tunnel = setPeer(command.peer);
  else if (command.kind === "handshake") device.startHandshake(clock.nowMs(), tunnel);
  else if (command.kind === "junk") {
    for (const length of command.lengths) {
      device.send(clock.nowMs(), tunnel, new Uint8Array(length + 48), PACKET_AT, length);
    }
  } else {
    for (let length = command.from; length <= command.to; length++) {
      sendPing(command.source, command.destination, length);
      await delay(SWEEP_PAUSE_MS);
    }
    sweepsDone++;
  }
  arm();
}

function report(): void {
  const line: EndReport = {
    counters: device.counters,
    pingsSent,
    pongsReceived,
    echoesAnswered,
    endpoint: tunnel.endpoint === undefined ? undefined : formatAddress(tunnel.endpoint.address),
    sessions,
    paddings,
    largestSentBytes,
    sweepsDone,
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
createInterface({ input: process.stdin }).on("line", (line) => void obey(JSON.parse(line) as EndCommand));
socket.bind(51_820, () => {
  process.stdout.write(`${JSON.stringify({ ready: socket.address().port })}\n`);
  setInterval(() => {
    for (const [source, destination] of options.pings) sendPing(source, destination);
    arm();
    report();
  }, 1000);
});
