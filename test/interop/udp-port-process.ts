// A process that opens a port of the kind that it is told, and ends when nothing keeps it alive any more.
import { DgramUdpPort } from "../../src/io/dgram-udp-port.ts";
import { NativeUdpPort } from "../../src/io/native-udp-port.ts";
import { openPacketArena } from "../../src/io/packet-arena.ts";

const [kind, how] = process.argv.slice(2);
const receiver = { onDatagram: () => undefined, onBurst: (give: () => void) => give() };
const port =
  kind === "dgram" ? await DgramUdpPort.open(0, receiver) : NativeUdpPort.open(openPacketArena()!.arena, 0, receiver);
console.log("open");
process.on("exit", () => console.log("ends"));
if (how === "unref") port.unref();
setTimeout(() => {
  console.log("stays");
  void port.close();
}, 1_000).unref();
