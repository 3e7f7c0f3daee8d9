// The main thread's side of the data thread: starts it, tells it what to be, starts it again when it fails, and wakes
// it on every way out of the process: `process.exit` and an uncaught error would wait for a thread that sleeps in
// poll(2).
import { extname } from "node:path";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { WirebadgeError } from "../base/errors.ts";
import { DATA_THREAD_RESTART_WINDOW_MS, DATA_THREAD_RESTARTS_MAX } from "../base/limits.ts";
import type { DesiredState } from "../engine/desired-state.ts";
import { EventFd } from "../io/ffi/event-fd.ts";
import {
  type BadgeState,
  type DataThreadCommand,
  type DataThreadEvent,
  type DataThreadNotice,
  type DataThreadStart,
  type DataThreadStatus,
  type RefusedPeer,
  WAITING_BYTES,
  type WaitingRooms,
  waitingRooms,
} from "./data-thread-messages.ts";
import type { Logger } from "./logger.ts";
import type { SealedBatch } from "./packet-batch.ts";

/** From the sources, or from a package's compiled ones: tsc leaves such names as they are. */
const MAIN = new URL(`data-thread-main${extname(import.meta.url)}`, import.meta.url);

export interface DataThreadOptions
  extends Pick<DataThreadStart, "tun" | "udp" | "keyPair" | "mode" | "mtuBytes" | "requireNative"> {
  readonly logger: Logger;
  /** From the state file: of the last initiation that an earlier process sent. */
  readonly lastTimestamp?: Uint8Array | undefined;
  readonly onNotice: (notice: DataThreadNotice) => void;
  /** It failed, and this is how it was last, where it could still say so: what the next one begins with. */
  readonly onFailed: (last: DataThreadStatus | undefined) => DataThreadRecovery;
}

export interface DataThreadRecovery {
  /** Undefined: nothing was applied yet. */
  readonly state: DesiredState | undefined;
  /** Handshakes with these: they still send under sessions that nobody has any more. */
  readonly reach: readonly string[];
}

export interface DataThreadReplacement extends Pick<DataThreadOptions, "keyPair" | "udp"> {
  readonly state: DesiredState;
}

type Answer = Extract<DataThreadEvent, { readonly id: number }>;
type TimestampedNotice = Extract<DataThreadNotice, { readonly lastTimestamp: unknown }>;

interface Waiting {
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

export class DataThread {
  #options: DataThreadOptions;
  readonly #wake = EventFd.create();
  readonly #waiting = new Map<number, Waiting>();
  readonly #ended = Promise.withResolvers<Error | undefined>();
  readonly #onExit = (): void => this.#askToStop();
  #stop = new Int32Array(new SharedArrayBuffer(4));
  #waitingBytes = new SharedArrayBuffer(WAITING_BYTES);
  #rooms: WaitingRooms = waitingRooms(this.#waitingBytes);
  /** The latest of each kind, made when it is sent: what it says may depend on the time. */
  readonly #told = new Map<BadgeState["kind"], () => BadgeState>();
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #lastId = 0;
  #state: DesiredState | undefined;
  #lastStatus: DataThreadStatus | undefined;
  /** TAI64N of the last initiation that is known to have been sent. */
  #lastTimestamp: Uint8Array | undefined;
  #failedAs: DataThreadStatus | undefined;
  #restartsMs: number[] = [];
  #stopping = false;
  #replacing = false;
  #lost: string | undefined;
  /** Why the native crypto is not in use; undefined when it is. */
  nativeMissing: string | undefined;

  private constructor(options: DataThreadOptions) {
    this.#options = options;
    this.#lastTimestamp = options.lastTimestamp;
  }

  /** @throws WirebadgeError NATIVE_UNAVAILABLE, with nothing left running */
  static async start(options: DataThreadOptions): Promise<DataThread> {
    const thread = new DataThread(options);
    process.on("exit", thread.#onExit);
    try {
      await thread.#spawn();
    } catch (error) {
      await thread.stop();
      throw error;
    }
    return thread;
  }

  /** Resolves when the thread is gone for good: with an error when nobody asked for it. */
  get ended(): Promise<Error | undefined> {
    return this.#ended.promise;
  }

  /** Becomes what `state` says, in one turn; gives the peers that can't be, each with the reason. */
  async apply(state: DesiredState): Promise<readonly RefusedPeer[]> {
    this.#state = state;
    const answer = await this.#ask({ kind: "apply", id: ++this.#lastId, state });
    return answer.kind === "applied" ? answer.refused : [];
  }

  async status(): Promise<DataThreadStatus> {
    const answer = await this.#ask({ kind: "status", id: ++this.#lastId });
    if (answer.kind === "status") {
      this.#lastStatus = answer.status;
      this.#lastTimestamp = answer.status.lastTimestamp ?? this.#lastTimestamp;
    }
    return this.#lastStatus ?? { peers: [], counters: {}, nowMs: 0, lastTimestamp: undefined };
  }

  /** Told now, and again to a thread that is started anew, made anew then. */
  tell(make: () => BadgeState): void {
    const state = make();
    this.#told.set(state.kind, make);
    this.#send(state);
  }

  /** Told to the thread that runs, if one does. */
  command(command: Extract<DataThreadCommand, { readonly kind: "tell-denial" | "probe" }>): void {
    this.#send(command);
  }

  /** Of the userspace stack. False: too many wait already, and these are lost. */
  givePackets({ bytes, count }: SealedBatch): boolean {
    if (!this.#rooms.fromStack.enter(count)) return false;
    this.#send({ kind: "packets", bytes, count }, [bytes.buffer]);
    return true;
  }

  /** Begins handshakes with these peers where there is no session. */
  reach(sessions: readonly string[]): void {
    this.#send({ kind: "reach", sessions });
  }

  /**
   * Ends the thread and starts it again with another key or other sockets, and the same device: packets of that moment
   * wait in the device or are lost, sessions are made anew. Who opened the former sockets closes them afterwards.
   * @throws WirebadgeError INTERNAL when it does not start again: then it has ended
   */
  async replace({ keyPair, udp, state }: DataThreadReplacement): Promise<void> {
    await this.status(); // for the timestamp of the last initiation
    this.#replacing = true;
    await this.#endWorker();
    this.#replacing = false;
    if (this.#stopping) throw new WirebadgeError("INTERNAL", "the data thread was stopped");
    this.#options = { ...this.#options, keyPair, udp };
    this.#state = state;
    try {
      await this.#spawn();
    } catch (error) {
      if (this.#worker === undefined) this.#ended.resolve(error as Error);
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#endWorker();
    process.off("exit", this.#onExit);
    this.#wake.close();
    this.#ended.resolve(undefined);
  }

  async #endWorker(): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    const gone = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
    this.#askToStop();
    await gone;
  }

  #askToStop(): void {
    Atomics.store(this.#stop, 0, 1);
    this.#wake.signal();
  }

  /** Resolves when it has started. */
  async #spawn(): Promise<void> {
    const { tun, udp, keyPair, mode, mtuBytes, requireNative } = this.#options;
    const { port1, port2 } = new MessageChannel();
    this.#stop = new Int32Array(new SharedArrayBuffer(4));
    this.#waitingBytes = new SharedArrayBuffer(WAITING_BYTES);
    const rooms = waitingRooms(this.#waitingBytes);
    this.#rooms = rooms;
    const start: DataThreadStart = {
      port: port2,
      wakeFd: this.#wake.fd,
      stop: this.#stop.buffer as SharedArrayBuffer,
      waiting: this.#waitingBytes,
      tun,
      udp,
      keyPair,
      mode,
      mtuBytes,
      requireNative,
      lastTimestamp: this.#lastTimestamp,
      state: this.#state,
      told: [...this.#told.values()].map((make) => make()),
    };
    const worker = new Worker(MAIN, {
      workerData: start,
      transferList: [port2],
      name: "wirebadge-data",
    });
    this.#worker = worker;
    this.#port = port1;
    const started = Promise.withResolvers<void>();
    let failure: Error | undefined;
    let hasStarted = false;
    port1.on("message", (event: DataThreadEvent) => {
      hasStarted ||= event.kind === "started";
      this.#onEvent(event, rooms, started.resolve);
    });
    worker.once("error", (error) => {
      failure = error;
    });
    worker.once("exit", () => {
      for (let last = receiveMessageOnPort(port1); last !== undefined; last = receiveMessageOnPort(port1)) {
        this.#onEvent(last.message as DataThreadEvent, rooms, started.resolve);
      }
      port1.close();
      this.#worker = undefined;
      if (hasStarted) this.#onGone(failure);
      else started.reject(failure ?? new WirebadgeError("INTERNAL", "the data thread ended before it had started"));
    });
    await started.promise;
  }

  #onEvent(event: DataThreadEvent, rooms: WaitingRooms, started: () => void): void {
    const { logger, onNotice } = this.#options;
    switch (event.kind) {
      case "started":
        this.nativeMissing = event.reason;
        return started();
      case "failed":
        this.#lastStatus = event.status;
        this.#lastTimestamp = event.status.lastTimestamp ?? this.#lastTimestamp;
        this.#failedAs = event.status;
        return;
      case "lost":
        this.#lost = `${event.what === "tun" ? "the TUN device" : "the UDP socket"} is gone (${event.errno})`;
        logger.error({ event: "lost", what: event.what, errno: event.errno }, this.#lost);
        return;
      case "applied":
      case "status":
        this.#waiting.get(event.id)?.resolve(event);
        this.#waiting.delete(event.id);
        return;
      case "packets":
        rooms.toStack.leave(event.count);
        return onNotice(event);
      case "probe-answer":
        rooms.probes.leave();
        return onNotice(event);
      case "tunnel-up":
      case "tunnel-wanted":
        this.#noteTimestamp(event);
        break;
      default:
    }
    rooms.events.leave();
    onNotice(event);
  }

  #noteTimestamp({ lastTimestamp }: TimestampedNotice): void {
    this.#lastTimestamp = lastTimestamp ?? this.#lastTimestamp;
  }

  /** It may start again, with the same device, sockets and state; sessions are made anew. Not for ever. */
  #onGone(failure: Error | undefined): void {
    const error = failure ?? new WirebadgeError("INTERNAL", this.#lost ?? "the data thread ended");
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    const last = this.#failedAs;
    this.#failedAs = undefined;
    if (this.#stopping || this.#replacing) return;
    const nowMs = performance.now();
    this.#restartsMs = this.#restartsMs.filter((atMs) => nowMs - atMs < DATA_THREAD_RESTART_WINDOW_MS);
    if (this.#lost !== undefined || this.#restartsMs.length >= DATA_THREAD_RESTARTS_MAX) {
      this.#ended.resolve(error);
      return;
    }
    this.#restartsMs.push(nowMs);
    this.#options.logger.error({ event: "data-thread-restart", err: error }, "the data thread failed and starts again");
    const { state, reach } = this.#options.onFailed(last);
    this.#state = state;
    this.#spawn().then(
      () => this.reach(reach),
      (cause: unknown) => {
        if (!this.#stopping && this.#worker === undefined) this.#ended.resolve(cause as Error);
      },
    );
  }

  #ask(command: DataThreadCommand & { readonly id: number }): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#worker === undefined || this.#port === undefined) {
        reject(new WirebadgeError("INTERNAL", "the data thread is not running"));
        return;
      }
      this.#waiting.set(command.id, { resolve, reject });
      this.#send(command);
    });
  }

  #send(command: DataThreadCommand, transfer: readonly ArrayBuffer[] = []): void {
    if (this.#worker === undefined) return;
    this.#port?.postMessage(command, transfer);
    this.#wake.signal();
  }
}
