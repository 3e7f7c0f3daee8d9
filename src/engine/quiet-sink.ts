// What an engine tells beside packets, where nobody asks.
import type { EngineSink } from "./engine.ts";

const nothing = (): void => undefined;

export const quietSink: Omit<EngineSink, "sendDatagram" | "deliverPacket"> = {
  denied: nothing,
  deniedByPeer: nothing,
  flowEnded: nothing,
  tunnelWanted: nothing,
  tunnelUp: nothing,
  tunnelFailed: nothing,
};
