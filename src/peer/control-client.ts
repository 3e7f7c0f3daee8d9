// The peer's end of the control channel: connects, proves its keys, enrols or resumes, keeps the netmap and the lease
// fresh, and comes back after every interruption with jittered backoff. What it learns it emits; it decides nothing
// about packets.
import type { WirebadgeError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Lease } from "../control/lease.ts";
import type { DenialReport, FlowReport, Offers } from "../control/messages.ts";
import type { Netmap, NetmapView } from "../control/netmap.ts";
import type { ProbeKey } from "../control/probe.ts";
import type { Crypto } from "../crypto/provider.ts";
import type { Clock } from "../io/clock.ts";

/** What an enrolment or a resumption answered; to be written to the state file before anything else. */
export interface SessionGrant {
  /** `s_…` */
  readonly session: string;
  /** "agent:coder" */
  readonly identity: string;
  /** Ed25519: verifies leases (the client itself verifies netmaps). */
  readonly coordinatorSignKey: Uint8Array;
  readonly epoch: number;
}

export interface ControlEvents {
  /** Enrolled or resumed; before the first `netmap` of the channel. */
  welcome: [grant: SessionGrant];
  /** A new netmap, checked entry by entry. `netmap` is its raw form, for the state file. */
  netmap: [view: NetmapView, netmap: Netmap];
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
export type ControlState = "connecting" | "connected" | "disconnected" | "stopped";

export interface ControlClientOptions {
  /** From the token: `http(s)://HOST[:PORT][/PATH]`. */
  readonly url: string;
  /** The coordinator's Noise static key, from the token. */
  readonly coordinatorKey: Uint8Array;
  /** Ed25519 seed of the session key. */
  readonly signSeed: Uint8Array;
  /** X25519 WireGuard private key. */
  readonly wireguardKey: Uint8Array;
  /** Known session to resume; else `enrolment` is used. */
  readonly session?: string | undefined;
  readonly enrolment?: { readonly tokenId: string; readonly secret: Uint8Array } | undefined;
  readonly offers?: Offers | undefined;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly clock: Clock;
  /** "wirebadge 0.1.0" */
  readonly software: string;
}

export interface ControlClientContract {
  /** Begins to connect; returns at once. */
  start(): void;
  /** Resolves when a netmap and a lease have been applied for the first time; rejects on the first final problem. */
  readonly ready: Promise<void>;
  on<K extends keyof ControlEvents>(event: K, listener: (...details: ControlEvents[K]) => void): () => void;
  readonly state: ControlState;
  readonly session: string | undefined;
  /** Key and `HOST:PORT`s to probe from the WireGuard socket, while connected. */
  readonly probe: { readonly key: ProbeKey; readonly servers: readonly string[] } | undefined;
  setOffers(offers: Offers): void;
  /** Outer endpoints as text, local and probed. */
  setEndpoints(endpoints: readonly string[]): void;
  punch(session: string): void;
  /** Bounded and best-effort: dropped while disconnected. */
  reportDenials(records: readonly DenialReport[]): void;
  reportFlows(records: readonly FlowReport[]): void;
  /** Ends the session for good at the coordinator, then stops. */
  leave(): Promise<void>;
  stop(): Promise<void>;
}
