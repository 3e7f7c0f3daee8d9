// The outer UDP port of a peer in Node's own event loop: by native calls (native-udp-port.ts) or by Node's dgram
// (dgram-udp-port.ts).
import type { Endpoint } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import type { DatagramRuns } from "./datagram-runs.ts";
import { DgramUdpPort } from "./dgram-udp-port.ts";
import type { Arena } from "./ffi/arena.ts";
import type { StartPoll } from "./ffi/readiness.ts";
import { NativeUdpPort } from "./native-udp-port.ts";

/** Never throws once it is open. */
export interface UdpPort {
  readonly kind: "native" | "dgram";
  readonly port: number;
  /** Where packets are best made, so that their datagrams go out in runs without a copy; undefined: anywhere. */
  readonly packets: DatagramRuns | undefined;
  /** The bytes are copied or sent before it returns, but for those that lie in `packets`: those stay until `flush`. */
  send(endpoint: Endpoint, buffer: Uint8Array, offset: number, length: number): void;
  /** Sends what waits: at the end of a turn. */
  flush(): void;
  /** Open, it no longer keeps the process alive. */
  unref(): void;
  close(): Promise<void>;
  readonly counters: Readonly<Record<string, number>>;
}

export interface DatagramReceiver {
  /** The bytes are valid during the call only; it may change them. */
  onDatagram(from: Endpoint, buffer: Uint8Array, offset: number, length: number): void;
  /** `give` gives any number of datagrams that have come together. It need not be called: then they wait. */
  onBurst(give: () => void): void;
}

export interface OpenedUdpPort {
  readonly udp: UdpPort;
  /** Why it is not the native one; undefined when it is. */
  readonly reason: string | undefined;
}

/**
 * Port 0 lets the system choose. `arena` is that of `openPacketArena`, for this port alone; `startPoll` as in
 * `Readiness`.
 * @throws WirebadgeError PORT_TAKEN
 */
export async function openUdpPort(
  port: number,
  receiver: DatagramReceiver,
  arena: Arena | undefined,
  startPoll?: StartPoll,
): Promise<OpenedUdpPort> {
  let reason = "native calls are not available";
  if (arena !== undefined) {
    try {
      return { udp: NativeUdpPort.open(arena, port, receiver, startPoll), reason: undefined };
    } catch (error) {
      if (!(error instanceof WirebadgeError) || error.code !== "NATIVE_UNAVAILABLE") throw error;
      reason = error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
    }
  }
  return { udp: await DgramUdpPort.open(port, receiver), reason };
}
