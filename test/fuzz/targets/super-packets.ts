// Super-packets both ways, each against its plain twin: the splitter reads what a TUN device gives, the merger a script
// of packets, each behind its length in two bytes.
import { concatBytes, readU16, writeU16 } from "../../../src/base/bytes.ts";
import { clampMss } from "../../../src/wire/mss-clamp.ts";
import { mergeInMemory, mustGiveBack, randomTraffic } from "../../wire/merge-traffic.ts";
import { naiveTransportChecksum, readNaiveHeaders, viewOf } from "../../wire/naive-headers.ts";
import { mergeNaively } from "../../wire/naive-merge.ts";
import { tcp } from "../../wire/packets.ts";
import { splitLikeTwin } from "../../wire/split-in-memory.ts";
import { hostileSuper, superPacket, vnetHeader } from "../../wire/super-packets.ts";
import { type FuzzTarget, must, same } from "../target.ts";

const PAYLOAD = new Uint8Array(250).fill(7);
const FIELDS = { payload: PAYLOAD, gsoSize: 100 };
const SPLIT_SEEDS = [
  superPacket(FIELDS),
  superPacket({ ...FIELDS, version: 6 }),
  superPacket({ ...FIELDS, protocol: 17 }),
  superPacket({ ...FIELDS, version: 6, protocol: 17 }),
  concatBytes(vnetHeader(1, 0, 0, 0, 20, 16), superPacket(FIELDS).slice(10)),
];

/** What the packet's headers say is put into those that have to agree with them. */
function repairSuper(input: Uint8Array): Uint8Array {
  const repaired = input.slice();
  const headers = readNaiveHeaders(repaired.slice(10));
  if (headers === undefined) return repaired;
  const view = viewOf(repaired);
  const { version, protocol, transportAt } = headers;
  const packetBytes = repaired.length - 10;
  view.setUint16(version === 4 ? 12 : 14, version === 4 ? packetBytes : packetBytes - 40);
  if (protocol === 17) view.setUint16(10 + transportAt + 4, packetBytes - transportAt);
  view.setUint16(6, transportAt, true);
  view.setUint16(8, protocol === 6 ? 16 : 6, true);
  return repaired;
}

function runSplit(input: Uint8Array): string {
  const result = splitLikeTwin(input, { shift: (input[0] ?? 0) & 3, gap: 3 });
  if (typeof result === "string") return result;
  return `type ${input[1]!}: ${result.length === 1 ? "one" : "many"}`;
}

const MERGE_MAX_BYTES = 2_048;

function scriptOf(packets: readonly Uint8Array[]): Uint8Array {
  let script = new Uint8Array(0);
  for (const packet of packets) {
    const length = new Uint8Array(2);
    writeU16(length, 0, packet.length);
    if (script.length + 2 + packet.length > MERGE_MAX_BYTES) break;
    script = concatBytes(script, length, packet) as Uint8Array<ArrayBuffer>;
  }
  return script;
}

function packetsOf(script: Uint8Array): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (let at = 0; at + 2 <= script.length; at += 2 + packets.at(-1)!.length) {
    packets.push(script.slice(at + 2, at + 2 + readU16(script, at)));
  }
  return packets;
}

/** Checksums put right in each packet that has one. */
function repairScript(script: Uint8Array): Uint8Array {
  return scriptOf(
    packetsOf(script).map((packet) => {
      const headers = readNaiveHeaders(packet);
      if (headers === undefined) return packet;
      const { protocol, transportAt } = headers;
      const checksumAt = transportAt + (protocol === 6 ? 16 : 6);
      viewOf(packet).setUint16(checksumAt, 0);
      viewOf(packet).setUint16(checksumAt, naiveTransportChecksum(packet, transportAt, protocol));
      return packet;
    }),
  );
}

function runMerge(script: Uint8Array): string {
  const packets = packetsOf(script);
  const writes = mergeInMemory(packets);
  const twin = mergeNaively(packets, true);
  must(writes.length === twin.length && writes.every((write, i) => same(write, twin[i]!)), "merged differently");
  mustGiveBack(packets, writes);
  const types = new Set(writes.map((write) => write[1]!));
  return `types ${[...types].sort().join(" ")}`;
}

const SYN = tcp("10.7.0.2", "10.7.0.1", {
  sourcePort: 4_000,
  destinationPort: 80,
  flags: 0x02,
  options: Uint8Array.of(2, 4, 5, 0xb4, 1, 3, 3, 7),
});

/** The checksum is as right or wrong as it was, and the second time there is nothing to do. */
function runClamp(input: Uint8Array): string {
  const packet = input.slice();
  const before = readNaiveHeaders(packet);
  const wasRight = before !== undefined && naiveTransportChecksum(packet, before.transportAt, before.protocol) === 0;
  const isChanged = clampMss(packet, 0, packet.length, 1_000);
  must(isChanged === !same(packet, input), "another answer than what was done");
  if (!isChanged) return before === undefined ? "no transport" : `as it was, protocol ${before.protocol}`;
  must(!clampMss(packet, 0, packet.length, 1_000), "it is never done");
  const isRight = naiveTransportChecksum(packet, before!.transportAt, before!.protocol) === 0;
  must(isRight === wasRight, "another checksum");
  return wasRight ? "clamped" : "clamped, wrong before";
}

export const SUPER_PACKET_TARGETS: readonly FuzzTarget[] = [
  {
    name: "split",
    share: 8,
    maxBytes: 512,
    seeds: SPLIT_SEEDS,
    make: hostileSuper,
    repair: repairSuper,
    run: runSplit,
    reaches: ["type 1: many", "type 4: many", "type 5: many", "type 0: one", "GSO_TRANSPORT", "GSO_LENGTH"],
  },
  {
    name: "merge",
    share: 4,
    most: 300_000,
    maxBytes: MERGE_MAX_BYTES,
    seeds: [scriptOf([])],
    make: (random) => scriptOf(randomTraffic(random)),
    repair: repairScript,
    run: runMerge,
    reaches: ["types 0", "types 1", "types 4", "types 5", "types 0 1 4"],
  },
  {
    name: "mss-clamp",
    share: 20,
    maxBytes: 256,
    seeds: [SYN],
    run: runClamp,
    reaches: ["clamped", "clamped, wrong before", "as it was, protocol 6", "no transport"],
  },
];
