// Builds the segments of one connection from a template: what never changes (addresses, ports, IP header) is written
// and summed once.
import { type Endpoint, isV4 } from "../../base/address.ts";
import { writeU16, writeU32 } from "../../base/bytes.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../../wire/checksum.ts";
import { ipHeaderBytes, writeIpHeader } from "../../wire/ip-header.ts";
import { PROTOCOL_TCP } from "../../wire/packet.ts";
import { TCP_CHECKSUM_AT, TCP_HEADER_BYTES, writeSynOptions, writeTcpHeader } from "../../wire/tcp.ts";
import { HEADROOM_BYTES, type PacketOutput } from "../packet-output.ts";
import type { SendBuffer } from "./send-buffer.ts";

export class SegmentWriter {
  readonly #output: PacketOutput;
  readonly #template: Uint8Array;
  readonly #ipBytes: number;
  /** Of the pseudo-header, without the length. */
  readonly #pseudoSum: number;
  /** Of the IPv4 header, without total length. */
  readonly #ipv4Sum: number;

  constructor(output: PacketOutput, local: Endpoint, remote: Endpoint) {
    const { w0: s0, w1: s1, w2: s2, w3: s3 } = local.address;
    const { w0: d0, w1: d1, w2: d2, w3: d3 } = remote.address;
    const version = isV4(remote.address) ? 4 : 6;
    this.#output = output;
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
    if (dataBytes > 0) data.copy(dataOffset, dataBytes, buffer, at + TCP_HEADER_BYTES);
    this.#finish(nowMs, at, sequence, acknowledgment, flags, window, TCP_HEADER_BYTES, dataBytes);
  }

  /** SYN or SYN-ACK; `windowShift` −1 leaves the option out. */
  sendSyn(
    nowMs: number,
    sequence: number,
    acknowledgment: number,
    flags: number,
    window: number,
    mssBytes: number,
    windowShift: number,
  ): void {
    const { buffer } = this.#output;
    buffer.set(this.#template, HEADROOM_BYTES);
    const at = HEADROOM_BYTES + this.#ipBytes;
    const optionBytes = writeSynOptions(buffer, at + TCP_HEADER_BYTES, mssBytes, windowShift);
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
    const sum = sumBytes(buffer, at, segmentBytes, this.#pseudoSum + segmentBytes);
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
