// What the main thread and the data thread tell each other. States go over whole; packets go only between the userspace
// stack and the engine, a bounded number of them. Whatever the network can cause is counted while it waits.
import type { MessagePort } from "node:worker_threads";
import type { Address, Endpoint, Prefix } from "../base/address.ts";
import { DATA_EVENTS_MAX, DATA_PROBES_MAX, STACK_PACKETS_MAX } from "../base/limits.ts";
import type { KeyPair } from "../crypto/provider.ts";
import type { DesiredState, OwnLease, VerifiedLease } from "../engine/desired-state.ts";
import type { PeerStatus } from "../engine/engine-peer.ts";
import type { LinkDenial } from "../engine/peer-link.ts";
import type { DenialRecord, FlowRecord } from "../filter/contract.ts";
import type { OpenedTun } from "../io/ffi/tun-device.ts";
import type { OpenedUdp } from "../io/ffi/udp-open.ts";
import type { ForwardPlan } from "./forward-side.ts";

/** The main thread has opened the device and the sockets and keeps them: they outlive a data thread that fails. */
export interface DataThreadStart {
  readonly port: MessagePort;
  readonly wakeFd: number;
  /** Int32: 1 in the first place asks the thread to end. */
  readonly stop: SharedArrayBuffer;
  /** Of WAITING_BYTES. */
  readonly waiting: SharedArrayBuffer;
  readonly tun: OpenedTun;
  readonly udp: { readonly v4: OpenedUdp | undefined; readonly v6: OpenedUdp | undefined };
  readonly keyPair: KeyPair;
  readonly mode: "badge" | "wg";
  readonly mtuBytes: number;
  readonly requireNative: boolean;
  /** TAI64N of the last initiation sent, when there was one. */
  readonly lastTimestamp: Uint8Array | undefined;
  /** What it is from its first packet on: without peers it would answer live connections by resets. */
  readonly state: DesiredState | undefined;
  /** What it was told before beside that, the latest of each kind. */
  readonly told: readonly BadgeState[];
}

/** Told once, true until told anew; a data thread that is started again hears the latest of each kind. */
export type BadgeState =
  /** Undefined: it has ended, and nothing passes any more. */
  | { readonly kind: "own-lease"; readonly lease: OwnLease | undefined }
  /** What leases of peers are signed with. */
  | { readonly kind: "sign-key"; readonly key: Uint8Array }
  /** The coordinator's clock, at a moment of the clock that all threads share (`sharedMs`). */
  | { readonly kind: "time"; readonly coordinatorMs: number; readonly sharedMs: number }
  | { readonly kind: "stack"; readonly plan: StackPlan };

/** What is for the userspace stack and not for the kernel, besides the answers to its own echo requests. */
export interface StackPlan {
  /** Whatever goes there, out of tunnels or from this host. */
  readonly prefixes: readonly Prefix[];
  /** TCP ports of the own addresses. */
  readonly tcpPorts: readonly number[];
  readonly ownAddresses: readonly Address[];
  /** What the kernel forwards; undefined: nothing. */
  readonly forward?: ForwardPlan | undefined;
}

export type DataThreadCommand =
  | { readonly kind: "apply"; readonly id: number; readonly state: DesiredState }
  | { readonly kind: "status"; readonly id: number }
  /** Handshakes with these, unless there is a session already. */
  | { readonly kind: "reach"; readonly sessions: readonly string[] }
  | BadgeState
  | { readonly kind: "tell-denial"; readonly session: string; readonly denial: DenialRecord }
  | { readonly kind: "probe"; readonly to: Endpoint; readonly bytes: Uint8Array }
  /** Of the stack: see packet-batch.ts. */
  | { readonly kind: "packets"; readonly bytes: Uint8Array; readonly count: number };

export interface RefusedPeer {
  readonly session: string;
  readonly reason: string;
}

export interface DataThreadStatus {
  readonly peers: readonly PeerStatus[];
  readonly counters: Readonly<Record<string, number>>;
  /** Of the thread's clock, as all times in `peers`. */
  readonly nowMs: number;
  readonly lastTimestamp: Uint8Array | undefined;
}

/** What happened, for whoever runs the data thread. */
export type DataThreadNotice =
  /** `lastTimestamp`: of the last initiation sent, for the state file. */
  | { readonly kind: "tunnel-up"; readonly session: string; readonly lastTimestamp: Uint8Array | undefined }
  | { readonly kind: "tunnel-wanted"; readonly session: string; readonly lastTimestamp: Uint8Array | undefined }
  | { readonly kind: "tunnel-failed"; readonly session: string }
  | { readonly kind: "denied"; readonly record: DenialRecord }
  | { readonly kind: "denied-by-peer"; readonly session: string; readonly denial: LinkDenial }
  /** Of flows that end in the userspace stack, and not by themselves: somebody has to cut what stands behind them. */
  | { readonly kind: "flow-ended"; readonly flow: FlowRecord }
  | { readonly kind: "lease-shown"; readonly session: string; readonly lease: VerifiedLease }
  | { readonly kind: "probe-answer"; readonly bytes: Uint8Array }
  /** For the stack: see packet-batch.ts. */
  | { readonly kind: "packets"; readonly bytes: Uint8Array; readonly count: number };

export type DataThreadEvent =
  /** `reason`: why the native crypto is not in use; undefined when it is. */
  | { readonly kind: "started"; readonly reason: string | undefined }
  | { readonly kind: "applied"; readonly id: number; readonly refused: readonly RefusedPeer[] }
  | { readonly kind: "status"; readonly id: number; readonly status: DataThreadStatus }
  /** It fails, and this is how it was then. */
  | { readonly kind: "failed"; readonly status: DataThreadStatus }
  | { readonly kind: "lost"; readonly what: "tun" | "udp"; readonly errno: string }
  | DataThreadNotice;

/** A bound on what one thread has told and the other has not yet taken, counted in memory that both share. */
export class WaitingRoom {
  readonly #counts: Int32Array;
  readonly #at: number;
  readonly #max: number;

  constructor(shared: SharedArrayBuffer, at: number, max: number) {
    this.#counts = new Int32Array(shared);
    this.#at = at;
    this.#max = max;
  }

  /** False: no room for that many. One thread alone enters. */
  enter(count = 1): boolean {
    if (Atomics.load(this.#counts, this.#at) + count > this.#max) return false;
    Atomics.add(this.#counts, this.#at, count);
    return true;
  }

  leave(count = 1): void {
    Atomics.sub(this.#counts, this.#at, count);
  }
}

const ROOMS = {
  events: DATA_EVENTS_MAX,
  probes: DATA_PROBES_MAX,
  toStack: STACK_PACKETS_MAX,
  fromStack: STACK_PACKETS_MAX,
};
export const WAITING_BYTES = 4 * Object.keys(ROOMS).length;
export type WaitingRooms = Readonly<Record<keyof typeof ROOMS, WaitingRoom>>;

export function waitingRooms(shared: SharedArrayBuffer): WaitingRooms {
  return {
    events: new WaitingRoom(shared, 0, ROOMS.events),
    probes: new WaitingRoom(shared, 1, ROOMS.probes),
    toStack: new WaitingRoom(shared, 2, ROOMS.toStack),
    fromStack: new WaitingRoom(shared, 3, ROOMS.fromStack),
  };
}
