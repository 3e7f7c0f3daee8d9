// A second reading of an IP packet, written from the RFCs for the eye and not for speed; it shares nothing with
// src/wire. Fuzzing and the filter's oracle hold the two equal.

export interface NaivePacket {
  readonly version: 4 | 6;
  /** Four words; IPv4 as ::ffff:a.b.c.d. */
  readonly source: readonly number[];
  readonly destination: readonly number[];
  readonly protocol: number;
  readonly totalBytes: number;
  readonly transportOffset: number;
  readonly fragment: { readonly id: number; readonly offsetBytes: number; readonly more: boolean } | undefined;
  /** Of TCP and UDP; of an echo the identifier is both. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly tcpFlags: number;
  readonly icmpType: number;
  /** Of an ICMP error: where the packet begins that it is about. */
  readonly quoteAt: number | undefined;
}

const UNREADABLE = new Error("not a packet"); // one for all: it is thrown a million times

function need(holds: boolean): asserts holds {
  if (!holds) throw UNREADABLE;
}

const isMapped = ([w0, w1, w2]: readonly number[]): boolean => w0 === 0 && w1 === 0 && w2 === 0xffff;
const FIXED_BYTES: Readonly<Record<number, number>> = { 6: 20, 17: 8, 1: 8, 58: 8 };

function onesComplementSum(bytes: Uint8Array): number {
  let sum = 0;
  for (const [index, byte] of bytes.entries()) sum += index % 2 === 0 ? byte * 256 : byte;
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

interface Header {
  version: 4 | 6;
  source: readonly number[];
  destination: readonly number[];
  protocol: number;
  totalBytes: number;
  transportOffset: number;
  /** Where the fragment's own part begins. */
  partOffset: number;
  /** Bytes of header that the reassembled packet keeps and counts in its length. */
  keptBytes: number;
  fragment: NaivePacket["fragment"];
}

/** RFC 791 §3.1. */
function readV4(bytes: Uint8Array, isQuote: boolean): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  need(bytes.length >= 20);
  const headerBytes = (bytes[0]! % 16) * 4;
  need(headerBytes >= 20 && headerBytes <= bytes.length);
  const said = view.getUint16(2);
  need(said >= headerBytes);
  if (!isQuote) {
    need(said <= bytes.length);
    need(onesComplementSum(bytes.subarray(0, headerBytes)) === 0xffff);
  }
  for (let at = 20; at < headerBytes; ) {
    const type = bytes[at]!;
    if (type === 0) break; // end of options
    need(type !== 131 && type !== 137); // source routes
    if (type === 1) at += 1;
    else {
      need(at + 1 < headerBytes);
      const length = bytes[at + 1]!;
      need(length >= 2 && at + length <= headerBytes);
      at += length;
    }
  }
  const word = view.getUint16(6);
  const [offsetBytes, more] = [(word % 0x2000) * 8, Math.floor(word / 0x2000) % 2 === 1];
  return {
    version: 4,
    source: [0, 0, 0xffff, view.getUint32(12)],
    destination: [0, 0, 0xffff, view.getUint32(16)],
    protocol: bytes[9]!,
    totalBytes: Math.min(said, bytes.length),
    transportOffset: headerBytes,
    partOffset: headerBytes,
    keptBytes: headerBytes,
    fragment: offsetBytes > 0 || more ? { id: view.getUint16(4), offsetBytes, more } : undefined,
  };
}

/** RFC 8200 §4; at most 8 extension headers. */
function readV6(bytes: Uint8Array, isQuote: boolean): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  need(bytes.length >= 40);
  const said = 40 + view.getUint16(4);
  need(isQuote || said <= bytes.length);
  const totalBytes = Math.min(said, bytes.length);
  const words = [8, 12, 16, 20, 24, 28, 32, 36].map((at) => view.getUint32(at));
  const [source, destination] = [words.slice(0, 4), words.slice(4)];
  need(!isMapped(source) && !isMapped(destination));
  let [next, at] = [bytes[6]!, 40];
  let fragment: NaivePacket["fragment"];
  let fragmentAt: number | undefined;
  for (let nth = 1; [0, 43, 44, 51, 60].includes(next) && (fragment?.offsetBytes ?? 0) === 0; nth++) {
    need(nth <= 8);
    need(at + 8 <= totalBytes);
    let length = (bytes[at + 1]! + 1) * 8;
    if (next === 51) length = (bytes[at + 1]! + 2) * 4;
    if (next === 44) length = 8;
    need(at + length <= totalBytes);
    need(next !== 0 || nth === 1); // hop-by-hop comes first
    need(next !== 43 || bytes[at + 2] !== 0); // routing type 0
    if (next === 44) {
      need(fragmentAt === undefined);
      fragmentAt = at;
      const word = view.getUint16(at + 2);
      const [offsetBytes, more] = [word - (word % 8), word % 2 === 1];
      fragment = offsetBytes > 0 || more ? { id: view.getUint32(at + 4), offsetBytes, more } : undefined;
    }
    next = bytes[at]!;
    at += length;
  }
  const partOffset = fragmentAt === undefined ? at : fragmentAt + 8;
  const keptBytes = fragmentAt === undefined ? 0 : fragmentAt - 40;
  return {
    version: 6,
    source,
    destination,
    protocol: next,
    totalBytes,
    transportOffset: at,
    partOffset,
    keptBytes,
    fragment,
  };
}

function isError(version: 4 | 6, type: number): boolean {
  return version === 4 ? [3, 4, 5, 11, 12].includes(type) : type >= 1 && type <= 4;
}

function isEcho(version: 4 | 6, type: number): boolean {
  return version === 4 ? type === 0 || type === 8 : type === 128 || type === 129;
}

function checkFragment(header: Header): void {
  const { fragment, protocol, totalBytes, partOffset, keptBytes } = header;
  if (fragment === undefined) return;
  const partBytes = totalBytes - partOffset;
  need(partBytes > 0 && (!fragment.more || partBytes % 8 === 0));
  need(keptBytes + fragment.offsetBytes + partBytes <= 65_535);
  need(fragment.offsetBytes === 0 || fragment.offsetBytes >= (FIXED_BYTES[protocol] ?? 0));
}

function readTransport(bytes: Uint8Array, header: Header, isQuote: boolean): NaivePacket {
  const { version, protocol, transportOffset: at, totalBytes, source, destination, fragment } = header;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let [sourcePort, destinationPort, tcpFlags, icmpType] = [0, 0, 0, 0];
  let quoteAt: number | undefined;
  const isIcmp = protocol === (version === 4 ? 1 : 58);
  if ((fragment?.offsetBytes ?? 0) === 0) {
    const here = totalBytes - at;
    need(here >= (isQuote ? Math.min(8, FIXED_BYTES[protocol] ?? 0) : (FIXED_BYTES[protocol] ?? 0)));
    if (protocol === 6 || protocol === 17) [sourcePort, destinationPort] = [view.getUint16(at), view.getUint16(at + 2)];
    if (protocol === 6 && here >= 14) tcpFlags = bytes[at + 13]!;
    if (protocol === 6 && !isQuote) {
      const headerBytes = Math.floor(bytes[at + 12]! / 16) * 4;
      need(headerBytes >= 20 && headerBytes <= here);
    }
    if (protocol === 17 && !isQuote) {
      const said = view.getUint16(at + 4);
      need(said >= 8 && (said <= here || fragment !== undefined));
    }
    if (isIcmp) {
      icmpType = bytes[at]!;
      if (isEcho(version, icmpType)) sourcePort = destinationPort = view.getUint16(at + 4);
      if (!isQuote && isError(version, icmpType)) {
        quoteAt = at + 8;
        const [quoted, headerBytes] = [here - 8, version === 4 ? 20 : 40];
        need(quoted >= headerBytes);
        const said = version === 4 ? view.getUint16(quoteAt + 2) : 40 + view.getUint16(quoteAt + 4);
        need(quoted >= headerBytes + 8 || quoted >= said); // cut, but not in the middle of what matters
      }
    }
  }
  return {
    version,
    source,
    destination,
    protocol,
    totalBytes,
    transportOffset: at,
    fragment,
    sourcePort,
    destinationPort,
    tcpFlags,
    icmpType,
    quoteAt,
  };
}

/** Undefined: to be dropped. `isQuote`: the packet inside an ICMP error, which may be cut short. */
export function readNaively(bytes: Uint8Array, isQuote = false): NaivePacket | undefined {
  try {
    need(bytes.length > 0);
    const version = Math.floor(bytes[0]! / 16);
    need(version === 4 || version === 6);
    const header = version === 4 ? readV4(bytes, isQuote) : readV6(bytes, isQuote);
    need(header.protocol !== (version === 4 ? 58 : 1)); // ICMP of the other family
    if (!isQuote) checkFragment(header);
    return readTransport(bytes, header, isQuote);
  } catch (error) {
    if (error === UNREADABLE) return undefined;
    throw error;
  }
}

/** What a TCP header's options say; blocks as they stand. */
export interface NaiveTcpOptions {
  mssBytes: number;
  windowScale: number;
  isSackPermitted: boolean;
  timestamps: readonly [number, number] | undefined;
  sack: readonly number[];
}

/** RFC 9293 §3.2, RFC 7323 §2.2 and §3.2, RFC 2018 §2 and §3; a malformed one ends them, of two the later counts. */
export function readTcpOptionsNaively(bytes: Uint8Array): NaiveTcpOptions {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const out: NaiveTcpOptions = {
    mssBytes: 0,
    windowScale: -1,
    isSackPermitted: false,
    timestamps: undefined,
    sack: [],
  };
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    if (bytes[at] === 1) {
      at++;
      continue;
    }
    if (at + 1 === bytes.length || bytes[at + 1]! < 2 || at + bytes[at + 1]! > bytes.length) break;
    const [kind, length] = [bytes[at]!, bytes[at + 1]!];
    const words = Array.from({ length: Math.floor((length - 2) / 4) }, (_, i) => view.getUint32(at + 2 + 4 * i));
    if (kind === 2 && length === 4) out.mssBytes = view.getUint16(at + 2);
    if (kind === 3 && length === 3) out.windowScale = Math.min(bytes[at + 2]!, 14);
    if (kind === 4 && length === 2) out.isSackPermitted = true;
    if (kind === 5 && length > 2 && (length - 2) % 8 === 0) out.sack = words;
    if (kind === 8 && length === 10) out.timestamps = [words[0]!, words[1]!];
    at += length;
  }
  return out;
}
