// Datagrams of every length to an echo server and back, compared byte for byte. A process of its own; arguments:
// `serve`, or HOST FROM TO. Prints "ready", or the lengths that did not come back as they went: a JSON array.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";

const PORT = 7_007;
const AT_ONCE = 16;
const WAIT_MS = 1_000;

const bytesOf = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, i) => i * 7 + length));

const [host = "", from = "", to = ""] = process.argv.slice(2);
if (host === "serve") {
  const socket = createSocket("udp6");
  socket.on("message", (datagram, sender) => socket.send(datagram, sender.port, sender.address));
  socket.bind(PORT, "::", () => process.stdout.write("ready\n"));
} else {
  const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
  const missing = new Set(Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i));
  socket.on("message", (datagram) => {
    if (datagram.equals(bytesOf(datagram.length))) missing.delete(datagram.length);
  });
  socket.bind(0);
  await once(socket, "listening");
  // What a busy machine loses is sent again, as long as that brings some of it.
  for (let before = Number.POSITIVE_INFINITY; missing.size > 0 && missing.size < before; ) {
    before = missing.size;
    for (const [i, length] of [...missing].entries()) {
      socket.send(bytesOf(length), PORT, host, () => undefined);
      if (i % AT_ONCE === 0) await delay(2);
    }
    for (const endMs = performance.now() + WAIT_MS; missing.size > 0 && performance.now() < endMs; ) await delay(10);
  }
  socket.close();
  process.stdout.write(`${JSON.stringify([...missing])}\n`);
}
