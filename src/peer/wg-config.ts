// Reads a WireGuard configuration as wg(8) and wg-quick(8) write it. Whatever is wrong is said with its line, what it
// is and how to mend it; values are never quoted back, they may be keys. Nothing in the file is ever run.
import { type Address, formatAddress, type Prefix, parseAddress, parsePrefix } from "../base/address.ts";
import { equalBytes, fromBase64, isAllZero } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { ALLOWED_IPS_MAX, MTU_MIN_BYTES, PEERS_MAX, WG_CONFIG_MAX_BYTES } from "../base/limits.ts";
import { isLowOrderPoint } from "../crypto/low-order.ts";
import { PortableCrypto } from "../crypto/portable.ts";
import { parseHostName } from "./host-name.ts";
import type { InterfaceAddress } from "./tun/route-plan.ts";

/** A name stays a name: it is resolved again when handshakes fail. */
export interface WgEndpoint {
  readonly host: string;
  readonly port: number;
}

export interface WgPeer {
  readonly publicKey: Uint8Array;
  readonly presharedKey: Uint8Array | undefined;
  /** Of two peers with one prefix, only the last has it. */
  readonly allowedIps: readonly Prefix[];
  readonly endpoint: WgEndpoint | undefined;
  /** 0: off. */
  readonly persistentKeepaliveSeconds: number;
  /** Of its `[Peer]`. */
  readonly line: number;
}

export interface WgConfig {
  readonly privateKey: Uint8Array;
  readonly listenPort: number | undefined;
  /** 0: off. Only for a kernel's routing, under `--tun`: rootless it has no effect. */
  readonly fwMark: number;
  /** The networks of its own addresses, without host bits. */
  readonly addresses: readonly Prefix[];
  /** The interface's own addresses with their networks' lengths, for a TUN device. */
  readonly interfaceAddresses: readonly InterfaceAddress[];
  /** The interface's own addresses, without their prefix lengths. */
  readonly ownAddresses: readonly Address[];
  readonly dnsServers: readonly Address[];
  readonly searchDomains: readonly string[];
  readonly mtuBytes: number | undefined;
  /** Only for a kernel's routing, under `--tun`: rootless it has no effect. */
  readonly table: "auto" | "off" | number;
  readonly peers: readonly WgPeer[];
  /** Of a `[Peer]` with this end's own key, as a list shared by all hosts has: passed over, as WireGuard does. */
  readonly ownPeerLine: number | undefined;
  /** Hooks and SaveConfig that were passed over, with `ignoreHooks`. */
  readonly ignored: readonly { readonly line: number; readonly key: string }[];
}

export interface WgConfigOptions {
  /** Passes over PreUp, PostUp, PreDown, PostDown and SaveConfig instead of refusing them. */
  readonly ignoreHooks?: boolean;
}

const INTERFACE_KEYS = ["PrivateKey", "ListenPort", "FwMark", "Address", "DNS", "MTU", "Table"] as const;
const HOOK_KEYS = ["PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"] as const;
const PEER_KEYS = ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"] as const;
const ZERO_KEY_HINTS = {
  PrivateKey: "make one with `wg genkey`",
  PublicKey: "ask the other end for what `wg show` or `wg pubkey` prints there",
} as const;
const KEY_HINT = "it is 44 characters of base64, as `wg genkey`, `wg pubkey` and `wg genpsk` print";

interface InterfaceDraft {
  privateKey?: Uint8Array;
  listenPort?: number;
  fwMark: number;
  addresses: Prefix[];
  ownAddresses: Address[];
  dnsServers: Address[];
  searchDomains: string[];
  mtuBytes?: number;
  table: "auto" | "off" | number;
}

interface PeerDraft {
  line: number;
  publicKey?: Uint8Array;
  presharedKey?: Uint8Array | undefined;
  allowedIps?: Prefix[];
  endpoint?: WgEndpoint;
  persistentKeepaliveSeconds?: number;
}

/** Only what can't be a part of a key is quoted back. */
function shown(text: string): string {
  return /^[A-Za-z-]{1,24}$/.test(text) ? `“${text}”` : "this";
}

/** At one line of the file. */
class Line {
  readonly number: number;
  readonly #fileName: string;

  constructor(fileName: string, number: number) {
    this.#fileName = fileName;
    this.number = number;
  }

  fail(message: string, hint: string): WirebadgeError {
    return new WirebadgeError("CONFIG_INVALID", `${this.#fileName}:${this.number}: ${message}`, { hint });
  }

  key(name: string, value: string): Uint8Array {
    const bytes = fromBase64(value);
    if (bytes?.length !== 32) throw this.fail(`${name} is not a key`, KEY_HINT);
    return bytes;
  }

  /** No handshake can be made with a key of zeros or one of low order: every secret would be zero. */
  usableKey(name: "PrivateKey" | "PublicKey", value: string): Uint8Array {
    const bytes = this.key(name, value);
    if (isAllZero(bytes)) throw this.fail(`${name} is all zeros, which is no key`, ZERO_KEY_HINTS[name]);
    if (name === "PublicKey" && isLowOrderPoint(bytes)) {
      throw this.fail(`${name} is a point of low order: nothing is secret under it`, ZERO_KEY_HINTS[name]);
    }
    return bytes;
  }

  integer(name: string, value: string, low: number, high: number): number {
    const number = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
    if (number >= low && number <= high) return number;
    throw this.fail(`${name} is not a number from ${low} to ${high}`, `write a plain number, as ${name} = ${low}`);
  }

  /** Separated by commas; nothing at all is an empty list. */
  list(value: string, name: string): readonly string[] {
    if (value === "") return [];
    const items = value.split(",");
    if (items.includes("")) throw this.fail(`${name} has an empty item`, "take the comma too many out");
    return items;
  }
}

/** The nearest known spelling, by a shared beginning: for hints alone. */
function suggestion(key: string, known: readonly string[]): string {
  const start = key.slice(0, 4).toLowerCase();
  const near = known.find((name) => start.length >= 3 && name.toLowerCase().startsWith(start));
  return near === undefined ? `the keys here are ${known.join(", ")}` : `did you mean ${near}?`;
}

function parseWgEndpoint(line: Line, value: string): WgEndpoint {
  const hint = "write it as 192.0.2.1:51820, [2001:db8::1]:51820 or vpn.example.com:51820";
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port < 1 || port > 65_535) throw line.fail("Endpoint is not HOST:PORT", hint);
  if (match[1] !== undefined) {
    if (match[1].includes("%")) throw line.fail("Endpoint has an IPv6 zone", "give an address that needs none");
    const address = match[1].includes(":") ? parseAddress(match[1]) : undefined;
    if (address === undefined) throw line.fail("Endpoint is not an IPv6 address in brackets", hint);
    return { host: formatAddress(address), port };
  }
  const host = parseAddress(match[2]!) === undefined ? parseHostName(match[2]!) : match[2]!;
  if (host === undefined) throw line.fail("Endpoint has neither an address nor a host name", hint);
  return { host, port };
}

function parseAllowedIps(line: Line, value: string): Prefix[] {
  return line.list(value, "AllowedIPs").map((item) => {
    const prefix = parsePrefix(item);
    if (prefix !== undefined) return prefix;
    throw line.fail(
      "AllowedIPs has an item that is no prefix",
      "write prefixes as 10.0.0.0/24, fd00::/64 or 0.0.0.0/0",
    );
  });
}

/** As bytes of a number: `off`, decimal, or hexadecimal with 0x. */
function parseFwMark(line: Line, value: string): number {
  if (value.toLowerCase() === "off") return 0;
  const mark = /^(?:0x[0-9a-f]{1,8}|\d{1,10})$/i.test(value) ? Number(value) : Number.NaN;
  if (mark <= 0xffffffff) return mark;
  throw line.fail("FwMark is not a mark", "write off, a number, or hexadecimal as 0xca6c");
}

function parseTable(line: Line, value: string): "auto" | "off" | number {
  const word = value.toLowerCase();
  if (word === "auto" || word === "off") return word;
  const table = /^(?:0x[0-9a-f]{1,8}|\d{1,10})$/i.test(value) ? Number(value) : Number.NaN;
  if (table <= 0xffffffff) return table;
  throw line.fail("Table is neither auto, off nor a number", "rootless it has no effect: leave it out");
}

function addAddresses(line: Line, value: string, draft: InterfaceDraft): void {
  for (const item of line.list(value, "Address")) {
    const prefix = parsePrefix(item);
    const address = parseAddress(item.split("/")[0]!);
    if (prefix === undefined || address === undefined) {
      throw line.fail("Address has an item that is no address", "write it as 10.0.0.2/32 or fd00::2/128");
    }
    draft.addresses.push(prefix);
    draft.ownAddresses.push(address);
  }
}

/** wg-quick(8): what is no address is a search domain. */
function addDns(line: Line, value: string, draft: InterfaceDraft): void {
  for (const item of line.list(value, "DNS")) {
    const server = parseAddress(item);
    const domain = server === undefined ? parseHostName(item) : undefined;
    if (server !== undefined) draft.dnsServers.push(server);
    else if (domain !== undefined) draft.searchDomains.push(domain);
    else
      throw line.fail(
        "DNS has an item that is neither a server's address nor a search domain",
        "as 10.0.0.1, corp.lan",
      );
  }
}

function setInterface(line: Line, key: (typeof INTERFACE_KEYS)[number], value: string, draft: InterfaceDraft): void {
  switch (key) {
    case "PrivateKey":
      draft.privateKey = line.usableKey(key, value);
      break;
    case "ListenPort":
      draft.listenPort = line.integer(key, value, 0, 65_535);
      break;
    case "FwMark":
      draft.fwMark = parseFwMark(line, value);
      break;
    case "Address":
      addAddresses(line, value, draft);
      break;
    case "DNS":
      addDns(line, value, draft);
      break;
    case "MTU":
      draft.mtuBytes = line.integer(key, value, MTU_MIN_BYTES, 65_535);
      break;
    case "Table":
      draft.table = parseTable(line, value);
      break;
  }
}

function setPeer(line: Line, key: (typeof PEER_KEYS)[number], value: string, draft: PeerDraft): void {
  switch (key) {
    case "PublicKey":
      draft.publicKey = line.usableKey(key, value);
      break;
    case "PresharedKey": {
      const bytes = line.key(key, value);
      draft.presharedKey = isAllZero(bytes) ? undefined : bytes; // as the kernel takes it: none
      break;
    }
    case "AllowedIPs":
      draft.allowedIps ??= [];
      for (const prefix of parseAllowedIps(line, value)) draft.allowedIps.push(prefix);
      break;
    case "Endpoint":
      draft.endpoint = parseWgEndpoint(line, value);
      break;
    case "PersistentKeepalive":
      draft.persistentKeepaliveSeconds = value.toLowerCase() === "off" ? 0 : line.integer(key, value, 0, 65_535);
      break;
  }
}

function match<K extends string>(key: string, known: readonly K[]): K | undefined {
  const wanted = key.toLowerCase();
  return known.find((name) => name.toLowerCase() === wanted);
}

class Parser {
  readonly #fileName: string;
  readonly #options: WgConfigOptions;
  readonly #interface: InterfaceDraft = {
    fwMark: 0,
    addresses: [],
    ownAddresses: [],
    dnsServers: [],
    searchDomains: [],
    table: "auto",
  };
  readonly #peers: PeerDraft[] = [];
  readonly #ignored: { line: number; key: string }[] = [];
  #section: "none" | "interface" | "peer" = "none";
  #interfaceLine: number | undefined;
  #prefixes = 0;

  constructor(fileName: string, options: WgConfigOptions) {
    this.#fileName = fileName;
    this.#options = options;
  }

  /** Spaces count nowhere outside hooks, `#` begins a comment anywhere (wg's config.c). */
  line(number: number, raw: string): void {
    const line = new Line(this.#fileName, number);
    if (raw.includes("\0")) throw line.fail("there is a zero byte", "this is no text file");
    const comment = raw.indexOf("#");
    const text = (comment < 0 ? raw : raw.slice(0, comment)).replace(/\s+/g, "");
    if (text === "") return;
    if (text.startsWith("[")) {
      this.#begin(line, text);
      return;
    }
    const at = text.indexOf("=");
    const key = at < 0 ? text : text.slice(0, at);
    if (at < 1) throw line.fail(`${shown(key)} is not KEY = VALUE`, "write one setting a line, as ListenPort = 51820");
    this.#set(line, key, text.slice(at + 1));
  }

  #begin(line: Line, text: string): void {
    const name = text.toLowerCase();
    if (name === "[interface]") {
      if (this.#interfaceLine !== undefined) {
        throw line.fail(`[Interface] stands twice, first in line ${this.#interfaceLine}`, "join the two sections");
      }
      this.#interfaceLine = line.number;
      this.#section = "interface";
    } else if (name === "[peer]") {
      if (this.#peers.length >= PEERS_MAX) throw line.fail("there are too many peers", `${PEERS_MAX} are the most`);
      this.#peers.push({ line: line.number });
      this.#section = "peer";
    } else
      throw line.fail(`${shown(text.replace(/[[\]]/g, ""))} is no section`, "the sections are [Interface] and [Peer]");
  }

  #set(line: Line, key: string, value: string): void {
    if (this.#section === "none") throw line.fail("a setting before the first section", "begin with [Interface]");
    if (this.#section === "peer") {
      const known = match(key, PEER_KEYS);
      if (known === undefined) throw this.#unknown(line, key, PEER_KEYS, INTERFACE_KEYS, "[Interface]");
      setPeer(line, known, value, this.#peers.at(-1)!);
      if (known === "AllowedIPs") this.#countPrefixes(line, value);
      return;
    }
    const hook = match(key, HOOK_KEYS);
    if (hook !== undefined) {
      if (this.#options.ignoreHooks !== true) {
        throw line.fail(`${hook} is never run`, "take it out, or pass it over with --ignore-hooks");
      }
      this.#ignored.push({ line: line.number, key: hook });
      return;
    }
    const known = match(key, INTERFACE_KEYS);
    if (known === undefined) throw this.#unknown(line, key, INTERFACE_KEYS, PEER_KEYS, "[Peer]");
    setInterface(line, known, value, this.#interface);
  }

  #unknown(
    line: Line,
    key: string,
    here: readonly string[],
    there: readonly string[],
    section: string,
  ): WirebadgeError {
    const elsewhere = match(key, there);
    if (elsewhere !== undefined) return line.fail(`${elsewhere} stands in the wrong section`, `move it to ${section}`);
    return line.fail(`${shown(key)} is no key of this section`, suggestion(key, here));
  }

  #countPrefixes(line: Line, value: string): void {
    this.#prefixes += value.split(",").length;
    if (this.#prefixes > ALLOWED_IPS_MAX) {
      throw line.fail("there are too many AllowedIPs", `${ALLOWED_IPS_MAX} are the most, over all peers`);
    }
  }

  result(): WgConfig {
    const draft = this.#interface;
    const start = new Line(this.#fileName, this.#interfaceLine ?? 1);
    if (this.#interfaceLine === undefined) throw start.fail("there is no [Interface]", "add it, with a PrivateKey");
    const { privateKey } = draft;
    if (privateKey === undefined) throw start.fail("[Interface] has no PrivateKey", KEY_HINT);
    if (draft.ownAddresses.length === 0) {
      throw start.fail("[Interface] has no Address", "add the one that the far end expects, as Address = 10.0.0.2/32");
    }
    const ownKey = new PortableCrypto().publicKey(privateKey);
    const merged = this.#mergePeers();
    const own = merged.find((peer) => equalBytes(peer.publicKey, ownKey));
    return {
      privateKey,
      listenPort: draft.listenPort,
      fwMark: draft.fwMark,
      addresses: draft.addresses,
      interfaceAddresses: draft.ownAddresses.map((address, at) => ({ address, bits: draft.addresses[at]!.bits })),
      ownAddresses: draft.ownAddresses,
      dnsServers: draft.dnsServers,
      searchDomains: draft.searchDomains,
      mtuBytes: draft.mtuBytes,
      table: draft.table,
      peers: lastPrefixWins(merged.filter((peer) => peer !== own)),
      ownPeerLine: own?.line,
      ignored: this.#ignored,
    };
  }

  /** A key that stands twice is one peer: what the later section sets replaces what the earlier did (wg setconf). */
  #mergePeers(): readonly WgPeer[] {
    const byKey = new Map<string, PeerDraft & { publicKey: Uint8Array }>();
    for (const draft of this.#peers) {
      const { publicKey } = draft;
      if (publicKey === undefined) {
        throw new Line(this.#fileName, draft.line).fail("this [Peer] has no PublicKey", KEY_HINT);
      }
      const text = Buffer.from(publicKey).toString("base64");
      byKey.set(text, { ...byKey.get(text), ...draft, publicKey });
    }
    return [...byKey.values()].map((draft) => ({
      publicKey: draft.publicKey,
      presharedKey: draft.presharedKey,
      allowedIps: draft.allowedIps ?? [],
      endpoint: draft.endpoint,
      persistentKeepaliveSeconds: draft.persistentKeepaliveSeconds ?? 0,
      line: draft.line,
    }));
  }
}

function prefixKey(prefix: Prefix): string {
  const { w0, w1, w2, w3 } = prefix.address;
  return `${w0},${w1},${w2},${w3}/${prefix.bits}`;
}

function lastPrefixWins(peers: readonly WgPeer[]): readonly WgPeer[] {
  const owner = new Map<string, WgPeer>();
  for (const peer of [...peers].sort((a, b) => a.line - b.line)) {
    for (const prefix of peer.allowedIps) owner.set(prefixKey(prefix), peer);
  }
  return peers.map((peer) => {
    const seen = new Set<string>();
    const allowedIps = peer.allowedIps.filter((prefix) => {
      const key = prefixKey(prefix);
      const keep = owner.get(key) === peer && !seen.has(key);
      seen.add(key);
      return keep;
    });
    return { ...peer, allowedIps };
  });
}

/**
 * `parseWgConfig("home.conf", text)`; the name stands in errors alone.
 * @throws WirebadgeError CONFIG_INVALID, as `home.conf:7: “Adress” is no key of this section` with a hint
 */
export function parseWgConfig(fileName: string, text: string, options: WgConfigOptions = {}): WgConfig {
  if (text.length > WG_CONFIG_MAX_BYTES) {
    throw new WirebadgeError("CONFIG_INVALID", `${fileName} is too large for a configuration`, {
      hint: `${WG_CONFIG_MAX_BYTES} characters are the most`,
    });
  }
  const parser = new Parser(fileName, options);
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  for (const [index, raw] of lines.entries()) parser.line(index + 1, raw);
  return parser.result();
}

/** Says of each hook and `[Peer]` that was passed over where it stands. */
export function warnOfIgnored(
  fileName: string,
  { ignored, ownPeerLine: line }: WgConfig,
  logger: { warn(fields: object, text: string): void },
): void {
  for (const { line: at, key } of ignored) {
    logger.warn({ event: "hook-ignored", line: at, key }, `${fileName}:${at}: ${key} is not run`);
  }
  if (line !== undefined)
    logger.warn({ event: "own-peer-ignored", line }, `${fileName}:${line}: this [Peer] is ourselves`);
}
