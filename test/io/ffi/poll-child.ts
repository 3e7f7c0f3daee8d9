// Processes of their own for what can't be done to the test's. "signal": SIGALRM comes 100 ms into a wait of 3 s, to
// the thread that polls. "many": more descriptors than the process may have.
import { Arena } from "../../../src/io/ffi/arena.ts";
import { EventFd } from "../../../src/io/ffi/event-fd.ts";
import { bindNative } from "../../../src/io/ffi/koffi.ts";
import { Poller } from "../../../src/io/ffi/poller.ts";

const ITIMER_REAL = 0;
const arena = new Arena(65_536);
const event = EventFd.create();

function waitInterrupted(): unknown {
  process.on("SIGALRM", () => undefined);
  const at = arena.allocateAt(32); // struct itimerval: interval 16 B, value { seconds 8 B, microseconds 8 B }
  arena.words[at / 4 + 6] = 100_000;
  const poller = new Poller(arena, [event.fd]);
  event.signal();
  const before = [poller.wait(0), poller.events(0)];
  event.drain();
  bindNative("setitimer", "int", "int", "uintptr_t", "uintptr_t")(ITIMER_REAL, arena.baseAddress + at, 0);
  const begunMs = performance.now();
  const interrupted = [poller.wait(3_000), poller.events(0)];
  return { before, interrupted, waitedMs: performance.now() - begunMs };
}

function waitForTooMany(): unknown {
  try {
    return new Poller(arena, new Array<number>(Number(process.argv[3])).fill(event.fd)).wait(0);
  } catch (error) {
    return { ...(error as object), message: String(error) };
  }
}

process.stdout.write(JSON.stringify(process.argv[2] === "signal" ? waitInterrupted() : waitForTooMany()));
