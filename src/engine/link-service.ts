// The engine's end of the peer link: shows our lease, takes the other end's, tells and is told of denials. What it
// sends goes straight into the tunnel, past the filter; what the host or the netstack sends to or from the port is
// dropped in outbound.ts.
import { type Address, isV4 } from "../base/address.ts";
import { writeU16 } from "../base/bytes.ts";
import type { DenialRecord } from "../filter/contract.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../wire/checksum.ts";
import { writeIpHeader } from "../wire/ip-header.ts";
import { PROTOCOL_UDP } from "../wire/packet.ts";
import type { LeaseVerifier, OwnLease } from "./desired-state.ts";
import type { EngineParts } from "./engine.ts";
import type { EnginePeer } from "./engine-peer.ts";
import { decodeLinkMessage, encodeDenial, encodeLease, encodeLeaseAck, PEER_LINK_PORT } from "./peer-link.ts";

const HEADROOM_BYTES = 32;
const HEADERS_BYTES = 48; // IPv6 and UDP

export class LinkService {
  readonly #parts: EngineParts;
  readonly #leases: LeaseVerifier;
  #own: OwnLease | undefined;
  /** Peers with a lease to resend or packets held: few, so they are simply walked. */
  readonly #waiting = new Set<EnginePeer>();

  constructor(parts: EngineParts, leases: LeaseVerifier) {
    this.#parts = parts;
    this.#leases = leases;
  }

  setOwnLease(nowMs: number, lease: OwnLease, peers: Iterable<EnginePeer>): void {
    this.#own = lease;
    for (const peer of peers) {
      // Where flows live the tunnel is made for it: an idle connection must not end with the lease that the other end
      // last saw.
      if (peer.tunnel.hasSession(nowMs) || this.#parts.filter.hasFlows(peer.slot)) this.showOwnLease(nowMs, peer);
    }
  }

  showOwnLease(nowMs: number, peer: EnginePeer): void {
    if (this.#own === undefined || peer.kind === "stock") return;
    peer.lease.shown(nowMs, this.#own.epoch, this.#own.serial);
    this.#waiting.add(peer);
    this.#send(nowMs, peer, encodeLease(this.#own.bytes));
  }

  /**
   * Handles the UDP payload of a packet on the peer link's port. True: the peer's lease is now known and held packets
   * may go on.
   */
  handleMessage(nowMs: number, peer: EnginePeer, payload: Uint8Array): boolean {
    const { counters, sink } = this.#parts;
    const message = decodeLinkMessage(payload);
    switch (message?.kind) {
      case "lease":
        return this.#handleLease(nowMs, peer, message.lease);
      case "lease-ack":
        peer.lease.acknowledged(message.epoch, message.serial);
        return false;
      case "denial":
        if (peer.takeReplyToken(nowMs)) sink.deniedByPeer(peer.session, message.denial);
        else counters.add("link-denial-too-many");
        return false;
      default:
        counters.add("link-malformed");
        return false;
    }
  }

  /** Tells the peer that a flow it opened was denied here. */
  tellDenial(nowMs: number, peer: EnginePeer, denial: DenialRecord): void {
    if (peer.kind === "stock") return;
    if (!peer.takeReplyToken(nowMs)) {
      this.#parts.counters.add("link-denial-not-told");
      return;
    }
    this.#send(nowMs, peer, encodeDenial(denial));
  }

  hold(nowMs: number, peer: EnginePeer, buffer: Uint8Array, offset: number, length: number): void {
    if (peer.lease.hold(nowMs, buffer, offset, length)) this.#waiting.add(peer);
    else this.#parts.counters.add("inbound-held-full");
  }

  handleTimeout(nowMs: number): void {
    for (const peer of this.#waiting) {
      const dropped = peer.lease.dropOverdue(nowMs);
      if (dropped > 0) this.#parts.counters.add("inbound-no-lease", dropped);
      if (peer.lease.isResendDue(nowMs)) {
        if (peer.tunnel.hasSession(nowMs)) this.showOwnLease(nowMs, peer);
        else peer.lease.reset();
      }
      if (peer.lease.nextDeadlineMs() === Number.POSITIVE_INFINITY) this.#waiting.delete(peer);
    }
  }

  nextDeadlineMs(): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const peer of this.#waiting) nextMs = Math.min(nextMs, peer.lease.nextDeadlineMs());
    return nextMs;
  }

  #handleLease(nowMs: number, peer: EnginePeer, bytes: Uint8Array): boolean {
    const { counters, filter, sink } = this.#parts;
    const lease = this.#leases.verify(bytes);
    const answer = peer.lease.accept(lease, this.#parts.state.epoch);
    if (lease === undefined || (answer !== "accepted" && answer !== "known")) {
      counters.add(`link-lease-${answer}`);
      return false;
    }
    filter.setRemoteLease(peer.slot, lease.endMs);
    if (answer === "accepted") sink.leaseShown?.(peer.session, lease);
    if (peer.takeReplyToken(nowMs)) this.#send(nowMs, peer, encodeLeaseAck(lease.epoch, lease.serial));
    return true;
  }

  #send(nowMs: number, peer: EnginePeer, payload: Uint8Array): void {
    const local = this.#parts.state.addresses.find((address) => !isV4(address));
    const remote = peer.linkAddress;
    if (local === undefined || remote === undefined) {
      this.#parts.counters.add("link-no-address");
      return;
    }
    const length = HEADERS_BYTES + payload.length;
    const buffer = new Uint8Array(HEADROOM_BYTES + length + HEADROOM_BYTES);
    writeLinkPacket(buffer, HEADROOM_BYTES, local, remote, payload);
    this.#parts.device.send(nowMs, peer.tunnel, buffer, HEADROOM_BYTES, length);
  }
}

function writeLinkPacket(buffer: Uint8Array, at: number, from: Address, to: Address, payload: Uint8Array): void {
  const udpBytes = 8 + payload.length;
  writeIpHeader(buffer, at, 6, udpBytes, PROTOCOL_UDP, from.w0, from.w1, from.w2, from.w3, to.w0, to.w1, to.w2, to.w3);
  const udp = at + 40;
  writeU16(buffer, udp, PEER_LINK_PORT);
  writeU16(buffer, udp + 2, PEER_LINK_PORT);
  writeU16(buffer, udp + 4, udpBytes);
  buffer.set(payload, udp + 8);
  const pseudo = sumPseudoHeader(
    from.w0,
    from.w1,
    from.w2,
    from.w3,
    to.w0,
    to.w1,
    to.w2,
    to.w3,
    PROTOCOL_UDP,
    udpBytes,
  );
  const checksum = foldChecksum(sumBytes(buffer, udp, udpBytes, pseudo));
  writeU16(buffer, udp + 6, checksum === 0 ? 0xffff : checksum); // RFC 8200 §8.1
}
