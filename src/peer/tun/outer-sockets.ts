// The outer UDP sockets of a TUN device's data thread: opened here, by the main thread, which keeps them.
import { WirebadgeError } from "../../base/errors.ts";
import { Arena } from "../../io/ffi/arena.ts";
import { type UdpPair, UdpSocket, udpSocketArenaBytes } from "../../io/ffi/udp-socket.ts";

/** For the data thread. */
export const openedOf = ({ v4, v6 }: UdpPair) => ({ v4: v4?.opened, v6: v6?.opened });

/** @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE */
export function openSockets(port: number, mark: number): UdpPair {
  const arena = new Arena(2 * udpSocketArenaBytes(1, 1)); // packets are the data thread's
  return UdpSocket.openPair(arena, { port, mark, sendSlots: 1, receiveSlots: 1 });
}

/** Undefined when the port is another's. */
export function tryToOpen(port: number, mark: number): UdpPair | undefined {
  try {
    return openSockets(port, mark);
  } catch (error) {
    if (error instanceof WirebadgeError && error.code === "PORT_TAKEN") return undefined;
    throw error;
  }
}

export function closeSockets({ v4, v6 }: UdpPair): void {
  v4?.close();
  v6?.close();
}
