// The real runtime: each part of the program is loaded when its command runs, so that `wirebadge status` starts fast.
import { AssertionError } from "../base/assert.ts";
import { AdminClient } from "./admin-client.ts";
import type { CoordinatorReady, CoordinatorStart, Runtime } from "./runtime.ts";
import { SOFTWARE } from "./version.ts";

export function systemRuntime(): Runtime {
  const absent = async (): Promise<never> => {
    throw new AssertionError("this part is not in the build");
  };
  return {
    signals: process,
    adminClient: (options) => new AdminClient(options),
    startCoordinator: runCoordinator,
    startPeer: absent,
    startWgMode: absent,
    localApi: async (stateDir) => {
      const { LocalApiClient } = await import("../peer/local-api-client.ts");
      const { defaultStateRoot } = await import("../peer/state.ts");
      return LocalApiClient.find(defaultStateRoot(process.env), stateDir);
    },
  };
}

async function runCoordinator(start: CoordinatorStart): Promise<CoordinatorReady> {
  const { startCoordinator } = await import("../coordinator/coordinator.ts");
  const { SystemClock } = await import("../io/clock.ts");
  const { chooseCrypto } = await import("../io/crypto-choice.ts");
  const { osRandom } = await import("../io/os-random.ts");
  const { crypto } = chooseCrypto();
  const running = await startCoordinator({
    ...start,
    clock: new SystemClock(),
    crypto,
    random: osRandom,
    software: SOFTWARE,
  });
  const { url, adminUrl, adminTokenFile, networkId } = running;
  // It ends when it is told to and at no other time.
  const stopped = new Promise<undefined>(() => undefined);
  return { url, adminUrl, adminTokenFile, networkId, stop: () => running.stop(), stopped };
}
