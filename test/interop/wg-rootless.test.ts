// Two `wirebadge wg` without root in one process, joined by UDP on loopback: a forward, the tunnel, an exposed port.
import { randomBytes as chance, createHash } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { pino } from "pino";
import { expect, onTestFinished, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { type RunningWg, startWgMode } from "../../src/peer/wg-mode.ts";

const BYTES = 3_000_000;

function freeUdpPort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** Answers a connection's bytes with the same, when they have ended. */
async function echoServer(): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, async (socket) => {
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    socket.end(Buffer.concat(chunks));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return server;
}

async function pair(extra: string, target: number): Promise<{ near: RunningWg; far: RunningWg }> {
  const crypto = new PortableCrypto();
  const keys = [new Uint8Array(chance(32)), new Uint8Array(chance(32))];
  const ports = [await freeUdpPort(), await freeUdpPort()];
  const start = async (own: 0 | 1, exposes: string[], forwards: string[]): Promise<RunningWg> => {
    const peer = 1 - own;
    const running = await startWgMode({
      configText: `[Interface]
PrivateKey = ${toBase64(keys[own]!)}
Address = 10.9.0.${own + 1}
ListenPort = ${ports[own]}
${extra}
[Peer]
PublicKey = ${toBase64(crypto.publicKey(keys[peer]!))}
AllowedIPs = 10.9.0.${peer + 1}
Endpoint = 127.0.0.1:${ports[peer]}
`,
      ...{ fileName: "test.conf", socks: undefined, forwards, exposes, ignoreHooks: false, requireNative: false },
      logger: pino({ level: "silent" }),
    });
    onTestFinished(() => running.stop());
    return running;
  };
  const far = await start(1, [`127.0.0.1:${target}=7000`], []);
  return { near: await start(0, [], ["127.0.0.1:0=10.9.0.2:7000"]), far };
}

const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

test.each(["", "MTU = 1280", "MTU = 8920"])("3 MB there and back by hash: %j in both files", async (extra) => {
  const server = await echoServer();
  const { near } = await pair(extra, (server.address() as AddressInfo).port);
  const at = near.entryPoints.find(({ kind }) => kind === "forward")!;
  const socket = connect({ port: Number(at.listen.split(":")[1]), host: "127.0.0.1", allowHalfOpen: true });
  const sent = chance(BYTES);
  socket.end(sent);
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  expect(hashOf(Buffer.concat(chunks))).toBe(hashOf(sent));
});
