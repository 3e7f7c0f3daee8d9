// Generic receive offload for what is written to a TUN device: neighbouring packets of one flow become one
// super-packet, written with one system call and walked through the kernel once. The rules are those of Linux
// (tcp_gro_receive, udp_gro_receive_segment, inet_gro_flush), so that the kernel's own segmentation gives back the
// packets that came in. It believes NEEDS_CSUM: each checksum is verified before its packet is merged.
//
// Packets stay where they are until flush(). Each belongs to an *item*, which becomes one write; items are written in
// the order of their first packets. An item that can still grow is *open*: found by its flow. A packet of the same flow
// that doesn't fit ends it, so that no packet overtakes another of its flow.
import { readU16, readU32, writeU16 } from "../base/bytes.ts";
import { MERGE_FLOWS_MAX, MERGE_PACKETS_MAX, MERGE_VECTORS_MAX } from "../base/limits.ts";
import { checksumOf, foldChecksum, sumBytes } from "./checksum.ts";
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES } from "./ipv4.ts";
import { IPV6_HEADER_BYTES } from "./ipv6.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP, TCP_ACK, TCP_PSH } from "./packet.ts";
import { plainSums, type Sums } from "./sums.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES } from "./tcp.ts";
import { UDP_CHECKSUM_AT, UDP_HEADER_BYTES } from "./udp.ts";
import {
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP_L4,
  VNET_HEADER_BYTES,
  VNET_NEEDS_CHECKSUM,
  writePlainVnetHeader,
  writeVnetHeader,
} from "./vnet-header.ts";

export interface MergedOutput {
  /** Whether the device takes GSO_UDP_L4; without it UDP stays as it came. */
  readonly uso: boolean;
  /**
   * One packet for the device in `count` parts: the first is [vnet header][packet], the others are payload alone. The
   * arrays are the merger's own and hold something else after the return.
   */
  write(offsets: Int32Array, lengths: Int32Array, count: number): void;
}

const TOTAL_MAX_BYTES = 65_535;
const NONE = -1;
/** An open item is found in one of the few places of its flow's set. */
const SET_PLACES = 4;
const SETS = MERGE_FLOWS_MAX / SET_PLACES;

// How an item's IPv4 ids run, known from its second packet on (inet_gro_flush).
const IDS_COUNT = 0;
const IDS_FIXED = 1; // only with DF, whose ids mean nothing (RFC 6864 §4.1)

export class Merger {
  readonly #bytes: Uint8Array;
  /** The same bytes, for words that lie anywhere. */
  readonly #view: DataView;
  readonly #output: MergedOutput;
  readonly #sums: Sums;
  readonly #offsets = new Int32Array(MERGE_VECTORS_MAX);
  readonly #lengths = new Int32Array(MERGE_VECTORS_MAX);

  // Waiting packets
  #packets = 0;
  readonly #packetAt = new Int32Array(MERGE_PACKETS_MAX);
  readonly #packetBytes = new Int32Array(MERGE_PACKETS_MAX);
  /** The next packet of the same item. */
  readonly #nextPacket = new Int32Array(MERGE_PACKETS_MAX);

  // Items; the first packet tells the rest
  #items = 0;
  readonly #first = new Int32Array(MERGE_PACKETS_MAX);
  readonly #last = new Int32Array(MERGE_PACKETS_MAX);
  readonly #count = new Int32Array(MERGE_PACKETS_MAX);
  readonly #totalBytes = new Int32Array(MERGE_PACKETS_MAX);
  readonly #headerBytes = new Int32Array(MERGE_PACKETS_MAX);
  readonly #hash = new Int32Array(MERGE_PACKETS_MAX);
  readonly #ids = new Uint8Array(MERGE_PACKETS_MAX);
  /** Items by flow: the open ones, and no others. */
  readonly #open = new Int32Array(MERGE_FLOWS_MAX).fill(NONE);

  // The packet at hand
  #isIpv4 = false;
  #protocol = 0;
  #ipBytes = 0;
  #ownHeaderBytes = 0;
  #isFound = false;

  /** `bytes` hold every packet that is added. */
  constructor(bytes: Uint8Array, output: MergedOutput, sums: Sums = plainSums) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#output = output;
    this.#sums = sums;
  }

  /** Whole IP packet, with at least 10 bytes before it that are free to write; both stay as they are until flush(). */
  add(at: number, length: number): void {
    if (this.#packets === MERGE_PACKETS_MAX) this.flush();
    if (!this.#readFlow(at, length)) {
      this.#open.fill(NONE); // it may belong to any flow
      this.#begin(at, length);
      return;
    }
    const hash = this.#hashFlow(at);
    const place = this.#findPlace(at, hash);
    if (this.#isFound) this.#addToFlow(place, this.#open[place]!, at, length, hash);
    else if (this.#isMergeable(at, length)) this.#beginOpen(place, at, length, hash);
    else this.#begin(at, length);
  }

  /** Writes all that waits. */
  flush(): void {
    const items = this.#items;
    this.#items = 0;
    this.#packets = 0;
    this.#open.fill(NONE);
    for (let item = 0; item < items; item++) this.#write(item);
  }

  // --- Flows -----

  /** Whether the ports can be read; then what stands before them is known. */
  #readFlow(at: number, length: number): boolean {
    const bytes = this.#bytes;
    if (length < IPV4_HEADER_BYTES + UDP_HEADER_BYTES) return false;
    const first = bytes[at]!;
    this.#isIpv4 = first === 0x45; // without options
    if (this.#isIpv4) {
      if ((readU16(bytes, at + 6) & ~IPV4_DONT_FRAGMENT) !== 0) return false; // a fragment, or the reserved bit
      this.#protocol = bytes[at + 9]!;
      this.#ipBytes = IPV4_HEADER_BYTES;
    } else {
      if (first >>> 4 !== 6 || length < IPV6_HEADER_BYTES + UDP_HEADER_BYTES) return false;
      this.#protocol = bytes[at + 6]!;
      this.#ipBytes = IPV6_HEADER_BYTES;
    }
    return this.#protocol === PROTOCOL_TCP || this.#protocol === PROTOCOL_UDP;
  }

  #hashFlow(at: number): number {
    const bytes = this.#bytes;
    const ports = readU32(bytes, at + this.#ipBytes);
    const destination = readU32(bytes, at + this.#ipBytes - 4);
    const source = readU32(bytes, at + (this.#isIpv4 ? 12 : 20));
    let hash = Math.imul(ports, 0x9e3779b1) ^ Math.imul(destination, 0x85ebca6b) ^ Math.imul(source, 0xc2b2ae35);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return hash ^ (hash >>> 13);
  }

  /** Of the flow's open item, which is then found; without one a free place, or that of the item that began first. */
  #findPlace(at: number, hash: number): number {
    const from = ((hash >>> 0) % SETS) * SET_PLACES;
    let oldest = from;
    for (let place = from; place < from + SET_PLACES; place++) {
      const item = this.#open[place]!;
      this.#isFound = item !== NONE && this.#isSameFlow(item, at, hash);
      if (this.#isFound) return place;
      if (item < this.#open[oldest]!) oldest = place;
    }
    return oldest;
  }

  #isSameFlow(item: number, at: number, hash: number): boolean {
    if (this.#hash[item] !== hash) return false;
    const bytes = this.#bytes;
    const head = this.#packetAt[this.#first[item]!]!;
    if (bytes[head]! >>> 4 !== bytes[at]! >>> 4) return false;
    const protocolAt = this.#isIpv4 ? 9 : 6;
    if (bytes[head + protocolAt] !== bytes[at + protocolAt]) return false;
    const addressesAt = this.#isIpv4 ? 12 : 8;
    return this.#isSame(head + addressesAt, at + addressesAt, this.#ipBytes + 4 - addressesAt);
  }

  #isSame(a: number, b: number, length: number): boolean {
    const view = this.#view;
    const bytes = this.#bytes;
    let i = 0;
    for (; i + 4 <= length; i += 4) if (view.getInt32(a + i, true) !== view.getInt32(b + i, true)) return false;
    for (; i < length; i++) if (bytes[a + i] !== bytes[b + i]) return false;
    return true;
  }

  // --- Items -----

  #addToFlow(place: number, item: number, at: number, length: number, hash: number): void {
    this.#open[place] = NONE;
    if (!this.#isMergeable(at, length)) {
      this.#begin(at, length);
    } else if (!this.#fits(item, at, length) || !this.#isHeadRight(item)) {
      this.#beginOpen(place, at, length, hash);
    } else if (!this.#isChecksumRight(at, length)) {
      this.#begin(at, length);
    } else {
      this.#append(item, at, length);
      if (!this.#isEnded(item, at, length)) this.#open[place] = item;
    }
  }

  /** An item of one packet that nothing joins. */
  #begin(at: number, length: number): number {
    const packet = this.#packets++;
    this.#packetAt[packet] = at;
    this.#packetBytes[packet] = length;
    this.#nextPacket[packet] = NONE;
    const item = this.#items++;
    this.#first[item] = packet;
    this.#last[item] = packet;
    this.#count[item] = 1;
    this.#totalBytes[item] = length;
    return item;
  }

  #beginOpen(place: number, at: number, length: number, hash: number): void {
    const item = this.#begin(at, length);
    this.#headerBytes[item] = this.#ownHeaderBytes;
    this.#hash[item] = hash;
    this.#ids[item] = IDS_COUNT;
    this.#open[place] = this.#isPushed(at) ? NONE : item;
  }

  #append(item: number, at: number, length: number): void {
    const packet = this.#packets++;
    this.#packetAt[packet] = at;
    this.#packetBytes[packet] = length;
    this.#nextPacket[packet] = NONE;
    this.#nextPacket[this.#last[item]!] = packet;
    this.#last[item] = packet;
    this.#count[item]! += 1;
    this.#totalBytes[item]! += length - this.#headerBytes[item]!;
  }

  /** After PSH or a shorter payload nothing may follow. */
  #isEnded(item: number, at: number, length: number): boolean {
    if (length < this.#packetBytes[this.#first[item]!]!) return true;
    return this.#isPushed(at) || this.#count[item] === MERGE_VECTORS_MAX;
  }

  #isPushed(at: number): boolean {
    return this.#protocol === PROTOCOL_TCP && (this.#bytes[at + this.#ipBytes + 13]! & TCP_PSH) !== 0;
  }

  // --- Rules -----

  /** Of one packet: whether it could join another, or another it. */
  #isMergeable(at: number, length: number): boolean {
    const bytes = this.#bytes;
    const saidBytes = this.#isIpv4 ? readU16(bytes, at + 2) : IPV6_HEADER_BYTES + readU16(bytes, at + 4);
    if (saidBytes !== length) return false;
    const transportAt = at + this.#ipBytes;
    const transportBytes = length - this.#ipBytes;
    if (this.#protocol === PROTOCOL_UDP) {
      if (!this.#output.uso) return false;
      if (readU16(bytes, transportAt + 4) !== transportBytes) return false;
      if (readU16(bytes, transportAt + UDP_CHECKSUM_AT) === 0) return false; // none: segments would have one
      this.#ownHeaderBytes = this.#ipBytes + UDP_HEADER_BYTES;
    } else {
      if (transportBytes < TCP_HEADER_BYTES) return false;
      const offset = bytes[transportAt + 12]!;
      const flags = bytes[transportAt + 13]!;
      if ((flags & ~TCP_PSH) !== TCP_ACK) return false;
      if ((offset & 15) !== 0 || offset >>> 2 < TCP_HEADER_BYTES) return false;
      this.#ownHeaderBytes = this.#ipBytes + (offset >>> 2);
    }
    return length > this.#ownHeaderBytes; // some payload
  }

  /** Whether a mergeable packet continues the item of its flow, checksums aside. */
  #fits(item: number, at: number, length: number): boolean {
    const bytes = this.#bytes;
    const head = this.#packetAt[this.#first[item]!]!;
    const headerBytes = this.#headerBytes[item]!;
    const totalBytes = this.#totalBytes[item]!;
    if (this.#ownHeaderBytes !== headerBytes) return false;
    if (length > this.#packetBytes[this.#first[item]!]!) return false;
    if (totalBytes + length - headerBytes > TOTAL_MAX_BYTES) return false;
    if (!(this.#isIpv4 ? this.#fitsIpv4(item, head, at) : this.#fitsIpv6(head, at))) return false;
    if (this.#protocol === PROTOCOL_UDP) return true;
    const headTcp = head + this.#ipBytes;
    const tcp = at + this.#ipBytes;
    if (readU32(bytes, tcp + 4) !== (readU32(bytes, headTcp + 4) + totalBytes - headerBytes) >>> 0) return false;
    if (!this.#isSame(headTcp + 8, tcp + 8, 4)) return false; // acknowledgment
    if (!this.#isSame(headTcp + 14, tcp + 14, 2)) return false; // window
    return this.#isSame(headTcp + 18, tcp + 18, headerBytes - this.#ipBytes - 18); // urgent pointer, options
  }

  /** Type of service, DF and TTL as the first has them; ids that count up, or with DF all equal. */
  #fitsIpv4(item: number, head: number, at: number): boolean {
    const bytes = this.#bytes;
    if (bytes[head + 1] !== bytes[at + 1] || bytes[head + 6] !== bytes[at + 6]) return false;
    if (bytes[head + 8] !== bytes[at + 8]) return false;
    const step = (readU16(bytes, at + 4) - readU16(bytes, head + 4)) & 0xffff;
    const count = this.#count[item]!;
    if (count === 1 && step === 0 && (bytes[at + 6]! & (IPV4_DONT_FRAGMENT >>> 8)) !== 0) this.#ids[item] = IDS_FIXED;
    return step === (this.#ids[item] === IDS_FIXED ? 0 : count);
  }

  /** Traffic class, flow label and hop limit as the first has them. */
  #fitsIpv6(head: number, at: number): boolean {
    return this.#isSame(head, at, 4) && this.#bytes[head + 7] === this.#bytes[at + 7];
  }

  /** The first packet's checksum is verified when a second one comes. */
  #isHeadRight(item: number): boolean {
    if (this.#count[item]! > 1) return true;
    const head = this.#first[item]!;
    return this.#isChecksumRight(this.#packetAt[head]!, this.#packetBytes[head]!);
  }

  /** Both checksums: IPv4's own would be made anew as well. Addresses, ports and the rest lie in one row. */
  #isChecksumRight(at: number, length: number): boolean {
    const bytes = this.#bytes;
    if (this.#isIpv4 && foldChecksum(this.#sums.sum(bytes, at, IPV4_HEADER_BYTES, 0)) !== 0) return false;
    const addressesAt = this.#isIpv4 ? 12 : 8;
    const pseudo = this.#protocol + length - this.#ipBytes;
    return foldChecksum(this.#sums.sum(bytes, at + addressesAt, length - addressesAt, pseudo)) === 0;
  }

  // --- Writing -----

  #write(item: number): void {
    let packet = this.#first[item]!;
    const at = this.#packetAt[packet]!;
    const packetBytes = this.#packetBytes[packet]!;
    const count = this.#count[item]!;
    this.#offsets[0] = at - VNET_HEADER_BYTES;
    this.#lengths[0] = packetBytes + VNET_HEADER_BYTES;
    if (count === 1) {
      writePlainVnetHeader(this.#bytes, at - VNET_HEADER_BYTES);
    } else {
      const headerBytes = this.#headerBytes[item]!;
      this.#amend(item, at, packetBytes - headerBytes, this.#packetAt[this.#last[item]!]!);
      for (let i = 1; i < count; i++) {
        packet = this.#nextPacket[packet]!;
        this.#offsets[i] = this.#packetAt[packet]! + headerBytes;
        this.#lengths[i] = this.#packetBytes[packet]! - headerBytes;
      }
    }
    this.#output.write(this.#offsets, this.#lengths, count);
  }

  /** Makes the first packet's headers those of the super-packet. */
  #amend(item: number, at: number, gsoSize: number, lastAt: number): void {
    const bytes = this.#bytes;
    const isIpv4 = bytes[at]! >>> 4 === 4;
    const isTcp = bytes[at + (isIpv4 ? 9 : 6)] === PROTOCOL_TCP;
    const ipBytes = isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const totalBytes = this.#totalBytes[item]!;
    const transportBytes = totalBytes - ipBytes;
    if (isIpv4) {
      writeU16(bytes, at + 2, totalBytes);
      writeU16(bytes, at + 10, 0);
      writeU16(bytes, at + 10, checksumOf(bytes, at, IPV4_HEADER_BYTES));
    } else {
      writeU16(bytes, at + 4, transportBytes);
    }
    if (isTcp) bytes[at + ipBytes + 13]! |= bytes[lastAt + ipBytes + 13]! & TCP_PSH;
    else writeU16(bytes, at + ipBytes + 4, transportBytes);
    const checksumAt = isTcp ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;
    const addressesAt = isIpv4 ? 12 : 8;
    const pseudo = transportBytes + (isTcp ? PROTOCOL_TCP : PROTOCOL_UDP);
    const sum = sumBytes(bytes, at + addressesAt, ipBytes - addressesAt, pseudo);
    writeU16(bytes, at + ipBytes + checksumAt, ~foldChecksum(sum) & 0xffff);
    const type = isTcp ? (isIpv4 ? GSO_TCP4 : GSO_TCP6) : GSO_UDP_L4;
    const headerBytes = this.#headerBytes[item]!;
    const vnetAt = at - VNET_HEADER_BYTES;
    writeVnetHeader(bytes, vnetAt, VNET_NEEDS_CHECKSUM, type, headerBytes, gsoSize, ipBytes, checksumAt);
  }
}
