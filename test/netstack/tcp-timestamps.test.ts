// Timestamps: RFC 7323 §3 to §5, and losses that they show to have been none (RFC 3522, 4015).
import { describe, expect, it } from "vitest";
import { DAY_MS } from "../../src/base/units.ts";
import { Timestamps } from "../../src/netstack/tcp/timestamps.ts";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from "../../src/wire/packet.ts";
import { RawConnection, RawPeer, type Sent, sackOption } from "./raw-peer.ts";
import { pattern } from "./virtual-link.ts";

const OPTIONS = Uint8Array.of(2, 4, 3, 232, 4, 2, 1, 1, 1, 3, 3, 7);
const RTT_MS = 50;

function open(value = 1_000, options = OPTIONS): RawConnection {
  const raw = new RawConnection(new RawPeer());
  raw.timestamps = { value, echo: 0 };
  raw.rttMs = RTT_MS;
  return raw.open(options);
}

/** Data `ahead` of what is expected next, with this TSval. */
function data(raw: RawConnection, value: number, bytes: number, ahead = 0): Sent[] {
  raw.timestamps = { value, echo: raw.timestamps!.echo };
  return raw.send(TCP_ACK, { sequence: raw.sequence + ahead, data: pattern(bytes) });
}

describe("timestamps (RFC 7323)", () => {
  it("are in every segment once both SYNs had them, and take 12 bytes of each segment's data (RFC 6691)", () => {
    const raw = open();
    raw.connection.write(raw.peer.nowMs, pattern(5_000));
    const sent = raw.peer.take();
    expect(sent.map((one) => one.data.length)).toEqual([988, 988, 988, 988, 988, 60]);
    raw.connection.abort(raw.peer.nowMs);
    for (const one of [...sent, ...raw.peer.take()]) {
      expect(one.options).toMatchObject({ hasTimestamps: true, timestampEcho: 1_000 });
    }
  });

  it("are in no segment where the other end's SYN had none", () => {
    const raw = new RawConnection(new RawPeer()).open();
    raw.connection.write(raw.peer.nowMs, pattern(2_000));
    for (const one of raw.peer.take()) expect(one.options.hasTimestamps).toBe(false);
    expect(raw.send(TCP_ACK, { data: pattern(10) }).length).toBe(0); // delayed, and so taken
    expect(raw.received).toHaveLength(10);
  });

  it("count milliseconds from a start that no two connections share (§7.1)", () => {
    const peer = new RawPeer();
    const values = [4_000, 4_001].map((port) => {
      const raw = new RawConnection(peer, port);
      raw.timestamps = { value: 1, echo: 0 };
      raw.open();
      raw.connection.write(peer.nowMs, pattern(1));
      const first = peer.take().at(-1)!.options.timestamp;
      peer.wait(10);
      raw.connection.write(peer.nowMs, pattern(1));
      expect((peer.take().at(-1)!.options.timestamp - first) >>> 0).toBe(10);
      return first;
    });
    expect(values[0]).not.toBe(values[1]);
  });

  it("echo that of the segment which an acknowledgment is owed for, not of later ones or early ones (§4.3)", () => {
    const raw = open();
    expect(data(raw, 1_005, 100)).toHaveLength(1); // reading opens the window beyond what a SYN can say
    raw.sequence += 100;
    expect(data(raw, 1_010, 1_000)).toEqual([]);
    raw.sequence += 1_000;
    expect(data(raw, 1_020, 1_000)).toMatchObject([{ options: { timestampEcho: 1_010 } }]);
    raw.sequence += 1_000;
    expect(data(raw, 1_040, 100, 500)).toMatchObject([{ options: { timestampEcho: 1_010 } }]); // behind a gap
    expect(data(raw, 1_050, 500)).toMatchObject([{ options: { timestampEcho: 1_050 } }]); // fills it
  });

  it("drop what is older than what came last, and answer it a few times a second (§5.3)", () => {
    const raw = open();
    data(raw, 2_000, 100);
    raw.sequence += 100;
    expect(data(raw, 1_999, 100)).toMatchObject([{ flags: TCP_ACK, acknowledgment: raw.sequence }]);
    expect(raw.received).toHaveLength(100);
    for (let n = 0; n < 100; n++) data(raw, 1_999, 100);
    expect(raw.peer.counter("TCP_OLD_TIMESTAMP")).toBe(101);
    expect(raw.peer.counter("TCP_CHALLENGE_ACKS")).toBe(10);
    data(raw, 2_000, 100); // the same is not older
    expect(raw.received).toHaveLength(200);
  });

  it("say nothing about a reset (§5.2), and an old acknowledgment alone is dropped in silence", () => {
    const raw = open();
    data(raw, 2_000, 100);
    raw.sequence += 100;
    raw.peer.wait(100);
    raw.peer.take();
    raw.timestamps = { value: 1_000, echo: 0 };
    expect(raw.send(TCP_ACK)).toEqual([]);
    raw.timestamps = undefined;
    raw.send(TCP_RST);
    expect(raw.events).toEqual(["closed: reset"]);
  });

  it("drop what has none once they were agreed on (§3.2), by name", () => {
    const raw = open();
    raw.timestamps = undefined;
    expect(raw.send(TCP_ACK, { data: pattern(100) })).toEqual([]);
    expect(raw.send(TCP_ACK | TCP_FIN)).toEqual([]);
    expect([raw.received.length, raw.events]).toEqual([0, []]);
    expect(raw.peer.counter("TCP_WITHOUT_TIMESTAMP")).toBe(2);
  });

  it("are not moved on by a segment whose acknowledgment is a guess, or that lies behind a gap", () => {
    const raw = open();
    raw.timestamps = { value: 0x7000_0000, echo: 0 };
    raw.send(TCP_ACK, { acknowledgment: raw.acknowledgment + 1_000_000, data: pattern(10) });
    raw.send(TCP_ACK, { sequence: raw.sequence + 1_000, data: pattern(10) });
    raw.send(TCP_SYN);
    data(raw, 1_001, 100);
    expect(raw.received).toHaveLength(100);
    expect(raw.peer.counter("TCP_OLD_TIMESTAMP")).toBe(0);
  });

  it("say nothing any more after 24 days of silence (§5.5), and wrap", () => {
    const timestamps = new Timestamps(0xffff_fff0);
    timestamps.begin(0, 0xffff_ff00);
    expect(timestamps.isOld(1, 0xffff_fe00)).toBe(true);
    expect(timestamps.isOld(1, 5)).toBe(false);
    expect(timestamps.isOld(24 * DAY_MS, 0xffff_fe00)).toBe(false);
    expect(timestamps.value(0x20)).toBe(0x10);
    expect(timestamps.elapsedMs(0x20, 0xffff_fff0)).toBe(0x20);
    expect(timestamps.elapsedMs(0x20, 0x11)).toBe(-1);
  });
});

describe("a loss that was none (RFC 3522, 4015)", () => {
  /** Ten segments are out for one round trip; returns TSval of theirs. */
  function flight(): { raw: RawConnection; at: (number: number) => number; value: number } {
    const raw = open();
    const first = raw.acknowledgment;
    raw.connection.write(raw.peer.nowMs, pattern(100_000));
    const sent = raw.peer.take();
    expect(sent).toHaveLength(10);
    raw.peer.wait(RTT_MS);
    return { raw, at: (number) => (first + 988 * number) >>> 0, value: sent[0]!.options.timestamp };
  }

  function acknowledge(raw: RawConnection, acknowledgment: number, echo: number, ...edges: number[]): Sent[] {
    raw.timestamps = { value: raw.timestamps!.value + 1, echo };
    return raw.send(TCP_ACK, { acknowledgment, ...(edges.length > 0 ? { options: sackOption(...edges) } : {}) });
  }

  it("told by a timeout: nothing else goes again, and the window is as before", () => {
    const windows = [true, false].map((isLate) => {
      const { raw, at, value } = flight();
      raw.peer.wait(2_000); // a probe, then the timer
      const again = raw.peer.take().at(-1)!;
      expect((again.sequence - at(0)) | 0).toBe(0);
      const sent = acknowledge(raw, at(2), isLate ? value : again.options.timestamp);
      return sent.filter((one) => one.data.length > 0).map((one) => ((one.sequence - at(0)) | 0) / 988);
    });
    expect(Math.min(...windows[0]!)).toBeGreaterThanOrEqual(10); // new data only
    expect(windows[1]!.slice(0, 2)).toEqual([2, 3]);
  });

  it("told by three that overtook it: the window is as before, and next time there is more patience", () => {
    const { raw, at, value } = flight();
    expect(acknowledge(raw, at(0), value, at(1), at(4)).map((one) => one.sequence)).toContain(at(0));
    const sent = acknowledge(raw, at(5), value);
    expect(sent.length).toBeGreaterThanOrEqual(5);
    expect(raw.peer.counter("TCP_RETRANSMISSIONS")).toBe(1);
    acknowledge(raw, at(5), value, at(6), at(9));
    expect(raw.peer.counter("TCP_RETRANSMISSIONS")).toBe(1); // it waits now
  });
});
