// Inner packets: IPv4, IPv6, TCP, UDP, ICMP. Every reading is held against the naive one; the answers that a packet
// gets are packets again, which get none.
import { SeededRandom } from "../../../src/base/random.ts";
import { ANSWER_MAX_BYTES, buildIcmpProhibited, buildTcpReset } from "../../../src/wire/answer.ts";
import { decodePacket, decodeQuotedPacket, PacketInfo } from "../../../src/wire/packet.ts";
import { TcpOptions } from "../../../src/wire/tcp.ts";
import { ip } from "../../wire/packets.ts";
import { type NaivePacket, readNaively, readTcpOptionsNaively } from "../naive-packet.ts";
import { randomPacket, repairPacket, transportOf, v4Packet, v6Packet } from "../packet-maker.ts";
import { type FuzzTarget, must } from "../target.ts";

const BEFORE = 5; // the packet doesn't begin at the buffer's start
const BEHIND = 9;
const info = new PacketInfo();
const answered = new PacketInfo();
const options = new TcpOptions();
const out = new Uint8Array(ANSWER_MAX_BYTES + 64);

function isSame(read: PacketInfo, naive: NaivePacket): boolean {
  const { fragment, source, destination } = naive;
  return (
    read.version === naive.version &&
    read.source0 === source[0] &&
    read.source1 === source[1] &&
    read.source2 === source[2] &&
    read.source3 === source[3] &&
    read.destination0 === destination[0] &&
    read.destination1 === destination[1] &&
    read.destination2 === destination[2] &&
    read.destination3 === destination[3] &&
    read.protocol === naive.protocol &&
    read.totalBytes === naive.totalBytes &&
    read.transportOffset === naive.transportOffset &&
    read.isFragment === (fragment !== undefined) &&
    read.isLaterFragment === (fragment !== undefined && fragment.offsetBytes > 0) &&
    (fragment === undefined ||
      (read.fragmentId === fragment.id &&
        read.fragmentOffsetBytes === fragment.offsetBytes &&
        read.hasMoreFragments === fragment.more)) &&
    read.sourcePort === naive.sourcePort &&
    read.destinationPort === naive.destinationPort &&
    read.tcpFlags === naive.tcpFlags &&
    read.icmpType === naive.icmpType &&
    read.innerOffset === (naive.quoteAt ?? 0)
  );
}

function compare(drop: string | undefined, read: PacketInfo, bytes: Uint8Array, isQuote: boolean): void {
  const naive = readNaively(bytes, isQuote);
  must(
    (naive === undefined) === (drop !== undefined),
    () => `${drop ?? "read"}, naively ${naive === undefined ? "dropped" : "read"}`,
  );
  if (naive === undefined) return;
  must(isSame(read, naive), () => `read as ${JSON.stringify(read)}, naively as ${JSON.stringify(naive)}`);
  must(read.transportOffset <= read.totalBytes && read.totalBytes <= bytes.length, "an offset behind the packet");
}

function compareOptions(bytes: Uint8Array): void {
  const { mssBytes, windowScale, isSackPermitted, hasTimestamps, timestamp, timestampEcho } = options;
  const timestamps = hasTimestamps ? [timestamp, timestampEcho] : undefined;
  const sack = [...options.sackEdges.subarray(0, 2 * options.sackBlocks)];
  const read = JSON.stringify({ mssBytes, windowScale, isSackPermitted, timestamps, sack });
  const naive = JSON.stringify(readTcpOptionsNaively(bytes));
  must(read === naive, () => `options read as ${read}, naively as ${naive}`);
}

/** What is said about a packet is a good packet from its destination to its source, and is not answered again. */
function checkAnswers(buffer: Uint8Array): void {
  for (const build of [buildIcmpProhibited, buildTcpReset]) {
    const length = build(out, 3, buffer, BEFORE, info);
    if (length === 0) continue;
    must(length <= ANSWER_MAX_BYTES, "an answer larger than the smallest MTU");
    const drop = decodePacket(out, 3, length, answered);
    must(drop === undefined, () => `the answer is no packet: ${drop}`);
    const turned =
      answered.source3 === info.destination3 &&
      answered.destination3 === info.source3 &&
      answered.source0 === info.destination0 &&
      answered.destination0 === info.source0;
    must(turned, "an answer to somebody else");
    for (const again of [buildIcmpProhibited, buildTcpReset])
      must(again(out.slice(), 3, out, 3, answered) === 0, "an answer is answered");
  }
}

const nameOf = (protocol: number): string => PROTOCOLS[protocol] ?? "other";
const PROTOCOLS: Readonly<Record<number, string>> = {
  1: "icmp",
  4: "ipv4",
  6: "tcp",
  17: "udp",
  41: "ipv6",
  58: "icmp6",
};

function runPacket(input: Uint8Array): string {
  const buffer = new Uint8Array(BEFORE + input.length + BEHIND).fill(0xa5);
  buffer.set(input, BEFORE);
  const drop = decodePacket(buffer, BEFORE, input.length, info);
  compare(drop, info, input, false);
  if (drop !== undefined) return drop;
  checkAnswers(buffer);
  const { protocol, transportOffset, totalBytes, innerOffset, isLaterFragment } = info;
  let outcome = `v${info.version} ${nameOf(protocol)}${info.isFragment ? " fragment" : ""}`;
  if (protocol === 6 && !isLaterFragment) {
    const headerBytes = (buffer[BEFORE + transportOffset + 12]! >>> 4) * 4;
    options.read(buffer, BEFORE + transportOffset, headerBytes);
    compareOptions(input.subarray(transportOffset + 20, transportOffset + headerBytes));
    outcome += ` options ${options.mssBytes > 0} ${options.windowScale >= 0}`;
    outcome += ` ${options.isSackPermitted} ${options.hasTimestamps} ${options.sackBlocks}`;
  }
  if (innerOffset > 0) {
    const inner = input.subarray(innerOffset, totalBytes);
    const innerDrop = decodeQuotedPacket(buffer, BEFORE + innerOffset, totalBytes - innerOffset, info);
    compare(innerDrop, info, inner, true);
    outcome += ` about ${innerDrop ?? nameOf(info.protocol)}`;
  }
  return outcome;
}

const V4 = { source: ip("10.7.0.2"), destination: ip("10.7.0.1") };
const V6 = { source: ip("fd00::b"), destination: ip("fd00::a") };

function seedsOf(protocol4: number, protocol6: number, count = 8): Uint8Array[] {
  const random = new SeededRandom(protocol4);
  const made: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    made.push(repairPacket(v4Packet(V4, protocol4, transportOf(random, { protocol: protocol4 }))));
    made.push(repairPacket(v6Packet(V6, protocol6, transportOf(random, { protocol: protocol6 }))));
  }
  return made;
}

function target(
  name: string,
  share: number,
  of: Partial<FuzzTarget> & Pick<FuzzTarget, "reaches" | "seeds">,
): FuzzTarget {
  return { name, share, maxBytes: 2_048, repair: repairPacket, run: runPacket, ...of };
}

const some = (version: 4 | 6, count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, seed) => randomPacket(new SeededRandom(seed), version));

export const PACKET_TARGETS: readonly FuzzTarget[] = [
  target("ipv4", 60, {
    seeds: some(4, 20),
    make: (random) => randomPacket(random, 4),
    reaches: ["TRUNCATED", "BAD_HEADER_LENGTH", "BAD_TOTAL_LENGTH", "BAD_HEADER_CHECKSUM", "BAD_HEADER_OPTION"].concat([
      "SOURCE_ROUTED",
      "BAD_FRAGMENT",
      "FIRST_FRAGMENT_TOO_SMALL",
      "FRAGMENT_IN_HEADER",
      "v4 ipv4",
      "v4 udp fragment",
    ]),
  }),
  target("ipv6", 60, {
    seeds: some(6, 20),
    make: (random) => randomPacket(random, 6),
    reaches: ["TRUNCATED", "BAD_VERSION", "SOURCE_ROUTED", "BAD_EXTENSION_HEADER", "TOO_MANY_EXTENSION_HEADERS"].concat(
      ["BAD_FRAGMENT", "FIRST_FRAGMENT_TOO_SMALL", "FRAGMENT_IN_HEADER", "v6 ipv4", "v6 ipv6", "v6 udp fragment"],
    ),
  }),
  target("tcp", 40, {
    seeds: seedsOf(6, 6, 80),
    reaches: [
      "v4 tcp options true false false false 0",
      "v6 tcp options false false false true 0",
      "v6 tcp options true true true true 0",
      "v4 tcp options false false false true 2",
      "v4 tcp options false false false false 4",
      "TRUNCATED_TRANSPORT",
      "BAD_TRANSPORT_HEADER",
    ],
  }),
  target("udp", 40, { seeds: seedsOf(17, 17), reaches: ["v4 udp", "v6 udp", "TRUNCATED_TRANSPORT"] }),
  target("icmp", 40, {
    seeds: [...some(4, 60), ...some(6, 60)].filter((packet) => [1, 58].includes(readNaively(packet)?.protocol ?? 0)),
    reaches: ["v4 icmp", "v6 icmp6", "ICMP_OF_OTHER_FAMILY", "TRUNCATED_QUOTE", "v4 icmp about tcp"],
  }),
];
