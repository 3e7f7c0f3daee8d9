// The outbound path, in the order a packet walks it:
//   1 packet → 2 peer by longest prefix → 3 filter → 4 session, or stage and start a handshake → 5 seal
// (wireguard/device.ts)
//   → 6 best path (path/) → 7 socket.
// The filter here is for fast, explained answers; the boundary that counts is the destination's.
import { LEASE_SHOWN_WITHIN_MS, LOCAL_REPLIES_MAX, LOCAL_REPLIES_PER_SECOND_MAX } from "../base/limits.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { ANSWER_MAX_BYTES, buildIcmpProhibited, buildTcpReset, mayAnswer } from "../wire/answer.ts";
import { decodePacket, PacketInfo, PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/packet.ts";
import type { EngineParts } from "./engine.ts";
import type { EnginePeer } from "./engine-peer.ts";
import { PEER_LINK_PORT } from "./peer-link.ts";

export class Outbound {
  readonly #parts: EngineParts;
  readonly #info = new PacketInfo();
  readonly #answers = new TokenBucket(0, LOCAL_REPLIES_PER_SECOND_MAX, LOCAL_REPLIES_MAX);
  readonly #answer = new Uint8Array(ANSWER_MAX_BYTES);

  constructor(parts: EngineParts) {
    this.#parts = parts;
  }

  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, length: number): void {
    const { counters, device, filter, routes } = this.#parts;
    const info = this.#info;
    const drop = decodePacket(buffer, offset, length, info); // 1
    if (drop !== undefined) return counters.add(`outbound-${drop}`);
    if (
      this.#parts.mode === "badge" &&
      info.protocol === PROTOCOL_UDP &&
      (info.sourcePort === PEER_LINK_PORT || info.destinationPort === PEER_LINK_PORT)
    ) {
      return counters.add("outbound-reserved-port");
    }
    const { destination0, destination1, destination2, destination3 } = info;
    const peer = routes.peerFor(destination0 | 0, destination1 | 0, destination2 | 0, destination3 | 0); // 2
    if (peer === undefined) {
      counters.add("outbound-no-route");
      this.#reply(nowMs, buffer, offset);
      return;
    }
    if (this.#parts.mode === "badge" && !this.#mayTrustLease(nowMs, peer)) return counters.add("outbound-no-lease");
    const verdict = filter.judgeOutbound(nowMs, peer.slot, info, buffer, offset); // 3
    if (!verdict.allowed) {
      counters.add(`outbound-denied-${verdict.reason}`);
      const { denial } = this.#parts;
      this.#parts.denial = undefined;
      this.#reply(nowMs, buffer, offset);
      if (denial !== undefined) this.#parts.sink.denied(denial); // else one of many that were denied a moment ago
      return;
    }
    if (this.#parts.mode === "badge") peer.keepOpen(true);
    device.send(nowMs, peer.tunnel, buffer, offset, info.totalBytes); // 4–7
  }

  /**
   * Without a tunnel an ended lease says nothing: the next is yet to be shown, in the tunnel to come. Called before
   * anything is judged that would make one.
   */
  forgetEndedLease(nowMs: number, peer: EnginePeer): void {
    const { remote } = peer.lease;
    if (remote === undefined || peer.tunnel.hasSession(nowMs)) return;
    if (nowMs + this.#parts.coordinatorOffsetMs < remote.endMs) return;
    peer.lease.forgetRemote();
    this.#parts.filter.setRemoteLease(peer.slot, undefined);
  }

  /**
   * The other end shows its lease when the tunnel is up, so the packets that make the tunnel go ahead of it: for
   * LEASE_SHOWN_WITHIN_MS, then nothing more goes to a peer that has shown none.
   */
  #mayTrustLease(nowMs: number, peer: EnginePeer): boolean {
    if (peer.kind === "stock") return true;
    if (peer.lease.remote !== undefined) {
      this.forgetEndedLease(nowMs, peer);
      return true; // the filter judges a lease that was shown
    }
    return !peer.tunnel.hasSession(nowMs) || nowMs < peer.sessionStartedMs + LEASE_SHOWN_WITHIN_MS;
  }

  /** To whoever sent it, so that it fails at once: rationed, since any local process can make us answer. */
  #reply(nowMs: number, buffer: Uint8Array, offset: number): void {
    const { counters, localReplies } = this.#parts;
    const info = this.#info;
    if (!mayAnswer(info)) return counters.add("outbound-denied-unanswered");
    if (!this.#answers.take(nowMs)) return counters.add("outbound-reply-too-many");
    const build = info.protocol === PROTOCOL_TCP ? buildTcpReset : buildIcmpProhibited;
    const length = build(this.#answer, 0, buffer, offset, info);
    if (length === 0) counters.add("outbound-denied-unanswered");
    else if (!localReplies.push(this.#answer.slice(0, length))) counters.add("outbound-reply-queue-full");
  }
}
