// Builds the segments of one connection from a template: what never changes (addresses, ports, IP header) is written
// and summed once. Every segment has timestamps once both ends have agreed on them (RFC 7323 §3.2).
import { type Endpoint, isV4 } from "../../base/address.ts";
import { writeU16, writeU32 } from "../../base/bytes.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../../wire/checksum.ts";
import { ipHeaderBytes, writeIpHeader } from "../../wire/ip-header.ts";
import { PROTOCOL_TCP, TCP_ACK } from "../../wire/packet.ts";
import {
  type SynOptions,
  TCP_CHECKSUM_AT,
  TCP_HEADER_BYTES,
  writePaddedTimestamps,
  writeSack,
  writeSynOptions,
  writeTcpHeader,
} from "../../wire/tcp.ts";
import { HEADROOM_BYTES, type PacketOutput } from "../packet-output.ts";
import type { SendBuffer } from "./send-buffer.ts";
import type { Timestamps } from "./timestamps.ts";

export class SegmentWriter {
  readonly #output: PacketOutput;
  readonly #timestamps: Timestamps;
  readonly #template: Uint8Array;
  readonly #ipBytes: number;
  /** Of the pseudo-header, without the length. */
  readonly #pseudoSum: number;
  /** Of the IPv4 header, without total length. */
  readonly #ipv4Sum: number;

  constructor(output: PacketOutput, timestamps: Timestamps, local: Endpoint, remote: Endpoint) {
    const { w0: s0, w1: s1, w2: s2, w3: s3 } = local.address;
    const { w0: d0, w1: d1, w2: d2, w3: d3 } = remote.address;
    const version = isV4(remote.address) ? 4 : 6;
    this.#output = output;
    this.#timestamps = timestamps;
    this.#ipBytes = ipHeaderBytes(version);
    this.#template = new Uint8Array(this.#ipBytes + TCP_HEADER_BYTES);
    writeIpHeader(this.#template, 0, version, TCP_HEADER_BYTES, PROTOCOL_TCP, s0, s1, s2, s3, d0, d1, d2, d3);
    writeTcpHeader(this.#template, this.#ipBytes, local.port, remote.port, 0, 0, TCP_HEADER_BYTES, 0, 0);
    this.#pseudoSum = sumPseudoHeader(s0, s1, s2, s3, d0, d1, d2, d3, PROTOCOL_TCP, 0);
    if (version === 4) {
      writeU16(this.#template, 2, 0);
      writeU16(this.#template, 10, 0);
      this.#ipv4Sum = sumBytes(this.#template, 0, this.#ipBytes, 0);
    } else {
      this.#ipv4Sum = 0;
    }
  }

  /** One segment; its data is `dataBytes` of `data` from `dataOffset` on. */
  send(
    nowMs: number,
    sequence: number,
    acknowledgment: number,
    flags: number,
    window: number,
    data: SendBuffer,
    dataOffset: number,
    dataBytes: number,
  ): void {
    const { buffer } = this.#output;
    buffer.set(this.#template, HEADROOM_BYTES);
    const at = HEADROOM_BYTES + this.#ipBytes;
    const headerBytes = TCP_HEADER_BYTES + this.#writeTimestamps(nowMs, at + TCP_HEADER_BYTES, flags);
    if (dataBytes > 0) data.copy(dataOffset, dataBytes, buffer, at + headerBytes);
    this.#finish(nowMs, at, sequence, acknowledgment, flags, window, headerBytes, dataBytes);
  }

  /** A mere acknowledgment, with `blocks` of what came behind a gap: left and right edges in turn. */
  sendAcknowledgment(
    nowMs: number,
    sequence: number,
    acknowledgment: number,
    window: number,
    edges: Uint32Array,
    blocks: number,
  ): void {
    const { buffer } = this.#output;
    buffer.set(this.#template, HEADROOM_BYTES);
    const at = HEADROOM_BYTES + this.#ipBytes;
    let headerBytes = TCP_HEADER_BYTES + this.#writeTimestamps(nowMs, at + TCP_HEADER_BYTES, TCP_ACK);
    if (blocks > 0) headerBytes += writeSack(buffer, at + headerBytes, edges, blocks);
    this.#finish(nowMs, at, sequence, acknowledgment, TCP_ACK, window, headerBytes, 0);
  }

  /** Returns the bytes written. What acknowledges nothing echoes nothing (RFC 7323 §3.2). */
  #writeTimestamps(nowMs: number, at: number, flags: number): number {
    const timestamps = this.#timestamps;
    if (!timestamps.isOn) return 0;
    const echo = (flags & TCP_ACK) !== 0 ? timestamps.recent : 0;
    return writePaddedTimestamps(this.#output.buffer, at, timestamps.value(nowMs), echo);
  }

  /** SYN or SYN-ACK. */
  sendSyn(
    nowMs: number,
    sequence: number,
    acknowledgment: number,
    flags: number,
    window: number,
    options: SynOptions,
  ): void {
    const { buffer } = this.#output;
    buffer.set(this.#template, HEADROOM_BYTES);
    const at = HEADROOM_BYTES + this.#ipBytes;
    const optionBytes = writeSynOptions(buffer, at + TCP_HEADER_BYTES, options);
    this.#finish(nowMs, at, sequence, acknowledgment, flags, window, TCP_HEADER_BYTES + optionBytes, 0);
  }

  #finish(
    nowMs: number,
    at: number,
    sequence: number,
    acknowledgment: number,
    flags: number,
    window: number,
    headerBytes: number,
    dataBytes: number,
  ): void {
    const { buffer } = this.#output;
    const segmentBytes = headerBytes + dataBytes;
    const totalBytes = this.#ipBytes + segmentBytes;
    writeU32(buffer, at + 4, sequence);
    writeU32(buffer, at + 8, acknowledgment);
    buffer[at + 12] = headerBytes << 2;
    buffer[at + 13] = flags;
    writeU16(buffer, at + 14, window);
    const sum = this.#output.sum(buffer, at, segmentBytes, this.#pseudoSum + segmentBytes);
    writeU16(buffer, at + TCP_CHECKSUM_AT, foldChecksum(sum));
    if (this.#ipBytes === 20) {
      writeU16(buffer, HEADROOM_BYTES + 2, totalBytes);
      writeU16(buffer, HEADROOM_BYTES + 10, foldChecksum(this.#ipv4Sum + totalBytes));
    } else {
      writeU16(buffer, HEADROOM_BYTES + 4, segmentBytes);
    }
    this.#output.send(nowMs, totalBytes);
  }
}
