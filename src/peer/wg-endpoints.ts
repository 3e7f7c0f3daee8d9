// Where the peers of a WireGuard configuration are: endpoint names are asked of the host's resolver at the start, again
// after every failed handshake (the name may have moved), and every few seconds until there is an answer.
import { lookup } from "node:dns/promises";
import { clearTimeout, setTimeout } from "node:timers";
import type { Logger } from "pino";
import { type Endpoint, parseAddress } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { ENDPOINT_RESOLVE_RETRY_MS } from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";
import type { DesiredPeer } from "../engine/desired-state.ts";
import type { WgPeer } from "./wg-config.ts";

export interface WgEndpointsOptions {
  readonly logger: Logger;
  /** An answer came that was waited for: what `desiredPeer` says may have changed. */
  readonly onChange: () => void;
}

export class WgEndpoints {
  readonly #options: WgEndpointsOptions;
  readonly #resolved = new Map<WgPeer, Endpoint>();
  readonly #retries = new Map<WgPeer, NodeJS.Timeout>();
  #peers: readonly WgPeer[] = [];
  #closed = false;

  constructor(options: WgEndpointsOptions) {
    this.#options = options;
  }

  /** Asked for each at once; resolves when each has an answer or none for now. */
  async setPeers(peers: readonly WgPeer[]): Promise<void> {
    this.#peers = peers;
    for (const [peer, timer] of this.#retries) {
      if (peers.includes(peer)) continue;
      clearTimeout(timer);
      this.#retries.delete(peer);
    }
    for (const peer of this.#resolved.keys()) if (!peers.includes(peer)) this.#resolved.delete(peer);
    await Promise.all(peers.map((peer) => this.#resolve(peer)));
  }

  /** No answer came from where it was. `session` is the public key's base64. */
  handshakeFailed(session: string): void {
    const peer = this.#peers.find((candidate) => toBase64(candidate.publicKey) === session);
    if (peer !== undefined) this.#resolveAnew(peer);
  }

  desiredPeers(): DesiredPeer[] {
    return this.#peers.map((peer) => this.#desiredPeer(peer));
  }

  close(): void {
    this.#closed = true;
    for (const timer of this.#retries.values()) clearTimeout(timer);
    this.#retries.clear();
  }

  #resolveAnew(peer: WgPeer): void {
    void this.#resolve(peer).then(() => {
      if (!this.#closed) this.#options.onChange();
    });
  }

  async #resolve(peer: WgPeer): Promise<void> {
    if (peer.endpoint === undefined) return;
    const { host, port } = peer.endpoint;
    const literal = parseAddress(host);
    if (literal !== undefined) {
      this.#resolved.set(peer, { address: literal, port });
      return;
    }
    const found = await lookup(host).catch((error: unknown) => {
      this.#options.logger.warn({ event: "endpoint-unresolved", host, err: error }, `${host} can't be resolved`);
      return undefined;
    });
    const address = found === undefined ? undefined : parseAddress(found.address);
    if (address !== undefined) this.#resolved.set(peer, { address, port });
    else if (!this.#closed && !this.#retries.has(peer) && this.#peers.includes(peer)) {
      const retry = setTimeout(() => {
        this.#retries.delete(peer);
        this.#resolveAnew(peer);
      }, ENDPOINT_RESOLVE_RETRY_MS);
      this.#retries.set(peer, retry);
    }
  }

  #desiredPeer(peer: WgPeer): DesiredPeer {
    const endpoint = this.#resolved.get(peer);
    const keepaliveMs = peer.persistentKeepaliveSeconds * SECOND_MS;
    return {
      session: toBase64(peer.publicKey),
      publicKey: peer.publicKey,
      kind: "stock",
      prefixes: peer.allowedIps,
      endpoints: endpoint === undefined ? [] : [endpoint],
      ...(peer.presharedKey === undefined ? {} : { presharedKey: peer.presharedKey }),
      ...(keepaliveMs === 0 ? {} : { persistentKeepaliveMs: keepaliveMs }),
    };
  }
}
