// TCP over paths as they are: long ones, lossy ones, ones that reorder; both algorithms, and an old other end.
import { describe, expect, it } from "vitest";
import { TCP_RECEIVE_BUFFER_BYTES, TCP_RECEIVE_BUFFER_MAX_BYTES } from "../../src/base/limits.ts";
import type { UserspaceStackOptions } from "../../src/netstack/stack.ts";
import type { CongestionName } from "../../src/netstack/tcp/congestion.ts";
import { ReceiveMemory, Receiver } from "../../src/netstack/tcp/receiver.ts";
import { Segment } from "../../src/netstack/tcp/segment.ts";
import { sumBytes } from "../../src/wire/checksum.ts";
import { decodePacket, PacketInfo, TCP_FIN, TCP_SYN } from "../../src/wire/packet.ts";
import { TcpOptions } from "../../src/wire/tcp.ts";
import { connectPair, expectSame, type Faults, pattern, pour, VirtualLink } from "./virtual-link.ts";

const ALGORITHMS = ["cubic", "newreno"] as const;

interface Watched {
  readonly flags: number;
  readonly headerAt: number;
  readonly window: number;
}

function look(bytes: Uint8Array): Watched {
  const info = new PacketInfo();
  decodePacket(bytes, 0, bytes.length, info);
  const headerAt = info.transportOffset;
  return { flags: info.tcpFlags, headerAt, window: (bytes[headerAt + 14]! << 8) | bytes[headerAt + 15]! };
}

/** Overwrites the options of SYNs of these kinds by NOPs, in place, and mends the checksum. */
function withoutOptions(bytes: Uint8Array, kinds: readonly number[]): void {
  const { flags, headerAt } = look(bytes);
  if ((flags & TCP_SYN) === 0) return;
  const end = headerAt + (bytes[headerAt + 12]! >>> 4) * 4;
  const words = (): number => {
    let sum = 0;
    for (let at = headerAt + 20; at < end; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
    return sum;
  };
  const before = words();
  for (let at = headerAt + 20; at < end; ) {
    const length = bytes[at] === 1 ? 1 : bytes[at + 1]!;
    if (kinds.includes(bytes[at]!)) bytes.fill(1, at, at + length);
    at += length;
  }
  // RFC 1624 (3)
  let sum = (~((bytes[headerAt + 16]! << 8) | bytes[headerAt + 17]!) & 0xffff) + words() + 0xffff * 20 - before;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes[headerAt + 16] = (~sum >>> 8) & 0xff;
  bytes[headerAt + 17] = ~sum & 0xff;
}

interface Transfer {
  readonly world: VirtualLink;
  readonly seconds: number;
}

function transfer(
  faults: Faults,
  seed: number,
  bytes: number,
  options: Partial<UserspaceStackOptions> = {},
  prepare: (world: VirtualLink) => void = () => undefined,
): Transfer {
  const world = new VirtualLink(faults, seed, options);
  world.keepsSent = false;
  prepare(world);
  const { client, server } = connectPair(world);
  const startedMs = world.nowMs;
  const [up, down] = [pattern(bytes, seed), pattern(Math.min(bytes, 100_000), seed + 1)];
  pour(world, client, up);
  pour(world, server, down);
  world.runUntil(() => server.receivedBytes === bytes && client.receivedBytes === down.length);
  const seconds = (world.nowMs - startedMs) / 1_000;
  expectSame(server.received, up);
  expectSame(client.received, down);
  world.runUntil(() => client.events.length >= 3 && server.events.length >= 2);
  expect(client.events).toEqual(["connected", "ended", "closed: closed"]);
  expect(server.events).toEqual(["ended", "closed: closed"]);
  world.run(120_000);
  for (const { stack } of [world.a, world.b]) {
    expect(stack.counters).toMatchObject({ TCP_RECEIVE_HELD_BYTES: 0, TCP_SEND_CHUNKS: 0, DEADLINES: 0 });
  }
  return { world, seconds };
}

describe.each(ALGORITHMS)("every byte, in order, once, with %s", (congestion) => {
  it.each<[string, Faults]>([
    ["loss, a short path", { loss: 0.03, delayMs: 1 }],
    ["loss, 50 ms", { loss: 0.03, delayMs: 25 }],
    ["loss, 200 ms", { loss: 0.03, delayMs: 100 }],
    ["much loss", { loss: 0.2, delayMs: 10 }],
    ["reordering, 50 ms", { reorder: 0.2, delayMs: 25 }],
    ["duplicates, 50 ms", { duplicate: 0.2, delayMs: 25 }],
    ["all of it, 50 ms", { loss: 0.03, reorder: 0.1, duplicate: 0.05, corrupt: 0.01, delayMs: 25 }],
  ])("over %s", (_, faults) => {
    for (let seed = 1; seed <= 3; seed++) transfer(faults, seed, 300_000, { congestion });
  });

  it.each([
    ["SACK", [4]],
    ["timestamps", [8]],
    ["SACK and timestamps", [4, 8]],
    ["any option but the MSS", [3, 4, 8]],
  ])("with an other end that has not %s", (_, kinds) => {
    for (let seed = 1; seed <= 3; seed++) {
      transfer({ loss: 0.03, reorder: 0.05, duplicate: 0.05, delayMs: 25 }, seed, 300_000, { congestion }, (world) => {
        world.onPacket = (_to, bytes) => {
          withoutOptions(bytes, kinds);
          return false;
        };
      });
    }
  });

  it.each([
    ["SYN", TCP_SYN],
    ["FIN", TCP_FIN],
  ])("when every first %s is lost", (_, flag) => {
    transfer({ delayMs: 25 }, 1, 50_000, { congestion }, (world) => {
      const lost = new Set<unknown>();
      world.onPacket = (to, bytes) => {
        if ((look(bytes).flags & flag) === 0 || lost.has(to)) return false;
        lost.add(to);
        return true;
      };
    });
  });

  it("when the path becomes narrower in the middle of a recovery", () => {
    for (let seed = 1; seed <= 5; seed++) {
      transfer({ delayMs: 25, loss: 0.03 }, seed, 600_000, { congestion, mtuBytes: 1_420 }, (world) => {
        let packets = 0;
        world.onPacket = (to, bytes) => {
          if (++packets < 150 || bytes.length <= 1_300) return false;
          world.carry(to.peer, icmpTooBig(bytes, 1_300));
          return true;
        };
      });
    }
  });
});

/** ICMPv6 packet too big about `packet`, from its destination. */
function icmpTooBig(packet: Uint8Array, mtuBytes: number): Uint8Array {
  const quoted = packet.subarray(0, 1_232);
  const out = new Uint8Array(48 + quoted.length);
  out.set(packet.subarray(0, 8));
  out[4] = (8 + quoted.length) >> 8;
  out[5] = (8 + quoted.length) & 0xff;
  out[6] = 58;
  out.set(packet.subarray(24, 40), 8);
  out.set(packet.subarray(8, 24), 24);
  out[40] = 2;
  new DataView(out.buffer).setUint32(44, mtuBytes);
  out.set(quoted, 48);
  let sum = 58 + 8 + quoted.length;
  for (let at = 8; at < out.length; at += 2) sum += (out[at]! << 8) | (out[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65_536);
  out[42] = (~sum >> 8) & 0xff;
  out[43] = ~sum & 0xff;
  return out;
}

describe("goodput", () => {
  /** Segments in flight on average that a loss rate allows: RFC 5681 (Mathis) and RFC 9438 (5), the larger. */
  function responseSegments(loss: number, rttMs: number): number {
    return Math.max(Math.sqrt(1.5 / loss), 1.054 * (rttMs / 1_000 / loss) ** 0.75);
  }

  it.each<[CongestionName, number, number]>([
    ["cubic", 0.01, 50],
    ["cubic", 0.001, 50],
    ["newreno", 0.01, 50],
  ])(
    "of %s at a loss of %d and %i ms is at least 0.8 of what its response function says",
    (congestion, loss, rttMs) => {
      const bytes = 2_000_000;
      const rates = [1, 2, 3, 4, 5].map((seed) => {
        const world = new VirtualLink({ delayMs: rttMs / 2 }, seed, { congestion });
        world.keepsSent = false;
        const { client, server } = connectPair(world);
        world.faults = { delayMs: rttMs / 2, loss };
        const startedMs = world.nowMs;
        pour(world, client, pattern(bytes, seed));
        world.runUntil(() => server.receivedBytes === bytes);
        return bytes / 1_348 / ((world.nowMs - startedMs) / rttMs); // segments a round trip
      });
      rates.sort((a, b) => a - b);
      expect(rates[2]).toBeGreaterThan(0.8 * responseSegments(loss, rttMs));
    },
  );
});

describe("buffers follow the path", () => {
  /** The largest window that the receiving end offered, with the shift of its SYN. */
  function offered(options: Partial<UserspaceStackOptions>, bytes = 40_000_000): { most: number; seconds: number } {
    const world = new VirtualLink({ delayMs: 50 }, 1, options);
    world.keepsSent = false;
    let [most, shift] = [0, 0];
    world.onPacket = (to, packet) => {
      if (to !== world.a) return false;
      const { flags, headerAt, window } = look(packet);
      const read = new TcpOptions();
      read.read(packet, headerAt, (packet[headerAt + 12]! >>> 4) * 4);
      if ((flags & TCP_SYN) !== 0) shift = read.windowScale;
      else most = Math.max(most, window * 2 ** shift);
      return false;
    };
    const { client, server } = connectPair(world);
    const startedMs = world.nowMs;
    pour(world, client, new Uint8Array(bytes));
    world.runUntil(() => server.receivedBytes === bytes);
    return { most, seconds: (world.nowMs - startedMs) / 1_000 };
  }

  it("up to their bound, and a fast and long path is filled", () => {
    const { most, seconds } = offered({});
    expect(most).toBeGreaterThan(8 * TCP_RECEIVE_BUFFER_BYTES);
    expect(most).toBeLessThanOrEqual(TCP_RECEIVE_BUFFER_MAX_BYTES);
    expect(seconds).toBeLessThan(2.5); // with 1 MiB it would take 4
  });

  it("not where their sizes are given", () => {
    const { most, seconds } = offered({ buffers: { sendBytes: 1 << 20, receiveBytes: 1 << 20 } });
    expect(most).toBeLessThanOrEqual(1 << 20);
    expect(seconds).toBeGreaterThan(3.8);
  });

  it.each([
    ["half of what all may hold is in use", 600_000, 50, false],
    ["a round trip takes less than a tick of the clock", 0, 0, false],
    ["all of that is well", 0, 50, true],
  ])("when %s: %i bytes in use, %i ms: %s", (_, usedBytes, rttMs, grows) => {
    const memory = new ReceiveMemory(1_000_000);
    memory.usedBytes = usedBytes;
    const receiver = new Receiver({
      memory,
      count: () => undefined,
      bufferBytes: 65_536,
      bufferMaxBytes: 262_144,
      ownMssBytes: 1_380,
    });
    const options = new TcpOptions();
    options.windowScale = 7;
    receiver.start(99, options);
    const segment = new Segment(sumBytes);
    segment.buffer = new Uint8Array(1_380);
    segment.dataBytes = 1_380;
    const windowAfter = (ms: number): number => {
      for (let nowMs = 1_000; nowMs < 1_000 + ms; nowMs++) {
        segment.sequence = receiver.next;
        receiver.handleData(nowMs, segment, rttMs);
        receiver.read(nowMs, 1 << 20);
        receiver.advertise(false, true);
      }
      return receiver.advertise(false, true) * 2 ** receiver.offeredShift;
    };
    // 50 segments in 50 ms: 69,000 bytes of 65,536, then of 131,072; no more than half of 262,144.
    expect(windowAfter(1_000)).toBe(grows ? 262_144 : 65_536);
  });
});
