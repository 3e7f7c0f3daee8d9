// Sends a transport datagram of any size as one packet, or as fragments when it is larger than the path takes: RFC 791
// §3.2, RFC 8200 §4.5. Only what may be fragmented gets an id, and that is random (RFC 7739 §5.3).
import { type Endpoint, isV4 } from "../base/address.ts";
import { type Random, randomU32 } from "../base/random.ts";
import { HOP_LIMIT } from "../wire/ip-header.ts";
import { IPV4_HEADER_BYTES, IPV4_MORE_FRAGMENTS, writeIpv4Header } from "../wire/ipv4.ts";
import {
  HEADER_FRAGMENT,
  IPV6_FRAGMENT_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  writeIpv6FragmentHeader,
  writeIpv6Header,
} from "../wire/ipv6.ts";
import { HEADROOM_BYTES, type PacketOutput } from "./packet-output.ts";
import type { PathMtus } from "./path-mtu.ts";

/** What a 16-bit IP length leaves for a fragmented payload, the header taken off for both families. */
export const DATAGRAM_PAYLOAD_MAX_BYTES = 65_535 - IPV4_HEADER_BYTES;

export class DatagramOutput {
  readonly #output: PacketOutput;
  readonly #paths: PathMtus;
  readonly #random: Random;

  constructor(output: PacketOutput, paths: PathMtus, random: Random) {
    this.#output = output;
    this.#paths = paths;
    this.#random = random;
  }

  /** `payload` is the transport header and data, checksum included. False when it is too large for IP. */
  send(nowMs: number, local: Endpoint, remote: Endpoint, protocol: number, payload: Uint8Array): boolean {
    if (payload.length > DATAGRAM_PAYLOAD_MAX_BYTES) return false;
    const isIpv4 = isV4(remote.address);
    const headerBytes = isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const mtuBytes = this.#paths.get(nowMs, remote.address);
    if (headerBytes + payload.length <= mtuBytes) {
      const at = this.#output.begin(local, remote, payload.length, protocol);
      this.#output.buffer.set(payload, at);
      this.#output.send(nowMs, headerBytes + payload.length);
      return true;
    }
    const id = randomU32(this.#random);
    const fragmentHeaderBytes = isIpv4 ? 0 : IPV6_FRAGMENT_HEADER_BYTES;
    const partMaxBytes = (mtuBytes - headerBytes - fragmentHeaderBytes) & ~7;
    for (let from = 0; from < payload.length; from += partMaxBytes) {
      const part = payload.subarray(from, from + partMaxBytes);
      const more = from + part.length < payload.length;
      if (isIpv4) this.#writeIpv4(local, remote, protocol, id & 0xffff, from, more, part.length);
      else this.#writeIpv6(local, remote, protocol, id, from, more, part.length);
      this.#output.buffer.set(part, HEADROOM_BYTES + headerBytes + fragmentHeaderBytes);
      this.#output.send(nowMs, headerBytes + fragmentHeaderBytes + part.length);
    }
    return true;
  }

  #writeIpv4(
    local: Endpoint,
    remote: Endpoint,
    protocol: number,
    id: number,
    from: number,
    more: boolean,
    partBytes: number,
  ): void {
    const flags = (more ? IPV4_MORE_FRAGMENTS : 0) | (from >>> 3);
    const { buffer } = this.#output;
    const totalBytes = IPV4_HEADER_BYTES + partBytes;
    const { w3: source } = local.address;
    writeIpv4Header(buffer, HEADROOM_BYTES, totalBytes, id, flags, HOP_LIMIT, protocol, source, remote.address.w3);
  }

  #writeIpv6(
    local: Endpoint,
    remote: Endpoint,
    protocol: number,
    id: number,
    from: number,
    more: boolean,
    partBytes: number,
  ): void {
    const s = local.address;
    const d = remote.address;
    const { buffer } = this.#output;
    const bytes = IPV6_FRAGMENT_HEADER_BYTES + partBytes;
    const at = HEADROOM_BYTES;
    writeIpv6Header(buffer, at, bytes, HOP_LIMIT, HEADER_FRAGMENT, s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3);
    writeIpv6FragmentHeader(buffer, at + IPV6_HEADER_BYTES, protocol, from, more, id);
  }
}
