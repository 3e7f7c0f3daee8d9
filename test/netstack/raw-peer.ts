// One stack against hand-made packets: the test plays the remote end, segment by segment.
import { concatBytes, readU16, readU32, writeU32 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { NetstackHandler, TcpConnection, TcpHandler } from "../../src/netstack/contract.ts";
import { UserspaceStack, type UserspaceStackOptions } from "../../src/netstack/stack.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../../src/wire/checksum.ts";
import { decodePacket, PacketInfo, TCP_ACK, TCP_SYN } from "../../src/wire/packet.ts";
import { TcpOptions } from "../../src/wire/tcp.ts";
import { ip, type TcpFields, tcp } from "../wire/packets.ts";

export const LOCAL = "10.7.0.1";
export const REMOTE = "10.7.0.2";
export const LOCAL6 = "fd00::a";
export const REMOTE6 = "fd00::b";

export interface Sent {
  readonly bytes: Uint8Array;
  readonly info: PacketInfo;
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  readonly window: number;
  readonly data: Uint8Array;
  readonly options: TcpOptions;
}

export class RawPeer {
  readonly stack: UserspaceStack;
  readonly handler: NetstackHandler;
  nowMs = 1_000_000;
  #out: Uint8Array[] = [];

  constructor(options: Partial<UserspaceStackOptions> = {}) {
    this.handler = { output: (_nowMs, buffer, at, length) => this.#out.push(buffer.slice(at, at + length)) };
    this.stack = new UserspaceStack({ random: new SeededRandom(5), mtuBytes: 1420, handler: this.handler, ...options });
    this.stack.setLocalAddresses([ip(LOCAL), ip(LOCAL6)]);
  }

  send(packet: Uint8Array): void {
    this.stack.handlePacket(this.nowMs, packet, 0, packet.length);
  }

  /** What the stack has sent since the last call, each checked down to its checksum. */
  take(): Sent[] {
    const taken = this.#out.map(read);
    this.#out = [];
    return taken;
  }

  /** Jumps from deadline to deadline. */
  wait(forMs: number): void {
    const untilMs = this.nowMs + forMs;
    while (this.stack.nextDeadlineMs() <= untilMs) {
      this.nowMs = Math.max(this.nowMs, this.stack.nextDeadlineMs());
      this.stack.handleTimeout(this.nowMs);
    }
    this.nowMs = untilMs;
  }

  counter(name: string): number {
    return this.stack.counters[name] ?? 0;
  }
}

function read(bytes: Uint8Array): Sent {
  const info = new PacketInfo();
  const drop = decodePacket(bytes, 0, bytes.length, info);
  if (drop !== undefined) throw new Error(`the stack sent a bad packet: ${drop}`);
  const at = info.transportOffset;
  if (!info.isFragment) {
    const { source: s, destination: d, protocol } = info;
    const length = info.totalBytes - at;
    const pseudo =
      protocol === 1 ? 0 : sumPseudoHeader(s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3, protocol, length);
    if (foldChecksum(sumBytes(bytes, at, length, pseudo)) !== 0) throw new Error("the stack sent a bad checksum");
  }
  const options = new TcpOptions();
  const isTcp = info.protocol === 6;
  const headerBytes = isTcp ? (bytes[at + 12]! >>> 4) * 4 : 8;
  if (isTcp) options.read(bytes, at, headerBytes);
  return {
    bytes,
    info,
    flags: info.tcpFlags,
    sequence: isTcp ? readU32(bytes, at + 4) : 0,
    acknowledgment: isTcp ? readU32(bytes, at + 8) : 0,
    window: isTcp ? readU16(bytes, at + 14) : 0,
    data: bytes.slice(at + headerBytes, info.totalBytes),
    options,
  };
}

/** NOP NOP timestamps. */
export function timestampsOption(value: number, echo: number): Uint8Array {
  const option = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0);
  writeU32(option, 4, value >>> 0);
  writeU32(option, 8, echo >>> 0);
  return option;
}

/** NOP NOP SACK with these edges: left and right in turn. */
export function sackOption(...edges: number[]): Uint8Array {
  const option = new Uint8Array(4 + 4 * edges.length);
  option.set([1, 1, 5, 2 + 4 * edges.length]);
  for (const [i, edge] of edges.entries()) writeU32(option, 4 + 4 * i, edge >>> 0);
  return option;
}

/** The remote end of one connection to LOCAL. */
export class RawConnection {
  readonly peer: RawPeer;
  readonly ports: { sourcePort: number; destinationPort: number };
  /** Our next sequence number. */
  sequence: number;
  /** What we have received: the stack's next sequence number. */
  acknowledgment = 0;
  window = 65_535;
  /** TSval and TSecr of what it sends; undefined: without the option. */
  timestamps: { value: number; echo: number } | undefined;
  /** Between its SYN's answer and what it says to that. */
  rttMs = 0;
  connection!: TcpConnection;
  readonly events: string[] = [];
  received: number[] = [];
  reads = true;

  constructor(peer: RawPeer, sourcePort = 4000, sequence = 1_000) {
    this.peer = peer;
    this.ports = { sourcePort, destinationPort: 80 };
    this.sequence = sequence;
  }

  segment(flags: number, fields: Partial<TcpFields> = {}): Uint8Array {
    const { options = new Uint8Array(0) } = fields;
    const { value, echo } = this.timestamps ?? { value: 0, echo: 0 };
    const stamped = this.timestamps === undefined ? options : concatBytes(timestampsOption(value, echo), options);
    return tcp(REMOTE, LOCAL, {
      ...this.ports,
      sequence: this.sequence,
      acknowledgment: this.acknowledgment,
      window: this.window,
      flags,
      ...fields,
      options: stamped,
    });
  }

  /** Sends one segment as given and returns what came back. */
  send(flags: number, fields: Partial<TcpFields> = {}): Sent[] {
    this.peer.send(this.segment(flags, fields));
    return this.peer.take();
  }

  /** Sends data in order and moves on. */
  sendData(data: Uint8Array, flags = TCP_ACK): Sent[] {
    const sent = this.send(flags, { data });
    this.sequence = (this.sequence + data.length) >>> 0;
    return sent;
  }

  handler(): TcpHandler {
    return {
      connected: () => this.events.push("connected"),
      readable: () => {
        if (!this.reads) return;
        for (;;) {
          const bytes = this.connection?.read(this.peer.nowMs, 1 << 20);
          if (bytes === undefined) break;
          this.received.push(...bytes);
        }
        if (this.connection?.remoteEnded) this.events.push("ended");
      },
      writable: () => this.events.push("writable"),
      closed: (reason) => this.events.push(`closed: ${reason}`),
    };
  }

  /** SYN, SYN-ACK, ACK to a listener on port 80. */
  open(options = Uint8Array.of(2, 4, 5, 100)): this {
    const { peer } = this;
    const local = { address: ip(LOCAL), port: 80 };
    peer.stack.unlistenTcp(local);
    peer.stack.listenTcp(local, (connection) => {
      this.connection = connection;
      connection.handler = this.handler();
    });
    const [synAck] = this.send(TCP_SYN, { options, acknowledgment: 0 });
    if (synAck?.flags !== (TCP_SYN | TCP_ACK)) throw new Error("no SYN-ACK");
    this.sequence = (this.sequence + 1) >>> 0;
    this.acknowledgment = (synAck.sequence + 1) >>> 0;
    this.peer.wait(this.rttMs);
    this.send(TCP_ACK);
    return this;
  }

  /** Acknowledges everything in `sent`. */
  acknowledge(sent: readonly Sent[]): Sent[] {
    for (const one of sent) this.acknowledgment = (one.sequence + one.data.length + (one.flags & 1)) >>> 0;
    return this.send(TCP_ACK);
  }
}
