// What iperf3 and ping print, and what /proc says of a process.
import { describe, expect, it } from "vitest";
import { parseStat, treeOf } from "../../benchmarks/tun/process-tree.ts";
import { firstReplyMs, parseIperf, parsePing } from "../../benchmarks/tun/tool-output.ts";

describe("iperf3's report", () => {
  it("gives what the receiver got, not what was sent", () => {
    const end = {
      sum_sent: { bytes: 2_000, bits_per_second: 16_000 },
      sum_received: { bytes: 1_000, bits_per_second: 8_000 },
    };
    expect(parseIperf(JSON.stringify({ start: {}, end }))).toEqual({ bytes: 1_000, bitsPerSecond: 8_000 });
  });

  it("is refused with iperf3's own words, or when it holds no figure", () => {
    const error = "unable to connect to server: Connection refused";
    expect(() => parseIperf(JSON.stringify({ end: {}, error }))).toThrow(error);
    expect(() => parseIperf(JSON.stringify({ end: { sum: { bytes: 1 } } }))).toThrow("no bytes received");
    const nothing = { end: { sum_received: { bytes: 0, bits_per_second: 0 } } };
    expect(() => parseIperf(JSON.stringify(nothing))).toThrow("no bytes received");
    expect(() => parseIperf("iperf3: error")).toThrow("no JSON");
    expect(() => parseIperf("")).toThrow("no JSON");
  });
});

describe("ping's answers", () => {
  const text = [
    "PING 10.78.0.2 (10.78.0.2) 56(84) bytes of data.",
    "64 bytes from 10.78.0.2: icmp_seq=4 ttl=64 time=1.93 ms",
    "64 bytes from 10.78.0.2: icmp_seq=5 ttl=64 time=0.482 ms",
    "",
    "rtt min/avg/max/mdev = 0.482/1.206/1.930/0.724 ms",
  ].join("\n");

  it("are round trips in ms", () => {
    expect(parsePing(text)).toEqual([1.93, 0.482]);
    expect(parsePing("")).toEqual([]);
  });

  it("count a cold pair's first one from the first request, answered or not", () => {
    expect(firstReplyMs(text, 10)).toBeCloseTo(31.93);
    expect(firstReplyMs("PING 10.78.0.2 (10.78.0.2) 56(84) bytes of data.\n", 10)).toBeUndefined();
  });
});

describe("a daemon's processes", () => {
  const stat = (pid: number, parent: number, name = "d"): string =>
    `${pid} (${name}) S ${parent} 1 1 0 -1 4194560 100 0 0 0 250 50 7 3 20 0 4 0 100 1000 200`;

  it("are read from /proc, whatever the program calls itself", () => {
    expect(parseStat(stat(42, 7, "a) S 9 (b"))).toEqual({ pid: 42, parent: 7, cpuSeconds: 3, childrenSeconds: 0.1 });
  });

  it("are the one that was started and all that it started", () => {
    const all = [stat(1, 0), stat(12, 11), stat(10, 1), stat(11, 10), stat(20, 1)].map(parseStat);
    expect(treeOf(10, all).map(({ pid }) => pid)).toEqual([10, 11, 12]);
    expect(treeOf(99, all)).toEqual([]);
  });
});
