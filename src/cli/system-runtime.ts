// The real runtime: each part of the program is loaded when its command runs, so that `wirebadge status` starts fast.
import { AssertionError } from "../base/assert.ts";
import { AdminClient } from "./admin-client.ts";
import type { Runtime } from "./runtime.ts";

export function systemRuntime(): Runtime {
  const absent = async (): Promise<never> => {
    throw new AssertionError("this part is not in the build");
  };
  return {
    signals: process,
    adminClient: (options) => new AdminClient(options),
    startCoordinator: absent,
    startPeer: absent,
    startWgMode: absent,
    localApi: absent,
  };
}
