// The packet thread in small: blocked in poll(2) on an eventfd that another thread signals. Tells what it saw.
import { parentPort, workerData } from "node:worker_threads";
import { Arena } from "../../../src/io/ffi/arena.ts";
import { EventFd } from "../../../src/io/ffi/event-fd.ts";
import { Poller } from "../../../src/io/ffi/poller.ts";

const { fd, timeoutMs } = workerData as { readonly fd: number; readonly timeoutMs: number };
const event = EventFd.of(fd);
const poller = new Poller(new Arena(64), [fd]);
parentPort!.postMessage("waiting");
const begunMs = performance.now();
const ready = poller.wait(timeoutMs);
const waitedMs = performance.now() - begunMs;
event.drain();
parentPort!.postMessage({ ready, events: poller.events(0), waitedMs, left: poller.wait(0) });
