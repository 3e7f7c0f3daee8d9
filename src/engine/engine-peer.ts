// One peer as the engine holds it: its tunnel, its path, its lease, and what it may speak for.
import type { Address, Endpoint, Prefix } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { FLOW_KEEPALIVE_MS, LINK_REPLIES_PER_SECOND_MAX } from "../base/limits.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { PeerPath } from "../path/peer-path.ts";
import type { Tunnel } from "../wireguard/tunnel.ts";
import type { DesiredPeer } from "./desired-state.ts";
import { LeaseExchange } from "./lease-exchange.ts";
import type { RoutedPeer } from "./routes.ts";

export class EnginePeer implements RoutedPeer {
  readonly session: string;
  readonly slot: number;
  readonly publicKey: Uint8Array;
  readonly kind: "wirebadge" | "stock";
  readonly path = new PeerPath();
  readonly lease: LeaseExchange;
  #tunnel: Tunnel<EnginePeer> | undefined;
  prefixes: readonly Prefix[] = [];
  linkAddress: Address | undefined;
  failed = false;
  /** The configuration's own; then the engine sets none. */
  persistentKeepaliveMs: number | undefined;
  #isKeptOpen = false;
  #endpointsTold: number | undefined;
  /** Of the newest session of its tunnel. */
  sessionStartedMs = Number.NEGATIVE_INFINITY;
  readonly #replies = new TokenBucket(0, LINK_REPLIES_PER_SECOND_MAX, LINK_REPLIES_PER_SECOND_MAX);

  constructor(desired: DesiredPeer, slot: number) {
    this.session = desired.session;
    this.slot = slot;
    this.publicKey = desired.publicKey;
    this.kind = desired.kind;
    this.lease = new LeaseExchange(desired.session);
    this.update(desired);
  }

  get tunnel(): Tunnel<EnginePeer> {
    assert(this.#tunnel !== undefined, "a peer has its tunnel from the moment it is in the tables");
    return this.#tunnel;
  }

  set tunnel(tunnel: Tunnel<EnginePeer>) {
    this.#tunnel = tunnel;
  }

  /** True when it is no longer to be found where it was. */
  update(desired: DesiredPeer): boolean {
    this.prefixes = desired.prefixes;
    this.linkAddress = desired.linkAddress;
    this.persistentKeepaliveMs = desired.persistentKeepaliveMs;
    const isTold = desired.endpointsTold !== this.#endpointsTold;
    this.#endpointsTold = desired.endpointsTold;
    return this.path.setCandidates(desired.endpoints, isTold);
  }

  /** While flows live, NATs on the way must not forget them: the far end may be the next to speak. */
  keepOpen(wanted: boolean): void {
    if (wanted === this.#isKeptOpen || this.persistentKeepaliveMs !== undefined) return;
    this.#isKeptOpen = wanted;
    this.tunnel.keepOpen(wanted ? FLOW_KEEPALIVE_MS : undefined);
  }

  /** What the tunnel is to have, whoever wants it. */
  get keepaliveMs(): number | undefined {
    return this.persistentKeepaliveMs ?? (this.#isKeptOpen ? FLOW_KEEPALIVE_MS : undefined);
  }

  /** Over everything that the peer's packets can make us send back on the peer link. */
  takeReplyToken(nowMs: number): boolean {
    return this.#replies.take(nowMs);
  }
}

/** What `status` says of one peer. */
export interface PeerStatus {
  readonly session: string;
  readonly endpoint: Endpoint | undefined;
  readonly lastHandshakeMs: number | undefined;
  readonly receivedBytes: number;
  readonly sentBytes: number;
  readonly leaseEndMs: number | undefined;
}
