// IP addresses and prefixes as four 32-bit words. An IPv4 address a.b.c.d is held as ::ffff:a.b.c.d (RFC 4291
// §2.5.5.2), so that one key shape serves both families; a packet whose IPv6 header carries such an address is dropped
// by the decoder.
import { readU32, writeU32 } from "./bytes.ts";

/** Unsigned 32-bit words, most significant first. */
export interface Address {
  readonly w0: number;
  readonly w1: number;
  readonly w2: number;
  readonly w3: number;
}

/** `bits` counts over the 128-bit form: an IPv4 /24 is 120. The bits after it are zero. */
export interface Prefix {
  readonly address: Address;
  readonly bits: number;
}

/** An outer IP and UDP port. */
export interface Endpoint {
  readonly address: Address;
  readonly port: number;
}

export const V4_BITS_OFFSET = 96;

export function makeAddress(w0: number, w1: number, w2: number, w3: number): Address {
  return { w0: w0 >>> 0, w1: w1 >>> 0, w2: w2 >>> 0, w3: w3 >>> 0 };
}

export function makeV4(value: number): Address {
  return { w0: 0, w1: 0, w2: 0xffff, w3: value >>> 0 };
}

export function isV4(address: Address): boolean {
  return address.w0 === 0 && address.w1 === 0 && address.w2 === 0xffff;
}

const NONE: readonly Address[] = [];

/**
 * The IPv4 addresses that an IPv6 address may stand for: a translator or a tunnel on the way carries its packets there,
 * so what is refused by IPv4 address is refused in these clothes too. The mapped form needs no entry: it *is* IPv4.
 */
export function embeddedV4s({ w0, w1, w2, w3 }: Address): readonly Address[] {
  if (w0 === 0 && w1 === 0) {
    if (w2 === 0) return [makeV4(w3)]; // ::a.b.c.d, RFC 4291 §2.5.5.1
    return w2 === 0xffff0000 ? [makeV4(w3)] : NONE; // ::ffff:0:a.b.c.d, RFC 2765 §2.1
  }
  if (w0 === 0x0064ff9b && w1 === 0 && w2 === 0) return [makeV4(w3)]; // 64:ff9b::/96, RFC 6052 §2.1
  const sixToFour = w0 >>> 16 === 0x2002; // RFC 3056 §2
  const teredo = w0 === 0x20010000; // its server and its client, RFC 4380 §4
  const isatap = (w2 & 0xfcffffff) === 0x00005efe; // RFC 5214 §6.1
  if (!sixToFour && !teredo && !isatap) return NONE;
  const found: Address[] = [];
  if (sixToFour) found.push(makeV4(((w0 & 0xffff) << 16) | (w1 >>> 16)));
  if (teredo) found.push(makeV4(w1), makeV4(~w3));
  if (isatap) found.push(makeV4(w3));
  return found;
}

/** May an address of this prefix be one of those? */
export function mayEmbedV4({ address, bits }: Prefix): boolean {
  if (bits === 128) return embeddedV4s(address).length > 0;
  if (V4_CLOTHES.some((prefix) => prefixesOverlap(prefix, { address, bits }))) return true;
  const known = mask(0xffffffff, bits - 64);
  return ((address.w2 ^ 0x00005efe) & known & 0xfcffffff) === 0; // ISATAP stands in any network
}

export function equalAddress(a: Address, b: Address): boolean {
  return a.w3 === b.w3 && a.w2 === b.w2 && a.w1 === b.w1 && a.w0 === b.w0;
}

export function equalEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && equalAddress(a.address, b.address);
}

/** From 4 or 16 bytes in network order. */
export function addressFromBytes(bytes: Uint8Array, at: number, length: 4 | 16): Address {
  if (length === 4) return makeV4(readU32(bytes, at));
  return makeAddress(readU32(bytes, at), readU32(bytes, at + 4), readU32(bytes, at + 8), readU32(bytes, at + 12));
}

/** 4 bytes for IPv4, else 16. */
export function addressToBytes(address: Address): Uint8Array {
  if (isV4(address)) {
    const bytes = new Uint8Array(4);
    writeU32(bytes, 0, address.w3);
    return bytes;
  }
  return addressTo16(address);
}

/** Always 16 bytes, IPv4 in mapped form. */
export function addressTo16(address: Address): Uint8Array {
  const bytes = new Uint8Array(16);
  writeU32(bytes, 0, address.w0);
  writeU32(bytes, 4, address.w1);
  writeU32(bytes, 8, address.w2);
  writeU32(bytes, 12, address.w3);
  return bytes;
}

function parseV4(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(?:0|[1-9]\d{0,2})$/.test(part)) return undefined; // no octal, no empty part
    const byte = Number(part);
    if (byte > 255) return undefined;
    value = value * 256 + byte;
  }
  return value;
}

/** Dotted decimal may stand for the last two groups of an address, and only there: `mayEndInV4`. */
function parseGroups(text: string, mayEndInV4: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [index, part] of parts.entries()) {
    if (part.includes(".")) {
      const v4 = mayEndInV4 && index === parts.length - 1 ? parseV4(part) : undefined;
      if (v4 === undefined) return undefined;
      groups.push(v4 >>> 16, v4 & 0xffff);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

/**
 * IPv4 dotted decimal or IPv6 text (RFC 4291 §2.2), without zone or brackets. Undefined when it is neither.
 * `::ffff:10.0.0.1` is the same address as `10.0.0.1`.
 */
export function parseAddress(text: string): Address | undefined {
  if (text.length > 45) return undefined;
  if (!text.includes(":")) {
    const v4 = parseV4(text);
    return v4 === undefined ? undefined : makeV4(v4);
  }
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const g = [...head, ...new Array<number>(halves.length === 2 ? missing : 0).fill(0), ...tail];
  const word = (i: number): number => g[i]! * 0x10000 + g[i + 1]!;
  return makeAddress(word(0), word(2), word(4), word(6));
}

function formatV4(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

/** Dotted decimal, or the canonical IPv6 text of RFC 5952. */
export function formatAddress(address: Address): string {
  if (isV4(address)) return formatV4(address.w3);
  const groups: number[] = [];
  for (const word of [address.w0, address.w1, address.w2, address.w3]) groups.push(word >>> 16, word & 0xffff);
  let bestAt = -1;
  let bestLength = 1; // a single zero group is not shortened (RFC 5952 §4.2.2)
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > bestLength) {
      bestAt = i;
      bestLength = end - i;
    }
    if (end > i) i = end;
  }
  const text = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(":");
  return bestAt < 0 ? text(0, 8) : `${text(0, bestAt)}::${text(bestAt + bestLength, 8)}`;
}

// Where IPv4 addresses stand in IPv6 ones by the first bits.
const V4_CLOTHES: readonly Prefix[] = [
  { address: { w0: 0, w1: 0, w2: 0, w3: 0 }, bits: 96 },
  { address: { w0: 0, w1: 0, w2: 0xffff0000, w3: 0 }, bits: 96 },
  { address: { w0: 0x0064ff9b, w1: 0, w2: 0, w3: 0 }, bits: 96 },
  { address: { w0: 0x20020000, w1: 0, w2: 0, w3: 0 }, bits: 16 },
  { address: { w0: 0x20010000, w1: 0, w2: 0, w3: 0 }, bits: 32 },
];

function mask(word: number, bits: number): number {
  if (bits >= 32) return word;
  return bits <= 0 ? 0 : (word & (-1 << (32 - bits))) >>> 0;
}

export function makePrefix(address: Address, bits: number): Prefix {
  return {
    address: makeAddress(
      mask(address.w0, bits),
      mask(address.w1, bits - 32),
      mask(address.w2, bits - 64),
      mask(address.w3, bits - 96),
    ),
    bits,
  };
}

export function hostPrefix(address: Address): Prefix {
  return { address, bits: 128 };
}

/**
 * True when `0.0.0.0/0` style prefixes cover IPv4 only: an IPv6 prefix shorter than 96 bits never contains an IPv4
 * address.
 */
export function prefixContains(prefix: Prefix, address: Address): boolean {
  const { bits } = prefix;
  if (bits < V4_BITS_OFFSET && isV4(address)) return false;
  const p = prefix.address;
  return (
    p.w0 === mask(address.w0, bits) &&
    p.w1 === mask(address.w1, bits - 32) &&
    p.w2 === mask(address.w2, bits - 64) &&
    p.w3 === mask(address.w3, bits - 96)
  );
}

export function isV4Prefix(prefix: Prefix): boolean {
  return prefix.bits >= V4_BITS_OFFSET && isV4(prefix.address);
}

export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  if (isV4Prefix(a) !== isV4Prefix(b)) return false;
  return a.bits <= b.bits ? prefixContains(a, b.address) : prefixContains(b, a.address);
}

/** `10.0.0.0/8`, `fd00::/8`, or a bare address. Host bits are cleared. Undefined when it is not a prefix. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) return undefined;
  if (slash < 0) return hostPrefix(address);
  const bitsText = text.slice(slash + 1);
  if (!/^(?:0|[1-9]\d{0,2})$/.test(bitsText)) return undefined;
  const v4 = !text.includes(":");
  const bits = Number(bitsText) + (v4 ? V4_BITS_OFFSET : 0);
  return bits > 128 ? undefined : makePrefix(address, bits);
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${isV4Prefix(prefix) ? prefix.bits - V4_BITS_OFFSET : prefix.bits}`;
}

/** `10.0.0.1:51820` or `[fd00::1]:51820`; undefined when it is not both. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  const address = parseAddress(match[1] ?? match[2]!);
  const port = Number(match[3]);
  return address === undefined || port < 1 || port > 65_535 ? undefined : { address, port };
}

export function formatEndpoint(endpoint: Endpoint): string {
  const host = formatAddress(endpoint.address);
  return isV4(endpoint.address) ? `${host}:${endpoint.port}` : `[${host}]:${endpoint.port}`;
}
