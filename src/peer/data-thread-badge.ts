// The data thread's part of a peer under a coordinator: what the engine is told besides its state, what the main thread
// is told of, probes through the WireGuard sockets, and the packets that are the userspace stack's. Whatever the
// network can cause is told as long as there is room for it, and counted beyond.
import { KERNEL_CUTS_PER_ROUND_MAX, PACKET_MAX_BYTES } from "../base/limits.ts";
import { PROBE_BYTES, PROBE_FIRST_BYTE } from "../control/probe.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { LeaseVerifier, VerifiedLease } from "../engine/desired-state.ts";
import type { Engine, EngineSink } from "../engine/engine.ts";
import type { FlowRecord } from "../filter/contract.ts";
import type { Clock } from "../io/clock.ts";
import type { DataThreadCommand, DataThreadNotice, WaitingRooms } from "./data-thread-messages.ts";
import { ForwardSide } from "./forward-side.ts";
import { KERNEL_QUESTION_MAX_BYTES, writeKernelQuestion } from "./kernel-cut.ts";
import { leaseVerifier } from "./lease-verifier.ts";
import { eachPacket, PacketBatch } from "./packet-batch.ts";
import type { LoopAside, PacketLoop } from "./packet-loop.ts";
import { hostNetwork } from "./real-network.ts";
import { StackShare } from "./stack-share.ts";

export interface BadgeSideOptions {
  readonly crypto: Crypto;
  readonly rooms: WaitingRooms;
  readonly tell: (notice: DataThreadNotice, transfer?: readonly ArrayBuffer[]) => void;
  /** The loop's own. */
  readonly clock: Clock;
  /** See `sharedMs` of io/clock.ts. */
  readonly sharedMs: () => number;
}

export class BadgeSide implements LoopAside {
  /** By name; zeros are left out. */
  readonly counters: Record<string, number> = {};
  readonly #options: BadgeSideOptions;
  readonly #share = new StackShare();
  readonly #forward = new ForwardSide(hostNetwork.ownInterfaces);
  readonly #batch = new PacketBatch();
  /** The latest of each session that there was no room to tell of: as many as there are peers. */
  readonly #leasesUntold = new Map<string, VerifiedLease>();
  readonly #question = new Uint8Array(KERNEL_QUESTION_MAX_BYTES);
  #cuts = 0;
  #signKey: Uint8Array | undefined;
  #engine: Engine | undefined;
  #loop: PacketLoop | undefined;

  constructor(options: BadgeSideOptions) {
    this.#options = options;
    this.leases = leaseVerifier(options.crypto, () => this.#signKey);
  }

  attach(engine: Engine, loop: PacketLoop): void {
    this.#engine = engine;
    this.#loop = loop;
  }

  readonly leases: LeaseVerifier;

  readonly sink: Omit<EngineSink, "sendDatagram" | "deliverPacket"> = {
    denied: (record) => this.#tell({ kind: "denied", record }),
    deniedByPeer: (session, denial) => this.#tell({ kind: "denied-by-peer", session, denial }),
    flowEnded: (flow) => this.#flowEnded(flow),
    tunnelWanted: (session) => this.#tell({ kind: "tunnel-wanted", session, lastTimestamp: this.#lastTimestamp }),
    tunnelUp: (session) => this.#tell({ kind: "tunnel-up", session, lastTimestamp: this.#lastTimestamp }),
    tunnelFailed: (session) => this.#tell({ kind: "tunnel-failed", session }),
    leaseShown: (session, lease) => {
      this.#leasesUntold.set(session, lease);
      this.#tellLeases();
    },
  };

  handle(command: Exclude<DataThreadCommand, { readonly kind: "apply" | "status" | "reach" }>): void {
    const engine = this.#engine!;
    const loop = this.#loop!;
    switch (command.kind) {
      case "own-lease":
        if (command.lease === undefined) engine.endOwnLease();
        else engine.setOwnLease(loop.nowMs(), command.lease);
        return;
      case "sign-key":
        this.#signKey = command.key;
        return;
      case "time": {
        // Each thread's clock begins by itself, and the wall clock may have been set back in between.
        const { clock, sharedMs } = this.#options;
        const elapsedMs = sharedMs() - command.sharedMs;
        return engine.setCoordinatorOffset(command.coordinatorMs + elapsedMs - clock.nowMs());
      }
      case "stack":
        this.#forward.set(command.plan.forward);
        return this.#share.set(command.plan);
      case "tell-denial":
        return engine.tellDenial(loop.nowMs(), command.session, command.denial);
      case "probe":
        return loop.sendDatagram(command.to, command.bytes);
      case "packets":
        return this.#takeFromStack(command.bytes, command.count);
    }
  }

  takeDatagram(bytes: Uint8Array, offset: number, length: number): boolean {
    if (length !== PROBE_BYTES || bytes[offset] !== PROBE_FIRST_BYTE) return false;
    if (!this.#options.rooms.probes.enter()) this.#count("probe-answers-dropped");
    else this.#options.tell({ kind: "probe-answer", bytes: bytes.slice(offset, offset + length) });
    return true;
  }

  isForStack(buffer: Uint8Array, offset: number, length: number): boolean {
    return this.#share.isForStack(buffer, offset, length);
  }

  /** Of a packet that the filter lets in; the stack's own flows are judged where they are dialled. */
  refuse(nowMs: number, buffer: Uint8Array, offset: number, length: number): string | undefined {
    if (!this.#forward.isOn || this.#share.isForStack(buffer, offset, length)) return undefined;
    return this.#forward.refusalOf(nowMs, buffer, offset, length);
  }

  clamp(buffer: Uint8Array, offset: number, length: number): void {
    this.#forward.clamp(buffer, offset, length);
  }

  giveToStack(buffer: Uint8Array, offset: number, length: number): void {
    if (length > PACKET_MAX_BYTES) return this.#count("to-stack-too-long"); // of a device whose MTU was raised
    if (!this.#options.rooms.toStack.enter()) return this.#count("to-stack-dropped");
    this.#count("to-stack");
    if (this.#batch.add(buffer, offset, length)) return;
    this.#sendBatch();
    this.#batch.add(buffer, offset, length);
  }

  flush(): void {
    this.#cuts = 0;
    this.#sendBatch();
    this.#tellLeases();
  }

  #takeFromStack(bytes: Uint8Array, count: number): void {
    this.#options.rooms.fromStack.leave(count);
    eachPacket(bytes, (offset, length) => {
      this.#count("from-stack");
      if (this.#share.isForHost(bytes, offset)) return this.#loop!.deliverToHost(bytes, offset, length);
      this.#share.noteSent(bytes, offset, length);
      this.#loop!.sendPacket(bytes, offset, length);
    });
  }

  #sendBatch(): void {
    const batch = this.#batch.take();
    if (batch !== undefined) this.#options.tell({ kind: "packets", ...batch }, [batch.bytes.buffer]);
  }

  /** What ended by itself is known to both its ends; else somebody has to cut what stands behind it. */
  #flowEnded(flow: FlowRecord): void {
    const { end, opener, source, sourcePort, destination, destinationPort } = flow;
    if (end === "idle" || end === "closed" || end === "evicted") return;
    const isOurs = opener === "local";
    const inStack = this.#share.hasEnd(isOurs ? source : destination, isOurs ? sourcePort : destinationPort);
    if (inStack) this.#tell({ kind: "flow-ended", flow });
    else this.#cutKernel(flow);
  }

  #cutKernel(flow: FlowRecord): void {
    const length = writeKernelQuestion(this.#question, 0, flow);
    if (length === 0) return;
    if (this.#cuts >= KERNEL_CUTS_PER_ROUND_MAX) return this.#count("kernel-cuts-left");
    this.#cuts++;
    this.#loop!.deliverToHost(this.#question, 0, length);
  }

  #tellLeases(): void {
    for (const [session, lease] of this.#leasesUntold) {
      if (!this.#options.rooms.events.enter()) return;
      this.#leasesUntold.delete(session);
      this.#options.tell({ kind: "lease-shown", session, lease });
    }
  }

  #tell(notice: DataThreadNotice): void {
    if (this.#options.rooms.events.enter()) this.#options.tell(notice);
    else this.#count(`${notice.kind}-untold`);
  }

  #count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }

  get #lastTimestamp(): Uint8Array | undefined {
    return this.#engine?.lastTimestamp;
  }
}
