// What moves the packets of a peer under a coordinator, as the rest of it sees it: a loop on this thread with a
// userspace stack alone (loop-path.ts), or a data thread with a TUN device for the whole host (tun-path.ts).

import type { Endpoint, Prefix } from "../base/address.ts";
import { WirebadgeError } from "../base/errors.ts";
import type { NetmapView } from "../control/netmap.ts";
import type { Crypto, KeyPair } from "../crypto/provider.ts";
import type { DesiredState, OwnLease } from "../engine/desired-state.ts";
import type { Engine } from "../engine/engine.ts";
import type { PeerStatus } from "../engine/engine-peer.ts";
import type { LinkDenial } from "../engine/peer-link.ts";
import type { DenialRecord, FlowRecord } from "../filter/contract.ts";
import type { Clock } from "../io/clock.ts";
import type { Netstack, NetstackHandler } from "../netstack/contract.ts";
import type { Logger } from "./logger.ts";
import type { Turns } from "./turns.ts";

/** What it tells, always on the main thread. */
export interface PacketPathEvents {
  denied(record: DenialRecord): void;
  deniedByPeer(session: string, denial: LinkDenial): void;
  /** Of flows that end in the stack, at least. */
  flowEnded(flow: FlowRecord): void;
  /** `lastTimestamp`: TAI64N of the last initiation sent. */
  tunnelWanted(session: string, lastTimestamp: Uint8Array | undefined): void;
  tunnelUp(session: string, lastTimestamp: Uint8Array | undefined): void;
  tunnelFailed(session: string): void;
  probeAnswer(bytes: Uint8Array): void;
}

export interface PathOptions {
  readonly crypto: Crypto;
  readonly keyPair: KeyPair;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of an earlier process: see EngineOptions. */
  readonly lastTimestamp: Uint8Array | undefined;
  readonly events: PacketPathEvents;
  /** In another program's process, which ends when that program is done. */
  readonly background?: boolean;
}

export interface PathReport {
  readonly peers: readonly PeerStatus[];
  /** What the UDP port is made of, and why not of the best; "" when it is. */
  readonly udp: { readonly name: string; readonly reason: string };
  /** What became of datagrams and packets, by name. */
  readonly counters: Readonly<Record<string, number>>;
}

/** The TUN device, for people. */
export interface PathDevice {
  readonly name: string;
  readonly mtuBytes: number;
  /** What this host reaches by it. */
  readonly routes: readonly Prefix[];
}

export interface PacketPath {
  readonly turns: Turns;
  /** Judges as the packet path does: the engine that moves the packets, or one beside it that is told the same. */
  readonly judge: Engine;
  /** What the stack sends. */
  readonly stackOutput: NetstackHandler["output"];
  readonly device: PathDevice | undefined;
  /** Of its UDP sockets, once it is open. */
  readonly port: number;
  /** Resolves when it has ended by itself: with an error when that is a failure. */
  readonly ended: Promise<Error | undefined>;
  /**
   * Opens the UDP port and begins. `former`: the port to take if it is free.
   * @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE
   */
  open(stack: Netstack, port: number | undefined, former: number | undefined): Promise<void>;
  /** Inside a turn. The stack is told which addresses are its own. */
  apply(nowMs: number, state: DesiredState, view: NetmapView): void;
  /** The first netmap and lease are in force: from now on the host may use it. @throws WirebadgeError */
  enter(): Promise<void>;
  setSignKey(key: Uint8Array): void;
  setOwnLease(lease: OwnLease): void;
  endOwnLease(): void;
  setCoordinatorOffset(offsetMs: number): void;
  punch(session: string): void;
  sendProbe(to: Endpoint, bytes: Uint8Array): void;
  /** Tells that peer of a denial which the gateway decided. */
  tellDenial(session: string, record: DenialRecord): void;
  report(): Promise<PathReport>;
  /** Inside it nothing throws but what could not be undone on the host, when all else is. */
  close(): Promise<void>;
}

/** The port asked for; else the former one, which others remember, if it is still free; else any. */
export async function openPort<T>(
  port: number | undefined,
  former: number | undefined,
  open: (port: number) => T | Promise<T>,
): Promise<T> {
  if (port !== undefined) return await open(port);
  if (former !== undefined) {
    try {
      return await open(former);
    } catch (error) {
      if (!(error instanceof WirebadgeError) || error.code !== "PORT_TAKEN") throw error;
    }
  }
  return await open(0);
}

/** For counters in one list: `prefixed("udp", { lost: 1 })` is `{ "udp-lost": 1 }`; zeros are left out. */
export function prefixed(prefix: string, counters: Readonly<Record<string, number>>): Record<string, number> {
  const entries = Object.entries(counters).filter(([, count]) => count > 0);
  return Object.fromEntries(entries.map(([name, count]) => [`${prefix}-${name}`, count]));
}
