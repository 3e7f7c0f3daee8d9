// One received segment, checked and read once: RFC 9293 §3.1. The object is reused; its bytes are valid during the call
// only.
import { readU16, readU32 } from "../../base/bytes.ts";
import { foldChecksum, sumPseudoHeader } from "../../wire/checksum.ts";
import { type PacketInfo, PROTOCOL_TCP, TCP_FIN, TCP_SYN } from "../../wire/packet.ts";
import type { Sums } from "../../wire/sums.ts";
import { TcpOptions } from "../../wire/tcp.ts";

export class Segment {
  readonly #sum: Sums["sum"];
  buffer: Uint8Array = new Uint8Array(0);
  /** The whole packet, for quoting it. */
  packetAt = 0;
  packetBytes = 0;
  sequence = 0;
  acknowledgment = 0;
  flags = 0;
  /** As sent: not yet scaled. */
  window = 0;
  dataAt = 0;
  dataBytes = 0;
  /** SEG.LEN: data, SYN and FIN. */
  sequenceBytes = 0;
  readonly options = new TcpOptions();

  constructor(sum: Sums["sum"]) {
    this.#sum = sum;
  }

  /** False when the checksum is wrong. `info` is what the decoder said of the packet at `offset`. */
  read(buffer: Uint8Array, offset: number, info: PacketInfo): boolean {
    const at = offset + info.transportOffset;
    const segmentBytes = info.totalBytes - info.transportOffset;
    const pseudo = sumPseudoHeader(
      info.source0,
      info.source1,
      info.source2,
      info.source3,
      info.destination0,
      info.destination1,
      info.destination2,
      info.destination3,
      PROTOCOL_TCP,
      segmentBytes,
    );
    if (foldChecksum(this.#sum(buffer, at, segmentBytes, pseudo)) !== 0) return false;
    const headerBytes = (buffer[at + 12]! >>> 4) * 4;
    this.buffer = buffer;
    this.packetAt = offset;
    this.packetBytes = info.totalBytes;
    this.sequence = readU32(buffer, at + 4);
    this.acknowledgment = readU32(buffer, at + 8);
    this.flags = info.tcpFlags;
    this.window = readU16(buffer, at + 14);
    this.dataAt = at + headerBytes;
    this.dataBytes = segmentBytes - headerBytes;
    this.sequenceBytes =
      this.dataBytes + ((this.flags & TCP_SYN) !== 0 ? 1 : 0) + ((this.flags & TCP_FIN) !== 0 ? 1 : 0);
    this.options.read(buffer, at, headerBytes);
    return true;
  }
}
