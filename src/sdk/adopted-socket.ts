// A net.Socket that a program has made and is about to connect, turned into one of the network: the methods that stand
// on its handle are replaced on this one object, so that it stays of its class.
import { EventEmitter } from "node:events";
import { Socket } from "node:net";
import type { DialTarget } from "../peer/overlay.ts";
import { attachSocket, factsOf, type WriteChunk } from "../peer/overlay-socket.ts";
import type { Network } from "./network.ts";

type WriteCallback = (error?: Error | null) => void;

/** It is connecting from now on; "connect" or "error" follows. */
export function adoptSocket(net: Network, socket: Socket, target: DialTarget): void {
  if (socket.destroyed) (socket as unknown as { _undestroy(): void })._undestroy(); // it is used again
  const end = net.makeEnd(socket);
  end.begin();
  const value = (method: (...args: never[]) => unknown): PropertyDescriptor => ({
    value: method,
    configurable: true,
    writable: true,
  });
  Object.defineProperties(socket, {
    ...factsOf(() => end),
    _read: value(() => end.read()),
    _write: value((chunk: Uint8Array | string, encoding: BufferEncoding, callback: WriteCallback) =>
      end.write(chunk, encoding, callback),
    ),
    _writev: value((chunks: WriteChunk[], callback: WriteCallback) => end.writeAll(chunks, callback)),
    _final: value((callback: WriteCallback) => end.final(callback)),
    _destroy: value((error: Error | null, callback: WriteCallback) => end.destroy(error, callback)),
    ref: value(() => {
      end.ref(true);
      return socket;
    }),
    unref: value(() => {
      end.ref(false);
      return socket;
    }),
    resetAndDestroy: value(() => {
      end.reset();
      return socket;
    }),
  });
  // What was asked of it before it had anything to do it with waits for "connect": here it is done now.
  const waiting = EventEmitter.prototype.listeners.call(socket, "connect");
  if (waiting.includes(Socket.prototype.unref)) end.ref(false);
  net.dialInto(socket, target, (tcp) => attachSocket(socket, end, tcp));
}
