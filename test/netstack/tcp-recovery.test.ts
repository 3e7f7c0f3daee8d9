// The sending half against a hand-made remote end: what goes again, when, and how much.
import { describe, expect, it } from "vitest";
import { TCP_SEGMENTS_OUTSTANDING_MAX } from "../../src/base/limits.ts";
import { SeededRandom } from "../../src/base/random.ts";
import type { UserspaceStackOptions } from "../../src/netstack/stack.ts";
import { TCP_ACK, TCP_FIN } from "../../src/wire/packet.ts";
import { RawConnection, RawPeer, type Sent, sackOption } from "./raw-peer.ts";
import { pattern } from "./virtual-link.ts";

/** MSS 1,000, SACK permitted, window scale 7. */
const OPTIONS = Uint8Array.of(2, 4, 3, 232, 4, 2, 1, 1, 1, 3, 3, 7);
const PLAIN = Uint8Array.of(2, 4, 3, 232);
const RTT_MS = 50;

/** Writes so much and numbers what comes out: segment n is the bytes from 1,000·n on. */
class Flow {
  readonly raw: RawConnection;
  readonly first: number;
  data: Uint8Array;
  #written = 0;

  constructor(
    bytes: number,
    options = OPTIONS,
    timestamps?: { value: number; echo: number },
    stack: Partial<UserspaceStackOptions> = {},
  ) {
    this.raw = new RawConnection(new RawPeer(stack));
    this.raw.timestamps = timestamps;
    this.raw.rttMs = RTT_MS;
    this.raw.open(options);
    this.first = this.raw.acknowledgment;
    this.data = pattern(bytes);
    this.write();
  }

  more(bytes: number): void {
    this.data = pattern(this.data.length + bytes);
    this.write();
  }

  write(): void {
    this.#written += this.raw.connection.write(this.raw.peer.nowMs, this.data.subarray(this.#written));
  }

  at(number: number): number {
    return (this.first + 1_000 * number) >>> 0;
  }

  numbers(sent: readonly Sent[]): number[] {
    for (const { sequence, data } of sent) {
      const from = (sequence - this.first) | 0;
      expect(Buffer.compare(data, this.data.subarray(from, from + data.length))).toBe(0);
    }
    return sent.filter(({ data }) => data.length > 0).map(({ sequence }) => ((sequence - this.first) | 0) / 1_000);
  }

  take(): number[] {
    return this.numbers(this.raw.peer.take());
  }

  /** Acknowledges all before segment `number`, and names whole segments. */
  acknowledge(number: number, ...named: [from: number, until: number][]): number[] {
    const edges = named.flatMap(([from, until]) => [this.at(from), this.at(until)]);
    const options = edges.length === 0 ? {} : { options: sackOption(...edges) };
    return this.numbers(this.raw.send(TCP_ACK, { acknowledgment: this.at(number), ...options }));
  }

  wait(ms: number): number[] {
    this.raw.peer.wait(ms);
    return this.take();
  }
}

describe("lost segments, with SACK", () => {
  it("go again as soon as three behind them have arrived, and not twice", () => {
    const flow = new Flow(20_000);
    expect(flow.take()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    flow.wait(RTT_MS);
    flow.raw.peer.take();
    expect(flow.acknowledge(0, [1, 2])).toEqual([10]); // what has left lets new data go
    expect(flow.acknowledge(0, [1, 3])).toEqual([11]);
    expect(flow.acknowledge(0, [1, 4])).toEqual([0]);
    expect(flow.acknowledge(0, [1, 5]).includes(0)).toBe(false);
    expect(flow.raw.peer.counter("TCP_RETRANSMISSIONS")).toBe(1);
  });

  it("go again when one was lost again, told by time", () => {
    const flow = new Flow(20_000);
    flow.take();
    flow.wait(RTT_MS);
    flow.acknowledge(0, [1, 4]); // 0 again
    flow.wait(RTT_MS);
    flow.acknowledge(0, [1, 8]);
    flow.wait(RTT_MS);
    // What was sent behind the second copy has arrived a round trip later.
    expect(flow.acknowledge(0, [1, 11])).toContain(0);
  });

  it("are found behind a gap that is being filled: one recovery, each hole once", () => {
    const flow = new Flow(30_000);
    flow.take();
    flow.wait(RTT_MS);
    const again = flow.acknowledge(0, [1, 3], [4, 7], [8, 10]);
    flow.wait(RTT_MS);
    again.push(...flow.acknowledge(3, [4, 7], [8, 10]), ...flow.acknowledge(7, [8, 10]), ...flow.acknowledge(10));
    expect(again.filter((number) => number < 10).sort()).toEqual([0, 3, 7]);
  });

  it("wait a quarter of a round trip where fewer than three say so", () => {
    const flow = new Flow(2_000);
    flow.take();
    flow.wait(RTT_MS);
    expect(flow.acknowledge(0, [1, 2])).toEqual([]);
    expect(flow.wait(RTT_MS / 4 - 2)).toEqual([]);
    expect(flow.wait(4)).toEqual([0]);
  });

  it("halve nothing while the window isn't told of a loss: reordering within the patience is none", () => {
    const flow = new Flow(20_000);
    flow.take();
    flow.wait(RTT_MS);
    flow.acknowledge(0, [1, 3]);
    flow.wait(5);
    expect(flow.acknowledge(3).length).toBeGreaterThan(0);
    expect(flow.raw.peer.counter("TCP_RETRANSMISSIONS")).toBe(0);
  });
});

describe("lost tails (RFC 8985 §7)", () => {
  it("are probed after two round trips by the last segment, before the timer", () => {
    const flow = new Flow(3_000);
    flow.take();
    flow.wait(RTT_MS);
    flow.acknowledge(1);
    expect(flow.wait(2 * RTT_MS)).toEqual([]);
    expect(flow.wait(20)).toEqual([2]);
    // The probe has arrived, the segment before it not: RACK finds that one.
    flow.wait(RTT_MS);
    expect([...flow.acknowledge(1, [2, 3]), ...flow.wait(RTT_MS)]).toEqual([1]);
  });

  it("are probed by new data where there is some, once, and then left to the timer", () => {
    const flow = new Flow(12_000);
    flow.take();
    flow.wait(RTT_MS);
    flow.acknowledge(1);
    expect(flow.wait(4 * RTT_MS)).toHaveLength(1);
  });

  it("cost the window when the probe mended them, nothing when the segment had arrived", () => {
    const released = [false, true].map((isDuplicate) => {
      const flow = new Flow(10_000);
      flow.take();
      flow.wait(RTT_MS);
      flow.acknowledge(9);
      expect(flow.wait(400)).toEqual([9]);
      flow.more(30_000);
      flow.take();
      flow.wait(RTT_MS);
      if (isDuplicate) flow.acknowledge(10, [9, 10]);
      else flow.acknowledge(10);
      return flow.acknowledge(11).length;
    });
    expect(released).toEqual([0, 2]);
  });
});

describe("a timeout", () => {
  it("sends the first segment, then as slow start lets", () => {
    const flow = new Flow(10_000, PLAIN);
    flow.take();
    flow.wait(RTT_MS);
    flow.acknowledge(2);
    flow.take();
    expect(flow.wait(400)).toEqual([2]);
    flow.wait(RTT_MS);
    expect(flow.acknowledge(3)).toEqual([3, 4]);
    flow.wait(RTT_MS);
    expect(flow.acknowledge(5)).toEqual([5, 6, 7, 8]);
  });

  it("believes no selective acknowledgment any more when the other end took it back (RFC 2018 §8)", () => {
    const flow = new Flow(10_000);
    flow.take();
    flow.wait(RTT_MS);
    expect(flow.acknowledge(0, [1, 10])).toEqual([0]);
    flow.wait(RTT_MS);
    expect(flow.acknowledge(1)).toEqual([]); // it has nothing of the nine that it had named
    const again: number[] = [];
    for (let number = 1; number < 10; ) {
      again.push(...flow.wait(2_000));
      number = Math.max(number, again.at(-1)! + 1);
      again.push(...flow.acknowledge(number));
    }
    expect([...new Set(again)].sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

describe("without SACK (RFC 6582)", () => {
  it("three duplicates send the first segment, each partial acknowledgment the next, once", () => {
    const flow = new Flow(30_000, PLAIN);
    flow.take();
    flow.wait(RTT_MS);
    expect(flow.acknowledge(0)).toEqual([10]); // RFC 3042: limited transmit
    expect(flow.acknowledge(0)).toEqual([11]);
    expect(flow.acknowledge(0)).toEqual([0]);
    for (let n = 0; n < 5; n++) flow.acknowledge(0);
    expect(flow.acknowledge(4)).toContain(4);
    expect(flow.acknowledge(8)).toContain(8);
    expect(flow.acknowledge(12).filter((number) => number < 12)).toEqual([]);
    expect(flow.raw.peer.counter("TCP_RETRANSMISSIONS")).toBe(3);
  });

  it("takes duplicates of a loss that a timeout has answered for no other one (§3.2)", () => {
    const flow = new Flow(10_000, PLAIN);
    flow.take();
    expect(flow.wait(500)).toEqual([0]);
    for (let n = 0; n < 6; n++) expect(flow.acknowledge(0)).toEqual([]);
    expect(flow.raw.peer.counter("TCP_RETRANSMISSIONS")).toBe(1);
  });
});

describe("hostile selective acknowledgments", () => {
  it("throw nothing, release nothing, and every byte still goes out right", () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = new SeededRandom(seed);
      const flow = new Flow(200_000);
      const raw = flow.raw;
      const known = new Uint8Array(200_000);
      let acknowledged = 0;
      const look = (sent: readonly Sent[]): void => {
        flow.numbers(sent);
        for (const { sequence, data } of sent)
          known.fill(1, (sequence - flow.first) | 0, ((sequence - flow.first) | 0) + data.length);
      };
      look(raw.peer.take());
      for (let n = 0; n < 300; n++) {
        const edges = Array.from({ length: 2 * (1 + random.below(4)) }, () => {
          const near = flow.first + acknowledged + random.below(60_000) - 20_000;
          return random.chance(0.8) ? near : random.u32();
        });
        const sent = known.indexOf(0) < 0 ? known.length : known.indexOf(0);
        if (random.chance(0.2)) acknowledged += random.below(sent - acknowledged + 1);
        look(raw.send(TCP_ACK, { acknowledgment: (flow.first + acknowledged) >>> 0, options: sackOption(...edges) }));
        raw.peer.wait(random.below(30));
        look(raw.peer.take());
        flow.write();
      }
      for (let n = 0; acknowledged < known.length && n < 2_000; n++) {
        const sent = known.indexOf(0) < 0 ? known.length : known.indexOf(0);
        acknowledged = sent;
        look(raw.send(TCP_ACK, { acknowledgment: (flow.first + acknowledged) >>> 0 }));
        raw.peer.wait(100);
        look(raw.peer.take());
        flow.write();
      }
      expect({ seed, acknowledged, events: raw.events.filter((event) => event !== "writable") }).toEqual({
        seed,
        acknowledged: known.length,
        events: [],
      });
      expect(raw.peer.counter("TCP_SEND_CHUNKS")).toBe(0);
    }
  });
});

describe("limits", () => {
  it("so many segments are outstanding and one more only when some are acknowledged", () => {
    const raw = new RawConnection(new RawPeer()).open(OPTIONS);
    let end = raw.acknowledgment;
    const take = (sent = raw.peer.take()): number => {
      const data = sent.filter((one) => one.data.length > 0);
      for (const one of data) end = (one.sequence + one.data.length) >>> 0;
      return data.length;
    };
    const write = (count: number): number => {
      for (let i = 0; i < count; i++) raw.connection.write(raw.peer.nowMs, Uint8Array.of(i));
      return take();
    };
    raw.connection.write(raw.peer.nowMs, pattern(200_000));
    while (take() > 0) {
      raw.peer.wait(1);
      for (let at = end - 10_000; at <= end; at += 2_000) take(raw.send(TCP_ACK, { acknowledgment: at >>> 0 }));
    }
    raw.send(TCP_ACK, { acknowledgment: end });
    expect(write(TCP_SEGMENTS_OUTSTANDING_MAX - 1)).toBe(TCP_SEGMENTS_OUTSTANDING_MAX - 1);
    expect(write(1)).toBe(1);
    expect(write(1)).toBe(0);
    expect(take(raw.send(TCP_ACK, { acknowledgment: (end - TCP_SEGMENTS_OUTSTANDING_MAX + 1) >>> 0 }))).toBe(1);
  });
});

describe("a FIN", () => {
  it("that was lost with its data goes again with it, also where the segment is full", () => {
    const flow = new Flow(11_000);
    flow.raw.connection.end(flow.raw.peer.nowMs);
    flow.raw.peer.take();
    flow.wait(RTT_MS);
    expect(flow.acknowledge(1)).toEqual([10]);
    flow.acknowledge(10);
    flow.raw.peer.wait(3_000);
    const again = flow.raw.peer.take();
    expect(again.length).toBeGreaterThan(1);
    for (const one of again) expect([one.data.length, one.flags & TCP_FIN]).toEqual([1_000, TCP_FIN]);
  });
});
