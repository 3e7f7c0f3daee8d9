// The inbound path, in the order a datagram walks it:
//   1 datagram → 2 session by receiver index → 3 open → 4 replay window (wireguard/device.ts)
//   → 5 the inner source is one the peer may speak for → 6 filter: lease, flow, rules → 7 TUN or netstack.
// Every exit is a named counter; nothing here throws for what the network sent.
import type { Endpoint } from "../base/address.ts";
import type { AskedFlow } from "../filter/denials.ts";
import { buildIcmpProhibited, buildTcpReset } from "../wire/answer.ts";
import { decodePacket, PacketInfo, PROTOCOL_TCP, PROTOCOL_UDP } from "../wire/packet.ts";
import type { EngineParts } from "./engine.ts";
import type { EnginePeer } from "./engine-peer.ts";
import type { LinkService } from "./link-service.ts";
import { PEER_LINK_PORT } from "./peer-link.ts";

const HEADROOM_BYTES = 32;
const ANSWER_BUFFER_BYTES = 2048;

export class Inbound {
  readonly #parts: EngineParts;
  readonly #link: LinkService;
  readonly #info = new PacketInfo();
  readonly #answer = new Uint8Array(ANSWER_BUFFER_BYTES);

  constructor(parts: EngineParts, link: LinkService) {
    this.#parts = parts;
    this.#link = link;
  }

  handleDatagram(nowMs: number, from: Endpoint, buffer: Uint8Array, offset: number, length: number): void {
    const received = this.#parts.device.receive(nowMs, from, buffer, offset, length); // 1–4
    const peer = received.tunnel?.owner;
    if (peer === undefined) return;
    peer.path.confirm(nowMs, from);
    if (received.kind !== "DATA") return;
    this.#handlePacket(nowMs, peer, buffer, received.offset, received.length);
  }

  #handlePacket(nowMs: number, peer: EnginePeer, buffer: Uint8Array, offset: number, length: number): void {
    const { counters, filter, routes, sink } = this.#parts;
    const info = this.#info;
    const drop = decodePacket(buffer, offset, length, info);
    if (drop !== undefined) return counters.add(`inbound-${drop}`);
    const { source0, source1, source2, source3 } = info;
    if (!routes.maySpeakFor(peer, source0 | 0, source1 | 0, source2 | 0, source3 | 0)) {
      return counters.add("inbound-source-not-allowed"); // 5
    }
    if (this.#parts.mode === "badge") {
      if (this.#isPeerLink(info)) return this.#handleLink(nowMs, peer, buffer, offset);
      if (!this.#isLocal(info)) return counters.add("inbound-not-our-address");
      if (peer.kind === "wirebadge" && peer.lease.remote === undefined) {
        return this.#link.hold(nowMs, peer, buffer, offset, length);
      }
    }
    const verdict = filter.judgeInbound(nowMs, peer.slot, info, buffer, offset); // 6
    if (!verdict.allowed) {
      counters.add(`inbound-denied-${verdict.reason}`);
      this.#answerDenial(nowMs, peer, buffer, offset);
      return;
    }
    const refusal = this.#parts.refuse?.(nowMs, buffer, offset, info.totalBytes);
    if (refusal !== undefined) {
      counters.add("inbound-denied-DIAL_REFUSED");
      filter.recordDenial(nowMs, this.#asked(peer), { reason: "DIAL_REFUSED", ruleId: refusal });
      this.#answerDenial(nowMs, peer, buffer, offset, buildIcmpProhibited);
      return;
    }
    if (this.#parts.mode === "badge") peer.keepOpen(true);
    sink.deliverPacket(peer.session, buffer, offset, info.totalBytes); // 7
  }

  #asked(peer: EnginePeer): AskedFlow {
    const { source, destination, sourcePort, destinationPort, protocol } = this.#info;
    return { hop: "destination", session: peer.session, source, destination, sourcePort, destinationPort, protocol };
  }

  #isPeerLink(info: PacketInfo): boolean {
    return (
      info.protocol === PROTOCOL_UDP && (info.destinationPort === PEER_LINK_PORT || info.sourcePort === PEER_LINK_PORT)
    );
  }

  #isLocal(info: PacketInfo): boolean {
    const { destination0, destination1, destination2, destination3 } = info;
    return this.#parts.local.find(destination0 | 0, destination1 | 0, destination2 | 0, destination3 | 0) === true;
  }

  #handleLink(nowMs: number, peer: EnginePeer, buffer: Uint8Array, offset: number): void {
    const info = this.#info;
    const { addresses } = this.#parts.state;
    const ours = addresses.some(
      (a) =>
        a.w3 === info.destination3 &&
        a.w2 === info.destination2 &&
        a.w1 === info.destination1 &&
        a.w0 === info.destination0,
    );
    if (
      !ours ||
      info.version !== 6 ||
      info.isFragment ||
      info.destinationPort !== PEER_LINK_PORT ||
      info.sourcePort !== PEER_LINK_PORT
    ) {
      return this.#parts.counters.add("link-misdirected");
    }
    const payload = buffer.subarray(offset + info.transportOffset + 8, offset + info.totalBytes);
    if (!this.#link.handleMessage(nowMs, peer, payload)) return;
    for (const packet of peer.lease.release()) this.#handlePacket(nowMs, peer, packet, 0, packet.length);
  }

  /**
   * To the far socket: RST or ICMP prohibited, so that it fails at once; to its Wirebadge end: the denial's code and
   * id.
   */
  #answerDenial(
    nowMs: number,
    peer: EnginePeer,
    buffer: Uint8Array,
    offset: number,
    build = this.#info.protocol === PROTOCOL_TCP ? buildTcpReset : buildIcmpProhibited,
  ): void {
    const { device, counters, sink, denial } = this.#parts;
    if (denial === undefined) return; // one of many packets of a flow that was denied a moment ago
    this.#parts.denial = undefined;
    const length = build(this.#answer, HEADROOM_BYTES, buffer, offset, this.#info);
    this.#link.tellDenial(nowMs, peer, denial); // ahead of the reset: the reason is there when the socket fails
    if (length > 0) device.send(nowMs, peer.tunnel, this.#answer, HEADROOM_BYTES, length);
    else counters.add("inbound-denied-unanswered");
    sink.denied(denial);
  }
}
