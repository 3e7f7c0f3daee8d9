// Sends handshake initiations with a valid mac1 that nobody can have made in earnest (random beyond it), from many
// addresses and ports, in bursts, and counts the cookie replies that come back. A process of its own; prints a
// FloodReport a line, each second. Argument: FloodOptions as JSON.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { parseAddress } from "../../src/base/address.ts";
import { fromBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { INITIATION_BYTES, TYPE_COOKIE_REPLY, TYPE_INITIATION } from "../../src/wire/wireguard.ts";
import { CookieAsker } from "../../src/wireguard/cookies.ts";

export interface FloodOptions {
  /** Where to, with port. */
  readonly host: string;
  readonly port: number;
  /** Of the device there, base64. */
  readonly publicKey: string;
  /** Addresses of this machine to send from. */
  readonly sources: readonly string[];
  readonly socketsPerSource: number;
  readonly burst: number;
  readonly everyMs: number;
}

export interface FloodReport {
  readonly sent: number;
  /** Since the last report. */
  readonly cookies: number;
  /** Anything else that came back, in all. */
  readonly others: number;
}

const MESSAGES = 512;

function newMessages(publicKey: string): Uint8Array[] {
  const asker = new CookieAsker(new PortableCrypto(), fromBase64(publicKey)!);
  return Array.from({ length: MESSAGES }, () => {
    const message = new Uint8Array(INITIATION_BYTES);
    osRandom.fill(message);
    message.set([TYPE_INITIATION, 0, 0, 0], 0);
    message.fill(0, INITIATION_BYTES - 16); // no mac2
    asker.addMacs(0, message);
    return message;
  });
}

if (process.argv[1] === import.meta.filename) {
  const options = JSON.parse(process.argv[2] ?? "") as FloodOptions;
  const messages = newMessages(options.publicKey);
  const type = options.host.includes(":") ? "udp6" : "udp4";
  if (parseAddress(options.host) === undefined) throw new Error(options.host);
  let [sent, cookies, others] = [0, 0, 0];
  const sockets = await Promise.all(
    options.sources.flatMap((source) =>
      Array.from({ length: options.socketsPerSource }, async () => {
        const socket = createSocket({ type, recvBufferSize: 1 << 20 });
        socket.on("message", (bytes) => {
          if (bytes[0] === TYPE_COOKIE_REPLY && bytes.length === 64) cookies++;
          else others++;
        });
        socket.bind(0, source);
        await once(socket, "listening");
        socket.connect(options.port, options.host);
        await once(socket, "connect");
        return socket;
      }),
    ),
  );
  setInterval(() => {
    for (let i = 0; i < options.burst; i++) {
      sockets[sent % sockets.length]!.send(messages[sent % MESSAGES]!, () => undefined); // lost: as in a network
      sent++;
    }
  }, options.everyMs);
  setInterval(() => {
    process.stdout.write(`${JSON.stringify({ sent, cookies, others } satisfies FloodReport)}\n`);
    cookies = 0;
  }, 1000);
}
