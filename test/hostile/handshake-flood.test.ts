// A flood of 20,000 initiations a second with a right mac1 from 1,000 addresses, half of them IPv6 /64s, over real UDP
// against a real `wirebadge wg` process: friends' handshakes, a TCP flow and the process's memory under it, beside the
// same without it. A busy machine can only make the figures worse: of three tries one has to keep all bounds.
import { describe, expect, test } from "vitest";
import { needs } from "../needs.ts";
import { LONG, record, scale } from "../proof/form.ts";
import { FloodScene, type Measured, percentile, type SceneOptions } from "./flood-scene.ts";

const FLOOD = { kind: "initiation", sources: 1_000, perSecond: 20_000 } as const;
const TRIES = 3;
const P99_MAX_MS = 1_000;
const FLOW_KEPT_MIN = 0.5;
const LONG_PART_MAX = 0.005; // of the turns with handshake work: a collection of V8's may fall into one
const GREW_MAX_MB = 20;
const WARM_UP_MS = 4_000;
const QUIET_MS = 4_000;

interface Pair {
  readonly quiet: Measured;
  readonly flooded: Measured;
}

const p99 = (measured: Measured): number => percentile(measured.handshakesMs, 0.99);
const longPart = ({ flooded }: Pair): number =>
  flooded.counters["handshakes-over-1ms"]! / flooded.counters["handshakes-messages"]!;
const kept = ({ quiet, flooded }: Pair): number => flooded.flow / quiet.flow;
async function measurePair(scene: FloodScene, forMs: number): Promise<Pair> {
  const quiet = await scene.measure(QUIET_MS, QUIET_MS / 50);
  return { quiet, flooded: await scene.measure(forMs, forMs / 50, FLOOD) };
}

function figures(pair: Pair): string {
  const { quiet, flooded } = pair;
  const flow = `flow ${quiet.flow.toFixed(1)} → ${flooded.flow.toFixed(1)} MB/s (${Math.round(100 * kept(pair))} %)`;
  const times = `handshake p99 ${p99(quiet).toFixed(0)} → ${p99(flooded).toFixed(0)} ms`;
  const { "handshakes-over-1ms": over = 0, "handshakes-messages": messages = 0 } = flooded.counters;
  const meanMs = ((flooded.counters["handshakes-spent-ms"] ?? 0) / messages).toFixed(2);
  const part = ((100 * over) / messages).toFixed(2);
  const cpu = `${over} (${part} %) of them over 1 ms of CPU`;
  const work = messages === 0 ? "" : `, ${messages} turns with handshake work, ${meanMs} ms each, ${cpu}`;
  const rate = flooded.flood?.perSecond.toLocaleString("en");
  return `${rate}/s: ${times}, ${flow}, memory + ${flooded.grewMb.toFixed(1)} MB${work}`;
}

const holds = (pair: Pair): boolean =>
  p99(pair.flooded) < P99_MAX_MS &&
  kept(pair) >= FLOW_KEPT_MIN &&
  pair.flooded.grewMb <= GREW_MAX_MB &&
  longPart(pair) < LONG_PART_MAX;

/** The first try that holds, else the last. */
async function bestOf(options: SceneOptions, forMs: number, ok: (pair: Pair) => boolean): Promise<Pair> {
  for (let tries = 1; ; tries++) {
    await using scene = await FloodScene.open(options);
    await scene.measure(WARM_UP_MS, 0);
    const pair = await measurePair(scene, forMs);
    const line = `${options.victim}, ${options.direction}: ${figures(pair)}`;
    process.stderr.write(`FLOOD ${line}\n`);
    if (!ok(pair) && tries < TRIES) continue;
    record({
      what: `initiations at ${options.victim}, TCP ${options.direction}`,
      count: pair.flooded.flood!.sent,
      figure: figures(pair),
    });
    if (options.victim === "wirebadge") await checkAfter(scene);
    return pair;
  }
}

/** The load ends with the flood; junk that costs no work brings no other. */
async function checkAfter(scene: FloodScene): Promise<void> {
  await scene.measure(2_500, 0);
  for (const kind of ["wrong-mac1", "response"] as const) {
    const junk = await scene.measure(2_000, 20, { ...FLOOD, kind });
    expect(junk.flood?.sent).toBeGreaterThan(10_000);
    expect(junk.counters[kind === "response" ? "wireguard-UNKNOWN_INDEX" : "wireguard-MAC1_WRONG"]).toBeGreaterThan(
      10_000,
    );
    expect(junk.counters["wireguard-COOKIES_SENT"] ?? 0).toBe(0);
    expect(junk.cookies).toBe(0);
    expect(junk.wire.received).toBeLessThan(100); // silence, but for neighbour discovery
  }
}

describe.runIf(needs("linux", "root", "netns"))("20,000 initiations a second from 1,000 addresses", () => {
  const directions = LONG ? (["up", "down"] as const) : (["up"] as const);

  test.each(directions)(
    "leave a peer its handshakes, half of its flow and its memory: TCP %s",
    { timeout: 400_000 },
    async (direction) => {
      const pair = await bestOf({ victim: "wirebadge", direction }, scale(10_000, 60_000), holds);
      const { flooded } = pair;
      expect(flooded.flood?.perSecond).toBeGreaterThan(15_000);
      expect(p99(flooded)).toBeLessThan(P99_MAX_MS);
      expect(kept(pair)).toBeGreaterThanOrEqual(FLOW_KEPT_MIN);
      expect(flooded.grewMb).toBeLessThanOrEqual(GREW_MAX_MB);
      // Decided by work: it was asked for cookies, in fewer and shorter messages than came.
      expect(flooded.counters["wireguard-COOKIES_SENT"]).toBeGreaterThan(1_000);
      expect(flooded.wire.received).toBeLessThan(flooded.flood!.sent / 2);
      expect(flooded.wire.receivedBytes).toBeLessThan(flooded.wire.sentBytes / 4);
      // A third of a message a turn (test/wireguard/handshake-flood.test.ts), each less than 1 ms of the CPU.
      expect(longPart(pair)).toBeLessThan(LONG_PART_MAX);
    },
  );
});

// A minute of traced turns, and half a minute of wireguard-go under the same flood: for the long form alone.
if (LONG) {
  describe.runIf(needs("linux", "root", "netns"))("turns with handshake work under such a flood", () => {
    test("exceed 1 ms of the CPU no more often than arithmetic does, but for V8's collections", {
      timeout: 400_000,
    }, async () => {
      await using scene = await FloodScene.open({ victim: "wirebadge", direction: "down", traced: true });
      await scene.measure(WARM_UP_MS, 0);
      const before = await scene.counters();
      const { flood } = await scene.measure(60_000, 0, FLOOD);
      await scene.measure(QUIET_MS, 0); // the trace hears of collections later
      const after = await scene.counters();
      const [pieces, collected, bare, control] = (["pieces", "collected", "bare", "control"] as const).map(
        (name) => after[`trace-${name}`]! - before[`trace-${name}`]!,
      );
      const figure = `of ${pieces} pieces of work ${collected} took longer with a collection of V8's in them and \
${bare} without one; so did ${control} of as many pieces of arithmetic beside them`;
      record({ what: "initiations at wirebadge, turns over 1 ms traced", count: flood!.sent, figure });
      expect(pieces).toBeGreaterThan(5_000);
      expect(bare).toBeLessThanOrEqual(3 + 3 * control!);
    });
  });

  describe.runIf(needs("linux", "root", "netns", "tun", "wireguard-go", "wg"))("the same against wireguard-go", () => {
    test("costs its friends more time and its memory more than ours", { timeout: 400_000 }, async () => {
      const options = { direction: "up", friendsV4Only: true } as const;
      const theirs = await bestOf({ ...options, victim: "wireguard-go" }, 20_000, () => true);
      const ours = await bestOf({ ...options, victim: "wirebadge" }, 20_000, holds);
      expect(p99(ours.flooded)).toBeLessThan(p99(theirs.flooded));
      expect(ours.flooded.grewMb).toBeLessThan(theirs.flooded.grewMb);
    });
  });
}
