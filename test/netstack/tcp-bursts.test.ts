import { describe, expect, it } from "vitest";
import { TCP_ACK, TCP_FIN } from "../../src/wire/packet.ts";
import { RawConnection, RawPeer } from "./raw-peer.ts";

const SEGMENT = new Uint8Array(1_000).fill(7);

function open(): { peer: RawPeer; remote: RawConnection; settle(): ReturnType<RawPeer["take"]> } {
  const peer = new RawPeer({ isSettled: true });
  const remote = new RawConnection(peer).open();
  const settle = () => {
    peer.stack.settle(peer.nowMs);
    return peer.take();
  };
  settle();
  remote.sendData(SEGMENT); // from here on the largest segment is known
  remote.sendData(SEGMENT);
  settle();
  return { peer, remote, settle };
}

describe("a burst of segments in a stack that is told when a turn ends", () => {
  it("is acknowledged once, at its end, and its reader called once", () => {
    const { remote, settle } = open();
    let called = 0;
    remote.connection.handler = { ...remote.handler(), readable: () => called++ };
    for (let i = 0; i < 7; i++) expect(remote.sendData(SEGMENT)).toEqual([]);
    expect(called).toBe(0);
    const sent = settle();
    expect(sent.map(({ acknowledgment, data }) => [acknowledgment, data.length])).toEqual([[remote.sequence, 0]]);
    expect(called).toBe(1);
    expect(settle()).toEqual([]);
  });

  it("is acknowledged at every eighth segment as well: a sender's window grows by what it is told", () => {
    const { remote, settle } = open();
    for (let i = 0; i < 7; i++) expect(remote.sendData(SEGMENT)).toEqual([]);
    expect(remote.sendData(SEGMENT).map(({ acknowledgment }) => acknowledgment)).toEqual([remote.sequence]);
    expect(remote.sendData(SEGMENT)).toEqual([]);
    expect(settle()).toEqual([]); // one segment alone: its acknowledgment is delayed, as ever
  });

  it("holds no acknowledgment back that the sender needs to see: of each segment behind a gap, and of the end", () => {
    const { remote, settle } = open();
    const gap = remote.sequence;
    remote.sequence += SEGMENT.length;
    for (let i = 0; i < 3; i++) {
      expect(remote.sendData(SEGMENT).map(({ acknowledgment }) => acknowledgment)).toEqual([gap]);
    }
    const [filled] = remote.send(TCP_ACK, { data: SEGMENT, sequence: gap });
    expect(filled!.acknowledgment).toBe(remote.sequence);
    const [ended] = remote.send(TCP_ACK | TCP_FIN, { data: SEGMENT });
    expect(ended!.acknowledgment).toBe(remote.sequence + SEGMENT.length + 1);
    expect(settle()).toEqual([]);
  });

  it.each([true, false])("is read in order by who does not wait for its end; told of it, it reads: %s", (reads) => {
    const { peer, remote, settle } = open();
    remote.received = [];
    remote.reads = reads;
    remote.sendData(Uint8Array.of(1, 2, 3));
    remote.received.push(...(remote.connection.read(peer.nowMs, 2) ?? []));
    remote.sendData(Uint8Array.of(4));
    settle();
    while (remote.connection.readableBytes > 0) remote.received.push(...remote.connection.read(peer.nowMs, 2)!);
    expect(remote.received).toEqual([1, 2, 3, 4]);
  });

  it("leaves nothing behind of a connection that is cut before the turn ends", () => {
    const { peer, remote, settle } = open();
    remote.sendData(SEGMENT);
    remote.sendData(SEGMENT);
    expect(peer.stack.cutTcp(remote.connection.local, remote.connection.remote)).toBe(true);
    expect(settle()).toEqual([]);
    expect(remote.events).toEqual(["closed: prohibited"]);
    expect(peer.stack.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
  });
});

it("a stack that nobody tells of a turn's end puts nothing off", () => {
  const remote = new RawConnection(new RawPeer()).open();
  for (let i = 0; i < 4; i++) remote.sendData(SEGMENT);
  expect(remote.sendData(SEGMENT)).toEqual([]);
  expect(remote.sendData(SEGMENT).map(({ acknowledgment }) => acknowledgment)).toEqual([remote.sequence]);
});
