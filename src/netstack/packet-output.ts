// The one buffer in which outgoing packets are built, with room before and behind for whoever seals them; and the
// headers that most of them share. RFC 791, RFC 8200; IPv4 packets that may not be cut carry DF and id 0 (RFC 6864
// §4.1).
import type { Endpoint } from "../base/address.ts";
import { isV4 } from "../base/address.ts";
import { PACKET_MAX_BYTES } from "../base/limits.ts";
import { ipHeaderBytes, writeIpHeader } from "../wire/ip-header.ts";

/** NetstackHandler.output promises this much on both sides. */
export const HEADROOM_BYTES = 32;

export type Emit = (nowMs: number, buffer: Uint8Array, offset: number, length: number) => void;

export class PacketOutput {
  readonly buffer: Uint8Array;
  readonly mtuBytes: number;
  readonly #emit: Emit;
  packets = 0;

  constructor(mtuBytes: number, emit: Emit) {
    this.mtuBytes = mtuBytes;
    this.#emit = emit;
    this.buffer = new Uint8Array(Math.max(mtuBytes, PACKET_MAX_BYTES) + 2 * HEADROOM_BYTES);
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
