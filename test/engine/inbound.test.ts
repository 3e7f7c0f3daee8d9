// What a hostile end of a tunnel can send, step by step of the inbound path: each drop is named, and nothing of it
// arrives.
import { expect, test } from "vitest";
import { type Address, formatAddress } from "../../src/base/address.ts";
import { LINK_REPLIES_PER_SECOND_MAX } from "../../src/base/limits.ts";
import { MINUTE_MS, SECOND_MS } from "../../src/base/units.ts";
import { decodeLinkMessage, encodeLease, PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import { TCP_SYN } from "../../src/wire/packet.ts";
import { tcp, udp } from "../wire/packets.ts";
import { type Station, texts, World } from "./engine-world.ts";
import { HostileStation } from "./hostile-station.ts";

const PAYLOAD = new TextEncoder().encode("hello");

/** `a` is hostile, and granted UDP port 53 of `b`. */
function hostileWorld(options: { readonly showsLease?: boolean; readonly stock?: boolean } = {}) {
  const world = new World();
  const [a, b] = [world.add("a"), world.add("b")];
  if (options.stock) world.stock.add(a);
  world.lease(b, 5 * MINUTE_MS);
  world.apply([{ id: "dns", action: "allow", from: a, to: b, protocol: "udp", ports: [[53, 53]] }]);
  const hostile = new HostileStation(world, a, b);
  if (options.showsLease !== false) hostile.showLease(world.newLease(a, 5 * MINUTE_MS).bytes);
  world.run(SECOND_MS);
  return { world, a, b, hostile };
}

const to = (from: Station, address: Address, port = 53, sourcePort = 4000): Uint8Array =>
  udp(formatAddress(from.address), formatAddress(address), sourcePort, port, PAYLOAD);

/** The counters that are not of the tunnel or the filter. */
function drops(b: Station): Record<string, number> {
  return Object.fromEntries(
    Object.entries(b.engine.counters()).filter(([name]) => /^(inbound|link)-/.test(name) && !name.includes("ALLOW")),
  );
}

test("what is granted arrives, and nothing is counted as dropped", () => {
  const { world, a, b, hostile } = hostileWorld();
  hostile.send(to(a, b.address));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
  expect(drops(b)).toEqual({});
});

test("what the host's own rules refuse goes no further, and its sender is told", () => {
  const { world, a, b, hostile } = hostileWorld();
  b.refuse = (_nowMs, buffer, offset, length) => (length > 0 && buffer[offset]! >>> 4 === 6 ? "metadata" : undefined);
  hostile.send(to(a, b.address));
  world.run(SECOND_MS);
  expect(b.delivered).toEqual([]);
  expect(drops(b)).toEqual({ "inbound-denied-DIAL_REFUSED": 1 });
  expect(b.denied).toMatchObject([{ hop: "destination", reason: "DIAL_REFUSED", ruleId: "metadata" }]);
  const told = hostile.linkMessages.map((bytes) => decodeLinkMessage(bytes)?.kind);
  expect(told).toContain("denial");
  b.refuse = () => undefined;
  hostile.send(to(a, b.address, 53, 4001));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
});

test("junk, and messages of unknown tunnels, end in the device", () => {
  const { world, a, b } = hostileWorld();
  for (const bytes of [new Uint8Array(0), new Uint8Array(148).fill(1), new Uint8Array(40).fill(4), PAYLOAD])
    b.engine.handleDatagram(world.nowMs, a.endpoint, bytes, 0, bytes.length);
  expect(drops(b)).toEqual({});
  expect(b.delivered).toEqual([]);
});

test("a lease that is older than the one shown does not stand in for it, however long it runs", () => {
  const { world, a, b, hostile } = hostileWorld({ showsLease: false });
  const [older, newer] = [world.newLease(a, 60 * MINUTE_MS), world.newLease(a, MINUTE_MS)];
  hostile.showLease(newer.bytes);
  hostile.showLease(older.bytes);
  world.run(MINUTE_MS + SECOND_MS);
  hostile.send(to(a, b.address));
  world.run(SECOND_MS);
  expect(drops(b)).toMatchObject({ "link-lease-older": 1, "inbound-denied-LEASE_ENDED": 1 });
  expect(b.delivered).toEqual([]);
});

test("a malformed inner packet is dropped by its name", () => {
  const { world, a, b, hostile } = hostileWorld();
  hostile.send(to(a, b.address).subarray(0, 44)); // its IP length says more
  hostile.send(new Uint8Array(16).fill(0x20));
  world.run(SECOND_MS);
  expect(drops(b)).toEqual({ "inbound-TRUNCATED": 1, "inbound-BAD_VERSION": 1 });
  expect(b.delivered).toEqual([]);
});

test("a packet to an address that isn't ours is dropped, though the port is granted", () => {
  const { world, a, b, hostile } = hostileWorld();
  hostile.send(to(a, a.address));
  world.run(SECOND_MS);
  expect(drops(b)).toEqual({ "inbound-not-our-address": 1 });
  expect(b.delivered).toEqual([]);
});

test("the peer link is one port at both ends of two overlay addresses, unfragmented; all else is misdirected", () => {
  const { world, a, b, hostile } = hostileWorld({ showsLease: false });
  const lease = encodeLease(world.newLease(a, 5 * MINUTE_MS).bytes);
  const [from, here] = [formatAddress(a.address), formatAddress(b.address)];
  const [from4, here4] = [formatAddress(a.address4), formatAddress(b.address4)];
  hostile.sendLink(lease, [4000, PEER_LINK_PORT]);
  hostile.sendLink(lease, [PEER_LINK_PORT, 4000]);
  hostile.send(udp(from, formatAddress(a.address), PEER_LINK_PORT, PEER_LINK_PORT, lease));
  hostile.send(udp(from4, here4, PEER_LINK_PORT, PEER_LINK_PORT, lease));
  hostile.send(asFirstFragment(udp(from, here, PEER_LINK_PORT, PEER_LINK_PORT, lease)));
  world.run(SECOND_MS);
  expect(drops(b)).toEqual({ "link-misdirected": 5 });
  hostile.send(to(a, b.address));
  world.run(SECOND_MS);
  expect(b.delivered).toEqual([]); // none of them was taken for a lease
  hostile.sendLink(lease);
  hostile.send(to(a, b.address));
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
});

test("TCP to the peer link's port is no peer link: the filter judges it", () => {
  const { world, a, b, hostile } = hostileWorld();
  const ports = { sourcePort: PEER_LINK_PORT, destinationPort: PEER_LINK_PORT };
  hostile.send(tcp(formatAddress(a.address), formatAddress(b.address), { ...ports, flags: TCP_SYN }));
  world.run(SECOND_MS);
  expect(drops(b)).toEqual({ "inbound-denied-NO_GRANT": 1 });
});

test("peer link messages that are no such thing are counted and answered with nothing", () => {
  const { world, b, hostile } = hostileWorld();
  const answers = (): number =>
    hostile.linkMessages.filter((bytes) => decodeLinkMessage(bytes)?.kind !== "lease").length; // b shows its own again
  const before = answers();
  const [ack, denial] = [Uint8Array.of(2, 1), Uint8Array.of(3, 0)];
  for (const bytes of [new Uint8Array(0), Uint8Array.of(9), Uint8Array.of(1), ack, denial]) hostile.sendLink(bytes);
  world.run(SECOND_MS);
  expect(drops(b)).toEqual({ "link-malformed": 5 });
  expect(answers()).toBe(before);
});

test("a lease that the coordinator has not signed opens nothing", () => {
  const { world, a, b, hostile } = hostileWorld({ showsLease: false });
  const bent = Uint8Array.from(world.newLease(a, 5 * MINUTE_MS).bytes);
  bent[30]! ^= 1; // its lifetime
  hostile.showLease(bent);
  hostile.send(to(a, b.address));
  world.run(SECOND_MS);
  expect(drops(b)).toEqual({ "link-lease-unverified": 1, "inbound-no-lease": 1 });
  expect(b.delivered).toEqual([]);
});

test("a denied packet is answered once a second, and no more than so many denials are told", () => {
  const { world, a, b, hostile } = hostileWorld();
  const told = (): number => hostile.linkMessages.filter((bytes) => decodeLinkMessage(bytes)?.kind === "denial").length;
  const before = hostile.received.length;
  for (let i = 0; i < 5; i++) hostile.send(to(a, b.address, 54));
  world.run(10);
  expect(told()).toBe(1);
  expect(hostile.received).toHaveLength(before + 2); // the denial and one ICMP error
  expect(b.denied).toHaveLength(1);
  for (let port = 100; port < 100 + 2 * LINK_REPLIES_PER_SECOND_MAX; port++) hostile.send(to(a, b.address, port));
  world.run(10);
  expect(told()).toBeLessThanOrEqual(LINK_REPLIES_PER_SECOND_MAX);
  expect(drops(b)["link-denial-not-told"]).toBeGreaterThan(0);
});

test("a stock peer is told nothing over a peer link, and needs to show no lease there", () => {
  const { world, a, b, hostile } = hostileWorld({ stock: true, showsLease: false });
  b.engine.filter.setRemoteLease(b.engine.filter.slot(a.session), world.nowMs + MINUTE_MS);
  hostile.send(to(a, b.address));
  hostile.send(to(a, b.address, 54));
  world.run(SECOND_MS);
  world.lease(b, 5 * MINUTE_MS); // a renewal, which a Wirebadge peer would be shown
  world.run(SECOND_MS);
  expect(texts(b)).toEqual(["hello"]);
  expect(drops(b)).toEqual({ "inbound-denied-NO_GRANT": 1 });
  expect(hostile.linkMessages).toEqual([]);
});

/** The same with an IPv6 fragment header that says: first, and more to come. */
function asFirstFragment(packet: Uint8Array): Uint8Array {
  const payload = packet.subarray(40);
  const bytes = new Uint8Array(packet.length + 8 - (payload.length % 8));
  bytes.set(packet.subarray(0, 40));
  bytes[6] = 44;
  bytes.set([packet[6]!, 0, 0, 1, 0, 0, 0, 7], 40);
  bytes.set(payload.subarray(0, payload.length - (payload.length % 8)), 48);
  new DataView(bytes.buffer).setUint16(4, bytes.length - 40);
  return bytes;
}
