// Paths on which long packets vanish without a word: no ICMP comes, only silence (RFC 4821 §7.7).
import { describe, expect, it } from "vitest";
import { connectPair, expectSame, type Faults, type Pair, pattern, pour, VirtualLink } from "./virtual-link.ts";

const FAMILIES = ["v4", "v6"] as const;
const BYTES = 300_000;

const longest = (world: VirtualLink): number => world.a.sent.reduce((most, { length }) => Math.max(most, length), 0);
const holes = (world: VirtualLink): number => world.a.stack.counters.TCP_BLACK_HOLES ?? 0;

function begin(family: "v4" | "v6", faults: Faults): { world: VirtualLink; pair: Pair } {
  const world = new VirtualLink(faults, 3);
  return { world, pair: connectPair(world, family) };
}

describe.each(FAMILIES)("over IP%s, a path that swallows long packets", (family) => {
  it("carries every byte, in shorter ones", () => {
    const { world, pair } = begin(family, { mtuBytes: 1_300 });
    const sent = pattern(BYTES);
    pour(world, pair.client, sent);
    world.runUntil(() => pair.server.events.includes("ended"), 10_000);
    expectSame(pair.server.received, sent);
    expect(holes(world)).toBe(1);
    world.a.sent = [];
    pour(world, pair.server, sent);
    world.runUntil(() => pair.client.events.includes("ended"), 10_000); // it tells each end on its own
    expect(longest(world)).toBeLessThan(100);
  });

  it("from the middle of a transfer on: no longer ones go after it was found", () => {
    const { world, pair } = begin(family, {});
    const sent = pattern(20 * BYTES);
    pour(world, pair.client, sent);
    world.runUntil(() => pair.server.receivedBytes > BYTES);
    expect(longest(world)).toBe(1_420);
    world.faults = { mtuBytes: 1_280 };
    world.runUntil(() => holes(world) > 0);
    world.a.sent = [];
    world.runUntil(() => pair.server.events.includes("ended"), 60_000);
    expectSame(pair.server.received, sent);
    expect(longest(world)).toBe(1_280);
  });

  it("is not taken for one that loses, or that is cut for a second, again and again", () => {
    const { world, pair } = begin(family, { loss: 0.05 });
    pour(world, pair.client, pattern(BYTES), false);
    world.runUntil(() => pair.server.receivedBytes === BYTES);
    pour(world, pair.client, pattern(40 * BYTES));
    for (let times = 0; times < 3; times++) {
      const { receivedBytes } = pair.server;
      world.faults = { loss: 1 };
      world.run(1_000);
      world.faults = {};
      world.a.sent = [];
      world.runUntil(() => pair.server.receivedBytes > receivedBytes + BYTES);
    }
    expect({ holes: holes(world), longest: longest(world) }).toEqual({ holes: 0, longest: 1_420 });
  });

  it("is not looked for by what is short already", () => {
    const { world, pair } = begin(family, {});
    world.faults = { loss: 1 };
    pair.client.connection!.write(world.nowMs, pattern(500));
    world.run(20_000);
    world.faults = {};
    world.runUntil(() => pair.server.receivedBytes === 500);
    expect(holes(world)).toBe(0);
  });
});

it("IPv4 falls back once more, to what every host takes", () => {
  const { world, pair } = begin("v4", { mtuBytes: 576 });
  const sent = pattern(BYTES);
  pour(world, pair.client, sent);
  world.runUntil(() => pair.server.events.includes("ended"), 60_000);
  expectSame(pair.server.received, sent);
  expect(holes(world)).toBe(2);
});
