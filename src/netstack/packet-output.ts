// The one buffer in which outgoing packets are built, with room before and behind for whoever seals them; and the
// headers that most of them share. RFC 791, RFC 8200; IPv4 packets that may not be cut carry DF and id 0 (RFC 6864
// §4.1).
import type { Endpoint } from "../base/address.ts";
import { isV4 } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { PACKET_MAX_BYTES } from "../base/limits.ts";
import { ipHeaderBytes, writeIpHeader } from "../wire/ip-header.ts";
import { plainSums, type Sums } from "../wire/sums.ts";

/** NetstackHandler.output promises this much on both sides. */
export const HEADROOM_BYTES = 32;

export type Emit = (nowMs: number, buffer: Uint8Array, offset: number, length: number) => void;

/** Of whoever runs the stack: packets of up to PACKET_MAX_BYTES are made in `buffer`. */
export interface StackMemory {
  readonly buffer: Uint8Array;
  /** By which TCP sums segments, also those that come, wherever they lie. */
  readonly sum: Sums["sum"];
}

export class PacketOutput {
  readonly buffer: Uint8Array;
  readonly mtuBytes: number;
  readonly sum: Sums["sum"];
  readonly #emit: Emit;
  packets = 0;

  constructor(mtuBytes: number, emit: Emit, memory?: StackMemory) {
    this.mtuBytes = mtuBytes;
    this.#emit = emit;
    const bytes = Math.max(mtuBytes, PACKET_MAX_BYTES) + 2 * HEADROOM_BYTES;
    this.buffer = memory?.buffer ?? new Uint8Array(bytes);
    assert(this.buffer.length >= bytes, "the memory is large enough for a packet");
    this.sum = memory?.sum ?? plainSums.sum;
  }

  /** Sends what was built from HEADROOM_BYTES on. */
  send(nowMs: number, length: number): void {
    this.packets++;
    this.#emit(nowMs, this.buffer, HEADROOM_BYTES, length);
  }

  /** Writes the IP header for `payloadBytes` behind it; returns where the payload goes. */
  begin(local: Endpoint, remote: Endpoint, payloadBytes: number, protocol: number): number {
    const s = local.address;
    const d = remote.address;
    const version = isV4(d) ? 4 : 6;
    const at = HEADROOM_BYTES;
    writeIpHeader(this.buffer, at, version, payloadBytes, protocol, s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3);
    return at + ipHeaderBytes(version);
  }
}
