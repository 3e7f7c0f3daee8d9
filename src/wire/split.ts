// Segmentation of what a TUN device with offloads gives: one super-packet (virtio 1.2 §5.1.6.2, Linux's
// tcp_gso_segment and __udp_gso_segment) becomes IP packets that fit the tunnel, each with its own lengths, id,
// sequence number, flags and checksums. Or one packet whose checksum the kernel has left to be completed.
//
// Lengths come from the packet's own headers: hdr_len of the vnet header is a hint that the kernel doesn't vouch for.
import { assert } from "../base/assert.ts";
import { readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { DOUBLE_ZERO } from "../base/double-zero.ts";
import { SPLIT_PIECES_MAX } from "../base/limits.ts";
import { foldChecksum, sumBytes } from "./checksum.ts";
import { IPV6_HEADER_BYTES } from "./ipv6.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP, TCP_FIN, TCP_PSH } from "./packet.ts";
import { plainSums, type Sums } from "./sums.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES } from "./tcp.ts";
import { transportPlace } from "./transport-place.ts";
import { foldUdpChecksum, UDP_CHECKSUM_AT, UDP_HEADER_BYTES } from "./udp.ts";
import {
  GSO_ECN,
  GSO_NONE,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  VNET_DATA_VALID,
  VNET_HEADER_BYTES,
  VNET_NEEDS_CHECKSUM,
  vnetChecksumOffset,
  vnetChecksumStart,
  vnetFlags,
  vnetGsoSize,
  vnetGsoType,
} from "./vnet-header.ts";

/** Why nothing can be made of what the device gave; the names are those of the counters. */
export const SPLIT_DROPS = [
  "VNET_TRUNCATED", // no packet behind the vnet header
  "VNET_CHECKSUM_PLACE", // the checksum's place is outside of the packet, or not that of its transport header
  "GSO_TYPE", // a kind of super-packet that was not asked for
  "GSO_VERSION", // TCPv4 that is no IPv4, TCPv6 that is no IPv6
  "GSO_UNCHECKED", // neither is its checksum to be made nor was it found right: pieces would make it look right
  "GSO_SIZE_ZERO",
  "GSO_LENGTH", // the IP or UDP header says another length than there is
  "GSO_TRANSPORT", // no such transport header: another protocol, a fragment, headers cut short
  "GSO_EMPTY", // headers alone
  "GSO_TOO_MANY_PIECES",
] as const;

export type SplitDrop = (typeof SPLIT_DROPS)[number];

const TCP_CWR = 0x80;
/** The two bytes of data offset and flags. */
const TCP_OFFSET_AND_FLAGS_AT = 12;
const NO_CHECKSUM = -1;

export class Splitter {
  readonly #sums: Sums;
  #bytes: Uint8Array = new Uint8Array(0);
  #pieces = 0;
  /** Of the packet, behind the vnet header. */
  #at = 0;
  #isIpv4 = false;
  /** Of a super-packet; 0 for a packet that stays whole. */
  #protocol = 0;
  #ipBytes = 0;
  #headerBytes = 0;
  /** Of all pieces together; of a whole packet all of it. */
  #payloadBytes = 0;
  /** Of each piece but the last. */
  #stepBytes = 0;
  /** What is the same in each piece's checksums. */
  #ipSum = 0;
  #transportSum = 0;
  #ipId = 0;
  #sequence = DOUBLE_ZERO;
  #offsetAndFlags = 0;
  /** Of a whole packet whose checksum is to be completed: from where to where. */
  #checksumFrom = NO_CHECKSUM;
  #checksumAt = 0;

  constructor(sums: Sums = plainSums) {
    this.#sums = sums;
  }

  /**
   * Reads the vnet header at `at` and the packet behind it, `length` bytes together; undefined when it can be split,
   * else why not (then there are 0 pieces). The bytes stay in use, unchanged, until the last piece is written.
   *
   * @example
   * const drop = splitter.begin(bytes, at, length);
   * if (drop !== undefined) { counters[drop]++; return; }
   * for (let i = 0; i < splitter.pieces; i++) to += splitter.write(i, bytes, to);
   */
  begin(bytes: Uint8Array, at: number, length: number): SplitDrop | undefined {
    this.#bytes = bytes;
    this.#pieces = 0;
    this.#at = at + VNET_HEADER_BYTES;
    const packetBytes = length - VNET_HEADER_BYTES;
    if (packetBytes < 1) return "VNET_TRUNCATED";
    const type = vnetGsoType(bytes, at);
    return type === GSO_NONE ? this.#beginWhole(at, packetBytes) : this.#beginSuper(at, packetBytes, type);
  }

  /** How many packets the last one given to begin() becomes. */
  get pieces(): number {
    return this.#pieces;
  }

  /** How many bytes write(i) will write; the first piece is the largest. */
  pieceBytes(i: number): number {
    return this.#headerBytes + Math.min(this.#stepBytes, this.#payloadBytes - i * this.#stepBytes);
  }

  /** Writes piece `i` to `to`, anywhere else in the same bytes, in any order; returns its bytes. */
  write(i: number, bytes: Uint8Array, to: number): number {
    assert(bytes === this.#bytes && i >= 0 && i < this.#pieces, "a piece of the packet that was begun");
    const pieceBytes = this.pieceBytes(i);
    const end = this.#at + this.#headerBytes + this.#payloadBytes;
    assert(to + pieceBytes <= this.#at || to >= end, "a piece is written beside its packet, not into it");
    if (this.#protocol === 0) this.#writeWhole(to, pieceBytes);
    else this.#writePiece(i, to, pieceBytes);
    return pieceBytes;
  }

  // --- A packet that stays whole -----

  /** IP is not looked at here: the packet may be of any kind, a tunnel's with the checksum deep inside too. */
  #beginWhole(vnetAt: number, packetBytes: number): SplitDrop | undefined {
    this.#protocol = 0;
    this.#headerBytes = 0;
    this.#payloadBytes = packetBytes;
    this.#stepBytes = packetBytes;
    this.#checksumFrom = NO_CHECKSUM;
    if ((vnetFlags(this.#bytes, vnetAt) & VNET_NEEDS_CHECKSUM) !== 0) {
      this.#checksumFrom = vnetChecksumStart(this.#bytes, vnetAt);
      this.#checksumAt = this.#checksumFrom + vnetChecksumOffset(this.#bytes, vnetAt);
      if (this.#checksumAt + 2 > packetBytes) return "VNET_CHECKSUM_PLACE";
    }
    this.#pieces = 1;
    return undefined;
  }

  /** The field holds the pseudo-header's sum: it counts too. 0 is written as ffff in any protocol, as Linux does. */
  #writeWhole(to: number, packetBytes: number): void {
    const bytes = this.#bytes;
    const from = this.#checksumFrom;
    bytes.copyWithin(to, this.#at, this.#at + (from === NO_CHECKSUM ? packetBytes : from));
    if (from === NO_CHECKSUM) return;
    const sum = this.#sums.copySum(bytes, this.#at + from, to + from, packetBytes - from, 0);
    writeU16(bytes, to + this.#checksumAt, foldUdpChecksum(sum));
  }

  // --- A super-packet -----

  #beginSuper(vnetAt: number, packetBytes: number, type: number): SplitDrop | undefined {
    const bytes = this.#bytes;
    const at = this.#at;
    const version = bytes[at]! >>> 4;
    const kind = type & ~GSO_ECN;
    if (kind !== GSO_TCP4 && kind !== GSO_TCP6 && type !== GSO_UDP_L4) return "GSO_TYPE";
    if ((kind === GSO_TCP4 && version !== 4) || (kind === GSO_TCP6 && version !== 6)) return "GSO_VERSION";
    const stepBytes = vnetGsoSize(bytes, vnetAt);
    if (stepBytes === 0) return "GSO_SIZE_ZERO";
    const protocol = kind === GSO_UDP_L4 ? PROTOCOL_UDP : PROTOCOL_TCP;
    const ipBytes = transportPlace(bytes, at, packetBytes, protocol);
    if (ipBytes === 0) return "GSO_TRANSPORT";
    const saidBytes = version === 4 ? readU16(bytes, at + 2) : IPV6_HEADER_BYTES + readU16(bytes, at + 4);
    if (saidBytes !== packetBytes) return "GSO_LENGTH";
    const transportAt = at + ipBytes;
    const transportBytes = packetBytes - ipBytes;
    const minBytes = protocol === PROTOCOL_TCP ? TCP_HEADER_BYTES : UDP_HEADER_BYTES;
    if (transportBytes < minBytes) return "GSO_TRANSPORT";
    const ownBytes = protocol === PROTOCOL_TCP ? (bytes[transportAt + 12]! >>> 4) * 4 : UDP_HEADER_BYTES;
    if (ownBytes < minBytes || ownBytes > transportBytes) return "GSO_TRANSPORT";
    if (protocol === PROTOCOL_UDP && readU16(bytes, transportAt + 4) !== transportBytes) return "GSO_LENGTH";
    const flags = vnetFlags(bytes, vnetAt);
    if ((flags & (VNET_NEEDS_CHECKSUM | VNET_DATA_VALID)) === 0) return "GSO_UNCHECKED";
    if ((flags & VNET_NEEDS_CHECKSUM) !== 0) {
      const checksumAt = protocol === PROTOCOL_TCP ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;
      if (vnetChecksumStart(bytes, vnetAt) !== ipBytes) return "VNET_CHECKSUM_PLACE";
      if (vnetChecksumOffset(bytes, vnetAt) !== checksumAt) return "VNET_CHECKSUM_PLACE";
    }
    const payloadBytes = transportBytes - ownBytes;
    if (payloadBytes === 0) return "GSO_EMPTY";
    const pieces = Math.ceil(payloadBytes / stepBytes);
    if (pieces > SPLIT_PIECES_MAX) return "GSO_TOO_MANY_PIECES";
    this.#isIpv4 = version === 4;
    this.#protocol = protocol;
    this.#ipBytes = ipBytes;
    this.#headerBytes = ipBytes + ownBytes;
    this.#payloadBytes = payloadBytes;
    this.#stepBytes = stepBytes;
    this.#sumHeaders(transportAt, ownBytes);
    this.#pieces = pieces;
    return undefined;
  }

  #sumHeaders(transportAt: number, ownBytes: number): void {
    const bytes = this.#bytes;
    const at = this.#at;
    let sum = this.#protocol;
    if (this.#isIpv4) {
      const before = sumBytes(bytes, at + 6, 4, sumBytes(bytes, at, 2, 0)); // without length and id
      this.#ipSum = sumBytes(bytes, at + 12, this.#ipBytes - 12, before);
      this.#ipId = readU16(bytes, at + 4);
      sum = sumBytes(bytes, at + 12, 8, sum);
    } else {
      sum = sumBytes(bytes, at + 8, 32, sum);
    }
    if (this.#protocol === PROTOCOL_UDP) {
      this.#transportSum = sumBytes(bytes, transportAt, 4, sum);
      return;
    }
    this.#sequence = readU32(bytes, transportAt + 4);
    this.#offsetAndFlags = readU16(bytes, transportAt + TCP_OFFSET_AND_FLAGS_AT);
    sum = sumBytes(bytes, transportAt, 4, sum);
    sum = sumBytes(bytes, transportAt + 8, 4, sum);
    sum = sumBytes(bytes, transportAt + 14, 2, sum);
    this.#transportSum = sumBytes(bytes, transportAt + 18, ownBytes - 18, sum);
  }

  #writePiece(i: number, to: number, pieceBytes: number): void {
    const bytes = this.#bytes;
    const headerBytes = this.#headerBytes;
    const from = this.#at + headerBytes + i * this.#stepBytes;
    const payloadBytes = pieceBytes - headerBytes;
    this.#sums.copy(bytes, this.#at, to, headerBytes);
    const payloadSum = this.#sums.copySum(bytes, from, to + headerBytes, payloadBytes, 0);
    if (this.#isIpv4) {
      const id = (this.#ipId + i) & 0xffff;
      writeU16(bytes, to + 2, pieceBytes);
      writeU16(bytes, to + 4, id);
      writeU16(bytes, to + 10, foldChecksum(this.#ipSum + pieceBytes + id));
    } else {
      writeU16(bytes, to + 4, pieceBytes - IPV6_HEADER_BYTES);
    }
    const transportAt = to + this.#ipBytes;
    const transportBytes = pieceBytes - this.#ipBytes;
    if (this.#protocol === PROTOCOL_TCP) {
      const sequence = (this.#sequence + i * this.#stepBytes) >>> 0;
      const offsetAndFlags = this.#flagsOf(i);
      writeU32(bytes, transportAt + 4, sequence);
      writeU16(bytes, transportAt + TCP_OFFSET_AND_FLAGS_AT, offsetAndFlags);
      const own = this.#transportSum + transportBytes + (sequence >>> 16) + (sequence & 0xffff) + offsetAndFlags;
      writeU16(bytes, transportAt + TCP_CHECKSUM_AT, foldChecksum(own + payloadSum));
    } else {
      writeU16(bytes, transportAt + 4, transportBytes);
      const own = this.#transportSum + 2 * transportBytes;
      writeU16(bytes, transportAt + UDP_CHECKSUM_AT, foldUdpChecksum(own + payloadSum));
    }
  }

  /** FIN and PSH are said by the last piece alone, CWR by the first (RFC 3168 §6.1.2: once). */
  #flagsOf(i: number): number {
    let flags = this.#offsetAndFlags;
    if (i < this.#pieces - 1) flags &= ~(TCP_FIN | TCP_PSH);
    if (i > 0) flags &= ~TCP_CWR;
    return flags;
  }
}
