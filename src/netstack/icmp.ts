// ICMP and ICMPv6 of one stack: answers echo to own addresses, sends echo and errors of its own (a bounded number a
// second), and tells TCP and UDP what routers and hosts say of their packets. RFC 792, RFC 1122 §3.2.2, RFC 4443; RFC
// 5927 on what to believe.
import { type Address, equalAddress, isV4 } from "../base/address.ts";
import { assert } from "../base/assert.ts";
import { readU16, readU32, writeU16 } from "../base/bytes.ts";
import { ECHO_TIMEOUT_MS, ECHOES_MAX, ICMP_ERRORS_PER_SECOND_MAX } from "../base/limits.ts";
import { type Random, randomU32 } from "../base/random.ts";
import { buildIcmpError } from "../wire/answer.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../wire/checksum.ts";
import * as icmp from "../wire/icmp.ts";
import {
  decodeQuotedPacket,
  PacketInfo,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "../wire/packet.ts";
import type { DatagramOutput } from "./datagram-output.ts";
import type { Deadlines, Timed } from "./deadlines.ts";
import { HEADROOM_BYTES, type PacketOutput } from "./packet-output.ts";
import { clampPathMtu, type PathMtus } from "./path-mtu.ts";
import { RateLimit } from "./rate-limit.ts";
import type { Tcp } from "./tcp/tcp.ts";
import type { Udp } from "./udp.ts";

export type IcmpCounter = "ICMP_BAD_CHECKSUM" | "ICMP_RATE_LIMITED" | "ICMP_UNEXPECTED" | "PINGS_FULL";

const ICMP_HEADER_BYTES = 8;
const V4_PROHIBITED_CODES: readonly number[] = [9, 10, 13]; // RFC 1812 §5.2.7.1
const V6_PROHIBITED_CODES: readonly number[] = [1, 5, 6]; // RFC 4443 §3.1
const PING_DATA_BYTES = 32;

export interface IcmpNeighbours {
  readonly output: PacketOutput;
  readonly datagrams: DatagramOutput;
  readonly paths: PathMtus;
  readonly deadlines: Deadlines;
  readonly random: Random;
  readonly tcp: Tcp;
  readonly udp: Udp;
  count(what: IcmpCounter): void;
  isLocal(info: PacketInfo): boolean;
}

class Ping implements Timed {
  deadlineMs = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  readonly remote: Address;
  readonly sentMs: number;
  readonly onReply: (rttMs: number) => void;
  readonly #onTimeout: () => void;

  constructor(remote: Address, sentMs: number, onReply: (rttMs: number) => void, onTimeout: () => void) {
    this.remote = remote;
    this.sentMs = sentMs;
    this.onReply = onReply;
    this.#onTimeout = onTimeout;
  }

  handleDeadline(_nowMs: number): void {
    this.#onTimeout();
  }
}

export class Icmp {
  readonly #around: IcmpNeighbours;
  readonly #errors = new RateLimit(ICMP_ERRORS_PER_SECOND_MAX);
  readonly #quoted = new PacketInfo();
  /** By identifier and sequence number, 32 random bits. */
  readonly #pings = new Map<number, Ping>();

  constructor(around: IcmpNeighbours) {
    this.#around = around;
  }

  get pingsCount(): number {
    return this.#pings.size;
  }

  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, info: PacketInfo): void {
    const at = offset + info.transportOffset;
    const icmpBytes = info.totalBytes - info.transportOffset;
    const pseudo = info.version === 4 ? 0 : pseudoSum(info.source, info.destination, icmpBytes);
    if (foldChecksum(sumBytes(buffer, at, icmpBytes, pseudo)) !== 0) {
      this.#around.count("ICMP_BAD_CHECKSUM");
      return;
    }
    const isReply = info.icmpType === (info.version === 4 ? icmp.ICMP_ECHO_REPLY : icmp.ICMPV6_ECHO_REPLY);
    // A router's word on a flow that ends here, and the answer to a ping of ours, may reach a transit address too; echo
    // to such is not ours to answer.
    if (info.innerOffset > 0) this.#handleError(nowMs, buffer, offset, info);
    else if (isReply && info.icmpCode === 0) this.#handleReply(nowMs, readU32(buffer, at + 4), info);
    else if (!this.#around.isLocal(info)) return;
    else if (info.icmpCode !== 0) this.#around.count("ICMP_UNEXPECTED");
    else if (info.icmpType === (info.version === 4 ? icmp.ICMP_ECHO_REQUEST : icmp.ICMPV6_ECHO_REQUEST)) {
      this.#answerEcho(nowMs, buffer.subarray(at, at + icmpBytes), info);
    } else {
      this.#around.count("ICMP_UNEXPECTED");
    }
  }

  #answerEcho(nowMs: number, request: Uint8Array, info: PacketInfo): void {
    const reply = request.slice();
    reply[0] = info.version === 4 ? icmp.ICMP_ECHO_REPLY : icmp.ICMPV6_ECHO_REPLY;
    this.#send(nowMs, info.destination, info.source, reply);
  }

  #send(nowMs: number, local: Address, remote: Address, message: Uint8Array): void {
    const isIpv4 = isV4(remote);
    writeU16(message, 2, 0);
    const pseudo = isIpv4 ? 0 : pseudoSum(local, remote, message.length);
    writeU16(message, 2, foldChecksum(sumBytes(message, 0, message.length, pseudo)));
    const protocol = isIpv4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
    this.#around.datagrams.send(nowMs, { address: local, port: 0 }, { address: remote, port: 0 }, protocol, message);
  }

  ping(nowMs: number, local: Address, remote: Address, onReply: (rttMs: number) => void): () => void {
    if (this.#pings.size >= ECHOES_MAX) {
      this.#around.count("PINGS_FULL");
      return () => undefined;
    }
    assert(isV4(local) === isV4(remote), "both addresses of a ping are of one family");
    let id = randomU32(this.#around.random);
    while (this.#pings.has(id)) id = randomU32(this.#around.random);
    const giveUp = (): void => this.#forget(id, ping);
    const ping = new Ping(remote, nowMs, onReply, giveUp);
    this.#pings.set(id, ping);
    this.#around.deadlines.set(ping, nowMs + ECHO_TIMEOUT_MS);
    const message = new Uint8Array(ICMP_HEADER_BYTES + PING_DATA_BYTES);
    message[0] = isV4(remote) ? icmp.ICMP_ECHO_REQUEST : icmp.ICMPV6_ECHO_REQUEST;
    writeU16(message, 4, id >>> 16);
    writeU16(message, 6, id & 0xffff);
    this.#send(nowMs, local, remote, message);
    return giveUp;
  }

  #forget(id: number, ping: Ping): void {
    if (this.#pings.get(id) !== ping) return;
    this.#pings.delete(id);
    this.#around.deadlines.set(ping, Number.POSITIVE_INFINITY);
  }

  #handleReply(nowMs: number, id: number, info: PacketInfo): void {
    const ping = this.#pings.get(id);
    if (ping === undefined || !equalAddress(ping.remote, info.source)) {
      this.#around.count("ICMP_UNEXPECTED");
      return;
    }
    this.#forget(id, ping);
    ping.onReply(nowMs - ping.sentMs);
  }

  /** Believed only when it quotes a flow of ours; what each does with it is its own affair. */
  #handleError(nowMs: number, buffer: Uint8Array, offset: number, info: PacketInfo): void {
    const quoted = this.#quoted;
    const at = offset + info.innerOffset;
    if (decodeQuotedPacket(buffer, at, info.totalBytes - info.innerOffset, quoted) !== undefined) return;
    if (quoted.isLaterFragment || quoted.version !== info.version) return;
    const isTcp = quoted.protocol === PROTOCOL_TCP;
    if (!isTcp && quoted.protocol !== PROTOCOL_UDP) return;
    const sequence = readU32(buffer, at + quoted.transportOffset + 4);
    const socket = isTcp ? undefined : this.#around.udp.findQuoted(quoted);
    const mtuBytes = tooBigMtu(buffer, offset + info.transportOffset, info);
    if (mtuBytes > 0) {
      if (isTcp) {
        this.#around.tcp.handleTooBig(nowMs, quoted, sequence, clampPathMtu(quoted.destination, mtuBytes));
      } else if (socket !== undefined) {
        this.#around.paths.learn(nowMs, quoted.destination, mtuBytes);
      }
      return;
    }
    if (info.icmpType !== (info.version === 4 ? icmp.ICMP_UNREACHABLE : icmp.ICMPV6_UNREACHABLE)) return;
    const prohibited = (info.version === 4 ? V4_PROHIBITED_CODES : V6_PROHIBITED_CODES).includes(info.icmpCode);
    if (isTcp) {
      this.#around.tcp.handleUnreachable(quoted, sequence, prohibited);
    } else if (socket?.onError !== undefined) {
      const remote = { address: quoted.destination, port: quoted.destinationPort };
      socket.onError(remote, prohibited ? "prohibited" : "unreachable");
    }
  }

  /** About a packet that came in; silently nothing when too many were sent this second or it must not be answered. */
  sendUnreachable(
    nowMs: number,
    packet: Uint8Array,
    offset: number,
    info: PacketInfo,
    code: "port" | "host" | "prohibited",
  ): void {
    const { buffer } = this.#around.output;
    const isIpv4 = info.version === 4;
    const type = isIpv4 ? icmp.ICMP_UNREACHABLE : icmp.ICMPV6_UNREACHABLE;
    const length = buildIcmpError(buffer, HEADROOM_BYTES, packet, offset, info, type, codeNumber(isIpv4, code), 0);
    if (length === 0) return;
    if (!this.#errors.take(nowMs)) {
      this.#around.count("ICMP_RATE_LIMITED");
      return;
    }
    this.#around.output.send(nowMs, length);
  }
}

function codeNumber(isIpv4: boolean, code: "port" | "host" | "prohibited"): number {
  switch (code) {
    case "port":
      return isIpv4 ? icmp.ICMP_CODE_PORT : icmp.ICMPV6_CODE_PORT;
    case "host":
      return isIpv4 ? icmp.ICMP_CODE_HOST : icmp.ICMPV6_CODE_ADDRESS;
    case "prohibited":
      return isIpv4 ? icmp.ICMP_CODE_PROHIBITED : icmp.ICMPV6_CODE_PROHIBITED;
  }
}

/**
 * The MTU that a "too big" names, 0 for other errors. An IPv4 router older than RFC 1191 names 0: then the least is
 * assumed.
 */
function tooBigMtu(buffer: Uint8Array, at: number, info: PacketInfo): number {
  if (info.version === 6) return info.icmpType === icmp.ICMPV6_TOO_BIG ? Math.max(readU32(buffer, at + 4), 1) : 0;
  const isTooBig = info.icmpType === icmp.ICMP_UNREACHABLE && info.icmpCode === icmp.ICMP_CODE_FRAGMENTATION_NEEDED;
  return isTooBig ? Math.max(readU16(buffer, at + 6), 1) : 0;
}

function pseudoSum(s: Address, d: Address, icmpBytes: number): number {
  return sumPseudoHeader(s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3, PROTOCOL_ICMPV6, icmpBytes);
}
