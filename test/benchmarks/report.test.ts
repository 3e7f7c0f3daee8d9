// Table, README section and chart of a run whose samples are known, and the profile's self times.
import { describe, expect, it } from "vitest";
import { chart } from "../../benchmarks/tun/chart.ts";
import { FIGURES, formatValue } from "../../benchmarks/tun/figures.ts";
import { withMarked } from "../../benchmarks/tun/marked-section.ts";
import { claimsReport, markdownReport, textReport } from "../../benchmarks/tun/report.ts";
import { judge, judgements, type RunRecord } from "../../benchmarks/tun/run-record.ts";
import { selfTimes } from "../../benchmarks/tun/self-times.ts";

const RUN: RunRecord = {
  date: "2026-01-02T03:04:05.000Z",
  commit: "abc1234",
  quick: false,
  machine: { cpu: "A & B <CPU>", cores: 2, kernel: "6.1", node: "24.15.0", openssl: "3.5.0", iperf3: "iperf 3.12" },
  sealRate: { full: 1.24, masked: 0.91 },
  ours: "wirebadge",
  base: "wireguard-go",
  contenders: ["wirebadge", "wireguard-go", "boringtun"].map((name) => ({ name, version: "v1", aead: "an AEAD" })),
  samples: {
    tcp1: { wirebadge: [4, 2, 3], "wireguard-go": [2, 1, 1.5], boringtun: [0.5, 0.5, 0.5] },
    tcpMasked: { wirebadge: [1.8, 0.9, null] },
    cpuPerGb: { wirebadge: [4, 4, 4], "wireguard-go": [5, 5, 5], boringtun: [18, 18, 18] },
    udp64: { wirebadge: [90_000], "wireguard-go": [60_000], boringtun: [100_000] },
    cold: { wirebadge: [null], "wireguard-go": [2], boringtun: [1] },
    memoryIdle: { wirebadge: [80], "wireguard-go": [5], boringtun: [4] },
  },
  otherCores: 0.031,
  stolenCores: 0,
  notes: ["nebula was left out."],
};
const judged = (key: string) => judge(RUN, FIGURES.find((figure) => figure.key === key)!);

describe("what the samples of a figure say", () => {
  it("is the paired ratio to wireguard-go, its word, and whether the target is held", () => {
    expect(judged("tcp1")).toMatchObject({ toBase: 2, word: "better", target: "aim", best: "wireguard-go" });
    expect(judged("cpuPerGb")).toMatchObject({ toBase: 0.8, word: "better", target: "missed" });
    expect(judged("memoryIdle")).toMatchObject({ target: "must", word: "worse" });
  });

  it("is held against the best peer where that is the target", () => {
    expect(judged("udp64")).toMatchObject({ toBase: 1.5, toBest: 0.9, best: "boringtun", target: "missed" });
  });

  it("sets the peers' samples of another figure beside ours where they have none of their own", () => {
    expect(judged("tcpMasked")).toMatchObject({ word: "equal", target: "missed" });
    expect(judged("tcpMasked").toBase).toBeCloseTo(0.9);
  });

  it("is nothing where every start of ours failed", () => {
    const { toBase, word, target, medians } = judged("cold");
    expect([toBase, word, target, medians["wirebadge"]]).toEqual([undefined, undefined, undefined, undefined]);
  });

  it("leaves out figures that nobody was measured for", () => {
    expect(judgements(RUN).map(({ figure }) => figure.key)).toEqual([
      ...["tcp1", "tcpMasked", "cpuPerGb", "udp64", "cold", "memoryIdle"],
    ]);
  });
});

describe("a run in words", () => {
  it("names machine, versions, how it was measured, every figure and every sample", () => {
    const lines = textReport(RUN).split("\n");
    const text = lines.join("\n");
    for (const word of [
      "abc1234",
      "3 starts",
      "A & B <CPU>",
      "Node 24.15.0",
      "wireguard-go v1: an AEAD.",
      "0.03 cores",
    ])
      expect(text).toContain(word);
    expect(text).toContain("nebula was left out.");
    const row = lines.find((line) => line.startsWith("TCP, 1 stream, Gb/s"))!;
    expect(row.split(/ {2,}/)).toEqual([
      ...["TCP, 1 stream, Gb/s", "3", "1.5", "0.5", "2.00 × better", "2.00 ×"],
      "aim held: ≥ 1.25 × wireguard-go (aim 1.8)",
    ]);
    expect(lines).toContain("  tcp1 wirebadge: 4 2 3");
    expect(lines).toContain("  tcpMasked wirebadge: 1.8 0.9 failed");
    expect(lines).toContain("  udp64 boringtun: 100,000");
  });

  it("is a Markdown table for the README, with the chart and what is missed", () => {
    const text = markdownReport(RUN, "benchmarks/results/tun.svg");
    expect(text).toContain(
      "| figure, median | wirebadge | wireguard-go | boringtun | to wireguard-go | to the best peer |",
    );
    expect(text).toContain(
      "| UDP of 64 bytes, < 1 % lost, packets/s | 90,000 | 60,000 | 100,000 | 1.50 × better | 0.90 × boringtun |",
    );
    expect(text).toContain("(benchmarks/results/tun.svg)");
    expect(text).toContain("- UDP of 64 bytes, < 1 % lost: ≥ 1 × the best peer (aim 1.3)");
    const columns = text
      .split("\n")
      .filter((line) => line.startsWith("|"))
      .map((line) => line.split("|").length);
    expect(new Set(columns)).toEqual(new Set([8]));
  });

  it("writes three digits", () => {
    expect([4.288, 103_456, 0.05214, 0, 1_000_000, 7].map(formatValue)).toEqual([
      ...["4.29", "103,000", "0.0521", "0", "1,000,000", "7"],
    ]);
  });
});

describe("the section of a document that a command writes", () => {
  const text = "before\n<!-- x -->\nold\n<!-- /x -->\nafter\n";

  it("is replaced between its markers, and the rest stays", () => {
    expect(withMarked(text, "x", " new\nlines \n")).toBe("before\n<!-- x -->\nnew\nlines\n<!-- /x -->\nafter\n");
    expect(withMarked(withMarked(text, "x", "one"), "x", "two")).toContain("<!-- x -->\ntwo\n<!-- /x -->\nafter");
    expect(withMarked(text, "x", "a $& b")).toContain("a $& b");
  });

  it("is refused when the markers aren't there once, in order", () => {
    for (const wrong of ["", "<!-- x -->", "<!-- /x --> <!-- x -->", text + text])
      expect(() => withMarked(wrong, "x", "new")).toThrow("must stand there once");
  });
});

describe("the chart", () => {
  const svg = chart(RUN);
  /** The width of the bar whose tooltip says this. */
  const width = (title: string): number =>
    Number(new RegExp(`width="([\\d.]+)"[^>]*><title>${title}</title>`).exec(svg)?.[1]);

  it("is well-formed: tags nest, names are escaped", () => {
    const open: string[] = [];
    for (const [, closing, name, selfClosing] of svg.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)) {
      if (closing === "/") expect(open.pop()).toBe(name);
      else if (selfClosing !== "/") open.push(name!);
    }
    expect(open).toEqual([]);
    expect(svg).toContain("A &amp; B &lt;CPU&gt;");
    expect(svg).not.toMatch(/NaN|undefined/);
  });

  it("draws wireguard-go as 1, twice as good twice as long, and less CPU as longer", () => {
    const one = width("wireguard-go: 1.00 ×");
    expect(width("wirebadge: 2.00 ×") / one).toBeCloseTo(2, 1);
    expect(width("wirebadge: 1.25 ×") / one).toBeCloseTo(1.25, 1);
    expect(width("boringtun: 0.33 ×") / one).toBeCloseTo(0.33, 1);
  });

  it("ends a bar at the edge that would leave the picture, and says its number", () => {
    const far = chart({ ...RUN, samples: { tcp1: { wirebadge: [90], "wireguard-go": [1] } } });
    expect(far).toContain("wirebadge: 90.00 ×");
    for (const [, x, size] of far.matchAll(/<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g))
      expect(Number(x) + Number(size)).toBeLessThan(880);
  });

  it("leaves out figures of ours that were not measured", () => {
    expect(svg).not.toContain("First reply");
  });
});

describe("self times of a CPU profile", () => {
  it("are added up by function, most first, with the path from the top of the tree", () => {
    const frame = (functionName: string, url = "", lineNumber = -1) => ({ functionName, url, lineNumber });
    const profile = {
      nodes: [
        { id: 1, callFrame: frame("(root)") },
        { id: 2, callFrame: frame("seal", "file:///x/src/io/ffi/openssl.ts", 87) },
        { id: 3, callFrame: frame("seal", "file:///x/src/io/ffi/openssl.ts", 87) },
        { id: 4, callFrame: frame("", "node:events", 4) },
      ],
      samples: [1, 2, 3, 4, 2],
      timeDeltas: [1_000, 2_000, 3_000, 1_000, -5],
    };
    const times = selfTimes(profile);
    expect(times.map(({ name, ms }) => [name, ms])).toEqual([
      ["seal src/io/ffi/openssl.ts:88", 5],
      ["(root)", 1],
      ["(anonymous) node:events:5", 1],
    ]);
    expect(times[0]!.share).toBeCloseTo(5 / 7);
    const busy = selfTimes(profile, /^\(root\)/);
    expect(busy.map(({ share }) => share.toFixed(2))).toEqual(["0.83", "0.17"]);
    expect(selfTimes({ nodes: [], samples: [], timeDeltas: [] })).toEqual([]);
  });
});

it("the claims name each figure with its target, held or missed, and when and where it was measured", () => {
  const lines = claimsReport(RUN).split("\n");
  expect(lines[0]).toMatch(
    /^Written by `npm run bench -- tun`. 2026-01-02, commit abc1234: 3 starts .*nebula was left out.$/,
  );
  const small = lines.find((line) => line.startsWith("| UDP of 64 bytes"));
  expect(small).toContain("| 90,000 | 1.50 × | 0.90 × boringtun | MISSED: ≥ 1 × the best peer (aim 1.3) |");
  expect(lines.filter((line) => line.startsWith("| "))).toHaveLength(1 + 6);
});
