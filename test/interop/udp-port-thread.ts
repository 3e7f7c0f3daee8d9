// Opens a rootless peer's port in a thread, tells of what kind it is, and leaves it open.
import { parentPort } from "node:worker_threads";
import { openPacketArena } from "../../src/io/packet-arena.ts";
import { openUdpPort } from "../../src/io/udp-port.ts";

const receiver = { onDatagram: () => undefined, onBurst: (give: () => void) => give() };
const { udp, reason } = await openUdpPort(0, receiver, openPacketArena()?.arena);
parentPort!.postMessage({ kind: udp.kind, reason });
