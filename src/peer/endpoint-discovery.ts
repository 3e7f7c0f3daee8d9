// Which outer endpoints others may reach this peer at: its local addresses with the WireGuard port, and the public
// endpoint that the coordinator's UDP probe saw. Probing goes on every PROBE_INTERVAL_MS, which also keeps a NAT's
// mapping open.
import { lookup } from "node:dns/promises";
import { clearInterval, clearTimeout, setInterval, setTimeout } from "node:timers";
import type { Prefix } from "../base/address.ts";
import { type Address, type Endpoint, formatEndpoint, isV4, parseAddress, prefixContains } from "../base/address.ts";
import { LOCAL_ENDPOINTS_MAX, PROBE_INTERVAL_MS, PROBE_RETRY_MS } from "../base/limits.ts";
import { encodeProbe, openProbeAnswer, type ProbeKey } from "../control/probe.ts";
import type { Crypto } from "../crypto/provider.ts";
import { listInterfaces } from "./interfaces.ts";

export interface EndpointDiscoveryOptions {
  readonly crypto: Crypto;
  readonly port: () => number;
  readonly send: (endpoint: Endpoint, bytes: Uint8Array) => void;
  /** Called when the list changed; best first. */
  readonly onEndpoints: (endpoints: readonly Endpoint[]) => void;
}

function isLinkLocal(address: Address): boolean {
  if (isV4(address)) return address.w3 >>> 16 === 0xa9fe; // 169.254/16
  return address.w0 >>> 22 === 0x3fa; // fe80::/10
}

/** This machine's addresses without the overlay's; loopback last, for peers on the same machine. */
export function localAddresses(overlay: readonly Prefix[]): Address[] {
  const outside: Address[] = [];
  const loopback: Address[] = [];
  for (const info of listInterfaces() ?? []) {
    const address = parseAddress(info.address);
    if (address === undefined || isLinkLocal(address)) continue;
    if (overlay.some((prefix) => prefixContains(prefix, address))) continue;
    if (info.internal) loopback.push(address);
    else outside.push(address);
  }
  return [...outside, ...loopback].slice(0, LOCAL_ENDPOINTS_MAX);
}

export class EndpointDiscovery {
  readonly #options: EndpointDiscoveryOptions;
  #overlay: readonly Prefix[] = [];
  #probe: { key: ProbeKey; servers: readonly Endpoint[] } | undefined;
  #sequence = 0;
  #public: Endpoint | undefined;
  #reported = "";
  #interval: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: EndpointDiscoveryOptions) {
    this.#options = options;
  }

  /** The endpoints as known now. */
  current(): Endpoint[] {
    const port = this.#options.port();
    const local = localAddresses(this.#overlay).map((address) => ({ address, port }));
    return this.#public === undefined ? local : [...local, this.#public];
  }

  setOverlay(prefixes: readonly Prefix[]): void {
    this.#overlay = prefixes;
  }

  /**
   * A new channel: its probe key and the coordinator's `HOST:PORT`s. Names are resolved once here; what fails is left
   * out.
   */
  async start(key: ProbeKey, servers: readonly string[]): Promise<void> {
    this.stop();
    this.#probe = { key, servers: (await Promise.all(servers.map(resolveEndpoint))).filter((e) => e !== undefined) };
    this.#sequence = 0;
    this.#send();
    this.#interval = setInterval(() => this.#send(), PROBE_INTERVAL_MS).unref();
  }

  /** True when the datagram was an answer to our latest probe. */
  handleAnswer(datagram: Uint8Array): boolean {
    if (this.#probe === undefined) return false;
    const seen = openProbeAnswer(this.#options.crypto, this.#probe.key, this.#sequence, datagram);
    if (typeof seen === "string") return false;
    clearTimeout(this.#retry);
    this.#public = seen;
    this.#report();
    return true;
  }

  stop(): void {
    clearInterval(this.#interval);
    clearTimeout(this.#retry);
    this.#probe = undefined;
  }

  #send(): void {
    if (this.#probe === undefined) return;
    clearTimeout(this.#retry);
    this.#sequence++;
    const bytes = encodeProbe(this.#options.crypto, this.#probe.key, this.#sequence);
    for (const server of this.#probe.servers) this.#options.send(server, bytes);
    if (this.#public === undefined) this.#retry = setTimeout(() => this.#send(), PROBE_RETRY_MS).unref();
    this.#report(); // interfaces come and go
  }

  #report(): void {
    const endpoints = this.current();
    const text = endpoints.map(formatEndpoint).join(" ");
    if (text === this.#reported) return;
    this.#reported = text;
    this.#options.onEndpoints(endpoints);
  }
}

async function resolveEndpoint(text: string): Promise<Endpoint | undefined> {
  const at = text.lastIndexOf(":");
  const host = text.slice(0, at).replace(/^\[|\]$/g, "");
  const port = Number(text.slice(at + 1));
  if (at < 1 || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined;
  const literal = parseAddress(host);
  if (literal !== undefined) return { address: literal, port };
  const found = await lookup(host).catch(() => undefined);
  const address = found === undefined ? undefined : parseAddress(found.address);
  return address === undefined ? undefined : { address, port };
}
