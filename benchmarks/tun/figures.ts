// The figures of the end-to-end benchmark: what each is called, which way is better, and what Wirebadge holds itself
// to.
import type { Better } from "./statistics.ts";

export type FigureKey =
  | "tcp1"
  | "tcpReverse"
  | "tcp4"
  | "tcpMasked"
  | "cpuPerGb"
  | "udp64"
  | "rtt20"
  | "rtt20Tail"
  | "rtt2"
  | "rtt2Tail"
  | "rttLoaded"
  | "connect1"
  | "connect16"
  | "cold"
  | "memoryIdle"
  | "memoryAfter"
  | "idleCpu";

/** Against wireguard-go's or the best peer's figure as a ratio, or as a plain value in the figure's unit. */
export type Against = "wireguard-go" | "best" | "value";

export interface Target {
  readonly against: Against;
  /** At least this where more is better, else at most. */
  readonly must: number;
  readonly aim: number;
}

export interface Figure {
  readonly key: FigureKey;
  readonly title: string;
  readonly unit: "Gb/s" | "s/GB" | "packets/s" | "ms" | "1/s" | "MB" | "% of a core";
  readonly better: Better;
  readonly target?: Target;
  /** Peers are not started for it: their samples of that figure stand beside it. */
  readonly peersAs?: FigureKey;
}

const toWireguardGo = (must: number, aim: number): Target => ({ against: "wireguard-go", must, aim });
const toBest = (must: number, aim: number): Target => ({ against: "best", must, aim });

/** In the order of the table. */
export const FIGURES: readonly Figure[] = [
  { key: "tcp1", title: "TCP, 1 stream", unit: "Gb/s", better: "more", target: toWireguardGo(1.25, 1.8) },
  {
    key: "tcpReverse",
    title: "TCP, 1 stream, reverse",
    unit: "Gb/s",
    better: "more",
    target: toWireguardGo(1.25, 1.8),
  },
  { key: "tcp4", title: "TCP, 4 streams", unit: "Gb/s", better: "more", target: toWireguardGo(1.4, 1.8) },
  {
    key: "tcpMasked",
    title: "TCP, 1 stream, OpenSSL without AVX-512",
    unit: "Gb/s",
    better: "more",
    target: toWireguardGo(1, 1.3),
    peersAs: "tcp1",
  },
  {
    key: "cpuPerGb",
    title: "CPU of both ends, TCP, 1 stream",
    unit: "s/GB",
    better: "less",
    target: toWireguardGo(0.75, 0.55),
  },
  { key: "udp64", title: "UDP of 64 bytes, < 1 % lost", unit: "packets/s", better: "more", target: toBest(1, 1.3) },
  { key: "rtt20", title: "RTT, a ping every 20 ms, p50", unit: "ms", better: "less", target: toBest(1.15, 1) },
  { key: "rtt20Tail", title: "RTT, a ping every 20 ms, p99", unit: "ms", better: "less" },
  { key: "rtt2", title: "RTT, a ping every 2 ms, p50", unit: "ms", better: "less", target: toBest(1.15, 1) },
  { key: "rtt2Tail", title: "RTT, a ping every 2 ms, p99", unit: "ms", better: "less" },
  { key: "rttLoaded", title: "RTT beside a TCP stream, p99", unit: "ms", better: "less", target: toBest(1.15, 1) },
  { key: "connect1", title: "TCP connections, 1 at a time", unit: "1/s", better: "more", target: toBest(1, 1.2) },
  { key: "connect16", title: "TCP connections, 16 at a time", unit: "1/s", better: "more", target: toBest(1, 1.2) },
  { key: "cold", title: "First reply of a fresh pair", unit: "ms", better: "less" },
  {
    key: "memoryIdle",
    title: "Memory, idle (RSS of the larger end)",
    unit: "MB",
    better: "less",
    target: { against: "value", must: 100, aim: 70 },
  },
  {
    key: "memoryAfter",
    title: "Memory, after the load (RSS of the larger end)",
    unit: "MB",
    better: "less",
    target: toWireguardGo(0.25, 0.25),
  },
  {
    key: "idleCpu",
    title: "CPU, idle, 100 peers with keepalive",
    unit: "% of a core",
    better: "less",
    target: { against: "value", must: 0.5, aim: 0.5 },
  },
];

export function figureOf(key: string): Figure | undefined {
  return FIGURES.find((figure) => figure.key === key);
}

/** Three digits, thousands with separators: "4.29", "103,000", "0.0521". */
export function formatValue(value: number): string {
  if (value === 0) return "0";
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}
