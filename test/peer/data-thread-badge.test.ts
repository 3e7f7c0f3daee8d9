// The data thread's part of a peer under a coordinator: what it tells and when it no longer does, its probes, the
// coordinator's time, and whose packets go to the userspace stack.
import { expect, test } from "vitest";
import { addressTo16, hostPrefix, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { readU32 } from "../../src/base/bytes.ts";
import {
  DATA_EVENTS_MAX,
  DATA_PROBES_MAX,
  KERNEL_CUTS_PER_ROUND_MAX,
  PACKET_MAX_BYTES,
  STACK_ECHOES_MAX,
  STACK_PACKETS_MAX,
} from "../../src/base/limits.ts";
import { PROBE_BYTES, PROBE_FIRST_BYTE } from "../../src/control/probe.ts";
import type { FlowRecord } from "../../src/filter/contract.ts";
import { WAITING_BYTES, WaitingRoom, waitingRooms } from "../../src/peer/data-thread-messages.ts";
import { eachPacket, PacketBatch } from "../../src/peer/packet-batch.ts";
import { StackShare } from "../../src/peer/stack-share.ts";
import { decodePacket, PacketInfo, TCP_ACK, TCP_RST } from "../../src/wire/packet.ts";
import { sessionId, udpPacket } from "../engine/engine-world.ts";
import { superPacket } from "../wire/super-packets.ts";
import { type BadgeEnd, badgePair, LEASE_MS } from "./badge-loop.ts";

const SERVICE = parseAddress("fd00:77::5e")!;
const SERVED = [hostPrefix(SERVICE)];
const addressOf = (text: string) => parseAddress(text)!;

/** What the stack of that end has been given since it was last asked. */
function toStack(end: BadgeEnd): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (const { bytes, count } of end.told("packets")) {
    eachPacket(bytes, (offset, length) => packets.push(bytes.slice(offset, offset + length)));
    end.rooms.toStack.leave(count);
  }
  end.notices.length = 0;
  return packets;
}

function fromStack(end: BadgeEnd, ...packets: readonly Uint8Array[]): void {
  const batch = new PacketBatch();
  for (const packet of packets) batch.add(packet, 0, packet.length);
  end.rooms.fromStack.enter(packets.length);
  end.badge.handle({ kind: "packets", ...batch.take()! });
  end.loop.settle();
}

/** Whole packets that the kernel of that end was given. */
function toHost(end: BadgeEnd): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (let frame = end.tun.kernelReceives(); frame !== undefined; frame = end.tun.kernelReceives()) {
    packets.push(frame.slice(10));
  }
  return packets;
}

/** An echo message of ICMPv6; its checksum is nobody's matter here. */
function echo(from: string, to: string, type: 128 | 129, id: number): Uint8Array {
  const packet = udpPacket(addressOf(from), addressOf(to), 0, 0, "");
  packet[6] = 58;
  packet.fill(0, 40);
  packet[40] = type;
  new DataView(packet.buffer).setUint32(44, id);
  return packet;
}

test("what is for a served address goes to the stack, what is for this host to the device, after the filter", () => {
  const { a, b, apply, rounds } = badgePair();
  apply(SERVED);
  const asked = udpPacket(a.address, SERVICE, 4_000, 5_432, "to the service");
  const direct = udpPacket(a.address, b.address, 4_000, 5_432, "to the host");
  const denied = udpPacket(a.address, SERVICE, 4_000, 99, "not granted");
  for (const packet of [asked, direct, denied]) a.tun.kernelSends(packet);
  rounds();
  expect(toStack(b)).toEqual([asked]);
  expect(toHost(b)).toEqual([direct]);

  const answer = udpPacket(SERVICE, a.address, 5_432, 4_000, "from the service");
  const unasked = udpPacket(SERVICE, a.address, 5_433, 4_000, "from nowhere");
  toHost(a);
  fromStack(b, answer, unasked);
  rounds();
  expect(toHost(a)).toEqual([answer]);
});

test("this host's own packets to what it serves are the stack's too, and its answers come back to the host", () => {
  const { a, b, apply, rounds } = badgePair();
  apply(SERVED);
  const own = udpPacket(b.address, SERVICE, 4_000, 5_432, "from a process beside it");
  b.tun.kernelSends(own);
  rounds();
  expect(toStack(b)).toEqual([own]);
  const answer = udpPacket(SERVICE, b.address, 5_432, 4_000, "to that process");
  fromStack(b, answer);
  expect(toHost(b)).toEqual([answer]);
  expect(a.loop.counters.datagramsIn).toBe(0);
});

test("packets between stack and data thread are bounded each way, and lost by name beyond", () => {
  const { b, apply, rounds } = badgePair();
  apply(SERVED);
  const packet = udpPacket(b.address, SERVICE, 4_000, 5_432, "x");
  for (let sent = 0; sent <= STACK_PACKETS_MAX; sent++) {
    b.tun.kernelSends(packet);
    if (sent % 100 === 0) rounds();
  }
  rounds();
  expect(b.told("packets").reduce((sum, { count }) => sum + count, 0)).toBe(STACK_PACKETS_MAX);
  expect(b.badge.counters["to-stack-dropped"]).toBe(1);
  expect(toStack(b)).toHaveLength(STACK_PACKETS_MAX); // taken: there is room again
  b.tun.kernelSends(packet);
  rounds();
  expect(toStack(b)).toHaveLength(1);

  const { fromStack: room } = waitingRooms(new SharedArrayBuffer(WAITING_BYTES));
  expect(room.enter(STACK_PACKETS_MAX)).toBe(true);
  expect(room.enter()).toBe(false);
});

test("a packet of a device whose MTU was raised is lost by name, and ends nothing", () => {
  const { b, apply, rounds } = badgePair();
  apply(SERVED);
  for (const length of [PACKET_MAX_BYTES - 48, PACKET_MAX_BYTES - 47]) {
    b.tun.kernelSends(udpPacket(b.address, SERVICE, 4_000, 5_432, "x".repeat(length)));
  }
  rounds();
  expect(toStack(b).map((packet) => packet.length)).toEqual([PACKET_MAX_BYTES]);
  expect(b.badge.counters["to-stack-too-long"]).toBe(1);
});

test("a room takes what it may hold, from both threads' view of it, and no more", () => {
  const shared = new SharedArrayBuffer(WAITING_BYTES);
  const [writer, reader] = [new WaitingRoom(shared, 0, 3), new WaitingRoom(shared, 0, 3)];
  expect([writer.enter(), writer.enter(2), writer.enter()]).toEqual([true, true, false]);
  reader.leave();
  expect([writer.enter(2), writer.enter()]).toEqual([false, true]);
  expect(new WaitingRoom(shared, 1, 1).enter()).toBe(true); // another's count
});

test("answers to its own pings are the stack's, all others the kernel's; only the latest are remembered", () => {
  const share = new StackShare();
  const [own, other] = ["fd00:77::1", "fd00:77::2"];
  const isForStack = (packet: Uint8Array): boolean => share.isForStack(packet, 0, packet.length);
  share.set({ prefixes: [], tcpPorts: [], ownAddresses: [addressOf(own)] });
  expect(isForStack(echo(other, own, 129, 1))).toBe(false);
  for (let id = 0; id <= STACK_ECHOES_MAX; id++) {
    const request = echo(own, other, 128, id);
    share.noteSent(request, 0, request.length);
  }
  expect(isForStack(echo(other, own, 129, STACK_ECHOES_MAX))).toBe(true);
  expect(isForStack(echo(other, own, 129, 1))).toBe(true);
  expect(isForStack(echo(other, own, 129, 0))).toBe(false);
  expect(isForStack(echo(other, own, 129, STACK_ECHOES_MAX + 1))).toBe(false);
  expect(isForStack(echo(other, own, 128, 1))).toBe(false); // a request
  expect(isForStack(echo(own, other, 129, 1))).toBe(false); // not to this host
});

test("a TCP port of the own addresses that is the stack's is so on those addresses alone", () => {
  const share = new StackShare();
  share.set({ prefixes: [parsePrefix("10.20.0.0/16")!], tcpPorts: [51_822], ownAddresses: [addressOf("fd00:77::1")] });
  const tcp = (to: string, port: number): Uint8Array => {
    const packet = udpPacket(addressOf("fd00:77::2"), addressOf(to), 4_000, port, "");
    packet[6] = 6;
    return packet;
  };
  const isForStack = (packet: Uint8Array): boolean => share.isForStack(packet, 0, packet.length);
  expect(isForStack(tcp("fd00:77::1", 51_822))).toBe(true);
  expect(isForStack(tcp("fd00:77::1", 51_823))).toBe(false);
  expect(isForStack(tcp("fd00:77::2", 51_822))).toBe(false);
  expect(isForStack(udpPacket(addressOf("fd00:77::2"), addressOf("fd00:77::1"), 4_000, 51_822, ""))).toBe(false);
  expect(share.hasEnd(addressOf("10.20.3.4"), 80)).toBe(true);
  expect(share.hasEnd(addressOf("fd00:77::1"), 51_822)).toBe(true);
  expect(share.hasEnd(addressOf("fd00:77::1"), 80)).toBe(false);
});

test("events are told as long as the main thread takes them; those beyond are counted, none of them waits", () => {
  const { b } = badgePair();
  for (let i = 0; i <= DATA_EVENTS_MAX; i++) b.badge.sink.tunnelFailed(sessionId("a"));
  expect(b.told("tunnel-failed")).toHaveLength(DATA_EVENTS_MAX);
  expect(b.badge.counters["tunnel-failed-untold"]).toBe(1);
  b.rooms.events.leave();
  b.badge.sink.tunnelFailed(sessionId("a"));
  expect(b.told("tunnel-failed")).toHaveLength(DATA_EVENTS_MAX + 1);
});

test("a lease that there was no room to tell of is told later, the latest of each session", () => {
  const { b } = badgePair();
  expect(b.rooms.events.enter(DATA_EVENTS_MAX)).toBe(true);
  const lease = (name: string, serial: number) => ({ session: sessionId(name), epoch: 1, serial, endMs: serial });
  for (const [name, serial] of [
    ["a", 1],
    ["a", 2],
    ["c", 7],
  ] as const) {
    b.badge.sink.leaseShown?.(sessionId(name), lease(name, serial));
  }
  b.badge.flush();
  expect(b.told("lease-shown")).toEqual([]);
  b.rooms.events.leave(2);
  b.badge.flush();
  expect(b.told("lease-shown").map((notice) => notice.lease)).toEqual([lease("a", 2), lease("c", 7)]);
  b.badge.flush();
  expect(b.told("lease-shown")).toHaveLength(2);
});

test("probe answers are the main thread's, a few at a time; what else is no WireGuard is the engine's", () => {
  const { b } = badgePair();
  const probe = new Uint8Array(PROBE_BYTES);
  probe[0] = PROBE_FIRST_BYTE;
  for (let i = 0; i <= DATA_PROBES_MAX; i++) expect(b.badge.takeDatagram(probe, 0, PROBE_BYTES)).toBe(true);
  expect(b.told("probe-answer")).toHaveLength(DATA_PROBES_MAX);
  expect(b.badge.counters["probe-answers-dropped"]).toBe(1);
  expect(b.badge.takeDatagram(probe, 0, PROBE_BYTES - 1)).toBe(false);
  expect(b.badge.takeDatagram(new Uint8Array(PROBE_BYTES).fill(1), 0, PROBE_BYTES)).toBe(false);
});

test("a probe goes out by the WireGuard socket and comes in by it", () => {
  const { a, b, apply, rounds } = badgePair();
  apply();
  const probe = new Uint8Array(PROBE_BYTES).fill(5);
  probe[0] = PROBE_FIRST_BYTE;
  a.badge.handle({ kind: "probe", to: b.outer, bytes: probe });
  rounds();
  expect(b.told("probe-answer").map(({ bytes }) => bytes)).toEqual([probe]);
});

test("leases that are shown are told, and nothing passes without one of the coordinator's signing", () => {
  const { a, b, apply, rounds } = badgePair();
  apply();
  a.tun.kernelSends(udpPacket(a.address, b.address, 4_000, 5_432, "first"));
  rounds();
  expect(toHost(b)).toHaveLength(1);
  expect(b.told("lease-shown").map(({ lease }) => [lease.session, lease.serial])).toEqual([[a.session, 1]]);
  expect(a.told("lease-shown").map(({ lease }) => [lease.session, lease.serial])).toEqual([[b.session, 1]]);

  const forged = badgePair();
  forged.apply();
  forged.b.badge.handle({ kind: "sign-key", key: new Uint8Array(32).fill(3) });
  forged.a.tun.kernelSends(udpPacket(a.address, b.address, 4_000, 5_432, "first"));
  forged.rounds();
  expect(toHost(forged.b)).toEqual([]);
  expect(forged.b.told("lease-shown")).toEqual([]);
});

test("the own lease that has ended lets nothing pass", () => {
  const { a, b, apply, rounds } = badgePair();
  apply();
  a.badge.handle({ kind: "own-lease", lease: undefined });
  a.tun.kernelSends(udpPacket(a.address, b.address, 4_000, 5_432, "first"));
  rounds();
  expect(toHost(b)).toEqual([]);
  expect(a.told("denied").map(({ record }) => record.reason)).toEqual(["NO_LEASE"]);
});

test("the coordinator's time holds, however far this thread's clock is from the one that told of it", () => {
  const { a, b, clock, apply, rounds } = badgePair();
  apply();
  // The main thread's clock is an hour ahead of this one, as after a wall clock that was set back in between; 250 ms
  // go by until the message is read.
  a.sharedMs = 1_000_250;
  a.badge.handle({ kind: "time", coordinatorMs: clock.now + LEASE_MS - 200, sharedMs: 1_000_000 });
  a.tun.kernelSends(udpPacket(a.address, b.address, 4_000, 5_432, "50 ms after the lease's end"));
  rounds();
  expect(toHost(b)).toEqual([]);
  expect(a.told("denied").map(({ record }) => record.reason)).toEqual(["LEASE_ENDED"]);
});

test("of flows that end, those that end in the stack and not by themselves are told", () => {
  const { b, apply } = badgePair();
  apply(SERVED);
  const flow = { opener: "remote", source: b.address, destination: SERVICE, sourcePort: 1, destinationPort: 5_432 };
  const ended = (fields: Partial<FlowRecord>): void =>
    b.badge.sink.flowEnded({ ...flow, end: "policy", ...fields } as FlowRecord);
  ended({});
  ended({ end: "idle" });
  ended({ end: "closed" });
  ended({ end: "evicted" });
  ended({ destination: b.address });
  ended({ opener: "local", source: SERVICE, destination: b.address, end: "lease" });
  expect(b.told("flow-ended").map((notice) => notice.flow.end)).toEqual(["policy", "lease"]);
});

test("a kernel's connection that the filter ended is asked for its numbers, as if by its far end", () => {
  const { a, b, apply } = badgePair();
  apply(SERVED);
  const flow = {
    opener: "remote" as const,
    protocol: 6,
    source: a.address,
    sourcePort: 4_000,
    destination: b.address,
    destinationPort: 5_432,
  };
  b.badge.sink.flowEnded({ ...flow, end: "closed" } as FlowRecord);
  b.badge.sink.flowEnded({ ...flow, protocol: 17, end: "policy" } as FlowRecord);
  b.loop.settle();
  expect(toHost(b)).toEqual([]);
  for (let i = 0; i <= KERNEL_CUTS_PER_ROUND_MAX; i++) b.badge.sink.flowEnded({ ...flow, end: "policy" } as FlowRecord);
  b.loop.settle();
  const [question, ...others] = toHost(b);
  expect(others).toHaveLength(KERNEL_CUTS_PER_ROUND_MAX - 1);
  expect(b.badge.counters["kernel-cuts-left"]).toBe(1);
  const info = new PacketInfo();
  expect(decodePacket(question!, 0, question!.length, info)).toBeUndefined();
  expect([info.source, info.destination]).toEqual([a.address, b.address]);
  expect([info.sourcePort, info.destinationPort, info.tcpFlags]).toEqual([4_000, 5_432, TCP_ACK]);
  b.badge.sink.flowEnded({ ...flow, end: "policy" } as FlowRecord);
  b.loop.settle();
  expect(toHost(b)).toHaveLength(1);

  // The kernel's answer, whatever it is, is met by a reset with its own numbers.
  const answer = superPacket({ version: 6, payload: new Uint8Array(0), acknowledgment: 0x01020304 }).slice(10);
  answer.set(addressTo16(b.address), 8);
  answer.set(addressTo16(a.address), 24);
  b.tun.kernelSends(answer);
  b.loop.round();
  const [reset] = toHost(b);
  expect([reset?.[53], readU32(reset!, 44)]).toEqual([TCP_RST, 0x01020304]);
});

test("a gateway's own denial is told to the peer over the peer link, and that peer's main thread hears of it", () => {
  const { a, b, apply, rounds } = badgePair();
  apply(SERVED);
  a.tun.kernelSends(udpPacket(a.address, SERVICE, 4_000, 5_432, "first"));
  rounds();
  const flow = { hop: "destination" as const, session: a.session, source: a.address, destination: SERVICE };
  const asked = { ...flow, sourcePort: 4_000, destinationPort: 5_432, protocol: 17 };
  const record = b.engine.filter.recordDenial(b.loop.nowMs(), asked, { reason: "NO_GRANT", ruleId: undefined });
  b.badge.handle({ kind: "tell-denial", session: a.session, denial: record });
  b.loop.settle();
  rounds();
  expect(a.told("denied-by-peer").map(({ denial }) => denial.id)).toEqual([record.id]);
});
