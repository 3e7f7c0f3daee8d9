// What the control client emits, and a small typed emitter for it.
import type { WirebadgeError } from "../base/errors.ts";
import type { Lease } from "../control/lease.ts";
import type { Netmap, NetmapView } from "../control/netmap.ts";
import type { KeptState } from "./kept-for-coordinator.ts";

/** What an enrolment or a resumption answered; to be written to the state file before anything else. */
export interface SessionGrant {
  /** `s_…` */
  readonly session: string;
  /** "agent:coder" */
  readonly identity: string;
  /** Ed25519: verifies leases (the client itself verifies netmaps). */
  readonly coordinatorSignKey: Uint8Array;
  readonly epoch: number;
  readonly kept: KeptState;
}

export type ControlState = "connecting" | "connected" | "disconnected" | "stopped";

export interface ControlEvents {
  /** Enrolled or resumed; before the first `netmap` of the channel. */
  welcome: [grant: SessionGrant];
  /** A new netmap, checked entry by entry. `netmap` is its raw form, for the state file. */
  netmap: [view: NetmapView, netmap: Netmap];
  /** To be written to the state file. */
  kept: [kept: KeptState];
  /** The bytes to show to peers, and what they say. */
  lease: [bytes: Uint8Array, lease: Lease];
  /** That peer is about to send to us: try its endpoints now. */
  punch: [session: string];
  /** This session was ended by the coordinator: final, nothing reconnects. */
  revoked: [error: WirebadgeError];
  state: [state: ControlState];
  /** Coordinator time = nowMs + offsetMs, rounded so that leases end early rather than late. */
  time: [offsetMs: number];
  /** Why the channel can't be had; `final` means that no retry will mend it and none is made. */
  problem: [error: WirebadgeError, final: boolean];
}

type Listener<K extends keyof ControlEvents> = (...details: ControlEvents[K]) => void;

export class ControlEmitter {
  readonly #listeners: { [K in keyof ControlEvents]: Set<Listener<K>> } = {
    welcome: new Set(),
    netmap: new Set(),
    kept: new Set(),
    lease: new Set(),
    punch: new Set(),
    revoked: new Set(),
    state: new Set(),
    time: new Set(),
    problem: new Set(),
  };

  /** The function given back takes the listener off again. */
  on<K extends keyof ControlEvents>(event: K, listener: Listener<K>): () => void {
    const set = this.#listeners[event];
    set.add(listener);
    return () => set.delete(listener);
  }

  emit<K extends keyof ControlEvents>(event: K, ...details: ControlEvents[K]): void {
    for (const listener of [...this.#listeners[event]]) listener(...details);
  }
}
