// The maximum segment size that a SYN offers, made to fit the tunnel (RFC 9293 §3.7.1): for hosts behind this one that
// learn of the tunnel's smaller MTU too late, or never, since ICMP is dropped on the way (RFC 2923 §2.1).
import { readU16, writeU16 } from "../base/bytes.ts";
import { PROTOCOL_TCP, TCP_SYN } from "./packet.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES } from "./tcp.ts";
import { transportPlace } from "./transport-place.ts";

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_MSS_BYTES = 4;

/**
 * Of a SYN or SYN-ACK makes each MSS option that is above `maxMss` (in bytes, without headers; of the packet's own
 * family) that value, and amends the checksum by the difference (RFC 1624), so that a wrong one stays wrong. True when
 * something was changed. Never makes one larger; a packet without the option, one whose options are malformed, and
 * anything else stays as it is.
 */
export function clampMss(bytes: Uint8Array, at: number, length: number, maxMss: number): boolean {
  const place = transportPlace(bytes, at, length, PROTOCOL_TCP);
  if (place === 0) return false;
  const tcp = at + place;
  if ((bytes[tcp + 13]! & TCP_SYN) === 0) return false;
  const headerBytes = (bytes[tcp + 12]! >>> 4) * 4;
  if (headerBytes > length - place || !areWellFormed(bytes, tcp, headerBytes)) return false;
  let isChanged = false;
  for (let i = tcp + TCP_HEADER_BYTES; i < tcp + headerBytes && bytes[i] !== OPTION_END; i += optionBytes(bytes, i)) {
    if (bytes[i] !== OPTION_MSS || readU16(bytes, i + 2) <= maxMss) continue;
    replaceU16(bytes, tcp, i + 2, maxMss);
    isChanged = true;
  }
  return isChanged;
}

/** Never 0, so that a walk ends. */
function optionBytes(bytes: Uint8Array, i: number): number {
  return bytes[i] === OPTION_NOP ? 1 : Math.max(1, bytes[i + 1]!);
}

/** Each option lies in the header, and MSS has its length (RFC 9293 §3.2). */
function areWellFormed(bytes: Uint8Array, tcp: number, headerBytes: number): boolean {
  const end = tcp + headerBytes;
  let i = tcp + TCP_HEADER_BYTES;
  while (i < end && bytes[i] !== OPTION_END) {
    if (bytes[i] !== OPTION_NOP) {
      if (i + 1 === end || bytes[i + 1]! < 2) return false;
      if (bytes[i] === OPTION_MSS && bytes[i + 1] !== OPTION_MSS_BYTES) return false;
    }
    i += optionBytes(bytes, i);
  }
  return i <= end;
}

/** RFC 1624 §3, eqn. 3: HC' = ~(~HC + ~m + m'). At an odd place both bytes count the other way round. */
function replaceU16(bytes: Uint8Array, tcp: number, at: number, value: number): void {
  const before = readU16(bytes, at);
  writeU16(bytes, at, value);
  const isSwapped = ((at - tcp) & 1) === 1;
  const removed = isSwapped ? swapped(before) : before;
  const added = isSwapped ? swapped(value) : value;
  const sum = (~readU16(bytes, tcp + TCP_CHECKSUM_AT) & 0xffff) + (~removed & 0xffff) + added;
  const folded = (sum & 0xffff) + (sum >>> 16);
  writeU16(bytes, tcp + TCP_CHECKSUM_AT, ~((folded & 0xffff) + (folded >>> 16)) & 0xffff);
}

function swapped(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}
