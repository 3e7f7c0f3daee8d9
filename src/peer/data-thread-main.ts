// The data thread: the engine, the TUN device and the UDP sockets in one Worker that sleeps in poll(2). It takes what
// the main thread wants from its port after each wake-up and answers by postMessage; nothing else of Node runs here.
import { receiveMessageOnPort, workerData } from "node:worker_threads";
import { WirebadgeError } from "../base/errors.ts";
import { Engine, type EngineSink } from "../engine/engine.ts";
import { cpuStopwatch, SystemClock, sharedMs, stopwatch } from "../io/clock.ts";
import { chooseCrypto } from "../io/crypto-choice.ts";
import { Arena } from "../io/ffi/arena.ts";
import { errnoName } from "../io/ffi/errno.ts";
import { EventFd } from "../io/ffi/event-fd.ts";
import { Poller } from "../io/ffi/poller.ts";
import { TUN_ARENA_BYTES, TunDevice } from "../io/ffi/tun-device.ts";
import { UdpSocket, udpSocketArenaBytes } from "../io/ffi/udp-socket.ts";
import { WARM_ENDS_ARENA_BYTES, WarmEnd } from "../io/ffi/warm-ends.ts";
import { NATIVE_CRYPTO_ARENA_BYTES } from "../io/native-crypto.ts";
import { osRandom } from "../io/os-random.ts";
import { createSimdSums } from "../io/simd-sums.ts";
import { BadgeSide } from "./data-thread-badge.ts";
import {
  type DataThreadCommand,
  type DataThreadEvent,
  type DataThreadStart,
  type DataThreadStatus,
  waitingRooms,
} from "./data-thread-messages.ts";
import { PacketLoop } from "./packet-loop.ts";
import { WARM_UP_ARENA_BYTES, warmUp } from "./warm-up.ts";

const POLLER_BYTES = 4_096;

function main(start: DataThreadStart): void {
  const { port } = start;
  const tell = (event: DataThreadEvent, transfer: readonly ArrayBuffer[] = []): void => {
    port.postMessage(event, transfer);
  };
  const stop = new Int32Array(start.stop);
  const arena = new Arena(
    NATIVE_CRYPTO_ARENA_BYTES +
      POLLER_BYTES +
      PacketLoop.arenaBytes +
      TUN_ARENA_BYTES +
      2 * udpSocketArenaBytes() +
      WARM_ENDS_ARENA_BYTES +
      WARM_UP_ARENA_BYTES,
  );
  const { crypto, reason } = chooseCrypto({ arena, ...(start.requireNative ? { require: "native" } : {}) });
  const wake = EventFd.of(start.wakeFd);
  const tun = TunDevice.adopt(arena, start.tun);
  const v4 = start.udp.v4 === undefined ? undefined : UdpSocket.adopt(arena, 4, start.udp.v4);
  const v6 = start.udp.v6 === undefined ? undefined : UdpSocket.adopt(arena, 6, start.udp.v6);
  const poller = new Poller(arena, [wake.fd, tun.fd, v4?.fd ?? -1, v6?.fd ?? -1]); // poll passes over −1

  const sums = createSimdSums(arena.memory, arena.bytes);
  const warmEnds = openWarmEnds(arena);
  const warm =
    warmEnds === undefined ? undefined : warmUp({ crypto, random: osRandom, memory: arena, sums, ends: warmEnds });
  const clock = new SystemClock();
  const badge = new BadgeSide({ crypto, rooms: waitingRooms(start.waiting), tell, clock, sharedMs });
  const loop = new PacketLoop({
    memory: arena,
    sums,
    tun,
    v4,
    v6,
    poller,
    clock,
    aside: start.mode === "badge" ? badge : undefined,
    warm,
    onWake: () => {
      wake.drain();
      if (Atomics.load(stop, 0) !== 0) return loop.stop();
      for (let message = receiveMessageOnPort(port); message !== undefined; message = receiveMessageOnPort(port)) {
        handle(message.message as DataThreadCommand);
      }
      loop.settle();
    },
    onLost: (what, errno) => {
      tell({ kind: "lost", what, errno: errnoName(errno) });
      loop.stop();
    },
  });
  const sink: EngineSink = { ...loop.engineSink, ...badge.sink };
  const engine = new Engine({
    crypto,
    random: osRandom,
    keyPair: start.keyPair,
    mode: start.mode,
    mtuBytes: start.mtuBytes,
    sink,
    stopwatch,
    cpuStopwatch,
    leases: badge.leases,
    refuse: (nowMs, buffer, offset, length) => badge.refuse(nowMs, buffer, offset, length),
    ...(start.lastTimestamp === undefined ? {} : { lastTimestamp: start.lastTimestamp }),
  });
  loop.attach(engine);
  badge.attach(engine, loop);

  function handle(command: DataThreadCommand): void {
    switch (command.kind) {
      case "apply":
        return tell({ kind: "applied", id: command.id, refused: engine.apply(loop.nowMs(), command.state) });
      case "status":
        return tell({ kind: "status", id: command.id, status: status() });
      case "reach":
        for (const session of command.sessions) engine.punch(loop.nowMs(), session);
        return;
      default:
        return badge.handle(command);
    }
  }

  function status(): DataThreadStatus {
    const counters: Record<string, number> = { ...engine.counters() };
    for (const [name, count] of Object.entries(loop.counters)) if (count > 0) counters[`loop-${name}`] = count;
    for (const [name, count] of Object.entries(badge.counters)) counters[`loop-${name}`] = count;
    for (const [name, socket] of [["udp4", v4] as const, ["udp6", v6] as const]) {
      for (const [counter, count] of Object.entries(socket?.counters ?? {})) {
        if (count > 0) counters[`${name}-${counter}`] = count;
      }
    }
    return { peers: engine.status(), counters, nowMs: loop.nowMs(), lastTimestamp: engine.lastTimestamp };
  }

  for (const told of start.told) badge.handle(told);
  if (start.state !== undefined) engine.apply(loop.nowMs(), start.state);
  tell({ kind: "started", reason });
  try {
    loop.run();
  } catch (error) {
    tell({ kind: "failed", status: status() });
    throw error;
  } finally {
    for (const end of warmEnds ?? []) end.close();
  }
  port.close();
}

/** Undefined without a loopback device that is up: then the first packets take longer. */
function openWarmEnds(arena: Arena): [WarmEnd, WarmEnd] | undefined {
  try {
    return WarmEnd.open(arena);
  } catch (error) {
    if (error instanceof WirebadgeError) return undefined;
    throw error;
  }
}

main(workerData as DataThreadStart);
