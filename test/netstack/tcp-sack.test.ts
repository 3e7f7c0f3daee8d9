// What the receiving half names: ranges behind a gap (RFC 2018) and what came twice (RFC 2883).
import { describe, expect, it } from "vitest";
import { TCP_ACK, TCP_SYN } from "../../src/wire/packet.ts";
import { RawConnection, RawPeer, type Sent } from "./raw-peer.ts";
import { pattern } from "./virtual-link.ts";

const PERMITTED = Uint8Array.of(2, 4, 5, 100, 4, 2, 1, 1);
/** The tables of the RFCs count from here. */
const BASE = 500;

class Sacked {
  readonly raw: RawConnection;
  readonly #stream = pattern(20_000);

  constructor(options = PERMITTED, timestamps?: { value: number; echo: number }) {
    this.raw = new RawConnection(new RawPeer(), 4_000, BASE - 1);
    this.raw.timestamps = timestamps;
    this.raw.open(options);
  }

  /** Sends the bytes from `left` to `right` (behind the last); undefined when nothing comes back. */
  send(left: number, right: number): string | undefined {
    const data = this.#stream.slice(left - BASE, right - BASE);
    return said(this.raw.send(TCP_ACK, { sequence: left, data }).at(-1));
  }

  get isWhole(): boolean {
    return this.raw.received.every((byte, at) => byte === this.#stream[at]);
  }
}

/** "5000: 5500-6000 7000-7500" */
function said(sent: Sent | undefined): string | undefined {
  if (sent === undefined) return undefined;
  const { sackEdges, sackBlocks } = sent.options;
  const blocks = Array.from({ length: sackBlocks }, (_, i) => `${sackEdges[2 * i]}-${sackEdges[2 * i + 1]}`);
  return `${sent.acknowledgment}:${blocks.map((one) => ` ${one}`).join("")}`;
}

describe("selective acknowledgments (RFC 2018 §4)", () => {
  it("are permitted in our SYN and in our answer where the other end permits them, never else", () => {
    for (const [options, expected] of [
      [PERMITTED, true],
      [Uint8Array.of(2, 4, 5, 100), false],
    ] as const) {
      const raw = new RawConnection(new RawPeer()).open();
      const [synAck] = new RawConnection(raw.peer, 4_001).send(TCP_SYN, { options, acknowledgment: 0 });
      expect(synAck!.options.isSackPermitted).toBe(expected);
    }
    const plain = new Sacked(Uint8Array.of(2, 4, 5, 100));
    expect(plain.send(1_000, 1_500)).toBe("500:");
  });

  it("name one range that grows while the first segment of eight is missing", () => {
    const end = new Sacked();
    end.send(500, 5_000);
    const acknowledgments = [5_500, 6_000, 6_500, 7_000, 7_500, 8_000, 8_500].map((at) => end.send(at, at + 500));
    expect(acknowledgments).toEqual([6_000, 6_500, 7_000, 7_500, 8_000, 8_500, 9_000].map((to) => `5000: 5500-${to}`));
  });

  it("name the newest range first, then those before it; a filled gap joins them", () => {
    const end = new Sacked();
    end.send(500, 5_000);
    end.send(5_000, 5_500);
    expect(end.send(6_000, 6_500)).toBe("5500: 6000-6500");
    expect(end.send(7_000, 7_500)).toBe("5500: 7000-7500 6000-6500");
    expect(end.send(8_000, 8_500)).toBe("5500: 8000-8500 7000-7500 6000-6500");
    expect(end.send(6_500, 7_000)).toBe("5500: 6000-7500 8000-8500");
    expect(end.send(5_500, 6_000)).toBe("7500: 8000-8500");
    expect(end.send(7_500, 8_000)).toBe("8500:");
    expect(end.isWhole).toBe(true);
  });

  it("have four blocks, three beside timestamps", () => {
    const ranges = [1_000, 2_000, 3_000, 4_000, 5_000, 6_000];
    const end = new Sacked();
    expect(ranges.map((at) => end.send(at, at + 100)).at(-1)).toBe("500: 6000-6100 5000-5100 4000-4100 3000-3100");
    const stamped = new Sacked(PERMITTED, { value: 1, echo: 0 });
    expect(ranges.map((at) => stamped.send(at, at + 100)).at(-1)).toBe("500: 6000-6100 5000-5100 4000-4100");
  });

  it("are left out where data goes, and the acknowledgment stays owed for them", () => {
    const end = new Sacked();
    const { raw } = end;
    raw.connection.write(raw.peer.nowMs, pattern(30_000));
    const [first, second] = raw.peer.take();
    const acknowledgment = (second!.sequence + second!.data.length) >>> 0;
    const sent = raw.send(TCP_ACK, { sequence: 1_000, data: pattern(500), acknowledgment });
    const data = sent.filter((one) => one.data.length > 0);
    expect([data.length > 0, data.every((one) => one.options.sackBlocks === 0)]).toEqual([true, true]);
    expect([first!.data.length, said(sent.at(-1))]).toEqual([1380, "500: 1000-1500"]);
  });
});

describe("duplicates (RFC 2883 §4)", () => {
  it("are named first, below what is acknowledged, once", () => {
    const end = new Sacked();
    end.send(500, 3_000);
    end.send(3_000, 3_500);
    end.send(3_500, 4_000);
    expect(end.send(3_000, 3_500)).toBe("4000: 3000-3500");
    expect(end.send(4_500, 5_000)).toBe("4000: 4500-5000");
  });

  it("are named before the range behind the gap", () => {
    const end = new Sacked();
    end.send(500, 4_000);
    end.send(4_500, 5_000);
    expect(end.send(3_000, 3_500)).toBe("4000: 3000-3500 4500-5000");
  });

  it("of an early segment come with the range that holds it", () => {
    const end = new Sacked();
    end.send(500, 3_500);
    end.send(4_000, 4_500);
    end.send(4_500, 5_000);
    expect(end.send(4_000, 4_500)).toBe("3500: 4000-4500 4000-5000");
  });

  it("in part name the part", () => {
    const end = new Sacked();
    end.send(500, 1_000);
    end.send(2_000, 2_500);
    expect(end.send(1_000, 2_100)).toBe("2500: 2000-2100");
    expect(end.send(2_400, 2_600)).toBe("2600: 2400-2500");
    expect(end.send(1_000, 1_500)).toBe("2600: 1000-1500");
    end.send(3_000, 3_500);
    expect(end.send(3_200, 3_800)).toBe("2600: 3200-3500 3000-3800");
    end.send(4_000, 4_500);
    expect(end.send(2_800, 5_000)).toBe("2600: 3000-3800 2800-5000"); // of two parts the first
    expect(end.isWhole).toBe(true);
  });

  it("from before the stream's beginning are no duplicates: a keepalive of Linux", () => {
    const end = new Sacked();
    expect(said(end.raw.send(TCP_ACK, { sequence: BASE - 1, data: pattern(1) }).at(-1))).toBe("500:");
  });
});
