// What a device is told by its file and by `wg set`: the settings that UAPI changes, as one value. A change gives a new
// value or an errno; so nothing is ever half-applied, and who runs the device compares the two.
import { type Endpoint, formatPrefix, type Prefix } from "../../base/address.ts";
import { toHex } from "../../base/bytes.ts";
import { ALLOWED_IPS_MAX, PEERS_MAX } from "../../base/limits.ts";
import { UAPI_ERRNO, type UapiChange, type UapiPeerChange } from "./uapi-codec.ts";

export interface PeerConfig {
  readonly publicKey: Uint8Array;
  readonly presharedKey: Uint8Array | undefined;
  /** As told; where the peer has roamed to is the device's to know. */
  readonly endpoint: Endpoint | undefined;
  /** 0: off. */
  readonly persistentKeepaliveSeconds: number;
  /** By their text. Each prefix is one peer's. */
  readonly allowedIps: ReadonlyMap<string, Prefix>;
}

export interface DeviceConfig {
  readonly privateKey: Uint8Array | undefined;
  readonly listenPort: number;
  readonly fwMark: number;
  /** By their public keys in hexadecimal. */
  readonly peers: ReadonlyMap<string, PeerConfig>;
}

interface PeerDraft extends Omit<PeerConfig, "allowedIps"> {
  readonly allowedIps: Map<string, Prefix>;
}

/** Peers are copied when they are first changed. */
class Draft {
  readonly #peers: Map<string, PeerConfig>;
  readonly #copied = new Map<string, PeerDraft>();
  /** Prefix → the key of the peer that has it. */
  readonly #owners = new Map<string, string>();

  constructor(peers: Iterable<readonly [string, PeerConfig]>) {
    this.#peers = new Map(peers);
    for (const [key, peer] of this.#peers) for (const text of peer.allowedIps.keys()) this.#owners.set(text, key);
  }

  get peers(): ReadonlyMap<string, PeerConfig> {
    return this.#peers;
  }

  get fits(): boolean {
    return this.#peers.size <= PEERS_MAX && this.#owners.size <= ALLOWED_IPS_MAX;
  }

  remove(key: string): void {
    for (const text of this.#peers.get(key)?.allowedIps.keys() ?? []) this.#owners.delete(text);
    this.#peers.delete(key);
    this.#copied.delete(key);
  }

  change(key: string, change: UapiPeerChange): void {
    const before = this.#peers.get(key);
    const { presharedKey, endpoint, persistentKeepaliveSeconds } = change;
    const peer: PeerDraft = {
      publicKey: change.publicKey,
      presharedKey: presharedKey === "none" ? undefined : (presharedKey ?? before?.presharedKey),
      endpoint: endpoint ?? before?.endpoint,
      persistentKeepaliveSeconds: persistentKeepaliveSeconds ?? before?.persistentKeepaliveSeconds ?? 0,
      allowedIps: new Map(before?.allowedIps),
    };
    this.#put(key, peer);
    if (change.replaceAllowedIps) {
      for (const text of peer.allowedIps.keys()) this.#owners.delete(text);
      peer.allowedIps.clear();
    }
    for (const { prefix, remove } of change.allowedIps) this.#allow(key, peer, prefix, remove);
  }

  #allow(key: string, peer: PeerDraft, prefix: Prefix, remove: boolean): void {
    const text = formatPrefix(prefix);
    const owner = this.#owners.get(text);
    if (remove) {
      if (owner !== key) return;
      this.#owners.delete(text);
      peer.allowedIps.delete(text);
      return;
    }
    if (owner !== undefined && owner !== key) this.#own(owner).allowedIps.delete(text);
    this.#owners.set(text, key);
    peer.allowedIps.set(text, prefix);
  }

  #own(key: string): PeerDraft {
    const copied = this.#copied.get(key);
    if (copied !== undefined) return copied;
    const peer = this.#peers.get(key)!;
    const copy = { ...peer, allowedIps: new Map(peer.allowedIps) };
    this.#put(key, copy);
    return copy;
  }

  #put(key: string, peer: PeerDraft): void {
    this.#peers.set(key, peer);
    this.#copied.set(key, peer);
  }
}

/** RFC 7748 §5: the bits that X25519 sets itself. WireGuard's device keeps and shows the key with them set. */
export function clampKey(privateKey: Uint8Array): Uint8Array {
  const clamped = privateKey.slice();
  clamped[0]! &= 248;
  clamped[31] = (clamped[31]! & 127) | 64;
  return clamped;
}

/**
 * As a WireGuard device takes it: a prefix leaves the peer that had it, and a peer with the device's own key is none.
 * `publicKeyOf` is X25519's. Gives UAPI_ERRNO.E2BIG when it is more than fits.
 */
export function changeDevice(
  device: DeviceConfig,
  change: UapiChange,
  publicKeyOf: (privateKey: Uint8Array) => Uint8Array,
): DeviceConfig | number {
  const told = change.privateKey;
  const privateKey = told === "none" ? undefined : told === undefined ? device.privateKey : clampKey(told);
  const ownKey = privateKey === undefined ? undefined : toHex(publicKeyOf(privateKey));
  const draft = new Draft(change.replacePeers ? [] : device.peers);
  if (ownKey !== undefined) draft.remove(ownKey);
  for (const peer of change.peers) {
    const key = toHex(peer.publicKey);
    if (peer.remove) draft.remove(key);
    else if (key !== ownKey && (draft.peers.has(key) || !peer.updateOnly)) draft.change(key, peer);
    if (!draft.fits) return UAPI_ERRNO.E2BIG;
  }
  return {
    privateKey,
    listenPort: change.listenPort ?? device.listenPort,
    fwMark: change.fwMark ?? device.fwMark,
    peers: draft.peers,
  };
}
