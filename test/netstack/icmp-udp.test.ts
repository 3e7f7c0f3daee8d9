import { describe, expect, it } from "vitest";
import { formatAddress, formatEndpoint, parsePrefix } from "../../src/base/address.ts";
import {
  ECHO_TIMEOUT_MS,
  ECHOES_MAX,
  ICMP_ERRORS_PER_SECOND_MAX,
  PATH_MTUS_MAX,
  UDP_SOCKETS_MAX,
} from "../../src/base/limits.ts";
import type { UdpOpening, UdpSocket } from "../../src/netstack/contract.ts";
import { PathMtus } from "../../src/netstack/path-mtu.ts";
import { icmp, ip, ipv4, udp, udpDatagram } from "../wire/packets.ts";
import { LOCAL, LOCAL6, RawPeer, REMOTE, REMOTE6 } from "./raw-peer.ts";
import { pattern, VirtualLink } from "./virtual-link.ts";

const DATA = pattern(40);

describe("echo", () => {
  it.each([
    [REMOTE, LOCAL, 8, 0],
    [REMOTE6, LOCAL6, 128, 129],
  ])("from %s to %s is answered with its own bytes", (remote, local, request, reply) => {
    const peer = new RawPeer();
    peer.send(icmp(remote, local, request, 0, 0x1234_0007, DATA));
    const [answer] = peer.take();
    expect(answer!.info).toMatchObject({ icmpType: reply, sourcePort: 0x1234 });
    expect(answer!.data).toEqual(DATA);
    expect(formatAddress(answer!.info.destination)).toBe(remote);
  });

  it("to a transit address, to nobody's address or with a bad checksum is not", () => {
    const peer = new RawPeer();
    peer.stack.setTransit([parsePrefix("10.20.0.0/16")!]);
    peer.send(icmp(REMOTE, "10.20.0.5", 8, 0, 1, DATA));
    peer.send(icmp(REMOTE, "10.30.0.5", 8, 0, 1, DATA));
    const bad = icmp(REMOTE, LOCAL, 8, 0, 1, DATA);
    bad[bad.length - 1]! ^= 1;
    peer.send(bad);
    expect(peer.take()).toEqual([]);
    expect(peer.stack.counters).toMatchObject({ NOT_OURS: 1, ICMP_BAD_CHECKSUM: 1 });
  });

  it("of ours reports the round trip once, however often it is answered", () => {
    const world = new VirtualLink({ delayMs: 20, duplicate: 1 });
    for (const [from, to] of [
      [world.a.address, world.b.address],
      [world.a.v4, world.b.v4],
    ] as const) {
      const times: number[] = [];
      world.a.stack.ping(world.nowMs, from, to, (rttMs) => times.push(rttMs));
      world.run(1_000);
      expect(times).toEqual([40]);
    }
  });

  it("of ours takes no answer from another address, none after giving up, and ends in time", () => {
    const peer = new RawPeer();
    const times: number[] = [];
    const giveUp = peer.stack.ping(peer.nowMs, ip(LOCAL), ip(REMOTE), (rttMs) => times.push(rttMs));
    const [request] = peer.take();
    const reply = (source: string): Uint8Array => {
      const word = ((request!.bytes[24]! << 24) | (request!.bytes[25]! << 16) | 0) >>> 0;
      return icmp(source, LOCAL, 0, 0, word + ((request!.bytes[26]! << 8) | request!.bytes[27]!), request!.data);
    };
    peer.send(reply("10.7.0.66"));
    expect(times).toEqual([]);
    giveUp();
    peer.send(reply(REMOTE));
    expect(times).toEqual([]);
    peer.stack.ping(peer.nowMs, ip(LOCAL), ip(REMOTE), (rttMs) => times.push(rttMs));
    peer.wait(ECHO_TIMEOUT_MS);
    expect(peer.stack.counters).toMatchObject({ PINGS: 0, DEADLINES: 0 });
  });

  it("of ours may come from a transit address, as beside a kernel; none is answered there", () => {
    const peer = new RawPeer();
    peer.stack.setTransit([parsePrefix("10.20.0.5/32")!]);
    const times: number[] = [];
    peer.stack.ping(peer.nowMs, ip("10.20.0.5"), ip(REMOTE), (rttMs) => times.push(rttMs));
    const [request] = peer.take();
    const id = new DataView(request!.bytes.buffer, request!.bytes.byteOffset).getUint32(24);
    peer.send(icmp(REMOTE, "10.20.0.5", 8, 0, id, DATA));
    peer.send(icmp(REMOTE, "10.20.0.5", 0, 1, id, DATA));
    expect(times).toEqual([]);
    peer.send(icmp(REMOTE, "10.20.0.5", 0, 0, id, request!.data));
    expect(times).toHaveLength(1);
    expect(peer.take()).toEqual([]);
  });

  it("of ours is not sent beyond the limit", () => {
    const peer = new RawPeer();
    for (let i = 0; i <= ECHOES_MAX; i++) peer.stack.ping(peer.nowMs, ip(LOCAL), ip(REMOTE), () => undefined);
    expect(peer.take()).toHaveLength(ECHOES_MAX);
    expect(peer.stack.counters).toMatchObject({ PINGS: ECHOES_MAX, PINGS_FULL: 1 });
  });
});

describe("UDP", () => {
  it("goes to the socket of its 4-tuple before the one bound to its port", () => {
    const peer = new RawPeer();
    const got: string[] = [];
    const openings: UdpOpening[] = [];
    peer.handler.udpOpening = (opening) => openings.push(opening);
    peer.send(udp(REMOTE, LOCAL, 1111, 53, DATA));
    expect(openings.map((opening) => formatEndpoint(opening.remote))).toEqual([`${REMOTE}:1111`]);
    const flow = openings[0]!.accept();
    flow.onDatagram = (remote) => got.push(`flow ${remote.port}`);
    const bound = peer.stack.bindUdp({ address: ip(LOCAL), port: 53 })!;
    bound.onDatagram = (remote) => got.push(`bound ${remote.port}`);
    for (const port of [1111, 2222, 2222, 1111]) peer.send(udp(REMOTE, LOCAL, port, 53, DATA));
    expect(got).toEqual(["flow 1111", "bound 2222", "bound 2222", "flow 1111"]);
    flow.send(peer.nowMs, flow.local === openings[0]!.local ? openings[0]!.remote : flow.local, DATA);
    expect(peer.take()).toMatchObject([{ info: { sourcePort: 53, destinationPort: 1111 }, data: DATA }]);
    flow.close();
    bound.close();
    expect(flow.send(peer.nowMs, openings[0]!.remote, DATA)).toBe(false);
    expect(peer.counter("UDP_SOCKETS")).toBe(0);
  });

  it("to a port of nobody's is answered, quoted, so many times a second", () => {
    const peer = new RawPeer();
    for (let i = 0; i <= ICMP_ERRORS_PER_SECOND_MAX; i++) peer.send(udp(REMOTE6, LOCAL6, 9, 1000 + i, DATA));
    const errors = peer.take();
    expect(errors).toHaveLength(ICMP_ERRORS_PER_SECOND_MAX);
    expect(errors[0]!.info).toMatchObject({ icmpType: 1, icmpCode: 4 });
    expect(peer.counter("ICMP_RATE_LIMITED")).toBe(1);
    peer.nowMs += 1_000;
    peer.send(udp(REMOTE, LOCAL, 9, 1000, DATA));
    expect(peer.take()[0]!.info).toMatchObject({ icmpType: 3, icmpCode: 3 });
  });

  it("openings can be answered late with ICMP", () => {
    const peer = new RawPeer();
    let opening: UdpOpening | undefined;
    peer.handler.udpOpening = (offer) => {
      opening = offer;
    };
    peer.send(udp(REMOTE6, LOCAL6, 9, 53, DATA));
    peer.send(udp(REMOTE, "10.77.0.1", 9, 53, DATA)); // something else in between
    opening!.unreachable(peer.nowMs + 5, "prohibited");
    const [error] = peer.take();
    expect(error!.info).toMatchObject({ version: 6, icmpType: 1, icmpCode: 1 });
  });

  it("without a checksum is taken over IPv4 and refused over IPv6, and a wrong one always is", () => {
    const peer = new RawPeer();
    let got = 0;
    for (const local of [LOCAL, LOCAL6]) {
      peer.stack.bindUdp({ address: ip(local), port: 53 })!.onDatagram = () => got++;
    }
    const v4 = udpDatagram(REMOTE, LOCAL, 9, 53, DATA);
    v4.fill(0, 6, 8);
    peer.send(ipv4(REMOTE, LOCAL, v4));
    expect(got).toBe(1);
    const v6 = udp(REMOTE6, LOCAL6, 9, 53, DATA);
    v6.fill(0, 46, 48);
    peer.send(v6);
    const wrong = udp(REMOTE6, LOCAL6, 9, 53, DATA);
    wrong[wrong.length - 1]! ^= 1;
    peer.send(wrong);
    expect(got).toBe(1);
    expect(peer.counter("UDP_BAD_CHECKSUM")).toBe(2);
  });

  it("sockets learn that nobody listens, if the error quotes what they sent", () => {
    const world = new VirtualLink();
    const socket = world.a.stack.bindUdp({ address: world.a.address, port: 0 })!;
    const errors: string[] = [];
    socket.onError = (remote, reason) => errors.push(`${formatEndpoint(remote)} ${reason}`);
    socket.send(world.nowMs, { address: world.b.address, port: 99 }, DATA);
    world.run(100);
    expect(errors).toEqual(["[fd00::b]:99 unreachable"]);
    world.inject(world.a, icmp("fd00::b", "fd00::a", 1, 1, 0, udp("fd00::a", "fd00::b", 5, 99, DATA)));
    expect(errors).toHaveLength(1);
  });

  it("sockets are no more than the table holds, and a new flow beyond is dropped", () => {
    const peer = new RawPeer();
    let last: UdpSocket | undefined;
    for (let i = 0; i < UDP_SOCKETS_MAX; i++) {
      last = peer.stack.bindUdp({ address: ip(LOCAL), port: 1 + i });
      if (last === undefined) throw new Error(`full at ${i}`);
    }
    let offered = 0;
    peer.handler.udpOpening = () => offered++;
    expect(peer.stack.bindUdp({ address: ip(LOCAL6), port: 1 })).toBe(undefined);
    peer.send(udp(REMOTE6, LOCAL6, 9, 53, DATA));
    expect([offered, peer.counter("UDP_SOCKETS_FULL")]).toEqual([0, 1]);
    last!.close();
    peer.send(udp(REMOTE6, LOCAL6, 9, 53, DATA));
    expect(offered).toBe(1);
  });

  it("can't bind a port twice, and picks free ones", () => {
    const peer = new RawPeer();
    const local = { address: ip(LOCAL), port: 53 };
    expect(peer.stack.bindUdp(local)).not.toBe(undefined);
    expect(peer.stack.bindUdp(local)).toBe(undefined);
    const ports = new Set(
      Array.from({ length: 2_000 }, () => peer.stack.bindUdp({ address: ip(LOCAL), port: 0 })!.local.port),
    );
    expect(ports.size).toBe(2_000);
    for (const port of ports) expect(port >= 32_768 && port < 49_152).toBe(true);
  });

  it("cuts datagrams to a narrower path once told so about its own", () => {
    const world = new VirtualLink();
    const { a, b } = world;
    const socket = a.stack.bindUdp({ address: a.address, port: 500 })!;
    const to = { address: b.address, port: 99 };
    b.stack.bindUdp(to);
    socket.send(world.nowMs, to, pattern(1300));
    const quote = a.sent.splice(0)[0]!.slice(0, 600);
    const foreign = udp("fd00::a", "fd00::b", 501, 99, DATA);
    world.inject(a, icmp("fd00::b", "fd00::a", 2, 0, 1300, foreign));
    socket.send(world.nowMs, to, pattern(1300));
    expect(a.sent.splice(0)).toHaveLength(1);
    world.inject(a, icmp("fd00::b", "fd00::a", 2, 0, 100, quote)); // 1,280 is the least that is believed
    socket.send(world.nowMs, to, pattern(1300));
    const sent = a.sent.splice(0);
    expect(sent.map((packet) => packet.length)).toEqual([1280, 48 + 1308 - 1232]);
  });

  it("remembers so many narrow paths, for ten minutes", () => {
    const paths = new PathMtus(1420);
    for (let i = 0; i <= PATH_MTUS_MAX; i++) paths.learn(0, ip(`10.9.${i >> 8}.${i & 255}`), 1000);
    expect(paths.size).toBe(PATH_MTUS_MAX);
    expect(paths.get(0, ip("10.9.0.0"))).toBe(1420);
    expect(paths.get(0, ip("10.9.0.1"))).toBe(1000);
    expect(paths.get(600_000, ip("10.9.0.1"))).toBe(1420);
    paths.learn(0, ip("10.9.0.1"), 1200); // never wider
    expect(paths.get(0, ip("10.9.0.1"))).toBe(1000);
  });
});
