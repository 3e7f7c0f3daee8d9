import { describe, expect, it } from "vitest";
import { connectPair, expectSame, type Faults, pattern, pour, VirtualLink } from "./virtual-link.ts";

function transfer(faults: Faults, seed: number, bytes: number, family: "v4" | "v6"): VirtualLink {
  const world = new VirtualLink(faults, seed);
  world.keepsSent = false;
  const { client, server } = connectPair(world, family);
  const up = pattern(bytes, seed);
  const down = pattern(bytes, seed + 1);
  pour(world, client, up);
  pour(world, server, down);
  world.runUntil(() => client.events.length >= 3 && server.events.length >= 2);
  expectSame(server.received, up);
  expectSame(client.received, down);
  expect(client.events).toEqual(["connected", "ended", "closed: closed"]);
  expect(server.events).toEqual(["ended", "closed: closed"]);
  return world;
}

/** The longest time without progress of a transfer, and how often the sender tried meanwhile. */
function longestStall(faults: Faults, seed: number, bytes: number): { ms: number; attempts: number } {
  const world = new VirtualLink(faults, seed);
  world.keepsSent = false;
  const { client, server } = connectPair(world);
  let sinceMs = world.nowMs;
  let attempts = 0;
  let longest = { ms: 0, attempts: 0 };
  world.onPacket = (to) => {
    if (to === world.b) attempts++;
    return false;
  };
  server.onReadable = () => {
    if (world.nowMs - sinceMs > longest.ms) longest = { ms: world.nowMs - sinceMs, attempts };
    sinceMs = world.nowMs;
    attempts = 0;
  };
  pour(world, client, pattern(bytes));
  world.runUntil(() => server.receivedBytes === bytes);
  return longest;
}

describe("TCP at 10 % loss", () => {
  it.each([1, 100])("and %i ms stands still for no longer than its timer's backing off explains", (delayMs) => {
    for (let seed = 1; seed <= 30; seed++) {
      const { ms, attempts } = longestStall({ loss: 0.1, delayMs }, seed, 50_000);
      // Each attempt doubles the timer, which begins at 3 s at most: after a lost SYN.
      const explainedMs = 3_000 * (2 ** attempts - 1) + 4 * delayMs;
      expect({ seed, ms, attempts, tooLong: ms > explainedMs }).toMatchObject({ tooLong: false });
    }
  });
});

describe("TCP carries every byte, in order, once", () => {
  it.each<[string, Faults]>([
    ["a clean link", {}],
    ["1 % loss", { loss: 0.01 }],
    ["5 % loss", { loss: 0.05 }],
    ["10 % loss", { loss: 0.1 }],
    ["reordering", { reorder: 0.2 }],
    ["duplication", { duplicate: 0.2 }],
    ["corruption", { corrupt: 0.05 }],
    ["all at once", { loss: 0.05, reorder: 0.1, duplicate: 0.05, corrupt: 0.02 }],
  ])("over %s", (_, faults) => {
    for (const [seed, family] of [
      [1, "v6"],
      [2, "v4"],
      [3, "v6"],
    ] as const) {
      const world = transfer(faults, seed, 400_000, family);
      world.run(120_000);
      for (const { stack } of [world.a, world.b]) {
        expect(stack.counters).toMatchObject({
          TCP_CONNECTIONS: 0,
          TCP_TIME_WAIT: 0,
          TCP_RECEIVE_HELD_BYTES: 0,
          TCP_SEND_CHUNKS: 0,
          DEADLINES: 0,
        });
        expect(stack.nextDeadlineMs()).toBe(Number.POSITIVE_INFINITY);
      }
    }
  });
});
