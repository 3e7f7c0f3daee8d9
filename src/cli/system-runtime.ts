// The real runtime: each part of the program is loaded when its command runs, so that `wirebadge status` starts fast.
import type { Logger } from "pino";
import { AdminClient } from "./admin-client.ts";
import type { CoordinatorReady, CoordinatorStart, Runtime, WgReady, WgStart } from "./runtime.ts";

/** A coordinator ends by its signal alone. */
async function startCoordinator(options: CoordinatorStart): Promise<CoordinatorReady> {
  const { startCoordinator: start } = await import("../coordinator/coordinator.ts");
  const { SystemClock } = await import("../io/clock.ts");
  const { chooseCrypto } = await import("../io/crypto-choice.ts");
  const { osRandom } = await import("../io/os-random.ts");
  const { SOFTWARE } = await import("../io/version.ts");
  const coordinator = await start({
    ...options,
    clock: new SystemClock(),
    crypto: chooseCrypto({}).crypto,
    random: osRandom,
    software: SOFTWARE,
  });
  return { ...coordinator, stop: () => coordinator.stop(), stopped: new Promise(() => undefined) };
}

async function startWgMode(options: WgStart): Promise<WgReady> {
  const { tun } = options;
  if (tun === undefined) return await (await import("../peer/wg-mode.ts")).startWgMode(options);
  const { startWgTunMode, tunNameOf } = await import("../peer/wg-tun-mode.ts");
  const tunName = tunNameOf(tun === "" ? options.fileName : tun);
  return await startWgTunMode({ ...options, tunName, env: process.env });
}

/** What the start alone needed is given back, later what grew. */
async function started<T>(running: T, logger: Logger): Promise<T> {
  const { keepMemoryLean } = await import("../io/ffi/lean-memory.ts");
  keepMemoryLean(logger);
  return running;
}

export function systemRuntime(): Runtime {
  return {
    signals: process,
    adminClient: (options) => new AdminClient(options),
    startCoordinator,
    startPeer: async (options) =>
      await started(await (await import("../peer/peer.ts")).startPeer(options), options.logger),
    startWgMode: async (options) => await started(await startWgMode(options), options.logger),
    localApi: async (stateDir) => {
      const { LocalApiClient } = await import("../peer/local-api-client.ts");
      const { defaultStateRoot } = await import("../peer/state.ts");
      return await LocalApiClient.find(defaultStateRoot(process.env), stateDir);
    },
  };
}
