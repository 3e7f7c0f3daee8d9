// Our engine and stack as a process of its own, to be run inside a namespace, with a second tunnel inside the first
// when told to. Pings, and hashes what a TCP client sends it. Talks JSON lines: {"ready":true}, then an
// EngineReport each second on stdout; on stdin {"peers":[…]} replaces the peers of the outer tunnel.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { parseEndpoint } from "../../src/base/address.ts";
import type { TcpConnection } from "../../src/netstack/contract.ts";
import { EngineStack, hostPort, type StackOptions, type StackPeer } from "./engine-stack.ts";

export interface EngineEndOptions {
  readonly outer: StackOptions & { readonly peers: readonly StackPeer[] };
  /** `local`: its UDP port, an address of the outer tunnel. */
  readonly inner?: StackOptions & { readonly peers: readonly StackPeer[]; readonly local: string };
  /** Each second, from the innermost tunnel. */
  readonly pings: readonly (readonly [source: string, destination: string])[];
}

export interface EngineReport {
  readonly pingsSent: number;
  readonly pongsReceived: number;
  readonly outer: Readonly<Record<string, number>>;
  readonly inner: Readonly<Record<string, number>> | undefined;
}

const OUTER_PORT = 51_820;
const PING_EVERY_MS = 250;
const SINK_PORT = 7000;
const options = JSON.parse(process.argv[2] ?? "") as EngineEndOptions;

/** Answers each connection with the SHA-256 of all it sent. */
function listen(end: EngineStack): void {
  for (const address of end.addresses) {
    end.stack.listenTcp({ address, port: SINK_PORT }, (connection) => serve(end, connection));
  }
}

function serve(end: EngineStack, connection: TcpConnection): void {
  const hash = createHash("sha256");
  connection.handler = {
    readable: () =>
      end.driver.turn((nowMs) => {
        for (let bytes = connection.read(nowMs, 65_536); bytes !== undefined; ) {
          hash.update(bytes);
          bytes = connection.read(nowMs, 65_536);
        }
        if (!connection.remoteEnded) return;
        connection.write(nowMs, Buffer.from(hash.digest("hex")));
        connection.end(nowMs);
      }),
    writable: () => undefined,
    closed: () => undefined,
  };
}

const outer = await EngineStack.start(options.outer, hostPort(OUTER_PORT));
outer.apply(options.outer.peers);
listen(outer);
let inner: EngineStack | undefined;
if (options.inner !== undefined) {
  const local = parseEndpoint(options.inner.local)!;
  inner = await EngineStack.start(options.inner, (receive) => outer.portInside(local, receive));
  inner.apply(options.inner.peers);
  listen(inner);
}
process.stdout.write('{"ready":true}\n');
createInterface({ input: process.stdin }).on("line", (line) => {
  outer.apply((JSON.parse(line) as { peers: StackPeer[] }).peers);
});
const pinger = inner ?? outer;
for (let round = 1; ; round++) {
  for (const [source, destination] of options.pings) pinger.ping(source, destination);
  await delay(PING_EVERY_MS);
  if (round % (1000 / PING_EVERY_MS) !== 0) continue;
  const report: EngineReport = {
    pingsSent: pinger.pingsSent,
    pongsReceived: pinger.pongsReceived,
    outer: outer.engine.counters(),
    inner: inner?.engine.counters(),
  };
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
