// A private service for tests, TCP and UDP on one port: answers each byte with itself and tells on standard output, a
// JSON line each, what has reached it. Arguments: HOST PORT (0 = any).
import { createSocket } from "node:dgram";
import { type AddressInfo, createServer } from "node:net";

const [host = "127.0.0.1", port = "0"] = process.argv.slice(2);

function tell(record: object): void {
  process.stdout.write(`${JSON.stringify(record)}\n`);
}

const server = createServer((socket) => {
  const from = `${socket.remoteAddress}:${socket.remotePort}`;
  tell({ protocol: "tcp", event: "opened", from });
  socket.on("data", (chunk) => {
    tell({ protocol: "tcp", event: "data", from, text: chunk.toString("latin1") });
    socket.write(chunk);
  });
  socket.on("error", () => undefined); // its close follows
  socket.on("close", () => tell({ protocol: "tcp", event: "closed", from }));
});

server.listen(Number(port), host, () => {
  const bound = (server.address() as AddressInfo).port;
  const udp = createSocket(host.includes(":") ? "udp6" : "udp4");
  udp.on("message", (bytes, from) => {
    tell({ protocol: "udp", event: "data", from: `${from.address}:${from.port}`, text: bytes.toString("latin1") });
    udp.send(bytes, from.port, from.address);
  });
  udp.bind(bound, host, () => tell({ event: "listening", port: bound }));
});
