// One of the quickstart's private services: a plain HTTP server that knows nothing of Wirebadge but one command, by
// which it asks the gateway beside it who is calling. Arguments: NAME HOST PORT GATEWAY-STATE-FOLDER.
import { execFile } from "node:child_process";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { WIREBADGE } from "./processes.ts";

const [name = "service", host = "127.0.0.1", port = "0", gatewayState = ""] = process.argv.slice(2);

function tell(event: object): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** `wirebadge whois IP:PORT` of the connection as it is seen here; null when the gateway doesn't know it. */
function whoCalls(incoming: IncomingMessage): Promise<unknown> {
  const of = `${incoming.socket.remoteAddress}:${incoming.socket.remotePort}`;
  const words = ["whois", of, "--state", gatewayState, "--json"];
  return new Promise((resolve) => {
    execFile(process.execPath, [WIREBADGE, ...words], (error, stdout) => {
      resolve(error === null ? JSON.parse(stdout) : null);
    });
  });
}

const received = { bytes: 0, lastByteNs: 0n, lastByteMs: 0, open: 0 };

function takeStream(incoming: IncomingMessage, response: ServerResponse): void {
  received.open += 1;
  incoming.on("data", (chunk: Buffer) => {
    received.lastByteNs = process.hrtime.bigint();
    received.lastByteMs = Date.now();
    received.bytes += chunk.length;
  });
  incoming.once("close", () => {
    received.open -= 1;
  });
  incoming.once("end", () => response.end());
  incoming.once("error", () => response.destroy()); // cut: that is what the quickstart measures
}

const server = createServer((incoming, response) => {
  if (incoming.method === "POST") return takeStream(incoming, response);
  void whoCalls(incoming).then((caller) => {
    response.setHeader("content-type", "application/json");
    response.end(`${JSON.stringify({ service: name, caller })}\n`);
  });
});

server.listen(Number(port), host, () => {
  tell({ event: "listening", port: (server.address() as AddressInfo).port });
});
createInterface({ input: process.stdin })
  .on("line", (id) => tell({ event: "received", id, ...received, lastByteNs: String(received.lastByteNs) }))
  .on("close", () => process.exit(0));
