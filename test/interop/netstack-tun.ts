// Runs inside a network namespace of its own: the userspace stack on one side of a TUN device, the kernel's sockets on
// the other, both in this process. Prints one line of JSON: scenario → what came out. netstack-linux.test.ts says what
// it must be.
import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { SeededRandom } from "../../src/base/random.ts";
import type { NetstackHandler, TcpOpening } from "../../src/netstack/contract.ts";
import { UserspaceStack } from "../../src/netstack/stack.ts";
import { PlainTun } from "./plain-tun.ts";
import { blocks, hashOf, hashOfBlocks, pourInto, StackEnd } from "./tcp-linux/ends.ts";
import { address, type Family } from "./tcp-linux/world.ts";

const DEVICE = "wbtest0";
const SEED = 11;
const BULK_BYTES = 24 * 1024 * 1024;
const FAMILIES = {
  v4: { stack: "10.99.0.2", kernel: "10.99.0.1" },
  v6: { stack: "fd99::2", kernel: "fd99::1" },
} as const;

const startMs = Date.now();
const nowMs = (): number => startMs + performance.now();
const tun = PlainTun.open(DEVICE);
run("ip", "addr", "add", "10.99.0.1/24", "dev", DEVICE);
run("ip", "addr", "add", "fd99::1/64", "dev", DEVICE, "nodad");
run("ip", "link", "set", DEVICE, "mtu", "1420", "up");

function run(command: string, ...args: string[]): string {
  const done = spawnSync(command, args, { encoding: "utf8" });
  return done.status === 0 ? done.stdout : `exit ${done.status}: ${done.stderr}`;
}

const handler: NetstackHandler = {
  output: (_nowMs, buffer, offset, length) => void tun.write(buffer.subarray(offset, offset + length)),
};
const stack = new UserspaceStack({ random: new SeededRandom(Date.now() | 0), mtuBytes: 1420, handler });
stack.setLocalAddresses([address("10.99.0.2"), address("fd99::2")]);

const packet = new Uint8Array(65_536);
let stopped = false;
function pump(): void {
  if (stopped) return;
  let count = 0;
  for (; count < 64; count++) {
    const length = tun.read(packet);
    if (length === 0) break;
    stack.handlePacket(nowMs(), packet, 0, length);
  }
  stack.handleTimeout(nowMs());
  if (count > 0) setImmediate(pump);
  else setTimeout(pump, 1);
}
pump();

function accept(family: Family, port: number, onSide: (side: StackEnd) => void): void {
  stack.listenTcp({ address: address(FAMILIES[family].stack), port }, (connection) => {
    onSide(new StackEnd({ stack, nowMs }, connection));
  });
}

function dial(family: Family, port: number): StackEnd {
  const side = new StackEnd({ stack, nowMs });
  const { stack: from, kernel } = FAMILIES[family];
  side.connection = stack.connectTcp(nowMs(), address(from), { address: address(kernel), port }, side)!;
  return side;
}

/** Both directions at once, the kernel as the client. */
async function bulkFromKernel(family: Family, port: number, totalBytes: number): Promise<string[]> {
  const theirs = Promise.withResolvers<string>();
  accept(family, port, (side) => {
    side.pour(blocks(totalBytes, SEED));
    side.ended.promise.then(theirs.resolve);
  });
  const socket = connect({ host: FAMILIES[family].stack, port, allowHalfOpen: true });
  const [ours] = await Promise.all([hashOf(socket), pourInto(socket, blocks(totalBytes, SEED))]);
  return [await theirs.promise, ours];
}

/** Both directions at once, the stack as the client. */
async function bulkFromStack(family: Family, totalBytes: number): Promise<string[]> {
  const theirs = Promise.withResolvers<string>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    hashOf(socket).then(theirs.resolve);
    void pourInto(socket, blocks(totalBytes, SEED));
  }).listen(0, FAMILIES[family].kernel);
  await once(server, "listening");
  const side = dial(family, (server.address() as { port: number }).port);
  await side.opened.promise;
  side.pour(blocks(totalBytes, SEED));
  const hashes = [await theirs.promise, await side.ended.promise];
  server.close();
  return [...hashes, await side.gone.promise];
}

/** The kernel ends its direction first and still gets the answer. */
async function halfClose(family: Family): Promise<string> {
  accept(family, 7001, (side) => {
    void side.ended.promise.then(() => {
      side.connection.write(nowMs(), Buffer.from("after the end"));
      side.connection.end(nowMs());
    });
  });
  const socket = connect({ host: FAMILIES[family].stack, port: 7001, allowHalfOpen: true });
  socket.end("question");
  let text = "";
  for await (const bytes of socket) text += String(bytes);
  return text;
}

async function kernelConnectError(family: Family, port: number): Promise<string> {
  const socket = connect({ host: FAMILIES[family].stack, port });
  const [error] = (await once(socket, "error")) as [NodeJS.ErrnoException];
  return error.code ?? "";
}

async function resets(): Promise<string[]> {
  let accepted: StackEnd | undefined;
  accept("v4", 7002, (side) => {
    accepted = side;
  });
  const first = connect({ host: FAMILIES.v4.stack, port: 7002 });
  await once(first, "connect");
  first.write("x");
  await delay(100);
  const failed = once(first, "error") as Promise<[NodeJS.ErrnoException]>;
  accepted!.connection.abort(nowMs());
  const kernelSaw = (await failed)[0].code ?? "";
  const second = connect({ host: FAMILIES.v4.stack, port: 7002 });
  await once(second, "connect");
  second.write("x");
  await delay(100);
  second.resetAndDestroy();
  return [kernelSaw, await accepted!.gone.promise];
}

async function udp(family: Family): Promise<number[]> {
  const { stack: own, kernel } = FAMILIES[family];
  const bound = stack.bindUdp({ address: address(own), port: 5353 })!;
  bound.onDatagram = (remote, bytes) => void bound.send(nowMs(), remote, bytes.slice()); // echo
  const socket = createSocket(family === "v4" ? "udp4" : "udp6");
  socket.bind(0, kernel);
  const sizes: number[] = [];
  for (const size of [0, 1, 1300, 5_000, 60_000]) {
    const bytes = Buffer.alloc(size, size & 255);
    const answered = once(socket, "message", { signal: AbortSignal.timeout(3_000) });
    socket.send(bytes, 5353, own);
    const [echo] = (await answered) as [Buffer];
    sizes.push(echo.equals(bytes) ? size : -1);
  }
  socket.close();
  bound.close();
  return sizes;
}

async function kernelUdpRefused(): Promise<string> {
  const socket = createSocket("udp4");
  socket.connect(9, FAMILIES.v4.stack);
  await once(socket, "connect");
  socket.send("x");
  const [error] = (await once(socket, "error", { signal: AbortSignal.timeout(3_000) })) as [NodeJS.ErrnoException];
  socket.close();
  return error.code ?? "";
}

async function ping(family: Family): Promise<boolean[]> {
  const { stack: own, kernel } = FAMILIES[family];
  const rtt = await new Promise<number>((resolve) => stack.ping(nowMs(), address(own), address(kernel), resolve));
  const { spawn } = await import("node:child_process");
  const child = spawn("ping", ["-c", "2", "-i", "0.2", "-W", "2", "-s", "3000", own], { stdio: "ignore" });
  const [code] = (await once(child, "close")) as [number];
  return [rtt >= 0 && rtt < 1_000, code === 0];
}

const decide = (choose: (opening: TcpOpening) => void): void => {
  handler.tcpOpening = choose;
};

const out: Record<string, unknown> = { expected: hashOfBlocks(BULK_BYTES, SEED) };
for (const family of ["v4", "v6"] as const) {
  out[`bulk from kernel ${family}`] = await bulkFromKernel(family, 7000, BULK_BYTES);
  out[`bulk from stack ${family}`] = await bulkFromStack(family, BULK_BYTES);
  out[`half-close ${family}`] = await halfClose(family);
  out[`refused by stack ${family}`] = await kernelConnectError(family, 9);
  out[`refused by kernel ${family}`] = await dial(family, 9).gone.promise;
  decide((opening) => opening.refuse(nowMs()));
  out[`opening refused ${family}`] = await kernelConnectError(family, 10);
  decide((opening) => setTimeout(() => opening.unreachable(nowMs(), "prohibited"), 1_200)); // past one retransmission
  out[`opening prohibited ${family}`] = await kernelConnectError(family, 11);
  decide((opening) => opening.unreachable(nowMs(), "host"));
  out[`opening unreachable ${family}`] = await kernelConnectError(family, 12);
  delete handler.tcpOpening;
  out[`udp ${family}`] = await udp(family);
  out[`ping ${family}`] = await ping(family);
}
out["resets"] = await resets();
out["udp refused"] = await kernelUdpRefused();
if (process.argv[2] === "loss") {
  const drop = (hook: string): string =>
    `add chain inet lossy ${hook} { type filter hook ${hook} priority 0; }
     add rule inet lossy ${hook} meta l4proto tcp numgen random mod 100 < 2 counter drop`;
  out["nft"] = run("nft", `add table inet lossy\n${drop("input")}\n${drop("output")}`);
  const lossyBytes = 2 * 1024 * 1024;
  out["expected lossy"] = hashOfBlocks(lossyBytes, SEED);
  out["lossy from kernel"] = await bulkFromKernel("v4", 7003, lossyBytes);
  out["lossy from stack"] = await bulkFromStack("v6", lossyBytes);
  out["lossy rules"] = run("nft", "list table inet lossy");
}
out["counters"] = Object.fromEntries(Object.entries(stack.counters).filter(([, value]) => value > 0));
stopped = true;
tun.close();
console.log(JSON.stringify(out));
process.exit(0);
