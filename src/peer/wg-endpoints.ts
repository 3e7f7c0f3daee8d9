// Where the peers of a WireGuard configuration are: endpoint names are asked of the host's resolver at the start, again
// after every failed handshake (the name may have moved), and every few seconds until there is an answer.
import { lookup } from "node:dns/promises";
import { clearTimeout, setTimeout } from "node:timers";
import { type Endpoint, parseAddress } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { ENDPOINT_RESOLVE_RETRY_MS } from "../base/limits.ts";
import { SECOND_MS } from "../base/units.ts";
import type { DesiredPeer } from "../engine/desired-state.ts";
import type { Logger } from "./logger.ts";
import type { WgPeer } from "./wg-config.ts";

export interface WgEndpointsOptions {
  readonly logger: Logger;
  /** An answer came that was waited for: what `desiredPeer` says may have changed. */
  readonly onChange: () => void;
}

export class WgEndpoints {
  readonly #options: WgEndpointsOptions;
  // By what `placeOf` says, so that a peer which is changed otherwise stays where it was found.
  readonly #resolved = new Map<string, Endpoint>();
  readonly #retries = new Map<string, NodeJS.Timeout>();
  #peers: readonly WgPeer[] = [];
  #closed = false;

  constructor(options: WgEndpointsOptions) {
    this.#options = options;
  }

  /** Asked for each that is new, at once; resolves when each has an answer or none for now. */
  async setPeers(peers: readonly WgPeer[]): Promise<void> {
    this.#peers = peers;
    const places = new Set(peers.map(placeOf));
    for (const [place, timer] of this.#retries) {
      if (places.has(place)) continue;
      clearTimeout(timer);
      this.#retries.delete(place);
    }
    for (const place of this.#resolved.keys()) if (!places.has(place)) this.#resolved.delete(place);
    const isKnown = (peer: WgPeer): boolean => this.#resolved.has(placeOf(peer)) || this.#retries.has(placeOf(peer));
    await Promise.all(peers.filter((peer) => !isKnown(peer)).map((peer) => this.#resolve(peer)));
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
    const place = placeOf(peer);
    const literal = parseAddress(host);
    if (literal !== undefined) {
      this.#resolved.set(place, { address: literal, port });
      return;
    }
    const found = await lookup(host).catch((error: unknown) => {
      this.#options.logger.warn({ event: "endpoint-unresolved", host, err: error }, `${host} can't be resolved`);
      return undefined;
    });
    const address = found === undefined ? undefined : parseAddress(found.address);
    if (!this.#peers.some((candidate) => placeOf(candidate) === place)) return; // no longer asked for
    if (address !== undefined) this.#resolved.set(place, { address, port });
    else if (!this.#closed && !this.#retries.has(place)) {
      const retry = setTimeout(() => {
        this.#retries.delete(place);
        this.#resolveAnew(peer);
      }, ENDPOINT_RESOLVE_RETRY_MS);
      this.#retries.set(place, retry);
    }
  }

  #desiredPeer(peer: WgPeer): DesiredPeer {
    const endpoint = this.#resolved.get(placeOf(peer));
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

/** Whose endpoint, and which one. */
function placeOf({ publicKey, endpoint }: WgPeer): string {
  return endpoint === undefined ? toBase64(publicKey) : `${toBase64(publicKey)} ${endpoint.host} ${endpoint.port}`;
}
