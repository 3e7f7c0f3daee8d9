import { describe, expect, it } from "vitest";
import {
  TCP_ACCEPT_MAX_MS,
  TCP_BACKLOG_MAX,
  TCP_BACKLOG_PER_REMOTE_MAX,
  TCP_CONNECTIONS_MAX,
  TCP_CONNECTIONS_PER_REMOTE_MAX,
  TCP_OPENING_MAX_MS,
  TCP_OUT_OF_ORDER_RANGES_MAX,
  TCP_OUT_OF_ORDER_SEGMENTS_MAX,
  TCP_TIME_WAIT_MAX,
} from "../../src/base/limits.ts";
import type { TcpOpening } from "../../src/netstack/contract.ts";
import { EARLY_PIECE_OVERHEAD_BYTES } from "../../src/netstack/tcp/early-ranges.ts";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { ip, tcp } from "../wire/packets.ts";
import { LOCAL, RawConnection, RawPeer, REMOTE, type Sent } from "./raw-peer.ts";
import { pattern } from "./virtual-link.ts";

const DATA = pattern(100);
const PORT80 = { address: ip(LOCAL), port: 80 };

function syn(remote: string, sourcePort: number, sequence = 9): Uint8Array {
  return tcp(remote, LOCAL, { sourcePort, destinationPort: 80, sequence, flags: TCP_SYN });
}

describe("a blind attacker (RFC 5961)", () => {
  it("cuts nothing with a reset inside the window: it must be exact", () => {
    const raw = new RawConnection(new RawPeer()).open();
    const challenge = raw.send(TCP_RST, { sequence: raw.sequence + 1 });
    expect(challenge).toMatchObject([{ flags: TCP_ACK, acknowledgment: raw.sequence }]);
    raw.send(TCP_RST, { sequence: raw.sequence - 1 });
    raw.send(TCP_RST, { sequence: raw.sequence + 10_000_000 });
    expect(raw.events).toEqual([]);
    raw.send(TCP_RST);
    expect(raw.events).toEqual(["closed: reset"]);
  });

  it("cuts nothing with a SYN, wherever it falls", () => {
    const raw = new RawConnection(new RawPeer()).open();
    for (const ahead of [0, 5, -5, 1_000_000_000]) {
      expect(raw.send(TCP_SYN, { sequence: (raw.sequence + ahead) >>> 0 })).toMatchObject([{ flags: TCP_ACK }]);
    }
    expect(raw.events).toEqual([]);
    raw.sendData(DATA);
    expect(raw.received).toEqual([...DATA]);
  });

  it("puts in no data with an acknowledgment that isn't near what was sent", () => {
    const raw = new RawConnection(new RawPeer()).open();
    for (const away of [1, 100_000, -70_000, 2 ** 31]) {
      const acknowledgment = (raw.acknowledgment + away) >>> 0;
      expect(raw.send(TCP_ACK, { data: DATA, acknowledgment })).toMatchObject([
        { flags: TCP_ACK, data: new Uint8Array(0) },
      ]);
    }
    expect(raw.send(TCP_FIN, { data: DATA })).toEqual([]); // and none without one
    expect(raw.received).toEqual([]);
  });

  it("acknowledges nothing with a segment outside the window", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, DATA);
    const [sent] = raw.peer.take();
    const acknowledgment = sent!.sequence + DATA.length;
    for (const away of [-1, 10_000_000, 2 ** 31]) {
      raw.send(TCP_ACK, { sequence: (raw.sequence + away) >>> 0, acknowledgment });
    }
    raw.peer.wait(2_000);
    expect(raw.peer.take()[0]).toMatchObject({ sequence: sent!.sequence, data: DATA });
  });

  it("gets no flood of challenge acknowledgments, and other connections none of its share", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer, 4000).open();
    const other = new RawConnection(peer, 4001).open();
    let answers = 0;
    for (let i = 0; i < 100; i++) answers += raw.send(TCP_RST, { sequence: raw.sequence + 1 }).length;
    expect(answers).toBe(10);
    expect(other.send(TCP_RST, { sequence: other.sequence + 1 })).toHaveLength(1);
    peer.nowMs += 1_000;
    expect(raw.send(TCP_RST, { sequence: raw.sequence + 1 })).toHaveLength(1);
  });

  it("rewrites no byte that has come already, in order or early", () => {
    const raw = new RawConnection(new RawPeer()).open();
    const start = raw.sequence;
    raw.send(TCP_ACK, { sequence: start + 10, data: new Uint8Array(10).fill(1) });
    raw.send(TCP_ACK, { sequence: start + 5, data: new Uint8Array(20).fill(2) });
    raw.send(TCP_ACK, { sequence: start, data: new Uint8Array(12).fill(3) });
    raw.send(TCP_ACK, { sequence: start, data: new Uint8Array(12).fill(4) });
    expect(raw.received).toEqual([
      ...new Array(5).fill(3),
      ...new Array(5).fill(2),
      ...new Array(10).fill(1),
      ...new Array(5).fill(2),
    ]);
  });

  it("moves no end of stream once a FIN has named it", () => {
    const raw = new RawConnection(new RawPeer()).open();
    const start = raw.sequence;
    raw.send(TCP_ACK | TCP_FIN, { sequence: start + 100, data: new Uint8Array(0) });
    raw.send(TCP_ACK | TCP_FIN, { sequence: start + 50, data: new Uint8Array(0) });
    raw.send(TCP_ACK, { sequence: start, data: pattern(150) });
    expect(raw.received).toEqual([...pattern(150).slice(0, 100)]);
    expect(raw.events).toEqual(["ended"]);
  });

  it("gets a reset for a segment to nobody, at the place it named, and none for a reset", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer);
    expect(raw.send(TCP_ACK, { acknowledgment: 77 })).toMatchObject([{ flags: TCP_RST, sequence: 77 }]);
    expect(raw.send(TCP_SYN)).toMatchObject([{ flags: TCP_RST | TCP_ACK, acknowledgment: raw.sequence + 1 }]);
    expect(raw.send(TCP_RST)).toEqual([]);
    const elsewhere = tcp(REMOTE, "10.9.9.9", { sourcePort: 1, destinationPort: 2, flags: TCP_SYN });
    peer.send(elsewhere);
    peer.send(tcp(LOCAL, LOCAL, { sourcePort: 80, destinationPort: 80, flags: TCP_SYN })); // "land"
    expect(peer.take()).toEqual([]);
    expect(peer.counter("NOT_OURS")).toBe(1);
    expect(peer.counter("BAD_SOURCE")).toBe(1);
  });

  it("gets nothing done with a wrong checksum", () => {
    const raw = new RawConnection(new RawPeer()).open();
    const bytes = raw.segment(TCP_RST);
    bytes[bytes.length - 1]! ^= 1;
    raw.peer.send(bytes);
    expect(raw.events).toEqual([]);
    expect(raw.peer.counter("TCP_BAD_CHECKSUM")).toBe(1);
  });
});

describe("limits", () => {
  it("a SYN flood from one address stops at its share, and another address still gets in", () => {
    const peer = new RawPeer();
    peer.stack.listenTcp(PORT80, () => undefined);
    for (let i = 0; i <= TCP_BACKLOG_PER_REMOTE_MAX; i++) peer.send(syn("10.8.0.1", 1000 + i));
    expect(peer.take()).toHaveLength(TCP_BACKLOG_PER_REMOTE_MAX);
    expect(peer.counter("TCP_BACKLOG_FULL")).toBe(1);
    peer.send(syn("10.8.0.2", 1000));
    expect(peer.take()).toHaveLength(1);
  });

  it("a SYN flood from everywhere stops at the backlog, and is forgotten", () => {
    const peer = new RawPeer();
    peer.stack.listenTcp(PORT80, () => undefined);
    for (let i = 0; i <= TCP_BACKLOG_MAX; i++) peer.send(syn(`10.8.${i >> 8}.${i & 255}`, 1000));
    expect(peer.counter("TCP_BACKLOG")).toBe(TCP_BACKLOG_MAX);
    expect(peer.counter("TCP_BACKLOG_FULL")).toBe(1);
    peer.wait(TCP_ACCEPT_MAX_MS + 60_000);
    expect(peer.stack.counters).toMatchObject({ TCP_BACKLOG: 0, TCP_CONNECTIONS: 0, DEADLINES: 0 });
  });

  it("openings that nobody decides on count as backlog, and go", () => {
    const peer = new RawPeer();
    let gone = 0;
    peer.handler.tcpOpening = (opening) => {
      opening.onGone = () => gone++;
    };
    for (let i = 0; i <= TCP_BACKLOG_MAX; i++) peer.send(syn(`10.8.${i >> 8}.${i & 255}`, 1000));
    expect(peer.take()).toEqual([]);
    expect(peer.counter("TCP_BACKLOG_FULL")).toBe(1);
    peer.wait(TCP_OPENING_MAX_MS);
    expect(gone).toBe(TCP_BACKLOG_MAX);
    expect(peer.stack.counters).toMatchObject({ TCP_BACKLOG: 0, TCP_CONNECTIONS: 0, DEADLINES: 0 });
  });

  it("one connection more than the table holds is not made, unless one in TIME-WAIT can go", () => {
    const peer = new RawPeer();
    const raw = new RawConnection(peer).open();
    raw.connection.end(peer.nowMs);
    raw.acknowledge(peer.take());
    raw.send(TCP_ACK | TCP_FIN);
    const connect = (i: number): boolean =>
      peer.stack.connectTcp(
        peer.nowMs,
        ip(LOCAL),
        { address: ip(`10.8.${(i >> 8) & 255}.${i & 255}`), port: 1 + (i >> 16) },
        raw.handler(),
      ) !== undefined;
    for (let i = 0; i < TCP_CONNECTIONS_MAX - 1; i++) if (!connect(i)) throw new Error(`full at ${i}`);
    expect(peer.counter("TCP_TIME_WAIT")).toBe(1);
    expect(connect(70_000)).toBe(true);
    expect(peer.stack.counters).toMatchObject({ TCP_TIME_WAIT: 0, TCP_TIME_WAIT_EVICTED: 1 });
    expect(connect(70_001)).toBe(false);
    expect(peer.counter("TCP_CONNECTIONS_FULL")).toBe(1);
    peer.stack.listenTcp(PORT80, () => undefined);
    peer.take();
    peer.send(syn(REMOTE, 5));
    expect(peer.take()).toEqual([]);
  });

  it("one address opens so many connections and no more, another still can, and what ends makes room", () => {
    const peer = new RawPeer();
    const first = new RawConnection(peer, 1).open();
    for (let i = 1; i < TCP_CONNECTIONS_PER_REMOTE_MAX; i++) new RawConnection(peer, 1 + i).open();
    expect(peer.counter("TCP_CONNECTIONS")).toBe(TCP_CONNECTIONS_PER_REMOTE_MAX);
    const oneMore = syn(REMOTE, 60_000);
    peer.send(oneMore);
    expect(peer.take()).toEqual([]);
    expect(peer.counter("TCP_CONNECTIONS_OF_REMOTE_FULL")).toBe(1);
    peer.send(syn("10.8.0.1", 60_000));
    expect(peer.take()).toMatchObject([{ flags: TCP_SYN | TCP_ACK }]);
    first.connection.end(peer.nowMs);
    first.acknowledge(peer.take());
    first.send(TCP_ACK | TCP_FIN);
    expect(peer.counter("TCP_TIME_WAIT")).toBe(1);
    peer.send(oneMore);
    expect(peer.take()).toMatchObject([{ flags: TCP_SYN | TCP_ACK }]);
    peer.send(syn(REMOTE, 60_001));
    expect(peer.take()).toEqual([]);
  });

  it("openings of one address count among its connections, accepted or not", () => {
    const peer = new RawPeer();
    const openings: TcpOpening[] = [];
    peer.handler.tcpOpening = (opening) => void openings.push(opening);
    for (let i = 0; i <= TCP_CONNECTIONS_PER_REMOTE_MAX; i++) {
      const raw = new RawConnection(peer, 1 + i);
      raw.send(TCP_SYN);
      if (openings.length <= i) break;
      raw.connection = openings[i]!.accept(peer.nowMs, raw.handler());
      const [synAck] = peer.take();
      raw.sequence++;
      raw.acknowledgment = (synAck!.sequence + 1) >>> 0;
      raw.send(TCP_ACK);
    }
    expect(openings).toHaveLength(TCP_CONNECTIONS_PER_REMOTE_MAX);
    expect(peer.stack.counters).toMatchObject({ TCP_CONNECTIONS_OF_REMOTE_FULL: 1, TCP_BACKLOG: 0 });
    for (const opening of openings) peer.stack.cutTcp(opening.local, opening.remote);
    peer.send(syn(REMOTE, 60_000));
    expect(openings).toHaveLength(TCP_CONNECTIONS_PER_REMOTE_MAX + 1);
  });

  it("TIME-WAIT holds so many and forgets the oldest", () => {
    const peer = new RawPeer();
    for (let i = 0; i <= TCP_TIME_WAIT_MAX; i++) {
      const raw = new RawConnection(peer, 1 + i).open();
      raw.connection.end(peer.nowMs);
      raw.acknowledge(peer.take());
      raw.send(TCP_ACK | TCP_FIN);
    }
    expect(peer.stack.counters).toMatchObject({ TCP_TIME_WAIT: TCP_TIME_WAIT_MAX, TCP_TIME_WAIT_EVICTED: 1 });
  });

  it.each([
    ["range", TCP_OUT_OF_ORDER_RANGES_MAX, 2],
    ["piece", TCP_OUT_OF_ORDER_SEGMENTS_MAX, 1],
  ])("early segments: one %s more than the list holds is dropped, and the stream still ends whole", (_, max, step) => {
    const raw = new RawConnection(new RawPeer()).open();
    const start = raw.sequence;
    const data = pattern(step * max + 3);
    for (let i = 0; i <= max; i++) {
      expect(raw.peer.counter("TCP_OUT_OF_ORDER_FULL")).toBe(0);
      raw.send(TCP_ACK, { sequence: start + 1 + step * i, data: data.slice(1 + step * i, 2 + step * i) });
    }
    expect(raw.peer.counter("TCP_OUT_OF_ORDER_FULL")).toBe(1);
    expect(raw.peer.counter("TCP_RECEIVE_HELD_BYTES")).toBe(max * (1 + EARLY_PIECE_OVERHEAD_BYTES));
    for (let at = 0; at < data.length; at += 1000) {
      raw.send(TCP_ACK, { sequence: start + at, data: data.slice(at, at + 1000) });
    }
    expect(raw.received).toEqual([...data]);
    expect(raw.peer.counter("TCP_RECEIVE_HELD_BYTES")).toBe(0);
  });
});

describe("an opening", () => {
  function offered(): { peer: RawPeer; raw: RawConnection; opening: TcpOpening } {
    const peer = new RawPeer();
    let opening: TcpOpening | undefined;
    peer.handler.tcpOpening = (offer) => {
      if (opening !== undefined) throw new Error("offered twice");
      opening = offer;
    };
    const raw = new RawConnection(peer);
    expect(raw.send(TCP_SYN, { options: Uint8Array.of(2, 4, 5, 0) })).toEqual([]);
    peer.nowMs += 1_000;
    expect(raw.send(TCP_SYN, { options: Uint8Array.of(2, 4, 5, 0) })).toEqual([]); // joins
    return { peer, raw, opening: opening! };
  }

  it("is answered with SYN-ACK once accepted, and then carries data", () => {
    const { peer, raw, opening } = offered();
    raw.connection = opening.accept(peer.nowMs, raw.handler());
    const [synAck] = peer.take();
    expect(synAck).toMatchObject({ flags: TCP_SYN | TCP_ACK, acknowledgment: raw.sequence + 1 });
    raw.connection.write(peer.nowMs, DATA); // kept until the handshake has ended
    expect(peer.take()).toEqual([]);
    raw.sequence++;
    raw.acknowledgment = synAck!.sequence + 1;
    expect(raw.send(TCP_ACK)).toMatchObject([{ data: DATA }]);
    raw.sendData(DATA);
    expect(raw.received).toEqual([...DATA]);
    expect(raw.events).toEqual([]);
    expect(peer.counter("TCP_BACKLOG")).toBe(0);
  });

  it("is answered with a reset once refused", () => {
    const { peer, raw, opening } = offered();
    opening.refuse(peer.nowMs);
    const reset = { flags: TCP_RST | TCP_ACK, acknowledgment: raw.sequence + 1 };
    expect(peer.take()).toMatchObject([reset]);
    opening.refuse(peer.nowMs);
    expect(peer.take()).toEqual([]);
    expect(peer.stack.counters).toMatchObject({ TCP_BACKLOG: 0, TCP_CONNECTIONS: 0, DEADLINES: 0 });
  });

  it.each([
    ["host", 1],
    ["prohibited", 13],
  ] as const)("is answered with ICMP unreachable, code %s", (code, number) => {
    const { peer, opening } = offered();
    opening.unreachable(peer.nowMs, code);
    const [error] = peer.take() as [Sent];
    expect(error.info).toMatchObject({ protocol: 1, icmpType: 3, icmpCode: number });
    expect(error.info.innerOffset).toBe(28);
    expect(peer.counter("TCP_BACKLOG")).toBe(0);
  });

  it("is gone when its sender resets, and a late accept ends at once", () => {
    const { peer, raw, opening } = offered();
    let gone = 0;
    opening.onGone = () => gone++;
    raw.send(TCP_RST, { sequence: raw.sequence + 7 }); // a guess
    expect(gone).toBe(0);
    raw.send(TCP_RST, { sequence: raw.sequence + 1 });
    expect(gone).toBe(1);
    opening.accept(peer.nowMs, raw.handler());
    expect(peer.take()).toEqual([]);
    expect(raw.events).toEqual(["closed: aborted"]);
    expect(peer.counter("TCP_CONNECTIONS")).toBe(0);
  });
});
