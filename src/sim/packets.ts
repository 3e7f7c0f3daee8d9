// Inner packets that the simulated hosts send, each with an id of its own in its last bytes, and the plain reading of
// any packet that comes out of an engine: written again here, so that the reading under test is not its own judge.
import { type Address, addressFromBytes, isV4 } from "../base/address.ts";
import { concatBytes, readU16, readU32, writeU16, writeU32 } from "../base/bytes.ts";
import { writeIpv4Header } from "../wire/ipv4.ts";
import { writeIpv6Header } from "../wire/ipv6.ts";

export const TCP = 6;
export const UDP = 17;
export const ICMP4 = 1;
export const ICMP6 = 58;
const FRAGMENT = 44;

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const ACK = 0x10;

/** What a packet says of itself, as far as anybody decides by it. */
export interface Facts {
  readonly protocol: number;
  readonly source: Address;
  readonly destination: Address;
  /** ICMP echo: both are the identifier. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly tcpFlags: number;
  readonly icmpType: number;
  /** ICMP errors: the packet inside. */
  readonly quoted: Facts | undefined;
}

/** What the host that gets it does with it. */
export type Role = "ask" | "answer" | "probe" | "silent";
const ROLES: readonly Role[] = ["ask", "answer", "probe", "silent"];

// magic 8 · id 4 · role 1 · hops 1 · filler 2
const MAGIC = Uint8Array.from([0x77, 0x62, 0x73, 0x69, 0x6d, 0xd1, 0x0c, 0x5e]);
const MARK_BYTES = 16;

export interface Mark {
  readonly id: number;
  readonly role: Role;
  /** How many more packets may come of it. */
  readonly hops: number;
}

export function encodeMark(mark: Mark): Uint8Array {
  const bytes = new Uint8Array(MARK_BYTES);
  bytes.set(MAGIC);
  writeU32(bytes, 8, mark.id);
  bytes[12] = ROLES.indexOf(mark.role);
  bytes[13] = mark.hops;
  return bytes;
}

/** Of the last bytes of a packet; undefined when nobody of the simulation made it. */
export function markOf(packet: Uint8Array): Mark | undefined {
  const at = packet.length - MARK_BYTES;
  if (at < 0 || MAGIC.some((byte, i) => packet[at + i] !== byte)) return undefined;
  return { id: readU32(packet, at + 8), role: ROLES[packet[at + 12]!] ?? "silent", hops: packet[at + 13]! };
}

/** True when the bytes hold a packet's mark: in an outer datagram nobody may find one. */
export function showsMark(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).includes(Buffer.from(MAGIC.buffer));
}

export function udpFacts(source: Address, destination: Address, sourcePort: number, destinationPort: number): Facts {
  return {
    protocol: UDP,
    source,
    destination,
    sourcePort,
    destinationPort,
    tcpFlags: 0,
    icmpType: 0,
    quoted: undefined,
  };
}

export function tcpFacts(
  source: Address,
  destination: Address,
  sourcePort: number,
  destinationPort: number,
  tcpFlags: number,
): Facts {
  return { ...udpFacts(source, destination, sourcePort, destinationPort), protocol: TCP, tcpFlags };
}

export function echoFacts(source: Address, destination: Address, identifier: number, isReply: boolean): Facts {
  const v4 = isV4(source);
  const [request, reply] = v4 ? [8, 0] : [128, 129];
  return {
    ...udpFacts(source, destination, identifier, identifier),
    protocol: v4 ? ICMP4 : ICMP6,
    icmpType: isReply ? reply! : request!,
  };
}

/** "Destination unreachable" about `quoted`, told by its destination. */
export function unreachableFacts(quoted: Facts): Facts {
  const v4 = isV4(quoted.source);
  return {
    ...udpFacts(quoted.destination, quoted.source, 0, 0),
    protocol: v4 ? ICMP4 : ICMP6,
    icmpType: v4 ? 3 : 1,
    quoted,
  };
}

/** The answer to it: addresses and ports turned round. */
export function turned(facts: Facts): Facts {
  const { source, destination, sourcePort, destinationPort } = facts;
  return {
    ...facts,
    source: destination,
    destination: source,
    sourcePort: destinationPort,
    destinationPort: sourcePort,
  };
}

function transportOf(facts: Facts, payload: Uint8Array): Uint8Array {
  switch (facts.protocol) {
    case UDP: {
      const header = new Uint8Array(8);
      writeU16(header, 0, facts.sourcePort);
      writeU16(header, 2, facts.destinationPort);
      writeU16(header, 4, 8 + payload.length);
      return concatBytes(header, payload);
    }
    case TCP: {
      const header = new Uint8Array(20);
      writeU16(header, 0, facts.sourcePort);
      writeU16(header, 2, facts.destinationPort);
      header[12] = 0x50;
      header[13] = facts.tcpFlags;
      return concatBytes(header, payload);
    }
    default: {
      const header = new Uint8Array(8);
      header[0] = facts.icmpType;
      if (facts.quoted === undefined) writeU16(header, 4, facts.sourcePort);
      return concatBytes(header, facts.quoted === undefined ? payload : encodePacket(facts.quoted, payload));
    }
  }
}

function withHeader(facts: Facts, body: Uint8Array): Uint8Array {
  const { source, destination, protocol } = facts;
  if (isV4(source)) {
    const packet = new Uint8Array(20 + body.length);
    writeIpv4Header(packet, 0, packet.length, 0, 0x4000, 64, protocol, source.w3, destination.w3);
    packet.set(body, 20);
    return packet;
  }
  const packet = new Uint8Array(40 + body.length);
  const [s, d] = [source, destination];
  writeIpv6Header(packet, 0, body.length, 64, protocol, s.w0, s.w1, s.w2, s.w3, d.w0, d.w1, d.w2, d.w3);
  packet.set(body, 40);
  return packet;
}

/** A whole IP packet; transport checksums stay 0: nobody on this path looks at them. */
export function encodePacket(facts: Facts, payload: Uint8Array): Uint8Array {
  return withHeader(facts, transportOf(facts, payload));
}

/**
 * The same in two IPv6 fragments (RFC 8200 §4.5); the mark of each is its last bytes. `facts` is of IPv6 and UDP.
 */
export function encodeFragments(facts: Facts, id: number, first: Uint8Array, later: Uint8Array): Uint8Array[] {
  const whole = transportOf(facts, concatBytes(first, later));
  const cut = 8 + first.length;
  return [whole.subarray(0, cut), whole.subarray(cut)].map((part, index) => {
    const extension = new Uint8Array(8);
    extension[0] = facts.protocol;
    writeU16(extension, 2, index === 0 ? 1 : cut); // offset in bytes is a multiple of 8, so it stands in place
    writeU32(extension, 4, id);
    return withHeader({ ...facts, protocol: FRAGMENT }, concatBytes(extension, part));
  });
}

/** Reads what an engine delivered, or what is quoted in it: an IPv6 packet may be a first fragment. */
export function readFacts(packet: Uint8Array): Facts | undefined {
  const version = packet[0]! >>> 4;
  const v4 = version === 4;
  const isFragment = !v4 && packet[6] === FRAGMENT;
  const at = v4 ? (packet[0]! & 15) * 4 : isFragment ? 48 : 40;
  if (packet.length < at + 8) return undefined;
  const protocol = packet[v4 ? 9 : isFragment ? 40 : 6]!;
  const source = addressFromBytes(packet, v4 ? 12 : 8, v4 ? 4 : 16);
  const destination = addressFromBytes(packet, v4 ? 16 : 24, v4 ? 4 : 16);
  const facts = udpFacts(source, destination, 0, 0);
  if (protocol === UDP || protocol === TCP) {
    return {
      ...facts,
      protocol,
      sourcePort: readU16(packet, at),
      destinationPort: readU16(packet, at + 2),
      tcpFlags: protocol === TCP ? (packet[at + 13] ?? 0) : 0,
    };
  }
  const icmpType = packet[at]!;
  const isError = v4 ? [3, 4, 5, 11, 12].includes(icmpType) : icmpType < 128;
  if (isError) return { ...facts, protocol, icmpType, quoted: readFacts(packet.subarray(at + 8)) };
  const identifier = readU16(packet, at + 4);
  return { ...facts, protocol, icmpType, sourcePort: identifier, destinationPort: identifier };
}

export function isIcmp(facts: Facts): boolean {
  return facts.protocol === ICMP4 || facts.protocol === ICMP6;
}

export function isEchoReply(facts: Facts): boolean {
  return facts.quoted === undefined && isIcmp(facts) && facts.icmpType === (facts.protocol === ICMP4 ? 0 : 129);
}

export function isEchoRequest(facts: Facts): boolean {
  return facts.quoted === undefined && isIcmp(facts) && facts.icmpType === (facts.protocol === ICMP4 ? 8 : 128);
}

/** For traces. */
export function shownFacts(facts: Facts): string {
  const { source, sourcePort, destination, destinationPort } = facts;
  const ends = `${shownAddress(source)}:${sourcePort} → ${shownAddress(destination)}:${destinationPort}`;
  if (facts.protocol === TCP) {
    const flags = [
      [SYN, "S"],
      [ACK, "A"],
      [FIN, "F"],
      [RST, "R"],
    ] as const;
    return `tcp[${flags
      .filter(([bit]) => (facts.tcpFlags & bit) !== 0)
      .map(([, letter]) => letter)
      .join("")}] ${ends}`;
  }
  if (facts.protocol === UDP) return `udp ${ends}`;
  if (facts.quoted !== undefined) return `icmp error about (${shownFacts(facts.quoted)})`;
  return `icmp ${facts.icmpType} ${ends}`;
}

function shownAddress({ w0, w1, w2, w3 }: Address): string {
  return `${w0 === 0 && w1 === 0 && w2 === 0xffff ? "v4" : "v6"}.${(w3 & 0xffff).toString(16)}`;
}
