// What the engine is told to be, as a whole, with a revision: applied in one turn, or not at all. Built from a netmap
// (peer/) or from a WireGuard configuration file.
import type { Address, Endpoint, Prefix } from "../base/address.ts";
import type { FilterState } from "../filter/contract.ts";

export interface DesiredPeer {
  /** Session id; in `wg` mode the public key's base64. */
  readonly session: string;
  readonly publicKey: Uint8Array;
  readonly presharedKey?: Uint8Array;
  /** Stock peers speak no peer link and show no lease; what the netmap says, silence on the wire never changes. */
  readonly kind: "wirebadge" | "stock";
  /** Inner sources it may speak for; packets to them go to it. */
  readonly prefixes: readonly Prefix[];
  /** Its overlay IPv6 address: where its end of the peer link is. */
  readonly linkAddress?: Address;
  readonly endpoints: readonly Endpoint[];
  /**
   * How often a person has said where the peer is. With another number than before it is there now, wherever it was
   * last heard from; else an endpoint that it has roamed to stands.
   */
  readonly endpointsTold?: number;
  readonly persistentKeepaliveMs?: number;
  /** Stock peers under a coordinator: their lease, by the coordinator's clock. */
  readonly leaseEndMs?: number;
}

export interface DesiredState {
  /** Of the signed netmap: leases of another epoch are refused. */
  readonly epoch: number;
  readonly revision: number;
  /**
   * "badge": a coordinator's rules, each peer's own set of sources. "wg": one trie, everything in the file is allowed.
   */
  readonly mode: "badge" | "wg";
  readonly addresses: readonly Address[];
  /** What this peer serves for others: service addresses and accepted routes. */
  readonly transit: readonly Prefix[];
  readonly filter: FilterState | undefined;
  readonly peers: readonly DesiredPeer[];
}

/** A lease as the coordinator signed it; checked by control/lease.ts, which the engine is given as a LeaseVerifier. */
export interface VerifiedLease {
  readonly session: string;
  readonly epoch: number;
  readonly serial: number;
  /** By the coordinator's clock. */
  readonly endMs: number;
}

/** This peer's own, with the bytes that its peers are shown. */
export interface OwnLease {
  readonly bytes: Uint8Array;
  readonly epoch: number;
  readonly serial: number;
  /** By the coordinator's clock. */
  readonly endMs: number;
}

export interface LeaseVerifier {
  /** Undefined: not a lease that the coordinator signed. */
  verify(bytes: Uint8Array): VerifiedLease | undefined;
}
