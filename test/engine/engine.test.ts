import { expect, test } from "vitest";
import { isV4 } from "../../src/base/address.ts";
import { LEASE_HELD_PACKETS_MAX, LEASE_SHOWN_WITHIN_MS } from "../../src/base/limits.ts";
import { MINUTE_MS, SECOND_MS } from "../../src/base/units.ts";
import type { DesiredState } from "../../src/engine/desired-state.ts";
import { PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import { give, type Station, texts, udpPacket, World } from "./engine-world.ts";

function allow(from: Station, to: Station, port: number, id = "grant-1") {
  return { id, action: "allow" as const, from, to, protocol: "udp" as const, ports: [[port, port]] as const };
}

function pair(): { world: World; a: Station; b: Station } {
  const world = new World();
  const a = world.add("a");
  const b = world.add("b");
  world.lease(a, 5 * MINUTE_MS);
  world.lease(b, 5 * MINUTE_MS);
  return { world, a, b };
}

const hello = (from: Station, to: Station, port = 53, text = "hello"): Uint8Array =>
  udpPacket(from.address, to.address, 4000, port, text);

test("an allowed packet arrives behind handshake and leases, and its answer comes back", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  give(world, a, hello(a, b));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
  expect(b.delivered[0]?.session).toBe(a.session);
  give(world, b, udpPacket(b.address, a.address, 53, 4000, "answer"));
  world.run(SECOND_MS);
  expect(texts(a)).toEqual(["answer"]);
});

test("with an empty policy nothing passes, in either direction", () => {
  const { world, a, b } = pair();
  world.apply([]);
  give(world, a, hello(a, b));
  give(world, b, hello(b, a));
  world.run(SECOND_MS);
  expect(texts(a)).toEqual([]);
  expect(texts(b)).toEqual([]);
  expect(a.denied[0]).toMatchObject({ hop: "source", reason: "NO_GRANT" });
  expect(a.engine.takeLocalReply()?.[40]).toBe(1); // ICMPv6 destination unreachable to our own stack
});

test("a source that lets everything out is stopped at the destination, which tells it why", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  give(world, a, hello(a, b));
  world.run(SECOND_MS);
  // The same packet to another port, with a's own filter taken out.
  a.engine.filter.allowAll();
  give(world, a, hello(a, b, 54, "forbidden"));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
  expect(b.engine.counters()["inbound-denied-NO_GRANT"]).toBe(1);
  expect(b.denied).toHaveLength(1);
  expect(a.told).toMatchObject([{ reason: "NO_GRANT", destinationPort: 54, id: b.denied[0]?.id }]);
});

test("a forged inner source is dropped by name", () => {
  const { world, a, b } = pair();
  const c = world.add("c");
  world.lease(c, 5 * MINUTE_MS);
  world.apply([allow(a, b, 53), allow(c, b, 53, "grant-2")]);
  a.engine.filter.allowAll();
  give(world, a, hello(c, b, 53, "as c"));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual([]);
  expect(b.engine.counters()["inbound-source-not-allowed"]).toBe(1);
});

test("without a lease of its own a peer sends nothing; with the other end's ended nothing of it is accepted", () => {
  const { world, a, b } = pair();
  const c = world.add("c"); // never given a lease
  world.apply([allow(a, b, 53), allow(c, b, 53, "grant-2")]);
  give(world, c, hello(c, b));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual([]);
  expect(c.denied[0]?.reason).toBe("NO_LEASE");
  give(world, a, hello(a, b));
  world.run(5 * MINUTE_MS);
  world.lease(b, 5 * MINUTE_MS);
  a.engine.filter.allowAll(); // a hostile end that goes on after its lease
  give(world, a, hello(a, b, 53, "late"));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
});

test("a renewed lease is shown before the old one ends, so that traffic goes on", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  for (let i = 0; i < 12; i++) {
    if (i % 2 === 0) for (const station of [a, b]) world.lease(station, 5 * MINUTE_MS);
    give(world, a, hello(a, b, 53, `packet ${i}`));
    world.run(50 * SECOND_MS);
  }
  expect(texts(b)).toHaveLength(12);
});

test("an idle flow outlives the lease that the other end saw first: renewals make the tunnel they need", () => {
  const { world, a, b } = pair();
  world.apply([{ ...allow(a, b, 53), protocol: "tcp" }]);
  const syn = tcpSyn(a, b);
  give(world, a, syn);
  world.run(SECOND_MS);
  expect(b.engine.filter.flowCount).toBe(1);
  give(world, b, tcpSynAck(b, a));
  world.run(SECOND_MS);
  for (let i = 0; i < 15; i++) {
    for (const station of [a, b]) world.lease(station, 5 * MINUTE_MS);
    world.run(2 * MINUTE_MS);
  }
  expect(b.engine.filter.flowCount).toBe(1);
  expect(b.ended).toEqual([]);
});

test("packets that overtake the lease are held, at most so many, and go on when it comes", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  // The datagram after the handshake carries the lease: lose it and its first resend is 250 ms later.
  let data = 0;
  world.passes = (from, _to, bytes) => !(bytes[0] === 4 && from === a.endpoint && ++data === 1);
  for (let i = 0; i < LEASE_HELD_PACKETS_MAX + 1; i++) give(world, a, hello(a, b, 53, `${i}`));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(Array.from({ length: LEASE_HELD_PACKETS_MAX }, (_, i) => `${i}`));
  expect(b.engine.counters()["inbound-held-full"]).toBe(1);
});

test("a NAT that forgot us is opened from within, though both ends still have their session", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  give(world, a, hello(a, b, 53, "before"));
  world.run(SECOND_MS);
  world.run(40 * SECOND_MS); // idle
  let isOpen = false; // the NAT before b: from now on it lets in only what b has asked for
  world.passes = (from, to) => {
    if (from === b.endpoint) isOpen = true;
    return to !== b.endpoint || isOpen;
  };
  a.wanted.length = 0;
  for (let i = 0; i < 30 && texts(b).length < 2; i++) {
    give(world, a, hello(a, b, 53, "after"));
    world.run(SECOND_MS);
    if (a.wanted.includes(b.session)) b.engine.punch(world.nowMs, a.session);
  }
  expect(texts(b).slice(0, 2)).toEqual(["before", "after"]);
});

test("an end that roamed in silence is found again as soon as its new endpoint is told, and its flows live", () => {
  const { world, a, b } = pair();
  const rules = [allow(a, b, 53)];
  world.apply(rules);
  world.lease(a, 10 * SECOND_MS);
  give(world, a, hello(a, b, 53, "before"));
  world.run(SECOND_MS);
  b.endpoint = { ...b.endpoint, port: 40_000 };
  world.apply(rules, 2);
  world.run(SECOND_MS);
  world.lease(a, 10 * SECOND_MS); // renewed at its half life, long before b's silence would be noticed
  world.run(9 * SECOND_MS);
  expect(b.ended).toEqual([]);
  give(world, a, hello(a, b, 53, "after"));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["before", "after"]);
});

test("while a flow lives a NAT is kept open, so that the far end can speak first; then nothing more is sent", () => {
  const { world, a, b } = pair();
  world.apply([{ ...allow(a, b, 53), protocol: "tcp" }]);
  let sentByA = 0;
  let lastSentMs = 0; // the NAT before a lets answers in for 30 s after it
  world.passes = (from, to) => {
    if (from === a.endpoint) {
      sentByA++;
      lastSentMs = world.nowMs;
    }
    return to !== a.endpoint || world.nowMs - lastSentMs < 30 * SECOND_MS;
  };
  give(world, a, tcpSyn(a, b));
  world.run(SECOND_MS);
  give(world, b, tcpSynAck(b, a));
  world.run(SECOND_MS);
  for (let minute = 1; minute <= 10; minute++) {
    if (minute % 4 === 0) for (const station of [a, b]) world.lease(station, 5 * MINUTE_MS);
    if (minute % 3 === 0) world.apply([{ ...allow(a, b, 53), protocol: "tcp" }], 1 + minute);
    world.run(MINUTE_MS);
  }
  const delivered = a.delivered.length;
  give(world, b, tcp(b, a, [53, 4000], 0x10));
  world.run(100);
  expect(a.delivered).toHaveLength(delivered + 1);
  give(world, b, tcp(b, a, [53, 4000], 0x14)); // reset
  world.run(2 * MINUTE_MS);
  expect([a, b].map((station) => station.engine.filter.flowCount)).toEqual([0, 0]);
  world.run(MINUTE_MS); // and the last passive keepalive
  sentByA = 0;
  world.run(10 * MINUTE_MS);
  expect(sentByA).toBe(0);
});

test("the coordinator is not asked for help while the tunnel works", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  give(world, a, hello(a, b));
  world.run(SECOND_MS);
  a.wanted.length = 0;
  for (let i = 0; i < 140; i++) {
    give(world, a, hello(a, b)); // past one rekey
    world.run(SECOND_MS);
    b.engine.punch(world.nowMs, a.session); // asked all the same, by a confused coordinator
  }
  expect(a.wanted).toEqual([]);
  expect(b.engine.counters()["wireguard-INITIATIONS_SENT"]).toBeUndefined();
});

test.each([
  ["no IPv6 address of its own", (state: DesiredState) => ({ ...state, addresses: state.addresses.filter(isV4) })],
  [
    "none of the other end's",
    (state: DesiredState) => ({ ...state, peers: state.peers.map(({ linkAddress, ...peer }) => peer) }),
  ],
])("with %s there is no peer link, and that is counted", (_name, change) => {
  const { world, a, b } = pair();
  const apply = a.engine.apply.bind(a.engine);
  a.engine.apply = (nowMs, state) => apply(nowMs, change(state));
  world.apply([allow(a, b, 53)]);
  give(world, a, hello(a, b));
  world.run(SECOND_MS);
  expect(a.engine.counters()["link-no-address"]).toBeGreaterThan(0);
  expect(b.engine.status()[0]?.leaseEndMs).toBeUndefined();
});

test("nothing more goes to a peer that shows no lease", () => {
  const { world, a, b } = pair();
  const silent = world.add("silent");
  world.apply([allow(a, b, 53), allow(a, silent, 53, "grant-2")]);
  give(world, a, hello(a, silent));
  world.run(LEASE_SHOWN_WITHIN_MS + SECOND_MS);
  give(world, a, hello(a, silent));
  expect(a.engine.counters()["outbound-no-lease"]).toBe(1);
});

test("the peer link's port is the engine's alone: what the host sends to or from it is dropped", () => {
  const { world, a, b } = pair();
  world.apply([{ ...allow(a, b, 53), protocol: "any", ports: [] }]);
  give(world, a, udpPacket(a.address, b.address, PEER_LINK_PORT, 53, "x"));
  give(world, a, udpPacket(a.address, b.address, 53, PEER_LINK_PORT, "x"));
  world.run(SECOND_MS);
  expect(a.engine.counters()["outbound-reserved-port"]).toBe(2);
  expect(b.delivered).toEqual([]);
});

test("a revision that takes the grant away cuts the live flow; one that changes nothing of it does not", () => {
  const { world, a, b } = pair();
  world.apply([allow(a, b, 53)]);
  give(world, a, hello(a, b));
  world.run(SECOND_MS);
  for (let revision = 2; revision < 20; revision++)
    world.apply([allow(a, b, 53), allow(b, a, 1000 + revision)], revision);
  give(world, a, hello(a, b, 53, "still"));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello", "still"]);
  expect(b.ended).toEqual([]);
  world.apply([], 99);
  a.engine.filter.allowAll();
  give(world, a, hello(a, b, 53, "cut"));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello", "still"]);
  expect(b.ended).toHaveLength(1);
});

function tcp(from: Station, to: Station, ports: [number, number], flags: number): Uint8Array {
  const bytes = udpPacket(from.address, to.address, ports[0], ports[1], "x".repeat(12));
  bytes[6] = 6;
  bytes.fill(0, 44, 60);
  bytes[52] = 0x50;
  bytes[53] = flags;
  return bytes;
}

function tcpSyn(from: Station, to: Station): Uint8Array {
  return tcp(from, to, [4000, 53], 0x02);
}

function tcpSynAck(from: Station, to: Station): Uint8Array {
  return tcp(from, to, [53, 4000], 0x12);
}
