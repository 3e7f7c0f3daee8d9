// Which hosts are the network's, by what this session knows: overlay addresses, routes, services, nodes and names
// behind `host:` routes. For `lookup`, and for a program whose other connections go their own way (register.ts).
import { type Address, isV4, type Prefix, parseAddress, parsePrefix, prefixContains } from "../base/address.ts";
import { OVERLAY_NAMES_REMEMBERED_MAX } from "../base/limits.ts";
import type { NetmapView } from "../control/netmap.ts";
import { longestMatch, parseHostName } from "../peer/host-name.ts";
import { splitKind } from "../peer/overlay-dialer.ts";

const HOST_PATTERN = "host:";

/** Whatever the routes say, these are this host's own: loopback, link-local, unspecified. */
const OWN = ["127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128", "169.254.0.0/16", "fe80::/10"].flatMap(
  (text) => parsePrefix(text) ?? [],
);

export class OverlayHosts {
  readonly #netmap: () => NetmapView | undefined;
  /** Names that were the network's when they were asked for: they never fall through to another resolver later. */
  readonly #remembered = new Set<string>();
  #prefixesOf: NetmapView | undefined;
  #prefixes: readonly Prefix[] = [];

  constructor(netmap: () => NetmapView | undefined) {
    this.#netmap = netmap;
  }

  get rememberedCount(): number {
    return this.#remembered.size;
  }

  /** As the dialer takes it: no brackets, and `staging.NETWORK.internal` is "staging". */
  normalize(host: string): string {
    const bare = /^\[.*\]$/.test(host) ? host.slice(1, -1) : host;
    const name = parseHostName(bare);
    const zone = this.#zone();
    if (name === undefined || zone === undefined || !name.endsWith(zone)) return bare;
    return name.slice(0, -zone.length);
  }

  /** Is it the network's to reach, or to refuse? Everything else is none of its business. */
  covers(host: string): boolean {
    const netmap = this.#netmap();
    const bare = this.normalize(host);
    const address = parseAddress(bare);
    if (address !== undefined) {
      return !OWN.some((prefix) => prefixContains(prefix, address)) && this.#routed(netmap, address);
    }
    if (splitKind(bare).kind !== undefined) return true;
    const name = parseHostName(bare);
    if (name === undefined || name === "localhost" || name.endsWith(".localhost")) return false;
    const isKnown = bare !== host.toLowerCase() || (netmap !== undefined && isNamed(netmap, name));
    if (isKnown) this.#remember(name);
    return isKnown || this.#remembered.has(name);
  }

  /** Of a service or node; empty: none that this session knows of (a `host:` name is resolved by its gateway). */
  addressesOf(host: string): readonly Address[] {
    const bare = this.normalize(host);
    const literal = parseAddress(bare);
    if (literal !== undefined) return [literal];
    const netmap = this.#netmap();
    const { kind, name } = splitKind(bare);
    if (netmap === undefined) return [];
    const service = kind === "node" ? undefined : netmap.services.find((entry) => entry.name === name);
    const texts =
      service?.denied === undefined && service !== undefined
        ? service.gateways.map(({ address }) => address)
        : netmap.peers.filter((peer) => kind !== "service" && peer.identity === `node:${name}`).flatMap(addressTexts);
    return texts.flatMap((text) => parseAddress(text) ?? []);
  }

  #zone(): string | undefined {
    const netmap = this.#netmap();
    return netmap === undefined ? undefined : `.${netmap.network.name}.internal`;
  }

  #routed(netmap: NetmapView | undefined, address: Address): boolean {
    if (netmap === undefined) return false;
    if (netmap !== this.#prefixesOf) {
      const own = [netmap.network.ula, netmap.network.pool4];
      this.#prefixes = [...own, ...netmap.peers.flatMap(({ prefixes }) => prefixes)].flatMap(
        (text) => parsePrefix(text) ?? [],
      );
      this.#prefixesOf = netmap;
    }
    return this.#prefixes.some((prefix) => prefixContains(prefix, address));
  }

  #remember(name: string): void {
    if (this.#remembered.has(name)) return;
    const oldest = this.#remembered.values().next();
    if (this.#remembered.size >= OVERLAY_NAMES_REMEMBERED_MAX && oldest.done !== true) {
      this.#remembered.delete(oldest.value);
    }
    this.#remembered.add(name);
  }
}

function isNamed(netmap: NetmapView, name: string): boolean {
  if (netmap.services.some((entry) => entry.name === name)) return true;
  if (netmap.peers.some((peer) => peer.identity === `node:${name}`)) return true;
  return longestMatch(name, netmap.hostRoutes, ({ pattern }) => pattern.replace(HOST_PATTERN, "")) !== undefined;
}

function addressTexts(peer: { readonly addresses: readonly string[] }): readonly string[] {
  return peer.addresses;
}

export const familyOf = (address: Address): 4 | 6 => (isV4(address) ? 4 : 6);
