// Good peers that make handshakes with the victim of a flood, one after the other, each from an address of its own and
// as a process that was just started: no cookie, no session. A process of its own; its one argument is PeersOptions as
// JSON. Says {"ready":true}, begins at a line on stdin, and ends with a PeersReport. The timers are WireGuard's: an
// initiation that goes unanswered, or is answered by a cookie, is made again 5 s later.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { clearTimeout, setTimeout } from "node:timers";
import { setTimeout as delay } from "node:timers/promises";
import { formatAddress, isV4, parseAddress, parseEndpoint } from "../../src/base/address.ts";
import { fromBase64 } from "../../src/base/bytes.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { createNativeCrypto } from "../../src/io/native-crypto.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { Device } from "../../src/wireguard/device.ts";

export interface PeersOptions {
  /** Each friend takes the endpoint of its own family. */
  readonly victim: { readonly publicKey: string; readonly endpoints: readonly string[] };
  /** Private keys in base64. They take turns. */
  readonly peers: readonly { readonly privateKey: string; readonly address: string }[];
  readonly everyMs: number;
  readonly count: number;
}

export interface PeersReport {
  /** From the first initiation to the session, in the order of their beginning; null: none after 20 s. */
  readonly tookMs: readonly (number | null)[];
  readonly cookies: number;
}

const GIVE_UP_MS = 20_000;
const crypto = createNativeCrypto();
const clock = new SystemClock();
const stamps = new Map<string, Uint8Array>();
let cookies = 0;

/** One handshake; its time in ms. */
async function handshake(options: PeersOptions, number: number): Promise<number | null> {
  const peer = options.peers[number % options.peers.length]!;
  const isV6 = peer.address.includes(":");
  const to = options.victim.endpoints
    .map((text) => parseEndpoint(text)!)
    .find(({ address }) => isV4(address) !== isV6)!;
  const socket = createSocket(isV6 ? "udp6" : "udp4");
  socket.bind(0, peer.address);
  await once(socket, "listening");
  const privateKey = fromBase64(peer.privateKey)!;
  const lastTimestamp = stamps.get(peer.address);
  let finish: (tookMs: number | null) => void = () => undefined;
  const done = new Promise<number | null>((resolve) => {
    finish = resolve;
  });
  const device: Device<undefined> = new Device<undefined>({
    crypto,
    random: osRandom,
    keyPair: { privateKey, publicKey: crypto.publicKey(privateKey) },
    mtuBytes: 1420,
    sink: {
      sendDatagram: (_nowMs, _tunnel, _to, _kind, buffer, offset, length) =>
        socket.send(Buffer.from(buffer.slice(offset, offset + length)), to.port, formatAddress(to.address)),
      sessionStarted: () => finish(performance.now() - startMs),
      handshakeFailed: () => finish(null),
      endpointChanged: () => undefined,
    },
    ...(lastTimestamp === undefined ? {} : { lastTimestamp }),
  });
  const tunnel = device.addPeer(clock.nowMs(), {
    owner: undefined,
    publicKey: fromBase64(options.victim.publicKey)!,
    endpoint: to,
  });
  if (typeof tunnel === "string") throw new Error(tunnel);
  let timer: NodeJS.Timeout | undefined;
  const arm = (): void => {
    clearTimeout(timer);
    const delayMs = Math.min(device.nextDeadlineMs() - clock.nowMs(), GIVE_UP_MS);
    timer = setTimeout(
      () => {
        device.handleTimeout(clock.nowMs());
        arm();
      },
      Math.max(1, Math.ceil(delayMs)),
    );
  };
  socket.on("message", (bytes, info) => {
    const from = { address: parseAddress(info.address)!, port: info.port };
    device.receive(clock.nowMs(), from, new Uint8Array(bytes), 0, bytes.length);
    arm();
  });
  const startMs = performance.now();
  device.startHandshake(clock.nowMs(), tunnel);
  arm();
  const giveUp = setTimeout(() => finish(null), GIVE_UP_MS);
  const tookMs = await done;
  clearTimeout(giveUp);
  clearTimeout(timer);
  if (device.lastTimestamp !== undefined) stamps.set(peer.address, device.lastTimestamp);
  cookies += device.counters.COOKIES_RECEIVED;
  setTimeout(() => socket.close(), 100); // the confirming keepalive leaves first
  return tookMs;
}

async function main(): Promise<void> {
  const options = JSON.parse(process.argv[2] ?? "") as PeersOptions;
  process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
  await once(process.stdin, "data");
  const running: Promise<number | null>[] = [];
  for (let number = 0; number < options.count; number++) {
    running.push(handshake(options, number));
    await delay(options.everyMs);
  }
  const report: PeersReport = { tookMs: await Promise.all(running), cookies };
  process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exit(0);
}

if (process.argv[1] === import.meta.filename) await main();
