import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { Deadlines, type Timed } from "../../src/netstack/deadlines.ts";
import { FlowKey, FlowTable } from "../../src/netstack/flow-table.ts";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { fixIpv4Checksum, icmp, ip, ipv4, ipv6, tcp, udp, udpDatagram, withChecksum } from "../wire/packets.ts";
import { LOCAL, LOCAL6, RawConnection, RawPeer, REMOTE, REMOTE6 } from "./raw-peer.ts";
import { pattern } from "./virtual-link.ts";

describe("deadlines", () => {
  it("come in the order of a plain sorted list, under any changes", () => {
    const change = fc.tuple(fc.nat(19), fc.option(fc.nat(50), { nil: Number.POSITIVE_INFINITY }), fc.boolean());
    fc.assert(
      fc.property(fc.array(change, { maxLength: 200 }), (changes) => {
        const deadlines = new Deadlines();
        const called: number[] = [];
        const items: Timed[] = Array.from({ length: 20 }, (_, index) => ({
          deadlineMs: Number.POSITIVE_INFINITY,
          heapIndex: -1,
          handleDeadline: () => void called.push(index),
        }));
        const plain = new Map<number, number>();
        let nowMs = 0;
        for (const [index, aheadMs, run] of changes) {
          deadlines.set(items[index]!, nowMs + aheadMs);
          if (aheadMs === Number.POSITIVE_INFINITY) plain.delete(index);
          else plain.set(index, nowMs + aheadMs);
          expect(deadlines.nextMs()).toBe(Math.min(Number.POSITIVE_INFINITY, ...plain.values()));
          expect(deadlines.size).toBe(plain.size);
          if (!run) continue;
          nowMs += 7;
          deadlines.run(nowMs);
          const due = [...plain].filter(([, atMs]) => atMs <= nowMs).map(([item]) => item);
          for (const item of due) plain.delete(item);
          expect(called.splice(0).sort()).toEqual(due.sort());
        }
      }),
    );
  });

  it("that ask for now again wait for the next turn", () => {
    const deadlines = new Deadlines();
    let calls = 0;
    const greedy: Timed = {
      deadlineMs: Number.POSITIVE_INFINITY,
      heapIndex: -1,
      handleDeadline: (nowMs) => {
        calls++;
        deadlines.set(greedy, nowMs);
      },
    };
    deadlines.set(greedy, 5);
    deadlines.run(5);
    expect(calls).toBe(1);
  });
});

describe("the flow table", () => {
  const key = (i: number): FlowKey =>
    new FlowKey(
      { address: ip(i % 2 === 0 ? "fd00::1" : "10.0.0.1"), port: i % 7 },
      { address: ip(`10.0.${(i >> 8) & 255}.${i & 255}`), port: i },
    );

  it("holds what a plain map holds", () => {
    const step = fc.tuple(fc.boolean(), fc.nat(300));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const table = new FlowTable<number>(200, new SeededRandom(3));
        const plain = new Map<number, number>();
        for (const [adds, i] of steps) {
          if (adds) {
            const expected = !plain.has(i) && plain.size < 200;
            expect(table.add(key(i), i)).toBe(expected);
            if (expected) plain.set(i, i);
          } else {
            expect(table.delete(key(i))).toBe(plain.delete(i));
          }
          expect(table.get(key(i))).toBe(plain.get(i));
          expect(table.size).toBe(plain.size);
        }
        for (let i = 0; i <= 300; i++) expect(table.get(key(i))).toBe(plain.get(i));
      }),
      { numRuns: 50 },
    );
  });

  it("tells apart what differs in any single word or port", () => {
    const table = new FlowTable<string>(100, new SeededRandom(3));
    const words = [1, 2, 3, 4, 5, 6, 7, 0xffff_fff8];
    const make = (w: number[], ports: [number, number]): FlowKey =>
      new FlowKey(
        { address: { w0: w[0]!, w1: w[1]!, w2: w[2]!, w3: w[3]! }, port: ports[0] },
        { address: { w0: w[4]!, w1: w[5]!, w2: w[6]!, w3: w[7]! }, port: ports[1] },
      );
    table.add(make(words, [9, 65_535]), "found");
    expect(table.get(make(words, [9, 65_535]))).toBe("found");
    for (let i = 0; i < 8; i++) expect(table.get(make(words.with(i, 99), [9, 65_535]))).toBe(undefined);
    expect(table.get(make(words, [8, 65_535]))).toBe(undefined);
    expect(table.get(make(words, [9, 65_534]))).toBe(undefined);
  });
});

describe("the stack", () => {
  it("drops by name what is no packet, comes from nowhere or speaks an unknown protocol", () => {
    const peer = new RawPeer();
    peer.send(new Uint8Array(0));
    peer.send(udp("224.0.0.1", LOCAL, 1, 2, new Uint8Array(0)));
    peer.send(udp("::", LOCAL6, 1, 2, new Uint8Array(0)));
    peer.send(ipv6(REMOTE6, LOCAL6, 132, new Uint8Array(8)));
    peer.send(udp(REMOTE6, "ff02::1", 1, 2, new Uint8Array(0)));
    expect(peer.take()).toEqual([]);
    expect(peer.stack.counters).toMatchObject({ TRUNCATED: 1, BAD_SOURCE: 2, UNKNOWN_PROTOCOL: 1, NOT_OURS: 1 });
  });

  it("ends flows to transit addresses, but to no multicast among them", () => {
    const peer = new RawPeer();
    peer.stack.setTransit([parsePrefix("10.20.0.0/16")!, parsePrefix("::/0")!, parsePrefix("0.0.0.0/0")!]);
    let openings = 0;
    peer.handler.tcpOpening = () => openings++;
    const syn = (to: string): Uint8Array => tcp(REMOTE, to, { sourcePort: 1, destinationPort: 2, flags: TCP_SYN });
    peer.send(syn("10.20.0.5"));
    peer.send(syn("224.0.0.5"));
    expect(openings).toBe(1);
  });

  it("survives any packets: no throw, nothing sent that is malformed, nothing kept beyond its limits", () => {
    const data = pattern(64);
    const ports = { sourcePort: 4000, destinationPort: 80 };
    const seeds: Uint8Array[] = [
      ...[TCP_SYN, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST, TCP_SYN | TCP_ACK].map((flags) =>
        tcp(REMOTE, LOCAL, { ...ports, flags, sequence: 1_001, acknowledgment: 1, data }),
      ),
      tcp(REMOTE6, LOCAL6, { ...ports, flags: TCP_SYN, options: Uint8Array.of(2, 4, 5, 100, 1, 3, 3, 7) }),
      udp(REMOTE, LOCAL, 9, 53, data),
      udp(REMOTE6, LOCAL6, 9, 54, data),
      icmp(REMOTE, LOCAL, 8, 0, 1, data),
      icmp(REMOTE6, LOCAL6, 2, 0, 1280, udp(LOCAL6, REMOTE6, 53, 9, data)),
      icmp(REMOTE, LOCAL, 3, 4, 600, tcp(LOCAL, REMOTE, { sourcePort: 80, destinationPort: 4000, flags: TCP_ACK })),
      ipv4(REMOTE, LOCAL, udpDatagram(REMOTE, LOCAL, 9, 53, data), { flags: 0x2000, id: 5 }),
      ipv4(REMOTE, LOCAL, data, { flags: 9, id: 5 }),
    ];
    const edit = fc.tuple(fc.nat(100), fc.nat(255));
    const mutant = fc
      .tuple(fc.nat(seeds.length - 1), fc.array(edit, { maxLength: 3 }), fc.nat(20), fc.boolean())
      .map(([index, edits, cut, mend]) => {
        const bytes = seeds[index]!.slice(0, cut > 17 ? seeds[index]!.length - cut : undefined);
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        return mend ? mendChecksums(bytes) : bytes;
      });
    const packet = fc.oneof(
      { weight: 9, arbitrary: mutant },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 90 }) },
    );
    const step = fc.oneof(
      { weight: 6, arbitrary: packet },
      { weight: 1, arbitrary: fc.constantFrom("wait", "write", "read", "end") },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const peer = new RawPeer();
        peer.stack.bindUdp({ address: ip(LOCAL), port: 53 });
        peer.handler.tcpOpening = (opening) => opening.accept(peer.nowMs, raw.handler());
        const raw = new RawConnection(peer).open();
        raw.reads = false;
        for (const one of steps) {
          if (one === "wait") peer.wait(300);
          else if (one === "write") raw.connection.write(peer.nowMs, data);
          else if (one === "read") raw.connection.read(peer.nowMs, 10);
          else if (one === "end") raw.connection.end(peer.nowMs);
          else if (typeof one !== "string") peer.send(one);
          peer.take(); // each is decoded and its checksums are verified
        }
        expect(peer.counter("TCP_CONNECTIONS")).toBeLessThan(80);
        expect(peer.counter("FRAGMENTED_DATAGRAMS")).toBeLessThanOrEqual(16);
        raw.connection.read(peer.nowMs, 1 << 20);
        raw.connection.abort(peer.nowMs);
        peer.wait(600_000);
        peer.take();
        expect(peer.counter("TCP_BACKLOG")).toBe(0);
        expect(peer.counter("FRAGMENTED_DATAGRAMS")).toBe(0);
      }),
      { numRuns: 150 },
    );
  });
});

/** So that mutants get past the checksums, to the code behind. */
function mendChecksums(bytes: Uint8Array): Uint8Array {
  const isIpv4 = bytes[0]! >>> 4 === 4;
  if (bytes.length < 61 || !(isIpv4 || bytes[0]! >>> 4 === 6)) return bytes;
  const headerBytes = isIpv4 ? (bytes[0]! & 15) * 4 : 40;
  const protocol = isIpv4 ? bytes[9]! : bytes[6]!;
  const at = { 1: 2, 58: 2, 6: 16, 17: 6 }[protocol];
  if (at !== undefined && bytes.length >= headerBytes + 20) {
    const transport = bytes.slice(headerBytes);
    withChecksum(isIpv4 ? REMOTE : REMOTE6, isIpv4 ? LOCAL : LOCAL6, protocol, transport, at);
    bytes.set(transport, headerBytes);
  }
  return isIpv4 ? fixIpv4Checksum(bytes) : bytes;
}
