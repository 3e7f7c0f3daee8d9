// WireGuard's cross-platform userspace API (https://www.wireguard.com/xplatform/): the text that wg(8) and a userspace
// implementation speak over a unix socket. Text ↔ values; no socket and no device here.
import {
  type Endpoint,
  formatEndpoint,
  formatPrefix,
  type Prefix,
  parseEndpoint,
  parsePrefix,
} from "../../base/address.ts";
import { fromHex, isAllZero, toHex } from "../../base/bytes.ts";
import { ALLOWED_IPS_MAX, PEERS_MAX } from "../../base/limits.ts";

/** errno.h of Linux, as far as an answer may hold them; positive here. */
export const UAPI_ERRNO = {
  OK: 0,
  /** The answer of an implementation that only shows itself. */
  EPERM: 1,
  /** Our own failure. */
  EIO: 5,
  /** More than fits: peers, allowed IPs, or bytes of a request. */
  E2BIG: 7,
  /** A key that is not known here, or a value that it can't have. */
  EINVAL: 22,
  /** A line that is not KEY=VALUE. */
  EPROTO: 71,
  /** The port to listen at. */
  EADDRINUSE: 98,
} as const;

export interface UapiPeer {
  readonly publicKey: Uint8Array;
  readonly presharedKey: Uint8Array | undefined;
  readonly endpoint: Endpoint | undefined;
  /** 0: off. */
  readonly persistentKeepaliveSeconds: number;
  readonly allowedIps: Iterable<Prefix>;
  /** Unix time in milliseconds; 0: never. */
  readonly lastHandshakeMs: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

export interface UapiDevice {
  readonly privateKey: Uint8Array | undefined;
  readonly listenPort: number;
  /** 0: off. */
  readonly fwMark: number;
  readonly peers: Iterable<UapiPeer>;
}

export interface UapiPeerChange {
  readonly publicKey: Uint8Array;
  /** Everything below but `updateOnly` is then without meaning. */
  readonly remove: boolean;
  /** Nothing is done if the peer isn't there. */
  readonly updateOnly: boolean;
  /** "none" takes it away. */
  readonly presharedKey: Uint8Array | "none" | undefined;
  readonly endpoint: Endpoint | undefined;
  readonly persistentKeepaliveSeconds: number | undefined;
  /** All that it has go first. */
  readonly replaceAllowedIps: boolean;
  /** In order. Added to one peer they leave any other. */
  readonly allowedIps: readonly { readonly prefix: Prefix; readonly remove: boolean }[];
}

/** Undefined: as it is. */
export interface UapiChange {
  readonly privateKey: Uint8Array | "none" | undefined;
  readonly listenPort: number | undefined;
  readonly fwMark: number | undefined;
  /** All that are there go first. */
  readonly replacePeers: boolean;
  /** In order; one key may stand more than once. */
  readonly peers: readonly UapiPeerChange[];
}

export type UapiRequest =
  | { readonly operation: "get" }
  | { readonly operation: "set"; readonly change: UapiChange }
  | { readonly operation: "refused"; readonly errno: number };

type Draft<T> = { -readonly [K in keyof T]: T[K] };
interface PeerDraft extends Draft<Omit<UapiPeerChange, "allowedIps">> {
  allowedIps: { prefix: Prefix; remove: boolean }[];
}

/** What a line may be wrong by. */
class Refusal {
  readonly errno: number;

  constructor(errno: number) {
    this.errno = errno;
  }
}

const invalid = new Refusal(UAPI_ERRNO.EINVAL);
const KEY = /^[0-9a-f]{64}$/i;

function parseKey(value: string): Uint8Array {
  const bytes = KEY.test(value) ? fromHex(value.toLowerCase()) : undefined;
  if (bytes?.length !== 32) throw invalid;
  return bytes;
}

function parseKeyOrNone(value: string): Uint8Array | "none" {
  const key = parseKey(value);
  return isAllZero(key) ? "none" : key;
}

function parseNumber(value: string, max: number): number {
  const number = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number <= max)) throw invalid;
  return number;
}

/** Flags are set by their presence; to say "false" is to misunderstand them. */
function parseTrue(value: string): true {
  if (value !== "true") throw invalid;
  return true;
}

/** Unlike a file's, it has its length. */
function parseAllowedIp(value: string): { prefix: Prefix; remove: boolean } {
  const remove = value.startsWith("-");
  const text = remove ? value.slice(1) : value;
  const prefix = text.includes("/") ? parsePrefix(text) : undefined;
  if (prefix === undefined) throw invalid;
  return { prefix, remove };
}

function parseOuterEndpoint(value: string): Endpoint {
  const endpoint = parseEndpoint(value);
  if (endpoint === undefined) throw invalid;
  return endpoint;
}

/** Reads the lines of a set, in order: the device's settings until the first public_key, then that peer's. */
class SetParser {
  readonly change: Draft<Omit<UapiChange, "peers">> & { peers: PeerDraft[] } = {
    privateKey: undefined,
    listenPort: undefined,
    fwMark: undefined,
    replacePeers: false,
    peers: [],
  };
  #peer: PeerDraft | undefined;
  #prefixes = 0;

  line(key: string, value: string): void {
    if (key === "public_key") this.#begin(parseKey(value));
    else if (this.#peer === undefined) this.#setDevice(key, value);
    else this.#setPeer(this.#peer, key, value);
  }

  #begin(publicKey: Uint8Array): void {
    if (this.change.peers.length >= PEERS_MAX) throw new Refusal(UAPI_ERRNO.E2BIG);
    this.#peer = {
      publicKey,
      remove: false,
      updateOnly: false,
      presharedKey: undefined,
      endpoint: undefined,
      persistentKeepaliveSeconds: undefined,
      replaceAllowedIps: false,
      allowedIps: [],
    };
    this.change.peers.push(this.#peer);
  }

  #setDevice(key: string, value: string): void {
    const { change } = this;
    if (key === "private_key") change.privateKey = parseKeyOrNone(value);
    else if (key === "listen_port") change.listenPort = parseNumber(value, 0xffff);
    else if (key === "fwmark") change.fwMark = parseNumber(value, 0xffffffff);
    else if (key === "replace_peers") change.replacePeers = parseTrue(value);
    else throw invalid;
  }

  #setPeer(peer: PeerDraft, key: string, value: string): void {
    if (key === "remove") peer.remove = parseTrue(value);
    else if (key === "update_only") peer.updateOnly = parseTrue(value);
    else if (key === "preshared_key") peer.presharedKey = parseKeyOrNone(value);
    else if (key === "endpoint") peer.endpoint = parseOuterEndpoint(value);
    else if (key === "persistent_keepalive_interval") peer.persistentKeepaliveSeconds = parseNumber(value, 0xffff);
    else if (key === "protocol_version") {
      if (value !== "1") throw invalid;
    } else if (key === "replace_allowed_ips") {
      peer.replaceAllowedIps = parseTrue(value);
      peer.allowedIps = []; // what stood before it goes too
    } else if (key === "allowed_ip") {
      if (++this.#prefixes > ALLOWED_IPS_MAX) throw new Refusal(UAPI_ERRNO.E2BIG);
      peer.allowedIps.push(parseAllowedIp(value));
    } else throw invalid;
  }
}

/** One whole request, without the empty line that ends it. Nothing is done by half: a wrong line refuses it all. */
export function parseUapiRequest(text: string): UapiRequest {
  const [operation, ...lines] = text.split("\n");
  if (operation === "get=1") {
    return lines.length === 0 ? { operation: "get" } : { operation: "refused", errno: UAPI_ERRNO.EINVAL };
  }
  if (operation !== "set=1") {
    const errno = operation?.includes("=") ? UAPI_ERRNO.EINVAL : UAPI_ERRNO.EPROTO;
    return { operation: "refused", errno };
  }
  const parser = new SetParser();
  try {
    for (const line of lines) {
      const at = line.indexOf("=");
      if (at < 1) throw new Refusal(UAPI_ERRNO.EPROTO);
      parser.line(line.slice(0, at), line.slice(at + 1));
    }
  } catch (error) {
    if (error instanceof Refusal) return { operation: "refused", errno: error.errno };
    throw error;
  }
  return { operation: "set", change: parser.change };
}

/**
 * The whole answer to a set, or the end of that to a get. On the wire it is negative, as the kernel returns it: so
 * wireguard-go writes it and wg(8) names it ("Address already in use").
 */
export const formatErrno = (errno: number): string => `errno=${errno === 0 ? 0 : -errno}\n\n`;

function* peerLines(peer: UapiPeer, secrets: boolean): Generator<string> {
  yield `public_key=${toHex(peer.publicKey)}`;
  if (secrets && peer.presharedKey !== undefined) yield `preshared_key=${toHex(peer.presharedKey)}`;
  yield "protocol_version=1";
  if (peer.endpoint !== undefined) yield `endpoint=${formatEndpoint(peer.endpoint)}`;
  const atMs = Math.max(0, Math.floor(peer.lastHandshakeMs));
  yield `last_handshake_time_sec=${Math.floor(atMs / 1_000)}`;
  yield `last_handshake_time_nsec=${(atMs % 1_000) * 1_000_000}`;
  yield `tx_bytes=${peer.sentBytes}`;
  yield `rx_bytes=${peer.receivedBytes}`;
  yield `persistent_keepalive_interval=${peer.persistentKeepaliveSeconds}`;
  for (const prefix of peer.allowedIps) yield `allowed_ip=${formatPrefix(prefix)}`;
}

/** The whole answer to a get. Without `secrets` private and preshared keys are left out. */
export function formatDevice(device: UapiDevice, secrets: boolean): string {
  const lines: string[] = [];
  if (secrets && device.privateKey !== undefined) lines.push(`private_key=${toHex(device.privateKey)}`);
  lines.push(`listen_port=${device.listenPort}`);
  if (device.fwMark !== 0) lines.push(`fwmark=${device.fwMark}`);
  for (const peer of device.peers) for (const line of peerLines(peer, secrets)) lines.push(line);
  return `${lines.join("\n")}\n${formatErrno(UAPI_ERRNO.OK)}`;
}
