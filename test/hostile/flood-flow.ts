// One end of a TCP flow that goes as fast as it can, a process of its own. Arguments: `serve HOST PORT`, or
// `up HOST PORT` / `down HOST PORT`, which connects to there. The end that receives says every 100 ms how many bytes
// came so far.
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

const CHUNK = Buffer.alloc(65_536, 0x5a);
const REPORT_MS = 100;

export interface FlowReport {
  readonly atMs: number;
  readonly bytes: number;
}

function pour(socket: Socket): void {
  const fill = (): void => {
    while (socket.writable && socket.write(CHUNK));
  };
  socket.on("drain", fill);
  fill();
}

function count(socket: Socket): void {
  let bytes = 0;
  socket.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  const timer = setInterval(() => {
    process.stdout.write(`${JSON.stringify({ atMs: performance.now(), bytes } satisfies FlowReport)}\n`);
  }, REPORT_MS);
  socket.on("close", () => clearInterval(timer));
}

const [role, host, port] = process.argv.slice(2);
if (role === "serve") {
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.once("data", (first: Buffer) => (first[0] === 1 ? pour(socket) : count(socket)));
  }).listen(Number(port), host!, () => {
    process.stdout.write(`${JSON.stringify({ ready: (server.address() as AddressInfo).port })}\n`);
  });
} else {
  const socket = connect(Number(port), host!, () => {
    socket.write(Uint8Array.of(role === "down" ? 1 : 2));
    if (role === "down") count(socket);
    else pour(socket);
  });
  socket.on("error", (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}
