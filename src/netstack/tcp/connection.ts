// One TCP connection: what arrives (RFC 9293 §3.10.7, in its order of steps), what the user asks, what falls due. The
// sending half is sender.ts, the receiving half receiver.ts. Blind attacks are met as RFC 5961
// says: a reset counts only at exactly RCV.NXT, a SYN never, an acknowledgment only near what was sent; all else earns
// a challenge acknowledgment, a few a second. The initial sequence number is random for each connection. RFC 6528's
// clock guards a reused pair of ports against old duplicates; a tunnel's replay window leaves none, and TIME-WAIT
// covers what is in flight. With timestamps each segment is held against them first (PAWS, RFC 7323 §5).
import type { Endpoint } from "../../base/address.ts";
import { isV4 } from "../../base/address.ts";
import {
  MTU_MIN_BYTES,
  TCP_ACCEPT_MAX_MS,
  TCP_CONNECT_MAX_MS,
  TCP_KEEPALIVE_IDLE_MS,
  TCP_TIME_WAIT_MS,
} from "../../base/limits.ts";
import { randomU32 } from "../../base/random.ts";
import { SECOND_MS } from "../../base/units.ts";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../wire/packet.ts";
import { SACK_BLOCKS_MAX, type TcpOptions, TIMESTAMPS_PADDED_BYTES } from "../../wire/tcp.ts";
import type { TcpCloseReason, TcpConnection, TcpHandler } from "../contract.ts";
import type { Timed } from "../deadlines.ts";
import { FlowKey } from "../flow-table.ts";
import { PATH_MTU_MIN_V4_BYTES } from "../path-mtu.ts";
import { RateLimit } from "../rate-limit.ts";
import type { TcpCounter, TcpHost } from "./host.ts";
import { Receiver } from "./receiver.ts";
import type { Segment } from "./segment.ts";
import { SegmentWriter } from "./segment-writer.ts";
import { Sender } from "./sender.ts";
import { sequenceAdd, sequenceAfter, sequenceBefore } from "./sequence.ts";
import * as state from "./state.ts";
import { Timestamps } from "./timestamps.ts";

/** A connection; a count for the whole stack would tell others of it (RFC 5961 §7). */
const CHALLENGE_ACKS_PER_SECOND_MAX = 10;
const KEEPALIVE_INTERVAL_MS = 75 * SECOND_MS;
const KEEPALIVE_PROBES_MAX = 9;
const STARVED_RETRY_MS = 100;
const MSS_DEFAULT_V4_BYTES = 536; // RFC 9293 §3.7.1
const MSS_DEFAULT_V6_BYTES = 1220;
/** A remote end that asks for less gets this: tiny segments multiply packets. */
const MSS_MIN_BYTES = 88;

/** Of one mere acknowledgment, used while it is written. */
const sackEdges = new Uint32Array(2 * SACK_BLOCKS_MAX);

const NO_HANDLER: TcpHandler = { readable: () => undefined, writable: () => undefined, closed: () => undefined };

/** The largest segment's data within an MTU, options left aside (RFC 6691). */
export function mssFor(remote: Endpoint, mtuBytes: number): number {
  return mtuBytes - (isV4(remote.address) ? 40 : 60);
}

export class Connection extends FlowKey implements TcpConnection, Timed {
  deadlineMs = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  handler: TcpHandler = NO_HANDLER;
  state: state.TcpState = state.CLOSED;
  /** Opened by the other end, by a SYN that a listener or an opening took. */
  isPassive = false;
  /** Nobody knows of it before its handshake has ended. */
  isFromListener = false;
  readonly #host: TcpHost;
  readonly #writer: SegmentWriter;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #timestamps: Timestamps;
  /** Last.ACK.sent */
  #lastAcknowledgment = 0;
  readonly #ownMssBytes: number;
  #startedMs = 0;
  /** In a handler's or a segment's turn: sending waits for its end. */
  #depth = 0;
  #timeWaitUntilMs = Number.POSITIVE_INFINITY;
  #starvedUntilMs = Number.POSITIVE_INFINITY;
  #keepaliveProbes = 0;
  readonly #challenges = new RateLimit(CHALLENGE_ACKS_PER_SECOND_MAX);
  #wantsRoom = false;
  #isClosed = false;

  constructor(host: TcpHost, local: Endpoint, remote: Endpoint) {
    super(local, remote);
    this.#host = host;
    this.#timestamps = new Timestamps(randomU32(host.random));
    this.#writer = new SegmentWriter(host.output, this.#timestamps, local, remote);
    this.#ownMssBytes = mssFor(remote, host.output.mtuBytes);
    this.#receiver = new Receiver({
      memory: host.receiveMemory,
      count: (what: TcpCounter) => host.count(what),
      bufferBytes: host.receiveBufferBytes,
      bufferMaxBytes: host.receiveBufferMaxBytes,
      ownMssBytes: this.#ownMssBytes,
    });
    this.#sender = new Sender(this, {
      chunks: host.chunks,
      bufferBytes: host.sendBufferBytes,
      bufferMaxBytes: host.sendBufferMaxBytes,
      initialSequence: randomU32(host.random),
      mssBytes: Math.min(this.#ownMssBytes, isV4(remote.address) ? MSS_DEFAULT_V4_BYTES : MSS_DEFAULT_V6_BYTES),
      timestamps: this.#timestamps,
      congestion: host.congestion,
    });
  }

  // --- What the user asks ------------------------------------------------------------------------

  get readableBytes(): number {
    return this.#receiver.readableBytes;
  }

  get remoteEnded(): boolean {
    return this.#receiver.isFinished && this.#receiver.readableBytes === 0;
  }

  get writableBytes(): number {
    return this.#isClosed || this.#sender.finQueued ? 0 : this.#sender.buffer.roomBytes;
  }

  read(nowMs: number, maxBytes: number): Uint8Array | undefined {
    // In the middle of a burst: who is told of it may read too, and must not come between these bytes and their reader.
    if (this.#depth === 0 && this.#receiver.hasNews) this.#finishTurn(nowMs);
    const bytes = this.#receiver.read(nowMs, maxBytes);
    if (bytes === undefined) return undefined;
    this.#finishTurn(nowMs);
    return bytes;
  }

  write(nowMs: number, bytes: Uint8Array): number {
    if (this.#isClosed || this.#sender.finQueued) return 0;
    const taken = this.#sender.write(nowMs, bytes);
    if (taken < bytes.length) this.#wantsRoom = true;
    if (taken > 0 || this.#wantsRoom) this.#finishTurn(nowMs);
    return taken;
  }

  end(nowMs: number): void {
    if (this.#isClosed || this.#sender.finQueued) return;
    this.#sender.finQueued = true;
    this.#wantsRoom = false;
    this.#finishTurn(nowMs);
  }

  abort(nowMs: number): void {
    if (this.#isClosed) return;
    const isSilent = this.state === state.SYN_SENT || this.state === state.TIME_WAIT || this.state === state.CLOSED;
    if (!isSilent) this.#sendReset(nowMs);
    this.#close("aborted");
  }

  /** No packet of it passes any more: gone at once, without a segment that nobody would get. */
  cut(): void {
    if (!this.#isClosed) this.#close("prohibited");
  }

  // --- Opening -----------------------------------------------------------------------------------

  /** Active: SYN. */
  open(nowMs: number): void {
    this.state = state.SYN_SENT;
    this.#startedMs = nowMs;
    this.#sendSyn(nowMs);
    this.#settle(nowMs);
  }

  /** Passive: answers a SYN that carried this. */
  accept(nowMs: number, sequence: number, windowField: number, options: TcpOptions): void {
    this.isPassive = true;
    this.state = state.SYN_RECEIVED;
    this.#startedMs = nowMs;
    this.#takeSyn(nowMs, sequence, options);
    this.#sender.setWindow(sequence, this.#sender.initialSequence, windowField, 0);
    this.#sendSyn(nowMs);
    this.#settle(nowMs);
  }

  /** RCV.NXT and what the remote end's SYN offers, which is what ours has or will have. */
  #takeSyn(nowMs: number, sequence: number, options: TcpOptions): void {
    this.#receiver.start(sequence, options);
    this.#receiver.usesSack = options.isSackPermitted;
    this.#sender.recovery.usesSack = options.isSackPermitted;
    this.#sender.windowShift = Math.max(options.windowScale, 0);
    if (options.hasTimestamps) this.#timestamps.begin(nowMs, options.timestamp);
    const default_ = isV4(this.remote.address) ? MSS_DEFAULT_V4_BYTES : MSS_DEFAULT_V6_BYTES;
    const asked = options.mssBytes === 0 ? default_ : Math.max(options.mssBytes, MSS_MIN_BYTES);
    this.#sender.setMss(Math.min(asked, this.#ownMssBytes) - this.#optionBytes);
    const narrowBytes = isV4(this.remote.address) ? [MTU_MIN_BYTES, PATH_MTU_MIN_V4_BYTES] : [MTU_MIN_BYTES];
    this.#sender.shorterMssBytes = narrowBytes.map((bytes) => mssFor(this.remote, bytes) - this.#optionBytes);
  }

  /** What every segment with data has beside it. */
  get #optionBytes(): number {
    return this.#timestamps.isOn ? TIMESTAMPS_PADDED_BYTES : 0;
  }

  /** Offers everything, or answers with what was offered. */
  #sendSyn(nowMs: number): void {
    const isAnswer = this.state === state.SYN_RECEIVED;
    const flags = TCP_SYN | (isAnswer ? TCP_ACK : 0);
    const acknowledgment = isAnswer ? this.#receiver.next : 0;
    const window = isAnswer ? this.#receiver.advertise(true, true) : Math.min(this.#host.receiveBufferBytes, 65_535);
    const timestamps = this.#timestamps;
    const hasTimestamps = !isAnswer || timestamps.isOn;
    this.#lastAcknowledgment = acknowledgment;
    this.#writer.sendSyn(nowMs, this.#sender.initialSequence, acknowledgment, flags, window, {
      mssBytes: this.#ownMssBytes,
      windowScale: this.#receiver.offeredShift,
      isSackPermitted: !isAnswer || this.#receiver.usesSack,
      timestamps: hasTimestamps
        ? { value: timestamps.value(nowMs), echo: isAnswer ? timestamps.recent : 0 }
        : undefined,
    });
    this.#sender.synSent(nowMs);
  }

  // --- What arrives ------------------------------------------------------------------------------

  /**
   * False: this connection is done, and the segment is a SYN that may begin another between the same ports (RFC 9293
   * §3.10.7.4).
   */
  handleSegment(nowMs: number, segment: Segment): boolean {
    if (this.state === state.TIME_WAIT && this.#beginsAnew(segment)) {
      this.#close("closed");
      return false;
    }
    this.#depth++;
    if (this.state === state.SYN_SENT) this.#handleInSynSent(nowMs, segment);
    else this.#handleSynchronized(nowMs, segment);
    this.#depth--;
    const mayWait = segment.dataBytes > 0 && !this.#receiver.ackNow;
    if (!mayWait || !this.#host.putOff(this)) this.#finishTurn(nowMs);
    return true;
  }

  /** Of a burst of segments: see TcpHost.putOff. */
  finishBurst(nowMs: number): void {
    this.#finishTurn(nowMs);
  }

  #beginsAnew(segment: Segment): boolean {
    const isSyn = (segment.flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN;
    return isSyn && sequenceAfter(segment.sequence, this.#receiver.next);
  }

  #handleInSynSent(nowMs: number, segment: Segment): void {
    const sender = this.#sender;
    const hasAck = (segment.flags & TCP_ACK) !== 0;
    const acceptable = hasAck && segment.acknowledgment === sender.max;
    if (hasAck && !acceptable) {
      if ((segment.flags & TCP_RST) === 0) this.#sendResetAt(nowMs, segment.acknowledgment);
      return;
    }
    if ((segment.flags & TCP_RST) !== 0) {
      if (acceptable) this.#close("refused");
      return;
    }
    if ((segment.flags & TCP_SYN) === 0) return;
    this.#takeSyn(nowMs, segment.sequence, segment.options);
    sender.heardMs = nowMs;
    if (acceptable) {
      sender.opened(nowMs, segment);
      sender.setWindow(segment.sequence, segment.acknowledgment, segment.window, 0);
      this.#receiver.ackNow = true;
      this.#establish(nowMs);
      return;
    }
    this.state = state.SYN_RECEIVED; // both ends opened at once
    sender.setWindow(segment.sequence, sender.initialSequence, segment.window, 0);
    this.#sendSyn(nowMs);
  }

  #handleSynchronized(nowMs: number, segment: Segment): void {
    const { flags } = segment;
    if (this.#timestamps.isOn && (flags & TCP_RST) === 0 && !this.#isTimely(nowMs, segment)) return;
    if (!this.#receiver.isAcceptable(segment)) {
      this.#handleUnacceptable(nowMs, segment);
      return;
    }
    if ((flags & TCP_RST) !== 0) {
      this.#handleReset(nowMs, segment);
      return;
    }
    if ((flags & TCP_SYN) !== 0) {
      this.#challenge(nowMs); // RFC 5961 §4.2
      return;
    }
    if ((flags & TCP_ACK) === 0) return;
    if (!this.#handleAcknowledgment(nowMs, segment)) return;
    const { isOn } = this.#timestamps;
    if (isOn) this.#timestamps.take(nowMs, segment.options.timestamp, segment.sequence, this.#lastAcknowledgment);
    this.#sender.heardMs = nowMs;
    this.#keepaliveProbes = 0;
    if (!state.canReceive(this.state)) return;
    if (segment.dataBytes > 0) {
      const elapsedMs = isOn ? this.#timestamps.elapsedMs(nowMs, segment.options.timestampEcho) : -1;
      this.#receiver.handleData(nowMs, segment, elapsedMs);
    }
    if ((flags & TCP_FIN) !== 0) this.#receiver.noteFin(segment);
    if (this.#receiver.takeFin()) this.#enter(nowMs, state.afterFinReceived(this.state));
  }

  /** RFC 7323 §3.2 and §5.3 (R1): with the option, and not from before what came last. */
  #isTimely(nowMs: number, segment: Segment): boolean {
    if (!segment.options.hasTimestamps) {
      this.#host.count("TCP_WITHOUT_TIMESTAMP");
      return false;
    }
    if (!this.#timestamps.isOld(nowMs, segment.options.timestamp)) return true;
    this.#host.count("TCP_OLD_TIMESTAMP");
    // One without data is an acknowledgment that others have overtaken: answering it would tell the sender of a loss.
    if (segment.sequenceBytes > 0) this.#challenge(nowMs);
    return false;
  }

  #handleUnacceptable(nowMs: number, segment: Segment): void {
    if ((segment.flags & TCP_RST) !== 0) return;
    const isSyn = (segment.flags & TCP_SYN) !== 0;
    if (isSyn && this.state === state.SYN_RECEIVED && sequenceAdd(segment.sequence, 1) === this.#receiver.next) {
      if ((segment.flags & TCP_ACK) === 0)
        this.#sendSyn(nowMs); // our SYN-ACK was lost
      else this.#receiver.ackNow = true; // both opened at once; answering with another SYN-ACK would never end
      return;
    }
    if (this.state === state.TIME_WAIT && (segment.flags & TCP_FIN) !== 0) {
      this.#timeWaitUntilMs = nowMs + TCP_TIME_WAIT_MS; // its FIN again: our last acknowledgment was lost
    }
    if (segment.dataBytes > 0 && !isSyn) {
      this.#receiver.noteOld(segment);
      this.#receiver.ackNow = true;
    } else this.#challenge(nowMs);
  }

  #handleReset(nowMs: number, segment: Segment): void {
    if (this.state === state.TIME_WAIT) return; // RFC 1337 §3
    if (segment.sequence !== this.#receiver.next) {
      this.#challenge(nowMs); // RFC 5961 §3.2
      return;
    }
    const refused = this.state === state.SYN_RECEIVED && !this.isPassive;
    this.#close(refused ? "refused" : "reset");
  }

  /** False: the segment ends here. */
  #handleAcknowledgment(nowMs: number, segment: Segment): boolean {
    const sender = this.#sender;
    const acknowledgment = segment.acknowledgment;
    const isNew = sequenceAfter(acknowledgment, sender.una);
    if (this.state === state.SYN_RECEIVED) {
      if (!isNew || sequenceAfter(acknowledgment, sender.max)) {
        this.#sendResetAt(nowMs, acknowledgment);
        return false;
      }
      sender.opened(nowMs, segment);
      sender.setWindow(segment.sequence, acknowledgment, segment.window, sender.windowShift);
      this.#establish(nowMs);
      return !this.#isClosed; // by its handler
    }
    // RFC 5961 §5.2: from MAX.SND.WND before UNA up to what was sent; all else on the circle is a guess.
    const oldest = sequenceAdd(sender.una, -Math.max(sender.windowMaxBytes, 1));
    if ((acknowledgment - oldest) >>> 0 > (sender.max - oldest) >>> 0) {
      this.#challenge(nowMs);
      return false;
    }
    if (sequenceBefore(acknowledgment, sender.una)) return true;
    const says = this.#saysTheSame(segment);
    sender.updateWindow(segment.sequence, acknowledgment, segment.window, sender.windowShift);
    if (isNew || says || sender.recovery.usesSack) sender.acknowledged(nowMs, segment, says);
    if (isNew && sender.finAcknowledged) this.#enter(nowMs, state.afterFinAcknowledged(this.state));
    return !this.#isClosed;
  }

  /** A duplicate acknowledgment as RFC 5681 §2 has it. */
  #saysTheSame(segment: Segment): boolean {
    const sender = this.#sender;
    if (segment.acknowledgment !== sender.una || sender.outstandingBytes === 0 || segment.sequenceBytes > 0)
      return false;
    return sender.windowBytes > 0 && segment.window << sender.windowShift === sender.windowBytes;
  }

  /** ICMP says that nothing gets there (RFC 5461: fatal while opening, no more than a hint afterwards). */
  handleUnreachable(sequence: number, prohibited: boolean): void {
    const opening = this.state === state.SYN_SENT && sequence === this.#sender.initialSequence;
    if (opening) this.#close(prohibited ? "prohibited" : "unreachable");
    else this.#host.count("TCP_ICMP_SOFT_ERRORS");
  }

  /**
   * ICMP says that a segment was too big; believed when the sequence quoted is outstanding (RFC 5927 §4.1), and only
   * downwards.
   */
  handleTooBig(nowMs: number, sequence: number, mtuBytes: number): void {
    const sender = this.#sender;
    if (sequenceBefore(sequence, sender.una) || !sequenceBefore(sequence, sender.max)) return;
    const mssBytes = Math.max(mssFor(this.remote, mtuBytes), MSS_MIN_BYTES) - this.#optionBytes;
    if (mssBytes >= sender.mssBytes) return;
    sender.shrinkMss(nowMs, mssBytes);
    this.#finishTurn(nowMs);
  }

  // --- What falls due ----------------------------------------------------------------------------

  handleDeadline(nowMs: number): void {
    if (this.state === state.CLOSED) return; // another's deadline in the same turn ended it
    this.#depth++;
    if (nowMs >= this.#timeWaitUntilMs) this.dropped();
    else this.#runTimers(nowMs);
    this.#depth--;
    this.#finishTurn(nowMs);
  }

  #runTimers(nowMs: number): void {
    const sender = this.#sender;
    if (nowMs >= this.#receiver.ackAtMs) this.#receiver.ackNow = true;
    if (nowMs >= this.#starvedUntilMs) this.#starvedUntilMs = Number.POSITIVE_INFINITY;
    if (!sender.isOpen) {
      if (sender.isRetransmissionDue(nowMs)) this.#resendSyn(nowMs);
    } else if (!sender.runTimers(nowMs)) this.#giveUp(nowMs);
    if (nowMs >= this.#keepaliveAtMs()) this.#keepAlive(nowMs);
  }

  #resendSyn(nowMs: number): void {
    const patienceMs = this.isPassive ? TCP_ACCEPT_MAX_MS : TCP_CONNECT_MAX_MS;
    if (nowMs - this.#startedMs >= patienceMs) {
      this.#close("timeout");
      return;
    }
    this.resent();
    this.#sender.rtt.backOff();
    this.#sendSyn(nowMs);
  }

  #giveUp(nowMs: number): void {
    this.#sendReset(nowMs);
    this.#close("timeout");
  }

  /** Only while nothing else would tell us that the other end is gone. */
  #keepaliveAtMs(): number {
    const idle = this.#sender.isOpen && this.state !== state.TIME_WAIT && this.#sender.outstandingBytes === 0;
    if (!idle || this.#sender.persistAtMs !== Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    return this.#sender.heardMs + TCP_KEEPALIVE_IDLE_MS + this.#keepaliveProbes * KEEPALIVE_INTERVAL_MS;
  }

  #keepAlive(nowMs: number): void {
    if (this.#keepaliveProbes >= KEEPALIVE_PROBES_MAX) {
      this.#giveUp(nowMs);
      return;
    }
    this.#keepaliveProbes++;
    this.#receiver.releaseIdle();
    this.#sender.releaseIdle();
    // RFC 9293 §3.8.4: an old sequence asks for an answer
    this.#acknowledge(nowMs, sequenceAdd(this.#sender.una, -1));
  }

  // --- Sending -----------------------------------------------------------------------------------

  /** For the sender: one segment of ours, with what we have to acknowledge. */
  sendData(nowMs: number, sequence: number, flags: number, offset: number, dataBytes: number): void {
    this.#emit(nowMs, sequence, flags, offset, dataBytes);
  }

  finSent(): void {
    this.state = state.afterFinSent(this.state);
  }

  shortened(): void {
    this.#host.count("TCP_BLACK_HOLES");
  }

  resent(): void {
    this.#host.count("TCP_RETRANSMISSIONS");
  }

  #emit(nowMs: number, sequence: number, flags: number, offset: number, dataBytes: number): void {
    const field = this.#receiver.advertise(false, false);
    this.#lastAcknowledgment = this.#receiver.next;
    this.#writer.send(nowMs, sequence, this.#receiver.next, flags, field, this.#sender.buffer, offset, dataBytes);
  }

  /** An acknowledgment alone. */
  #acknowledge(nowMs: number, sequence: number): void {
    const field = this.#receiver.advertise(false, true);
    const blocks = this.#receiver.nameBlocks(sackEdges, this.#timestamps.isOn);
    this.#lastAcknowledgment = this.#receiver.next;
    this.#writer.sendAcknowledgment(nowMs, sequence, this.#receiver.next, field, sackEdges, blocks);
  }

  #sendReset(nowMs: number): void {
    this.#host.count("TCP_RESETS_SENT");
    const { max } = this.#sender;
    this.#writer.send(nowMs, max, this.#receiver.next, TCP_RST | TCP_ACK, 0, this.#sender.buffer, 0, 0);
  }

  #sendResetAt(nowMs: number, sequence: number): void {
    this.#host.count("TCP_RESETS_SENT");
    this.#writer.send(nowMs, sequence, 0, TCP_RST, 0, this.#sender.buffer, 0, 0);
  }

  /** An acknowledgment that costs a blind attacker's segment nothing else, and him no flood (RFC 5961 §7). */
  #challenge(nowMs: number): void {
    if (!this.#challenges.take(nowMs)) return;
    this.#host.count("TCP_CHALLENGE_ACKS");
    this.#receiver.ackNow = true;
  }

  // --- The end of every turn ---------------------------------------------------------------------

  /** Handlers first, so that their answers carry the acknowledgment; then sending; then timers. */
  #finishTurn(nowMs: number): void {
    if (this.#depth > 0) return;
    this.#depth++;
    this.#notify();
    this.#depth--;
    if (this.state === state.CLOSED) return;
    this.#sender.transmit(nowMs);
    const { ackNow, ackSoon, updateWindow } = this.#receiver;
    if (ackNow || ackSoon || (updateWindow && state.canReceive(this.state))) {
      this.#acknowledge(nowMs, this.#sender.isOpen ? this.#sender.acceptableSequence : this.#sender.next);
    }
    this.#settle(nowMs);
  }

  #notify(): void {
    if (this.#receiver.takeNews() && !this.#isClosed) this.handler.readable();
    if (this.#wantsRoom && !this.#isClosed && this.#hasRoom()) {
      this.#wantsRoom = false;
      this.handler.writable();
    }
    const finished = this.state === state.TIME_WAIT || this.state === state.CLOSED;
    if (finished && !this.#isClosed && this.remoteEnded) this.#tellClosed("closed");
  }

  #hasRoom(): boolean {
    const { buffer } = this.#sender;
    if (buffer.roomBytes < this.#host.sendBufferBytes / 4) return false;
    return buffer.sizeBytes > 0 || this.#starvedUntilMs === Number.POSITIVE_INFINITY;
  }

  #establish(nowMs: number): void {
    this.state = state.ESTABLISHED;
    this.#host.established(nowMs, this);
    if (!this.isPassive && !this.#isClosed) this.handler.connected?.();
  }

  #enter(nowMs: number, next: state.TcpState): void {
    if (next === this.state) return;
    this.state = next;
    if (next === state.TIME_WAIT) {
      this.#timeWaitUntilMs = nowMs + TCP_TIME_WAIT_MS;
      this.#host.waiting(this);
    } else if (next === state.CLOSED) {
      this.#host.forget(this);
    }
  }

  /** Ends it at once, whatever was buffered. */
  #close(reason: TcpCloseReason): void {
    this.state = state.CLOSED;
    this.#host.forget(this);
    this.#receiver.clear();
    this.#tellClosed(reason);
  }

  #tellClosed(reason: TcpCloseReason): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#sender.buffer.clear();
    this.handler.closed(reason);
  }

  /** TIME-WAIT is over, or the table needs its place. Bytes that nobody has read yet stay readable. */
  dropped(): void {
    this.state = state.CLOSED;
    this.#host.forget(this);
  }

  #settle(nowMs: number): void {
    const sender = this.#sender;
    sender.settle(nowMs);
    if (this.#wantsRoom && sender.buffer.sizeBytes === 0 && this.#starvedUntilMs === Number.POSITIVE_INFINITY) {
      this.#starvedUntilMs = nowMs + STARVED_RETRY_MS; // all connections together hold too much: ask again
    }
    const due = Math.min(
      this.#receiver.ackAtMs,
      sender.deadlineMs,
      this.#timeWaitUntilMs,
      this.#starvedUntilMs,
      this.#keepaliveAtMs(),
    );
    this.#host.deadlines.set(this, due);
  }
}
