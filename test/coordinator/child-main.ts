// A coordinator in a process of its own, for tests that kill it or weigh it: prints its URLs once it is ready, as one
// line of JSON.
import { startCoordinator } from "../../src/coordinator/coordinator.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { osRandom } from "../../src/io/os-random.ts";

const [dataDir, listen] = process.argv.slice(2);
const quiet = (): void => undefined;
const coordinator = await startCoordinator({
  dataDir: dataDir!,
  listen: listen!,
  adminListen: "127.0.0.1:0",
  clock: new SystemClock(),
  logger: { info: quiet, debug: quiet, warn: quiet, error: (details, message) => console.error(message, details) },
  crypto: chooseCrypto().crypto,
  random: osRandom,
  software: "wirebadge test",
});
process.on("message", (message) => {
  if (message === "memory") {
    globalThis.gc?.();
    process.send?.(process.memoryUsage().rss);
  }
});
process.send?.({ url: coordinator.url, adminUrl: coordinator.adminUrl });
