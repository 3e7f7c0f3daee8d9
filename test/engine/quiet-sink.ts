// What an engine tells beside packets, for tests that don't ask.
import type { EngineSink } from "../../src/engine/engine.ts";

const nothing = (): void => undefined;

export const quietSink: Omit<EngineSink, "sendDatagram" | "deliverPacket"> = {
  denied: nothing,
  deniedByPeer: nothing,
  flowEnded: nothing,
  tunnelWanted: nothing,
  tunnelUp: nothing,
  tunnelFailed: nothing,
};
