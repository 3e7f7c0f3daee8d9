// What keeps a packet of this host from leaving, and when the other end's lease is asked for again.
import { describe, expect, test } from "vitest";
import { LEASE_SHOWN_WITHIN_MS } from "../../src/base/limits.ts";
import { MINUTE_MS, SECOND_MS } from "../../src/base/units.ts";
import { give, type Station, texts, udpPacket, World } from "./engine-world.ts";
import { HostileStation } from "./hostile-station.ts";

const hello = (from: Station, to: Station, text: string): Uint8Array =>
  udpPacket(from.address, to.address, 4000, 53, text);

function pair(leaseOfB: number): { world: World; a: Station; b: Station } {
  const world = new World();
  const [a, b] = [world.add("a"), world.add("b")];
  world.lease(a, 60 * MINUTE_MS);
  world.lease(b, leaseOfB);
  return { world, a, b };
}

const allow = (from: Station, to: Station) => ({
  id: "grant-1",
  action: "allow" as const,
  from,
  to,
  protocol: "udp" as const,
  ports: [[53, 53]] as const,
});

const leaseOf = (station: Station): number | undefined => station.engine.status()[0]?.leaseEndMs;

test("what is no packet goes nowhere, least of all where the packet before it went", () => {
  const { world, a, b } = pair(5 * MINUTE_MS);
  world.apply([allow(a, b)]);
  give(world, a, hello(a, b, "hello"));
  world.run(SECOND_MS);
  const sentBytes = a.engine.status()[0]!.sentBytes;
  for (const bytes of [new Uint8Array(60), new Uint8Array(60).fill(0x60), new Uint8Array(60).fill(0x45)]) {
    give(world, a, bytes);
  }
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
  expect(a.engine.status()[0]!.sentBytes).toBe(sentBytes);
  const counted = Object.entries(a.engine.counters()).filter(([name]) => name.startsWith("outbound-"));
  expect(counted.reduce((sum, [, count]) => sum + count, 0)).toBe(3);
});

/** `b` has a tunnel with `a` and never shows a lease. */
function silentEnd(isStock: boolean): { world: World; a: Station; sent(text: string): boolean } {
  const { world, a, b } = pair(5 * MINUTE_MS);
  if (isStock) world.stock.add(b);
  world.apply([allow(a, b)]);
  new HostileStation(world, b, a).send(udpPacket(b.address, a.address, 53, 4000, "here I am"));
  world.run(SECOND_MS);
  const sentBytes = (): number => a.engine.status()[0]!.sentBytes;
  const sent = (text: string): boolean => {
    const before = sentBytes();
    give(world, a, hello(a, b, text));
    return sentBytes() > before;
  };
  return { world, a, sent };
}

test("to an end that shows no lease packets go for so long, and no longer", () => {
  const { world, a, sent } = silentEnd(false);
  expect(sent("soon")).toBe(true);
  world.run(LEASE_SHOWN_WITHIN_MS);
  expect(sent("late")).toBe(false);
  expect(a.engine.counters()["outbound-no-lease"]).toBe(1);
});

test("a stock peer, which has none to show, is sent to as long as there is a tunnel", () => {
  const { world, a, sent } = silentEnd(true);
  world.run(LEASE_SHOWN_WITHIN_MS);
  expect(sent("later")).toBe(true);
  expect(a.engine.counters()["outbound-no-lease"]).toBeUndefined();
});

describe("the other end's lease", () => {
  test("that has ended is not forgotten while there is a tunnel: nothing more goes out", () => {
    const { world, a, b } = pair(20 * SECOND_MS);
    world.apply([allow(a, b)]);
    give(world, a, hello(a, b, "in time"));
    world.run(30 * SECOND_MS);
    give(world, a, hello(a, b, "late"));
    world.run(SECOND_MS);
    expect(texts(b)).toEqual(["in time"]);
    expect(a.denied).toMatchObject([{ hop: "source", reason: "LEASE_ENDED" }]);
    expect(leaseOf(a)).toBeDefined();
  });

  test("that has ended is forgotten without a tunnel: the next one shows the next lease", () => {
    const { world, a, b } = pair(20 * SECOND_MS);
    world.apply([allow(a, b)]);
    give(world, a, hello(a, b, "first"));
    world.run(10 * MINUTE_MS);
    world.lease(b, 5 * MINUTE_MS);
    expect(a.engine.slotToward(world.nowMs, b.session)).toBe(a.engine.slotOf(b.session));
    expect(leaseOf(a)).toBeUndefined();
    give(world, a, hello(a, b, "second"));
    world.run(SECOND_MS);
    expect(texts(b)).toEqual(["first", "second"]);
    expect(leaseOf(a)).toBeGreaterThan(world.nowMs);
  });

  test("that still runs is kept, with a tunnel and without", () => {
    const { world, a, b } = pair(30 * MINUTE_MS);
    world.apply([allow(a, b)]);
    give(world, a, hello(a, b, "first"));
    world.run(10 * MINUTE_MS);
    const known = leaseOf(a);
    expect(known).toBeGreaterThan(world.nowMs);
    a.engine.slotToward(world.nowMs, b.session);
    expect(leaseOf(a)).toBe(known);
  });

  test("that was never shown can't be forgotten", () => {
    const { world, a, b } = pair(5 * MINUTE_MS);
    world.apply([allow(a, b)]);
    expect(a.engine.slotToward(world.nowMs, b.session)).toBe(a.engine.slotOf(b.session));
    expect(leaseOf(a)).toBeUndefined();
  });
});
