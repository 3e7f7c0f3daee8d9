// The two tables of a badge network: outbound, prefix → peer; inbound, what each
// peer may speak for. In `wg` mode both are WireGuard's one trie: of two peers with one prefix the last wins, and a
// source is looked up in it too.
import type { Prefix } from "../base/address.ts";
import { formatPrefix } from "../base/address.ts";
import { ALLOWED_IPS_MAX } from "../base/limits.ts";
import { PrefixTrie } from "./prefix-trie.ts";

export interface RoutedPeer {
  readonly prefixes: readonly Prefix[];
  /** The last handshake failed and none has succeeded since. */
  readonly failed: boolean;
}

export class Routes<P extends RoutedPeer> {
  readonly #single: boolean;
  #outbound = new PrefixTrie<P[]>();
  #inbound = new Map<P, PrefixTrie<true>>();
  /** Prefixes over ALLOWED_IPS_MAX, left out. */
  refused = 0;

  constructor(mode: "badge" | "wg") {
    this.#single = mode === "wg";
  }

  /** Replaces both tables. Several peers may serve one prefix in a badge network: the first that answers is used. */
  rebuild(peers: Iterable<P>): void {
    const outbound = new PrefixTrie<P[]>();
    const inbound = new Map<P, PrefixTrie<true>>();
    const byPrefix = new Map<string, P[]>();
    let count = 0;
    this.refused = 0;
    for (const peer of peers) {
      const own = new PrefixTrie<true>();
      for (const prefix of peer.prefixes) {
        if (count === ALLOWED_IPS_MAX) {
          this.refused++;
          continue;
        }
        count++;
        const key = formatPrefix(prefix);
        const sharing = byPrefix.get(key);
        if (sharing === undefined || this.#single) {
          const owners = [peer];
          byPrefix.set(key, owners);
          outbound.set(prefix, owners);
        } else if (!sharing.includes(peer)) sharing.push(peer);
        if (!this.#single) own.set(prefix, true);
      }
      inbound.set(peer, own);
    }
    this.#outbound = outbound;
    this.#inbound = inbound;
  }

  /** Which peer a packet to this address goes to. Words as PrefixTrie.find takes them. */
  peerFor(w0: number, w1: number, w2: number, w3: number): P | undefined {
    const peers = this.#outbound.find(w0, w1, w2, w3);
    if (peers === undefined) return undefined;
    for (const peer of peers) if (!peer.failed) return peer;
    return peers[0];
  }

  /** May this peer send packets from this inner source? */
  maySpeakFor(peer: P, w0: number, w1: number, w2: number, w3: number): boolean {
    if (this.#single) return this.#outbound.find(w0, w1, w2, w3)?.[0] === peer;
    return this.#inbound.get(peer)?.find(w0, w1, w2, w3) === true;
  }
}
