// What this peer's own view says about names, as a resolver answers it: `NAME.<network>.internal` is a service, then a
// node, as everywhere; addresses of the network are looked up backwards. A name that this peer may not know gets the
// same bytes as one that doesn't exist. Pure: view and question in, reply out.
import {
  type Address,
  addressToBytes,
  formatAddress,
  isV4,
  type Prefix,
  parseAddress,
  parsePrefix,
  V4_BITS_OFFSET,
} from "../../base/address.ts";
import { RESOLVER_ADDRESSES_MAX } from "../../base/limits.ts";
import type { NetmapView } from "../../control/netmap.ts";
import { resolverAddresses } from "../../control/overlay-subnets.ts";
import { DNS_CLASS_IN, DNS_NAME_ERROR, DNS_TYPE_A, DNS_TYPE_AAAA } from "../../wire/dns.ts";
import {
  addressRecord,
  DNS_NO_ERROR,
  DNS_REFUSED,
  DNS_TYPE_ANY,
  DNS_TYPE_PTR,
  DNS_TYPE_SOA,
  type DnsQuery,
  type DnsRecord,
  type DnsReply,
  emptyReply,
  encodeDnsName,
  soaRecord,
} from "../../wire/dns-query.ts";

/** Of an answer, and of "no such name": a grant or a new gateway is seen after so long at most. */
export const NAME_TTL_SECONDS = 5;

const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const FIRST_META_TYPE = 249; // TKEY, TSIG, IXFR, AXFR, MAILB, MAILA: no records, but things to do (RFC 6895 §3.1)

interface Zone {
  readonly labels: readonly string[];
  /** Labels of a whole name of it: 1 below `<network>.internal`, the rest of an address in a reverse zone. */
  readonly depth: number;
}

/** "5.0.66.10.in-addr.arpa" */
function reverseLabels(address: Address): string[] {
  const bytes = [...addressToBytes(address)];
  if (isV4(address)) return [...bytes.map((byte) => `${byte}`).reverse(), "in-addr", "arpa"];
  const nibbles = bytes.flatMap((byte) => [byte >>> 4, byte & 15]).map((nibble) => nibble.toString(16));
  return [...nibbles.reverse(), "ip6", "arpa"];
}

/** A prefix that ends between two labels has a zone for each label that follows: 10.1.0.0/20 has sixteen. */
function reverseZones(prefix: Prefix): Zone[] {
  const v4 = isV4(prefix.address);
  const bitsOfLabel = v4 ? 8 : 4;
  const bits = prefix.bits - (v4 ? V4_BITS_OFFSET : 0);
  const labelsKept = Math.ceil(bits / bitsOfLabel);
  if (labelsKept === 0) return []; // of all addresses there are
  const depth = (v4 ? 4 : 32) - labelsKept;
  const [first, ...rest] = reverseLabels(prefix.address).slice(depth);
  const count = 2 ** (labelsKept * bitsOfLabel - bits);
  const radix = v4 ? 10 : 16;
  const low = Number.parseInt(first!, radix);
  return Array.from({ length: count }, (_, i) => ({ labels: [(low + i).toString(radix), ...rest], depth }));
}

function endsWith(labels: readonly string[], zone: readonly string[]): boolean {
  const skipped = labels.length - zone.length;
  return zone.every((label, i) => labels[skipped + i] === label);
}

const parseAll = (texts: readonly string[]): Address[] =>
  texts.map(parseAddress).filter((address) => address !== undefined);

export class OverlayNames {
  readonly #view: NetmapView;
  readonly #zones: readonly Zone[];
  /** By label below the forward zone. */
  readonly #hosts = new Map<string, readonly Address[]>();
  /** By address: the label that leads there. */
  readonly #reverse = new Map<string, string>();
  readonly #forward: readonly string[];
  /** Of a family that this peer has no address of, packets would leave by another of the host's interfaces. */
  readonly #families: ReadonlySet<boolean>;

  constructor(view: NetmapView) {
    this.#view = view;
    const { name, ula, pool4 } = view.network;
    const prefixes = [pool4, ula].map(parsePrefix).filter((prefix) => prefix !== undefined);
    this.#forward = [name, "internal"];
    this.#families = new Set(parseAll(view.self.addresses).map(isV4));
    const forward = LABEL.test(name) ? [{ labels: this.#forward, depth: 1 }] : [];
    this.#zones = [...forward, ...prefixes.flatMap(reverseZones)];
    for (const service of view.services) {
      this.#add(service.name, parseAll(service.gateways.map((gateway) => gateway.address)));
    }
    const nodes = new Map<string, Address[]>();
    for (const { identity, addresses } of [view.self, ...view.peers]) {
      if (!identity.startsWith("node:")) continue;
      const node = identity.slice("node:".length);
      nodes.set(node, [...(nodes.get(node) ?? []), ...parseAll(addresses)]);
    }
    for (const [node, addresses] of nodes) this.#add(node, addresses);
  }

  /** A name that is both is the service alone: half its addresses would lead elsewhere. */
  #add(name: string, addresses: readonly Address[]): void {
    if (!LABEL.test(name) || this.#hosts.has(name)) return;
    const usable = addresses.filter((address) => this.#families.has(isV4(address)));
    this.#hosts.set(name, usable);
    for (const address of addresses) {
      const text = formatAddress(address);
      if (!this.#reverse.has(text)) this.#reverse.set(text, name);
    }
  }

  /** "staging.internal", "66.10.in-addr.arpa": what it answers for, whole; the first is of names. */
  get zones(): readonly string[] {
    return this.#zones.map((zone) => zone.labels.join("."));
  }

  answer(query: DnsQuery): DnsReply {
    const { labels, type, recordClass } = query;
    const zone = this.#zones.find((candidate) => endsWith(labels, candidate.labels));
    const isOurs = recordClass === DNS_CLASS_IN || recordClass === DNS_TYPE_ANY;
    if (zone === undefined || !isOurs || (type >= FIRST_META_TYPE && type < DNS_TYPE_ANY))
      return emptyReply(DNS_REFUSED);
    const soa = soaRecord(zone.labels, this.#view.revision >>> 0, NAME_TTL_SECONDS);
    const below = labels.length - zone.labels.length;
    if (below === 0 && (type === DNS_TYPE_SOA || type === DNS_TYPE_ANY)) return found([soa]);
    const records = zone.labels === this.#forward ? this.#host(labels, type) : this.#address(zone, labels, type);
    if (records !== undefined && records.length > 0) return found(records);
    const code = records === undefined ? DNS_NAME_ERROR : DNS_NO_ERROR;
    const authority = { record: soa, zoneLabels: zone.labels.length };
    return { code, records: [], ttlSeconds: NAME_TTL_SECONDS, authority };
  }

  /** Undefined: no such name. */
  #host(labels: readonly string[], type: number): DnsRecord[] | undefined {
    if (labels.length === this.#forward.length) return [];
    const addresses = labels.length === this.#forward.length + 1 ? this.#hosts.get(labels[0]!) : undefined;
    if (addresses === undefined) return undefined;
    // ANY: one set of records is enough of an answer (RFC 8482 §4.1).
    const wanted = type === DNS_TYPE_ANY ? [DNS_TYPE_AAAA, DNS_TYPE_A] : [type];
    const records = addresses.map(addressRecord);
    const sets = wanted.map((each) => records.filter((record) => record.type === each));
    return (sets.find((set) => set.length > 0) ?? []).slice(0, RESOLVER_ADDRESSES_MAX);
  }

  #address(zone: Zone, labels: readonly string[], type: number): DnsRecord[] | undefined {
    const below = labels.length - zone.labels.length;
    if (below < zone.depth) return []; // part of an address: something may lie below, whoever has it
    const name = below === zone.depth ? this.#nameOf(labels) : undefined;
    if (name === undefined) return undefined;
    if (type !== DNS_TYPE_PTR && type !== DNS_TYPE_ANY) return [];
    return [{ type: DNS_TYPE_PTR, data: encodeDnsName([name, ...this.#forward]) }];
  }

  #nameOf(labels: readonly string[]): string | undefined {
    const digits = labels.slice(0, -2).reverse();
    const text = labels.at(-2) === "in-addr" ? digits.join(".") : digits.join("").match(/.{4}/g)?.join(":");
    const address = text === undefined ? undefined : parseAddress(text);
    if (address === undefined || !endsWith(reverseLabels(address), labels)) return undefined; // "01", "ab": no digits
    return this.#reverse.get(formatAddress(address));
  }
}

function found(records: readonly DnsRecord[]): DnsReply {
  return { code: DNS_NO_ERROR, records, ttlSeconds: NAME_TTL_SECONDS, authority: undefined };
}

/** Where the resolver of this network is reached, of the families that this peer has an address of; IPv6 first. */
export function resolverAddressesOf(view: NetmapView): readonly Address[] {
  const ula = parsePrefix(view.network.ula);
  const pool4 = parsePrefix(view.network.pool4);
  if (ula === undefined || pool4 === undefined) return [];
  const { v6, v4 } = resolverAddresses(ula, pool4);
  const own = parseAll(view.self.addresses);
  return [v6, v4].filter((address) => own.some((each) => isV4(each) === isV4(address)));
}
