// The outer UDP port by native calls in Node's own event loop (Linux): what waits is read by one recvmmsg(2) with
// UDP_GRO and given as one burst, what a turn sends goes out by one sendmmsg(2) in runs (UDP_SEGMENT). Packets lie in
// an arena, where they are sealed and opened in place. Never throws after it has opened: what can't be sent is counted
// by errno name ([WG] treats the network as lossy).
import { isMainThread } from "node:worker_threads";
import type { Endpoint } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import {
  DATAGRAM_MAX_BYTES,
  UDP_BURST_MESSAGES_MAX,
  UDP_LOOP_SEND_WAIT_MAX_MS,
  UDP_RUNS_QUEUED_MAX,
} from "../base/limits.ts";
import { DatagramRuns, type RunCounters } from "./datagram-runs.ts";
import type { Arena } from "./ffi/arena.ts";
import { errnoName } from "./ffi/errno.ts";
import { Readiness, type StartPoll } from "./ffi/readiness.ts";
import { type UdpPair, UdpSocket, udpSocketArenaBytes } from "./ffi/udp-socket.ts";
import type { DatagramReceiver, UdpPort } from "./udp-port.ts";

const SEND_BYTES = 1 << 17; // two runs of full packets; then they are sent: what lies there stays in the caches
const RESERVE_BYTES = 4_096; // a packet of any MTU with its header and tag

/** What a port takes of its arena. */
export const NATIVE_UDP_PORT_ARENA_BYTES =
  DatagramRuns.arenaBytes(SEND_BYTES) + 2 * udpSocketArenaBytes(UDP_RUNS_QUEUED_MAX, UDP_BURST_MESSAGES_MAX);

export class NativeUdpPort implements UdpPort {
  readonly kind = "native";
  readonly port: number;
  readonly packets: DatagramRuns;
  readonly #receiver: DatagramReceiver;
  readonly #sockets: readonly UdpSocket[];
  readonly #readiness: Readiness[] = [];
  readonly #counts: RunCounters = { datagramsOut: 0, runsOut: 0, noFamily: 0 };
  #datagramsIn = 0;
  #tooLong = 0;
  #isClosed = false;

  private constructor(arena: Arena, { port, v4, v6 }: UdpPair, receiver: DatagramReceiver) {
    this.port = port;
    this.#receiver = receiver;
    this.#sockets = [v4, v6].filter((socket) => socket !== undefined);
    this.packets = new DatagramRuns({
      memory: arena,
      v4,
      v6,
      counters: this.#counts,
      sendBytes: SEND_BYTES,
      reserveBytes: RESERVE_BYTES,
    });
  }

  /**
   * Takes NATIVE_UDP_PORT_ARENA_BYTES of the arena, for good. Port 0 lets the system choose; a machine without IPv6 (or
   * IPv4) gets the other family alone.
   * @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE
   */
  static open(arena: Arena, port: number, receiver: DatagramReceiver, startPoll?: StartPoll): NativeUdpPort {
    if (!isMainThread) {
      // A thread that is ended while libuv waits for koffi takes the whole process with it.
      throw new WirebadgeError("NATIVE_UNAVAILABLE", "native sockets are waited for in a process's main thread alone");
    }
    const pair = UdpSocket.openPair(arena, {
      port,
      receiveSlots: UDP_BURST_MESSAGES_MAX,
      sendWaitMs: UDP_LOOP_SEND_WAIT_MAX_MS,
    });
    const made = new NativeUdpPort(arena, pair, receiver);
    try {
      made.#begin(startPoll);
    } catch (cause) {
      made.#close();
      if (cause instanceof WirebadgeError) throw cause;
      throw new WirebadgeError("NATIVE_UNAVAILABLE", `native sockets can't be waited for: ${cause}`, { cause });
    }
    return made;
  }

  #begin(startPoll: StartPoll | undefined): void {
    for (const socket of this.#sockets) {
      const failed = socket.receive(); // a sandbox may have sockets, but not this call
      if (failed < 0) throw new WirebadgeError("NATIVE_UNAVAILABLE", `recvmmsg fails with ${errnoName(failed)}`);
      let isWell = true;
      const give = (): void => {
        isWell = this.#give(socket);
      };
      const onReadable = (): boolean => {
        this.#receiver.onBurst(give);
        return isWell;
      };
      this.#readiness.push(new Readiness(socket.fd, onReadable, startPoll));
    }
  }

  send(endpoint: Endpoint, buffer: Uint8Array, offset: number, length: number): void {
    this.packets.send(endpoint, buffer, offset, length);
  }

  flush(): void {
    this.packets.flush();
  }

  unref(): void {
    for (const readiness of this.#readiness) readiness.unref();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.packets.flush();
    this.#close();
  }

  #close(): void {
    this.#isClosed = true;
    for (const readiness of this.#readiness) readiness.close();
    for (const socket of this.#sockets) socket.close();
  }

  /** Of both families together. */
  get counters(): Readonly<Record<string, number>> {
    const sum: Record<string, number> = {
      "datagrams-in": this.#datagramsIn,
      "datagrams-out": this.#counts.datagramsOut,
      "send-no-family": this.#counts.noFamily,
      "receive-too-long": this.#tooLong,
    };
    for (const { counters } of this.#sockets) {
      for (const [name, count] of Object.entries(counters)) sum[name] = (sum[name] ?? 0) + count;
    }
    return sum;
  }

  /** One batch of what waits at this socket; what it is given to may close the port. False: reading failed. */
  #give(socket: UdpSocket): boolean {
    const { bytes } = this.packets;
    const messages = socket.receive();
    for (let message = 0; message < messages; message++) {
      const from = socket.source(message);
      const segmentBytes = socket.segmentBytes(message);
      let at = socket.messageAt(message);
      const end = at + socket.messageBytes(message);
      for (; at < end; at += segmentBytes) {
        this.#datagramsIn++;
        const length = Math.min(segmentBytes, end - at);
        if (length > DATAGRAM_MAX_BYTES) this.#tooLong++;
        else this.#receiver.onDatagram(from, bytes, at, length);
        if (this.#isClosed) return true;
      }
    }
    return messages >= 0;
  }
}
