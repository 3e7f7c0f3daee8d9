// UDP of one stack: RFC 768, RFC 1122 §4.1, RFC 8200 §8.1. A datagram goes to the socket of its 4-tuple, else to the
// one bound to its destination, else to whoever takes new flows, else it is answered "port unreachable".
import type { Address, Endpoint } from "../base/address.ts";
import { equalAddress, isV4 } from "../base/address.ts";
import { readU16, writeU16 } from "../base/bytes.ts";
import { UDP_SOCKETS_MAX } from "../base/limits.ts";
import type { Random } from "../base/random.ts";
import { foldChecksum, sumBytes, sumPseudoHeader } from "../wire/checksum.ts";
import { decodeQuotedPacket, PacketInfo, PROTOCOL_UDP } from "../wire/packet.ts";
import { foldUdpChecksum, UDP_CHECKSUM_AT, UDP_HEADER_BYTES, writeUdpHeader } from "../wire/udp.ts";
import type { UdpOpening, UdpSocket } from "./contract.ts";
import { DATAGRAM_PAYLOAD_MAX_BYTES, type DatagramOutput } from "./datagram-output.ts";
import { EphemeralPorts } from "./ephemeral-ports.ts";
import { ANY_REMOTE, FlowKey, FlowTable } from "./flow-table.ts";

export type UdpCounter = "UDP_BAD_CHECKSUM" | "UDP_NO_SOCKET" | "UDP_SOCKETS_FULL";
type UnreachableCode = "port" | "host" | "prohibited";

/** What UDP needs of the stack around it. */
export interface UdpNeighbours {
  readonly datagrams: DatagramOutput;
  readonly random: Random;
  count(what: UdpCounter): void;
  /** Whoever decides about new flows; undefined: nobody. */
  opening(): ((opening: UdpOpening) => void) | undefined;
  sendUnreachable(nowMs: number, packet: Uint8Array, offset: number, info: PacketInfo, code: UnreachableCode): void;
}

/** Of a flow's first packet, kept to be quoted in an ICMP error. */
const QUOTE_MAX_BYTES = 128;

class Socket extends FlowKey implements UdpSocket {
  onDatagram: (remote: Endpoint, bytes: Uint8Array) => void = () => undefined;
  onError: ((remote: Endpoint, reason: "unreachable" | "prohibited") => void) | undefined;
  readonly #udp: Udp;
  /** The last sender: most speak many times. */
  #lastRemote: Endpoint;
  isClosed = false;

  constructor(udp: Udp, local: Endpoint, remote: Endpoint) {
    super(local, remote);
    this.#udp = udp;
    this.#lastRemote = remote;
  }

  /** The endpoint that `info` comes from, without making a new object for each datagram. */
  remoteOf(info: PacketInfo): Endpoint {
    const last = this.#lastRemote;
    if (last.port === info.sourcePort && equalAddress(last.address, info.source)) return last;
    this.#lastRemote = { address: info.source, port: info.sourcePort };
    return this.#lastRemote;
  }

  send(nowMs: number, remote: Endpoint, bytes: Uint8Array): boolean {
    return !this.isClosed && this.#udp.send(nowMs, this.local, remote, bytes);
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#udp.forget(this);
  }
}

export class Udp {
  readonly #around: UdpNeighbours;
  /** Bound sockets stand under ANY_REMOTE. */
  readonly #table: FlowTable<Socket>;
  readonly #ports: EphemeralPorts;
  readonly #scratch = new Uint8Array(DATAGRAM_PAYLOAD_MAX_BYTES);

  constructor(around: UdpNeighbours) {
    this.#around = around;
    this.#table = new FlowTable(UDP_SOCKETS_MAX, around.random);
    this.#ports = new EphemeralPorts(around.random);
  }

  get socketsCount(): number {
    return this.#table.size;
  }

  handlePacket(nowMs: number, buffer: Uint8Array, offset: number, info: PacketInfo, isOurs: () => boolean): void {
    const at = offset + info.transportOffset;
    const udpBytes = readU16(buffer, at + 4);
    if (!isChecksumRight(buffer, at, udpBytes, info)) {
      this.#around.count("UDP_BAD_CHECKSUM");
      return;
    }
    if (info.destinationPort === 0) return;
    const socket = this.#find(info);
    const bytes = buffer.subarray(at + UDP_HEADER_BYTES, at + udpBytes);
    if (socket !== undefined) {
      socket.onDatagram(socket.remoteOf(info), bytes);
      return;
    }
    if (!isOurs()) return;
    const onOpening = this.#around.opening();
    if (onOpening === undefined || info.sourcePort === 0) {
      this.#around.count("UDP_NO_SOCKET");
      this.#around.sendUnreachable(nowMs, buffer, offset, info, "port");
    } else if (this.#table.size >= this.#table.capacity) {
      this.#around.count("UDP_SOCKETS_FULL");
    } else {
      this.#offer(buffer, offset, info, bytes, onOpening);
    }
  }

  #find(info: PacketInfo): Socket | undefined {
    const { destination0: d0, destination1: d1, destination2: d2, destination3: d3 } = info;
    const ports = (info.destinationPort << 16) | info.sourcePort;
    const { source0, source1, source2, source3 } = info;
    return (
      this.#table.find(d0, d1, d2, d3, source0, source1, source2, source3, ports) ??
      this.#table.find(d0, d1, d2, d3, 0, 0, 0, 0, info.destinationPort << 16)
    );
  }

  #offer(
    buffer: Uint8Array,
    offset: number,
    info: PacketInfo,
    bytes: Uint8Array,
    onOpening: (opening: UdpOpening) => void,
  ): void {
    const local = { address: info.destination, port: info.destinationPort };
    const remote = { address: info.source, port: info.sourcePort };
    // The decision may take a while.
    const quote = buffer.slice(offset, offset + Math.min(info.totalBytes, QUOTE_MAX_BYTES));
    onOpening({
      local,
      remote,
      bytes,
      accept: () => {
        const socket = new Socket(this, local, remote);
        socket.isClosed = !this.#table.add(socket, socket); // taken or full meanwhile: a socket that does nothing
        return socket;
      },
      unreachable: (nowMs, code) => {
        const quoted = new PacketInfo();
        if (decodeQuotedPacket(quote, 0, quote.length, quoted) !== undefined) return;
        this.#around.sendUnreachable(nowMs, quote, 0, quoted, code);
      },
    });
  }

  bind(local: Endpoint): UdpSocket | undefined {
    const isFree = (port: number): boolean =>
      this.#table.get(new FlowKey({ address: local.address, port }, ANY_REMOTE)) === undefined;
    const port = local.port === 0 ? this.#ports.pick(isFree) : local.port;
    if (port === undefined) return undefined;
    const socket = new Socket(this, { address: local.address, port }, ANY_REMOTE);
    return this.#table.add(socket, socket) ? socket : undefined;
  }

  send(nowMs: number, local: Endpoint, remote: Endpoint, bytes: Uint8Array): boolean {
    const udpBytes = UDP_HEADER_BYTES + bytes.length;
    if (udpBytes > DATAGRAM_PAYLOAD_MAX_BYTES || isV4(local.address) !== isV4(remote.address)) return false;
    const datagram = this.#scratch;
    writeUdpHeader(datagram, 0, local.port, remote.port, udpBytes);
    datagram.set(bytes, UDP_HEADER_BYTES);
    const sum = sumBytes(datagram, 0, udpBytes, pseudoSum(local.address, remote.address, udpBytes));
    writeU16(datagram, UDP_CHECKSUM_AT, foldUdpChecksum(sum));
    return this.#around.datagrams.send(nowMs, local, remote, PROTOCOL_UDP, datagram.subarray(0, udpBytes));
  }

  /** Whether a socket here may have sent the datagram that an ICMP error quotes. */
  findQuoted(quoted: PacketInfo): UdpSocket | undefined {
    const { source0: l0, source1: l1, source2: l2, source3: l3 } = quoted;
    const { destination0, destination1, destination2, destination3 } = quoted;
    const ports = (quoted.sourcePort << 16) | quoted.destinationPort;
    return (
      this.#table.find(l0, l1, l2, l3, destination0, destination1, destination2, destination3, ports) ??
      this.#table.find(l0, l1, l2, l3, 0, 0, 0, 0, quoted.sourcePort << 16)
    );
  }

  forget(socket: FlowKey): void {
    this.#table.delete(socket);
  }
}

function pseudoSum(s: Address, d: Address, udpBytes: number): number {
  return sumPseudoHeader(s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3, PROTOCOL_UDP, udpBytes);
}

/** 0 means "none" in IPv4, and is refused in IPv6. */
function isChecksumRight(buffer: Uint8Array, at: number, udpBytes: number, info: PacketInfo): boolean {
  if (readU16(buffer, at + UDP_CHECKSUM_AT) === 0) return info.version === 4;
  const pseudo = sumPseudoHeader(
    info.source0,
    info.source1,
    info.source2,
    info.source3,
    info.destination0,
    info.destination1,
    info.destination2,
    info.destination3,
    PROTOCOL_UDP,
    udpBytes,
  );
  return foldChecksum(sumBytes(buffer, at, udpBytes, pseudo)) === 0;
}
