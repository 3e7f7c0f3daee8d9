import { describe, expect, it } from "vitest";
import { TCP_KEEPALIVE_IDLE_MS, TCP_RETRANSMIT_MAX_MS, TCP_TIME_WAIT_MS } from "../../src/base/limits.ts";
import { EPHEMERAL_PORT_FIRST } from "../../src/netstack/ephemeral-ports.ts";
import { DELAYED_ACK_MS } from "../../src/netstack/tcp/receiver.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { icmp, ip, tcp } from "../wire/packets.ts";
import { LOCAL, RawConnection, RawPeer, REMOTE } from "./raw-peer.ts";
import { connectPair, expectSame, pattern, pour, Recorder, VirtualLink } from "./virtual-link.ts";

const DATA = pattern(100);

describe("opening", () => {
  it("offers the MSS of its MTU and a window scale, and takes the smaller MSS of the two", () => {
    const peer = new RawPeer();
    const connection = peer.stack.connectTcp(peer.nowMs, ip(LOCAL), { address: ip(REMOTE), port: 80 }, handler())!;
    const [syn] = peer.take();
    expect(syn).toMatchObject({ flags: TCP_SYN, acknowledgment: 0, window: 65_535 });
    expect(syn!.options).toMatchObject({ mssBytes: 1380, windowScale: 9, isSackPermitted: true });
    expect(syn!.options).toMatchObject({ hasTimestamps: true, timestampEcho: 0 });
    const answer = {
      sourcePort: 80,
      destinationPort: syn!.info.sourcePort,
      sequence: 500,
      acknowledgment: syn!.sequence + 1,
      flags: TCP_SYN | TCP_ACK,
      options: Uint8Array.of(2, 4, 2, 88), // 600
    };
    peer.send(tcp(REMOTE, LOCAL, answer));
    expect(peer.take()).toMatchObject([{ flags: TCP_ACK, acknowledgment: 501 }]);
    connection.write(peer.nowMs, pattern(700));
    expect(peer.take().map((sent) => sent.data.length)).toEqual([600, 100]);
  });

  it("leaves window scaling out when the SYN has none, and then never scales", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer);
    peer.stack.listenTcp({ address: ip(LOCAL), port: 80 }, () => undefined);
    const [synAck] = raw.send(TCP_SYN, { options: Uint8Array.of(2, 4, 5, 100) });
    expect(synAck!.options).toMatchObject({ mssBytes: 1380, windowScale: -1 });
    raw.sequence++;
    raw.acknowledgment = synAck!.sequence + 1;
    raw.send(TCP_ACK);
    const [ack] = raw.sendData(DATA).concat(raw.sendData(DATA));
    expect(ack!.window).toBe(65_535);
  });

  it.each([
    ["none over IPv4", new Uint8Array(0), 536],
    ["one of 1 byte", Uint8Array.of(2, 4, 0, 1), 88],
    ["one that is malformed", Uint8Array.of(2, 3, 5, 0), 536],
    ["one larger than ours", Uint8Array.of(2, 4, 255, 255), 1380],
  ])("with an MSS option like %s sends segments of a sane size", (_, options, expected) => {
    const raw = new RawConnection(new RawPeer()).open(options);
    raw.connection.write(raw.peer.nowMs, pattern(4000));
    expect(raw.peer.take()[0]!.data.length).toBe(expected);
  });

  it("sends the SYN again after 1, 2, 4 s, and gives up after three minutes", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer);
    peer.stack.connectTcp(peer.nowMs, ip(LOCAL), { address: ip(REMOTE), port: 80 }, raw.handler());
    peer.wait(7_500);
    expect(peer.take().map((sent) => sent.flags)).toEqual([TCP_SYN, TCP_SYN, TCP_SYN, TCP_SYN]);
    peer.wait(170_000);
    expect(raw.events).toEqual([]);
    peer.wait(120_000);
    expect(raw.events).toEqual(["closed: timeout"]);
    expect(peer.counter("TCP_CONNECTIONS")).toBe(0);
  });

  it("is refused by a reset that acknowledges the SYN, and by no other", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer);
    peer.stack.connectTcp(peer.nowMs, ip(LOCAL), { address: ip(REMOTE), port: 80 }, raw.handler());
    const [syn] = peer.take();
    const ports = { sourcePort: 80, destinationPort: syn!.info.sourcePort };
    peer.send(tcp(REMOTE, LOCAL, { ...ports, flags: TCP_RST }));
    peer.send(tcp(REMOTE, LOCAL, { ...ports, flags: TCP_RST | TCP_ACK, acknowledgment: syn!.sequence + 2 }));
    expect(raw.events).toEqual([]);
    peer.send(tcp(REMOTE, LOCAL, { ...ports, flags: TCP_RST | TCP_ACK, acknowledgment: syn!.sequence + 1 }));
    expect(raw.events).toEqual(["closed: refused"]);
  });

  it("answers a SYN-ACK for something else with a reset, and stays", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer);
    peer.stack.connectTcp(peer.nowMs, ip(LOCAL), { address: ip(REMOTE), port: 80 }, raw.handler());
    const [syn] = peer.take();
    const flags = TCP_SYN | TCP_ACK;
    const ports = { sourcePort: 80, destinationPort: syn!.info.sourcePort };
    peer.send(tcp(REMOTE, LOCAL, { ...ports, flags, acknowledgment: 77 }));
    expect(peer.take()).toMatchObject([{ flags: TCP_RST, sequence: 77 }]);
    expect(raw.events).toEqual([]);
  });

  it.each([
    [13, "prohibited"],
    [1, "unreachable"],
    [3, "unreachable"],
  ] as const)("ends by ICMP unreachable with code %i as %s", (code, reason) => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer);
    peer.stack.connectTcp(peer.nowMs, ip(LOCAL), { address: ip(REMOTE), port: 80 }, raw.handler());
    const [syn] = peer.take();
    const forged = syn!.bytes.slice();
    forged[24]! ^= 1; // another sequence number: somebody guesses
    peer.send(icmp(REMOTE, LOCAL, 3, code, 0, forged));
    expect(raw.events).toEqual([]);
    peer.send(icmp(REMOTE, LOCAL, 3, code, 0, syn!.bytes));
    expect(raw.events).toEqual([`closed: ${reason}`]);
  });

  it("takes ICMP unreachable as a hint once established", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, DATA);
    const [sent] = raw.peer.take();
    raw.peer.send(icmp(REMOTE, LOCAL, 3, 13, 0, sent!.bytes));
    expect(raw.events).toEqual([]);
    expect(raw.peer.counter("TCP_ICMP_SOFT_ERRORS")).toBe(1);
  });

  it("by both ends at once makes one connection", () => {
    const random = { fill: (bytes: Uint8Array) => void bytes.fill(0) }; // so that both pick the same port
    const world = new VirtualLink({}, 1, { random });
    const { a, b } = world;
    const first = new Recorder(world);
    const second = new Recorder(world);
    const port = EPHEMERAL_PORT_FIRST;
    first.attach(a.stack.connectTcp(world.nowMs, a.address, { address: b.address, port }, first)!);
    second.attach(b.stack.connectTcp(world.nowMs, b.address, { address: a.address, port }, second)!);
    world.run(1_000);
    expect([first.events, second.events]).toEqual([["connected"], ["connected"]]);
    expect(a.sent.length + b.sent.length).toBeLessThan(10);
    pour(world, first, DATA);
    pour(world, second, DATA);
    world.runUntil(() => first.events.length === 3 && second.events.length === 3);
    expectSame(first.received, DATA);
    expectSame(second.received, DATA);
  });
});

function handler(): ReturnType<RawConnection["handler"]> {
  return new RawConnection(new RawPeer()).handler();
}

describe("acknowledging", () => {
  it("waits 40 ms for a single segment, and not at all for the second", () => {
    const raw = new RawConnection(new RawPeer()).open();
    expect(raw.sendData(pattern(500))).toEqual([]);
    raw.peer.wait(DELAYED_ACK_MS - 1);
    expect(raw.peer.take()).toEqual([]);
    raw.peer.wait(1);
    expect(raw.peer.take()).toMatchObject([{ flags: TCP_ACK, acknowledgment: raw.sequence }]);
    expect(raw.sendData(pattern(500))).toEqual([]);
    expect(raw.sendData(pattern(500))).toMatchObject([{ acknowledgment: raw.sequence }]);
  });

  it("goes along with an answer written at once", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.handler = {
      ...raw.handler(),
      readable: () => raw.connection.write(raw.peer.nowMs, raw.connection.read(raw.peer.nowMs, 100)!),
    };
    const sent = raw.sendData(DATA);
    expect(sent).toMatchObject([{ acknowledgment: raw.sequence, data: DATA, flags: TCP_ACK | TCP_PSH }]);
    raw.acknowledge(sent);
    raw.peer.wait(1_000);
    expect(raw.peer.take()).toEqual([]);
  });

  it("is immediate for a segment out of order and for the one that fills the gap", () => {
    const raw = new RawConnection(new RawPeer()).open();
    const start = raw.sequence;
    expect(raw.send(TCP_ACK, { sequence: start + 100, data: DATA })).toMatchObject([{ acknowledgment: start }]);
    expect(raw.send(TCP_ACK, { sequence: start, data: DATA })).toMatchObject([{ acknowledgment: start + 200 }]);
    expect(raw.received).toEqual([...DATA, ...DATA]);
  });
});

describe("retransmission", () => {
  it("after three duplicate acknowledgments sends the missing segment at once", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, pattern(6000));
    const sent = raw.peer.take();
    expect(sent.length).toBe(5);
    raw.send(TCP_ACK);
    raw.send(TCP_ACK);
    expect(raw.send(TCP_ACK)).toMatchObject([{ sequence: sent[0]!.sequence, data: sent[0]!.data }]);
  });

  it("after a partial acknowledgment sends the next hole without a timeout (NewReno)", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, pattern(6000));
    const sent = raw.peer.take();
    for (let i = 0; i < 3; i++) raw.send(TCP_ACK);
    // The first two arrived, the third did not.
    const partial = raw.send(TCP_ACK, { acknowledgment: sent[2]!.sequence });
    expect(partial).toMatchObject([{ sequence: sent[2]!.sequence, data: sent[2]!.data }]);
  });

  it("backs off exponentially, then gives up after R2", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, DATA);
    const times: number[] = [];
    const startMs = raw.peer.nowMs;
    while (raw.events.length === 0) {
      if (raw.peer.take().some((sent) => sent.data.length > 0)) times.push(raw.peer.nowMs - startMs);
      raw.peer.nowMs = raw.peer.stack.nextDeadlineMs();
      raw.peer.stack.handleTimeout(raw.peer.nowMs);
    }
    const gaps = times.slice(1).map((at, i) => at - times[i]!);
    expect(times[1]).toBeLessThanOrEqual(1_000);
    for (const [i, gap] of gaps.slice(1).entries()) expect(gap).toBe(Math.min(gaps[i]! * 2, 60_000));
    expect(raw.events).toEqual(["closed: timeout"]);
    expect(raw.peer.nowMs - startMs).toBeGreaterThanOrEqual(TCP_RETRANSMIT_MAX_MS);
  });

  it("cuts segments smaller when a router says they are too big, but only for what is outstanding", () => {
    const raw = new RawConnection(new RawPeer()).open(Uint8Array.of(2, 4, 5, 100));
    raw.connection.write(raw.peer.nowMs, pattern(1300));
    const [sent] = raw.peer.take();
    const old = sent!.bytes.slice();
    old[24]! ^= 0x80;
    raw.peer.send(icmp("10.7.0.9", LOCAL, 3, 4, 1000, old));
    expect(raw.peer.take()).toEqual([]);
    raw.peer.send(icmp("10.7.0.9", LOCAL, 3, 4, 1000, sent!.bytes));
    expect(raw.peer.take().map((part) => part.data.length)).toEqual([960, 340]);
    raw.peer.send(icmp("10.7.0.9", LOCAL, 3, 4, 68, sent!.bytes)); // no path is narrower than 576
    expect(raw.peer.take()[0]!.data.length).toBe(536);
    raw.peer.send(icmp("10.7.0.9", LOCAL, 3, 4, 1400, sent!.bytes)); // and never wider again
    expect(raw.peer.take()).toEqual([]);
  });

  it("finds its way over a narrow path by itself", () => {
    const world = new VirtualLink({});
    world.onPacket = (to, bytes) => {
      if (bytes.length <= 1300) return false;
      const from = to === world.b ? world.a : world.b;
      world.inject(from, icmp("fd00::99", from === world.a ? "fd00::a" : "fd00::b", 2, 0, 1300, bytes.slice(0, 1200)));
      return true;
    };
    const { client, server } = connectPair(world);
    pour(world, client, pattern(100_000));
    world.runUntil(() => server.events.includes("ended"), 20_000);
    expectSame(server.received, pattern(100_000));
  });
});

describe("windows", () => {
  it("stop the sender at zero, and an update lets it go on", () => {
    const world = new VirtualLink({}, 1, { buffers: { receiveBytes: 8_192, sendBytes: 65_536 } });
    const { client, server } = connectPair(world);
    server.reads = false;
    const data = pattern(50_000);
    pour(world, client, data);
    world.run(10_000);
    expect(server.connection!.readableBytes).toBe(8_192);
    server.reads = true;
    server.drain();
    world.runUntil(() => server.events.includes("ended"));
    expectSame(server.received, data);
  });

  it("of 100 bytes read slowly lose nothing", () => {
    const world = new VirtualLink({ loss: 0.05 }, 4, { buffers: { receiveBytes: 100, sendBytes: 300 } });
    const { client, server } = connectPair(world);
    server.reads = false;
    server.onReadable = () => server.drain(7);
    const data = pattern(3_000);
    pour(world, client, data);
    world.runUntil(() => server.receivedBytes === data.length);
    expectSame(server.received, data);
  });

  it("that stay closed are probed, further and further apart, for as long as the other end answers", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.window = 0;
    raw.send(TCP_ACK);
    raw.connection.write(raw.peer.nowMs, DATA);
    const probeTimes: number[] = [];
    for (let i = 0; i < 40; i++) {
      raw.peer.nowMs = raw.peer.stack.nextDeadlineMs();
      raw.peer.stack.handleTimeout(raw.peer.nowMs);
      const sent = raw.peer.take();
      for (const { data } of sent) expect(data.length).toBe(1);
      if (sent.length > 0) probeTimes.push(raw.peer.nowMs);
      raw.send(TCP_ACK);
    }
    expect(raw.events).toEqual([]);
    expect(probeTimes.at(-1)! - probeTimes.at(-2)!).toBe(60_000);
    raw.window = 1_000;
    expect(raw.send(TCP_ACK)).toMatchObject([{ data: DATA }]);
  });

  it("that stay closed end the connection once nobody answers the probes", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.window = 0;
    raw.send(TCP_ACK);
    raw.peer.wait(3_600_000); // long idle must not count as silence
    raw.peer.take();
    raw.events.length = 0;
    const fresh = new RawConnection(raw.peer, 4001).open();
    fresh.window = 0;
    fresh.send(TCP_ACK);
    fresh.connection.write(raw.peer.nowMs, DATA);
    raw.peer.wait(100_000);
    expect(fresh.events).toEqual([]);
    raw.peer.wait(200_000);
    expect(fresh.events).toEqual(["closed: timeout"]);
  });

  it("never shrink below what was promised", () => {
    const raw = new RawConnection(new RawPeer({ buffers: { receiveBytes: 10_000 } })).open();
    raw.reads = false;
    let edge = 0;
    for (let i = 0; i < 12; i++) {
      for (const sent of raw.sendData(pattern(997))) {
        expect(sent.acknowledgment + sent.window).toBeGreaterThanOrEqual(edge);
        edge = sent.acknowledgment + sent.window;
      }
    }
    expect(raw.connection.readableBytes).toBe(10_000);
  });

  it("that are full, their first segment lost, still let acknowledgments in from behind their last", () => {
    const raw = new RawConnection(new RawPeer({ buffers: { receiveBytes: 5_000 } })).open();
    raw.connection.write(raw.peer.nowMs, DATA);
    const [sent] = raw.peer.take();
    for (const at of [1_000, 2_000, 3_000, 4_000]) {
      raw.send(TCP_ACK, { sequence: raw.sequence + at, data: pattern(1_000) });
    }
    // The remote end may send no more: what it says it says with the sequence number behind all that.
    const acknowledgment = sent!.sequence + DATA.length;
    expect(raw.send(TCP_ACK, { sequence: raw.sequence + 5_000, acknowledgment })).toEqual([]);
    raw.peer.wait(10_000);
    expect(raw.peer.take()).toEqual([]); // nothing of ours is outstanding any more
    expect(raw.send(TCP_ACK, { sequence: raw.sequence + 5_001, acknowledgment })).toHaveLength(1);
  });

  it.each([
    ["closed", 0, 0],
    ["smaller", 300, 300],
    ["but by the rounding of its scale", 999, 999],
  ])("that the remote end draws back, %s, with data on its way: acknowledgments stay within", (_, window, at) => {
    const raw = new RawConnection(new RawPeer()).open(Uint8Array.of(2, 4, 5, 100, 1, 3, 3, 2)); // of units of 4 bytes
    raw.connection.write(raw.peer.nowMs, pattern(999));
    const [sent] = raw.peer.take();
    expect(sent!.data).toHaveLength(999);
    raw.window = window >> 2;
    raw.acknowledgment = sent!.sequence; // Linux, short of memory: takes nothing, and takes its window back
    const answers = [...raw.sendData(pattern(1_000)), ...raw.sendData(pattern(1_000))];
    expect(answers.map(({ sequence }) => sequence - sent!.sequence)).toEqual([at]);
  });

  it("that are closed and refuse a probe: acknowledgments stay before it", () => {
    const raw = new RawConnection(new RawPeer()).open(Uint8Array.of(2, 4, 5, 100, 1, 3, 3, 2));
    raw.window = 0;
    raw.send(TCP_ACK);
    raw.connection.write(raw.peer.nowMs, DATA);
    raw.peer.wait(1_500);
    expect(raw.peer.take()[0]).toMatchObject({ sequence: raw.acknowledgment, data: DATA.subarray(0, 1) });
    const answers = [...raw.sendData(pattern(1_000)), ...raw.sendData(pattern(1_000))];
    expect(answers.map(({ sequence }) => sequence)).toEqual([raw.acknowledgment]);
  });

  it("are not opened by crumbs (silly window)", () => {
    const raw = new RawConnection(new RawPeer({ buffers: { receiveBytes: 10_000 } })).open();
    raw.reads = false;
    for (let i = 0; i < 10; i++) raw.sendData(pattern(1_000));
    raw.peer.wait(100);
    raw.peer.take();
    for (let i = 0; i < 20; i++) raw.connection.read(raw.peer.nowMs, 100);
    expect(raw.peer.take()).toEqual([]);
    while (raw.connection.readableBytes > 7_000) raw.connection.read(raw.peer.nowMs, 1_000);
    expect(raw.peer.take()).toMatchObject([{ flags: TCP_ACK, window: 10_000 - raw.connection.readableBytes }]);
  });

  it("too small for a segment get no crumbs from us either", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, pattern(30_000));
    raw.window = 500; // of the 65,535 offered before
    const sent = raw.peer.take();
    expect(raw.acknowledge(sent).map((one) => one.data.length)).toEqual([]);
    raw.peer.wait(2_000);
    expect(raw.peer.take()[0]!.data.length).toBe(500); // the override timer of RFC 9293 §3.8.6.2.1 (4)
  });
});

describe("closing", () => {
  it("one direction leaves the other open", () => {
    const world = new VirtualLink();
    const { client, server } = connectPair(world);
    pour(world, client, DATA);
    world.runUntil(() => server.events.includes("ended"));
    world.run(10_000);
    expect(client.events).toEqual(["connected"]);
    const data = pattern(300_000);
    pour(world, server, data);
    world.runUntil(() => client.events.length === 3);
    expectSame(client.received, data);
    world.run(100);
    expect(server.events).toEqual(["ended", "closed: closed"]);
  });

  it("by both ends at once ends both in order", () => {
    const world = new VirtualLink();
    const { client, server } = connectPair(world);
    client.connection!.end(world.nowMs);
    server.connection!.end(world.nowMs);
    world.run(1_000);
    expect(client.events).toEqual(["connected", "ended", "closed: closed"]);
    expect(server.events).toEqual(["ended", "closed: closed"]);
    expect(world.a.stack.counters["TCP_TIME_WAIT"]).toBe(1);
    world.run(TCP_TIME_WAIT_MS);
    expect(world.a.stack.counters["TCP_CONNECTIONS"]).toBe(0);
  });

  it("keeps unread bytes readable until they were read, then says closed", () => {
    const world = new VirtualLink();
    const { client, server } = connectPair(world);
    server.reads = false;
    pour(world, client, DATA);
    server.connection!.end(world.nowMs);
    world.run(TCP_TIME_WAIT_MS * 2);
    expect(server.events).toEqual([]);
    server.drain();
    expectSame(server.received, DATA);
    expect(server.events).toEqual(["closed: closed", "ended"]);
    expect(world.b.stack.counters["TCP_RECEIVE_HELD_BYTES"]).toBe(0);
  });

  it("by abort resets the other end at once", () => {
    const world = new VirtualLink();
    const { client, server } = connectPair(world);
    pour(world, client, DATA, false);
    world.run(100);
    client.connection!.abort(world.nowMs);
    expect(client.connection!.write(world.nowMs, DATA)).toBe(0);
    expect(client.connection!.read(world.nowMs, 10)).toBe(undefined);
    world.run(100);
    expect(client.events.at(-1)).toBe("closed: aborted");
    expect(server.events).toEqual(["closed: reset"]);
    expect(world.a.stack.counters["TCP_CONNECTIONS"]).toBe(0);
    expect(world.b.stack.counters["TCP_CONNECTIONS"]).toBe(0);
  });

  it("keeps TIME-WAIT through a forged reset, answers the FIN again, and lets a new SYN begin anew", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.end(raw.peer.nowMs);
    const fin = raw.peer.take();
    expect(raw.acknowledge(fin)).toEqual([]); // one FIN is enough
    expect(raw.send(TCP_ACK | TCP_FIN)).toMatchObject([{ flags: TCP_ACK, acknowledgment: raw.sequence + 1 }]);
    expect(raw.peer.counter("TCP_TIME_WAIT")).toBe(1);
    raw.peer.wait(30_000);
    expect(raw.peer.take()).toEqual([]);
    raw.send(TCP_RST, { sequence: raw.sequence + 1 }); // RFC 1337
    expect(raw.peer.counter("TCP_TIME_WAIT")).toBe(1);
    expect(raw.send(TCP_ACK | TCP_FIN)).toMatchObject([{ flags: TCP_ACK, acknowledgment: raw.sequence + 1 }]);
    expect(raw.send(TCP_SYN, { sequence: raw.sequence - 50 })[0]?.flags).toBe(TCP_ACK);
    expect(raw.send(TCP_SYN, { sequence: raw.sequence + 500 })[0]?.flags).toBe(TCP_SYN | TCP_ACK);
    expect(raw.peer.counter("TCP_TIME_WAIT")).toBe(0);
  });

  it("notices by keepalive that the other end has vanished", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.peer.wait(TCP_KEEPALIVE_IDLE_MS);
    expect(raw.peer.take()).toMatchObject([{ flags: TCP_ACK, sequence: raw.acknowledgment - 1 }]);
    raw.send(TCP_ACK);
    raw.peer.wait(TCP_KEEPALIVE_IDLE_MS - 1);
    expect(raw.peer.take()).toEqual([]);
    raw.peer.wait(900_000);
    expect(raw.events).toEqual(["closed: timeout"]);
  });
});
