import { describe, expect, it } from "vitest";
import { concatBytes } from "../../src/base/bytes.ts";
import {
  FRAGMENTS_DATAGRAMS_MAX,
  FRAGMENTS_PER_DATAGRAM_MAX,
  FRAGMENTS_PER_SOURCE_MAX,
  FRAGMENTS_TIMEOUT_MS,
} from "../../src/base/limits.ts";
import { writeIpv6FragmentHeader } from "../../src/wire/ipv6.ts";
import { PROTOCOL_UDP } from "../../src/wire/packet.ts";
import { ip, ipv4, ipv6, udpDatagram } from "../wire/packets.ts";
import { LOCAL, LOCAL6, RawPeer, REMOTE, REMOTE6 } from "./raw-peer.ts";
import { pattern, VirtualLink } from "./virtual-link.ts";

interface Part {
  from: number;
  bytes: Uint8Array;
  more: boolean;
  id?: number;
  source?: string;
}

const fragment4 = (part: Part): Uint8Array =>
  ipv4(part.source ?? REMOTE, LOCAL, part.bytes, {
    id: part.id ?? 7,
    flags: (part.more ? 0x2000 : 0) | (part.from / 8),
    protocol: PROTOCOL_UDP,
  });

function fragment6(part: Part): Uint8Array {
  const header = new Uint8Array(8);
  writeIpv6FragmentHeader(header, 0, PROTOCOL_UDP, part.from, part.more, part.id ?? 7);
  return ipv6(part.source ?? REMOTE6, LOCAL6, 44, concatBytes(header, part.bytes));
}

function listening(): { peer: RawPeer; got: Uint8Array[] } {
  const peer = new RawPeer();
  const got: Uint8Array[] = [];
  for (const local of [LOCAL, LOCAL6]) {
    const socket = peer.stack.bindUdp({ address: ip(local), port: 53 })!;
    socket.onDatagram = (_remote, bytes) => got.push(bytes.slice());
  }
  return { peer, got };
}

describe.each([
  ["IPv4", REMOTE, LOCAL, fragment4],
  ["IPv6", REMOTE6, LOCAL6, fragment6],
] as const)("fragments over %s", (_, remote, local, fragment) => {
  const data = pattern(3_000);
  const whole = udpDatagram(remote, local, 9, 53, data);
  const cut = (...at: number[]): Part[] =>
    [0, ...at].map((from, i, all) => ({
      from,
      bytes: whole.slice(from, all[i + 1] ?? whole.length),
      more: i < all.length - 1,
    }));

  it("are put together in any order, also when one comes twice", () => {
    const { peer, got } = listening();
    const parts = cut(1000, 2000);
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 1, 2, 0],
      [0, 2, 2, 1],
    ]) {
      for (const index of order) peer.send(fragment(parts[index]!));
      expect(got.splice(0)).toEqual([data]);
      expect(peer.stack.counters).toMatchObject({ FRAGMENTED_DATAGRAMS: 0, DEADLINES: 0 });
    }
  });

  it("that overlap are refused, the whole datagram with them", () => {
    const { peer, got } = listening();
    const parts = cut(1000, 2000);
    peer.send(fragment(parts[0]!));
    peer.send(fragment({ from: 992, bytes: whole.slice(992, 2000), more: true }));
    peer.send(fragment(parts[1]!));
    peer.send(fragment(parts[2]!));
    peer.send(fragment(parts[0]!)); // nor does a retransmission under the same id begin it anew
    expect(got).toEqual([]);
    expect(peer.counter("FRAGMENT_OVERLAP")).toBe(1);
    peer.wait(FRAGMENTS_TIMEOUT_MS);
    for (const part of parts) peer.send(fragment(part));
    expect(got).toEqual([data]);
  });

  it("that come twice with other bytes are refused", () => {
    const { peer, got } = listening();
    const parts = cut(1000);
    peer.send(fragment(parts[0]!));
    peer.send(fragment({ ...parts[0]!, bytes: parts[0]!.bytes.map((byte) => byte ^ 1) }));
    peer.send(fragment(parts[1]!));
    expect(got).toEqual([]);
    expect(peer.counter("FRAGMENT_OVERLAP")).toBe(1);
  });

  it("that come twice, once as the last and once with more to come, are refused", () => {
    for (const order of [
      [1, 2, 0],
      [2, 1, 0],
    ]) {
      const { peer, got } = listening();
      const [first, last] = cut(2992);
      const parts = [first!, last!, { ...last!, more: true }];
      for (const index of order) peer.send(fragment(parts[index]!));
      expect(got).toEqual([]);
      expect(peer.counter("FRAGMENT_INCONSISTENT")).toBe(1);
    }
  });

  it("with two ends, or something behind the end, are refused", () => {
    for (const odd of [
      { from: 2000, bytes: whole.slice(2000, 2008), more: false },
      { from: 4000, bytes: pattern(8), more: true },
    ]) {
      const { peer, got } = listening();
      const parts = cut(1000, 2000);
      peer.send(fragment(odd));
      peer.send(fragment(parts[2]!));
      peer.send(fragment(parts[0]!));
      peer.send(fragment(parts[1]!));
      expect(got).toEqual([]);
      expect(peer.counter("FRAGMENT_OVERLAP") + peer.counter("FRAGMENT_INCONSISTENT")).toBe(1);
    }
  });

  it("that stay incomplete are forgotten in time", () => {
    const { peer, got } = listening();
    const parts = cut(1000);
    peer.send(fragment(parts[0]!));
    peer.wait(FRAGMENTS_TIMEOUT_MS - 1);
    expect(peer.counter("FRAGMENTED_DATAGRAMS")).toBe(1);
    peer.wait(1);
    expect(peer.stack.counters).toMatchObject({ FRAGMENTED_DATAGRAMS: 0, FRAGMENTS_TIMED_OUT: 1, DEADLINES: 0 });
    peer.send(fragment(parts[1]!));
    expect(got).toEqual([]);
  });

  it("of one source more than its share are dropped, and of another still taken", () => {
    const { peer } = listening();
    for (let id = 0; id <= FRAGMENTS_PER_SOURCE_MAX; id++) peer.send(fragment({ ...cut(1000)[0]!, id }));
    expect(peer.stack.counters).toMatchObject({ FRAGMENTED_DATAGRAMS: FRAGMENTS_PER_SOURCE_MAX, FRAGMENTS_FULL: 1 });
    peer.send(fragment({ ...cut(1000)[0]!, source: remote === REMOTE ? "10.7.0.99" : "fd00::99" }));
    expect(peer.counter("FRAGMENTED_DATAGRAMS")).toBe(FRAGMENTS_PER_SOURCE_MAX + 1);
  });

  it("of more datagrams than may be held are dropped", () => {
    const { peer } = listening();
    for (let i = 0; i <= FRAGMENTS_DATAGRAMS_MAX; i++) {
      const source = remote === REMOTE ? `10.7.1.${i}` : `fd00::1:${i}`;
      peer.send(fragment({ ...cut(1000)[0]!, source }));
    }
    expect(peer.stack.counters).toMatchObject({ FRAGMENTED_DATAGRAMS: FRAGMENTS_DATAGRAMS_MAX, FRAGMENTS_FULL: 1 });
  });

  it("in more pieces than may be held are dropped", () => {
    const { peer, got } = listening();
    const at = Array.from({ length: FRAGMENTS_PER_DATAGRAM_MAX }, (_none, i) => 40 * (i + 1));
    for (const part of cut(...at)) peer.send(fragment(part));
    expect(got).toEqual([]);
    expect(peer.counter("FRAGMENTS_FULL")).toBe(1);
    for (const part of cut(...at.slice(1))) peer.send(fragment({ ...part, id: 8 }));
    expect(got).toEqual([data]);
  });

  it("for addresses that are not ours are not held", () => {
    const { peer } = listening();
    peer.stack.setLocalAddresses([]);
    peer.send(fragment(cut(1000)[0]!));
    expect(peer.stack.counters).toMatchObject({ FRAGMENTED_DATAGRAMS: 0, NOT_OURS: 1 });
  });
});

describe("large datagrams", () => {
  it.each(["v4", "v6"] as const)("cross the link in fragments over %s, up to the largest", (family) => {
    const world = new VirtualLink({ reorder: 0.5 });
    const from = family === "v4" ? world.a.v4 : world.a.address;
    const to = { address: family === "v4" ? world.b.v4 : world.b.address, port: 53 };
    const got: Uint8Array[] = [];
    world.b.stack.bindUdp(to)!.onDatagram = (_remote, bytes) => got.push(bytes.slice());
    const socket = world.a.stack.bindUdp({ address: from, port: 0 })!;
    for (const size of [0, 1, 1372, 1373, 1392, 1393, 5_000, 65_507]) {
      expect(socket.send(world.nowMs, to, pattern(size))).toBe(true);
      world.run(1_000);
      expect(got.splice(0).map((bytes) => Buffer.compare(bytes, pattern(size)))).toEqual([0]);
    }
    expect(world.a.sent.every((packet) => packet.length <= 1420)).toBe(true);
    expect(socket.send(world.nowMs, to, pattern(65_508))).toBe(false);
  });
});
