// The loop driver: engine, userspace stack and UDP port in one libuv thread. A turn is one input and all that follows
// from it; at its end the answers made for our own stack are delivered and the one timer is armed for the next
// deadline.
import { assert } from "../base/assert.ts";
import { DOUBLE_ZERO } from "../base/double-zero.ts";
import type { Engine, EngineSink } from "../engine/engine.ts";
import { type Clock, DeadlineTimer } from "../io/clock.ts";
import type { DatagramReceiver, UdpPort } from "../io/udp-port.ts";
import type { Netstack } from "../netstack/contract.ts";
import type { Turns } from "./turns.ts";

const SETTLE_ROUNDS_MAX = 1_000; // ended flows end others, but no two in a circle

export interface DriverParts {
  readonly engine: Engine;
  readonly stack: Netstack;
  /** None where datagrams are another thread's. */
  readonly udp: UdpPort | undefined;
  /** Where what the stack sends goes instead of the engine. */
  readonly outlet?: StackOutlet;
}

export interface StackOutlet {
  /** The bytes are valid during the call only. */
  put(buffer: Uint8Array, offset: number, length: number): void;
  /** At a turn's end. */
  flush(): void;
}

/** `attach` once the parts, which need the driver's `engineSink` and `stackOutput`, have been made. */
export class LoopDriver implements Turns {
  readonly #clock: Clock;
  readonly #timer: DeadlineTimer;
  #parts: DriverParts | undefined;
  #depth = 0;
  #nowMs = DOUBLE_ZERO;
  #stopped = false;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#nowMs = clock.nowMs();
    this.#timer = new DeadlineTimer(clock, () => this.#onTimer());
  }

  attach(parts: DriverParts): void {
    this.#parts = parts;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  /** Runs `work` in a turn; inside a running turn it joins that one. */
  turn<T>(work: (nowMs: number) => T): T {
    if (this.#depth > 0) return work(this.#nowMs);
    this.#nowMs = this.#clock.nowMs();
    this.#depth++;
    try {
      return work(this.#nowMs);
    } finally {
      this.#settle();
      this.#depth--;
    }
  }

  /** The part of the engine's sink that moves bytes. */
  readonly engineSink: Pick<EngineSink, "sendDatagram" | "deliverPacket"> = {
    sendDatagram: (endpoint, buffer, offset, length) => this.#parts?.udp?.send(endpoint, buffer, offset, length),
    deliverPacket: (_session, buffer, offset, length) =>
      this.#parts?.stack.handlePacket(this.#nowMs, buffer, offset, length),
  };

  readonly stackOutput = (nowMs: number, buffer: Uint8Array, offset: number, length: number): void => {
    const parts = this.#parts;
    if (parts === undefined) return;
    const { engine, outlet, udp } = parts;
    if (outlet !== undefined) return outlet.put(buffer, offset, length);
    const packets = udp?.packets;
    if (packets === undefined) return engine.handlePacket(nowMs, buffer, offset, length);
    const at = packets.putPacket(buffer, offset, length);
    engine.handlePacket(nowMs, packets.bytes, at, length);
  };

  readonly receiver: DatagramReceiver = {
    onDatagram: (from, buffer, offset, length) => {
      if (this.#stopped) return;
      if (this.#depth > 0) this.#parts?.engine.handleDatagram(this.#nowMs, from, buffer, offset, length);
      else this.turn((nowMs) => this.#parts?.engine.handleDatagram(nowMs, from, buffer, offset, length));
    },
    onBurst: (give) => {
      if (!this.#stopped) this.turn(give);
    },
  };

  stop(): void {
    this.#stopped = true;
    this.#timer.stop();
  }

  #onTimer(): void {
    this.turn((nowMs) => {
      this.#parts?.engine.handleTimeout(nowMs);
      this.#parts?.stack.handleTimeout(nowMs);
    });
  }

  #settle(): void {
    const parts = this.#parts;
    if (parts === undefined || this.#stopped) return;
    let rounds = 0;
    do {
      assert(++rounds <= SETTLE_ROUNDS_MAX, "a turn settles");
      parts.stack.settle(this.#nowMs);
      for (let reply = parts.engine.takeLocalReply(); reply !== undefined; reply = parts.engine.takeLocalReply()) {
        parts.stack.handlePacket(this.#nowMs, reply, 0, reply.length);
      }
    } while (parts.engine.settle());
    parts.outlet?.flush();
    parts.udp?.flush();
    this.#timer.armAt(Math.min(parts.engine.nextDeadlineMs(), parts.stack.nextDeadlineMs()));
  }
}
