// A SYN that waits for somebody's decision: a policy's verdict and a real dial. Until then nothing is said to its
// sender, whose retransmissions join. RFC 9293 §3.10.7.2, with the user's OPEN coming after the SYN.
import type { Endpoint } from "../../base/address.ts";
import { TCP_OPENING_MAX_MS } from "../../base/limits.ts";
import { TCP_ACK, TCP_RST, TCP_SYN } from "../../wire/packet.ts";
import { TcpOptions } from "../../wire/tcp.ts";
import type { TcpConnection, TcpHandler, TcpOpening } from "../contract.ts";
import type { Timed } from "../deadlines.ts";
import { FlowKey } from "../flow-table.ts";
import type { Segment } from "./segment.ts";
import { sequenceAdd } from "./sequence.ts";

/** Of the SYN, kept to be quoted in an ICMP error. */
const QUOTE_MAX_BYTES = 128;

export interface OpeningHost {
  acceptOpening(nowMs: number, opening: Opening, handler: TcpHandler): TcpConnection;
  refuseOpening(nowMs: number, opening: Opening): void;
  rejectOpening(nowMs: number, opening: Opening, code: "host" | "prohibited"): void;
  forgetOpening(opening: Opening): void;
}

export class Opening extends FlowKey implements TcpOpening, Timed {
  deadlineMs = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  onGone: (() => void) | undefined;
  isGone = false;
  readonly untilMs: number;
  sequence = 0;
  window = 0;
  readonly options = new TcpOptions();
  /** The SYN's packet, or its beginning. */
  quote = new Uint8Array(0);
  readonly #host: OpeningHost;

  constructor(host: OpeningHost, nowMs: number, local: Endpoint, remote: Endpoint, segment: Segment) {
    super(local, remote);
    this.#host = host;
    this.untilMs = nowMs + TCP_OPENING_MAX_MS;
    this.#take(segment);
  }

  #take(segment: Segment): void {
    const { buffer, packetAt, packetBytes } = segment;
    this.quote = buffer.slice(packetAt, packetAt + Math.min(packetBytes, QUOTE_MAX_BYTES));
    this.sequence = segment.sequence;
    this.window = segment.window;
    this.options.copyFrom(segment.options);
  }

  accept(nowMs: number, handler: TcpHandler): TcpConnection {
    return this.#host.acceptOpening(nowMs, this, handler);
  }

  refuse(nowMs: number): void {
    if (!this.isGone) this.#host.refuseOpening(nowMs, this);
  }

  unreachable(nowMs: number, code: "host" | "prohibited"): void {
    if (!this.isGone) this.#host.rejectOpening(nowMs, this, code);
  }

  handleSegment(_nowMs: number, segment: Segment): boolean {
    const { flags, sequence } = segment;
    if ((flags & TCP_RST) !== 0) {
      if (sequence === this.sequence || sequence === sequenceAdd(this.sequence, 1)) this.#giveUp();
      return true;
    }
    if ((flags & (TCP_SYN | TCP_ACK)) === TCP_SYN) {
      if (sequence !== this.sequence) this.#take(segment); // anew from the same port; else it joins
    }
    return true;
  }

  handleDeadline(_nowMs: number): void {
    this.#giveUp();
  }

  #giveUp(): void {
    if (this.isGone) return;
    this.#host.forgetOpening(this);
    this.onGone?.();
  }
}
