// Bugs that let packets past others' filters, sent through our whole inbound path by an end that filters nothing.
import { describe, expect, test } from "vitest";
import { type Address, formatAddress, hostPrefix, parsePrefix } from "../../src/base/address.ts";
import { concatBytes, writeU16 } from "../../src/base/bytes.ts";
import { DENIALS_PER_SECOND_MAX } from "../../src/base/limits.ts";
import { MINUTE_MS, SECOND_MS } from "../../src/base/units.ts";
import type { AddressRule } from "../../src/filter/contract.ts";
import { PROTOCOL_TCP, PROTOCOL_UDP, TCP_SYN } from "../../src/wire/packet.ts";
import { give, type Station, udpPacket, World } from "../engine/engine-world.ts";
import { ipv4, ipv6 } from "../wire/packets.ts";
import { counted, openTo, Rogue, stateOf } from "./rogue.ts";

interface Scene {
  readonly world: World;
  readonly victim: Station;
  readonly rogue: Rogue;
}

/** A victim that grants the rogue what `rules` say, and both ends' leases in order. */
function scene(
  rules: (rogue: Rogue, victim: Station) => readonly AddressRule[],
  transit: readonly string[] = [],
): Scene {
  const world = new World();
  const victim = world.add("victim");
  world.lease(victim, 10 * MINUTE_MS);
  const rogue = new Rogue(world, victim);
  const served = transit.map((text) => parsePrefix(text)!);
  victim.engine.apply(world.nowMs, stateOf(victim, [rogue.peer], rules(rogue, victim), { transit: served }));
  rogue.comeIn();
  return { world, victim, rogue };
}

const dnsOnly = (rogue: Rogue, victim: Station): AddressRule[] => [
  openTo(rogue, hostPrefix(victim.address), "udp", 53),
];

function udp(port: number, text = "query"): Uint8Array {
  const payload = Buffer.from(text);
  const bytes = new Uint8Array(8 + payload.length);
  writeU16(bytes, 0, 4_000);
  writeU16(bytes, 2, port);
  writeU16(bytes, 4, bytes.length);
  bytes.set(payload, 8);
  return bytes;
}

function tcpSyn(port: number): Uint8Array {
  const bytes = new Uint8Array(20);
  writeU16(bytes, 0, 4_000);
  writeU16(bytes, 2, port);
  bytes[12] = 0x50;
  bytes[13] = TCP_SYN;
  return bytes;
}

const inside = (from: Address, to: Address, nextHeader: number, payload: Uint8Array): Uint8Array =>
  ipv6(formatAddress(from), formatAddress(to), nextHeader, payload);

/** An extension header of `bytes` bytes in units of 8, filled so that a decoy stands at `decoyAt`. */
function extension(next: number, lengthField: number, bytes: number, decoyAt?: number, decoy = udp(53)): Uint8Array {
  const header = new Uint8Array(bytes);
  header[0] = next;
  header[1] = lengthField;
  if (decoyAt !== undefined) header.set(decoy, decoyAt);
  return header;
}

let shared: Scene | undefined;

/** One for all tests that only look at what a packet counts: handshakes cost the most here. */
function dnsScene(): Scene {
  shared ??= scene(dnsOnly);
  shared.victim.delivered.length = 0;
  return shared;
}

let open: Scene | undefined;

/** Everything is granted and served but one address, which is under `never`. */
function everythingScene(): Scene {
  const never = { id: "never-1", action: "deny" as const };
  open ??= scene(
    (rogue) => [
      openTo(rogue, parsePrefix("0.0.0.0/0")!, "any"),
      openTo(rogue, parsePrefix("::/0")!, "any"),
      openTo(rogue, parsePrefix("169.254.169.254/32")!, "any", undefined, never),
    ],
    ["0.0.0.0/0", "::/0"],
  );
  open.victim.delivered.length = 0;
  return open;
}

function deliveredTo({ victim }: Scene): number {
  return victim.delivered.length;
}

test("what is granted does pass, so that the refusals below say something", () => {
  const { victim, rogue } = dnsScene();
  rogue.send(inside(rogue.address, victim.address, PROTOCOL_UDP, udp(53)));
  rogue.send(inside(rogue.address, victim.address, 60, concatBytes(extension(PROTOCOL_UDP, 0, 8), udp(53))));
  expect(victim.delivered).toHaveLength(2);
});

// https://github.com/slackhq/nebula/pull/1840: any unknown Next Header was walked as if it were an extension header, so
// that bytes of an SCTP or GRE payload became "UDP to port 53", while the host got what it really was.
describe("a protocol that isn't an extension header is not walked as one", () => {
  test.each([
    ["SCTP", 132],
    ["GRE", 47],
    ["IPv4 in IPv6", 4],
    ["IPv6 in IPv6", 41],
    ["ESP", 50],
    ["Mobility", 135],
    ["HIP", 139],
    ["an experiment", 253],
  ])("%s (nebula#1840)", (_name, protocol) => {
    const it = dnsScene();
    const decoy = concatBytes(Uint8Array.of(PROTOCOL_UDP, 0, 0, 0, 0, 0, 0, 0), udp(53));
    const rises = counted(it.victim, () => it.rogue.send(inside(it.rogue.address, it.victim.address, protocol, decoy)));
    expect(rises).toEqual({ "inbound-denied-NO_GRANT": 1 });
    expect(deliveredTo(it)).toBe(0);
  });
});

// https://github.com/slackhq/nebula/pull/1789: (length + 1) * 8 was computed in 8 bits, so that behind a header of 256
// bytes or more the parser read ports from its middle.
describe("ports are read behind an extension header, not inside it", () => {
  test.each([
    ["destination options of 256 bytes", 60, 31, 256, 8],
    ["destination options of 1,024 bytes", 60, 127, 1024, 8],
    ["an authentication header of 1,028 bytes", 51, 255, 1028, 12],
  ])("%s (nebula#1789)", (_name, header, lengthField, bytes, decoyAt) => {
    const it = dnsScene();
    const chain = concatBytes(extension(PROTOCOL_TCP, lengthField, bytes, decoyAt), tcpSyn(22));
    const rises = counted(it.victim, () => it.rogue.send(inside(it.rogue.address, it.victim.address, header, chain)));
    expect(rises).toEqual({ "inbound-denied-NO_GRANT": 1 });
    expect(it.victim.denied.at(-1)).toMatchObject({ protocol: PROTOCOL_TCP, destinationPort: 22 });
    expect(deliveredTo(it)).toBe(0);
  });
});

// https://github.com/slackhq/nebula/pull/1883: when the walk ran out of its budget of 8 headers it gave back an offset
// in mid-chain and no error; the ports read there were forged.
test("a chain longer than the limit is dropped, not read where the walk stopped (nebula#1883)", () => {
  const it = dnsScene();
  const chain = concatBytes(...Array.from({ length: 8 }, () => extension(60, 0, 8)), udp(53), tcpSyn(22));
  const rises = counted(it.victim, () => it.rogue.send(inside(it.rogue.address, it.victim.address, 60, chain)));
  expect(rises).toEqual({ "inbound-TOO_MANY_EXTENSION_HEADERS": 1 });
  expect(deliveredTo(it)).toBe(0);
});

function fragment6(next: number, offset: number, more: boolean, payload: Uint8Array, id = 7): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = next;
  writeU16(header, 2, offset | (more ? 1 : 0));
  header[7] = id;
  return concatBytes(header, payload);
}

// https://github.com/openshift/ingress-node-firewall/pull/730 (and nebula#1323 for IPv6): ports were read from whatever
// stood behind the IP header of a later fragment, which is payload.
test("a later fragment is not judged by what its payload looks like (ingress-node-firewall#730, nebula#1323)", () => {
  const it = scene(
    (rogue, victim) => [...dnsOnly(rogue, victim), openTo(rogue, parsePrefix("10.50.0.0/16")!, "udp", 53)],
    ["10.50.0.0/16"],
  );
  const { rogue, victim } = it;
  const send = (payload: Uint8Array): Record<string, number> =>
    counted(victim, () => rogue.send(inside(rogue.address, victim.address, 44, payload)));
  const refused = { "inbound-denied-FRAGMENT_WITHOUT_FIRST": 1 };
  expect(send(fragment6(PROTOCOL_UDP, 64, false, udp(53)))).toEqual(refused);
  const first = concatBytes(udp(53, "x".repeat(16)));
  writeU16(first, 4, 512); // of the whole datagram
  expect(send(fragment6(PROTOCOL_UDP, 0, true, first, 9))).toEqual({});
  expect(it.victim.delivered).toHaveLength(1);
  // Of that datagram by its id, but of another protocol by its own word; then truly of it.
  expect(send(fragment6(PROTOCOL_TCP, 64, false, tcpSyn(22), 9))).toEqual(refused);
  expect(send(fragment6(PROTOCOL_UDP, 24, false, new Uint8Array(8), 8))).toEqual(refused);
  expect(send(fragment6(PROTOCOL_UDP, 24, false, new Uint8Array(8), 9))).toEqual({});
  expect(deliveredTo(it)).toBe(2);
});

// https://github.com/3proxy/3proxy/issues/807: a deny of IPv4 addresses did not hold for the same addresses written as
// ::ffff:a.b.c.d. Inside this program that form *is* IPv4: an IPv6 header may not carry it.
describe("an IPv6 header with an IPv4-mapped address is dropped by name", () => {
  test.each([
    ["as its destination", "fd00:77::66", "::ffff:10.50.0.9"],
    ["as its source", "::ffff:10.50.0.9", "fd00:77::1"],
  ])("%s (3proxy#807)", (_what, source, destination) => {
    const it = everythingScene();
    const rises = counted(it.victim, () => it.rogue.send(ipv6(source, destination, PROTOCOL_UDP, udp(53))));
    expect(rises).toEqual({ "inbound-MAPPED_ADDRESS": 1 });
    expect(deliveredTo(it)).toBe(0);
  });
});

// https://github.com/tailscale/tailscale/pull/20866: the filter saw only the IPv6 address that an IPv4 one was dressed
// in, and netstack dialled what was inside: the cloud's metadata service.
describe("never sees an IPv4 address through what it is dressed in", () => {
  test.each([
    ["NAT64", "64:ff9b::a9fe:a9fe"],
    ["6to4", "2002:a9fe:a9fe::1"],
    ["IPv4-compatible", "::a9fe:a9fe"],
    ["IPv4-translated", "::ffff:0:a9fe:a9fe"],
    ["Teredo, the client", "2001:0:102:304:8000:f227:5601:5601"],
    ["Teredo, the server", "2001:0:a9fe:a9fe:8000:f227:fefd:fcfb"],
    ["ISATAP", "2001:db8::5efe:a9fe:a9fe"],
  ])("%s (tailscale#20866)", (_name, destination) => {
    const it = everythingScene();
    const { rogue, victim } = it;
    const rises = counted(victim, () =>
      rogue.send(ipv6(formatAddress(rogue.address), destination, PROTOCOL_UDP, udp(80))),
    );
    expect(rises).toEqual({ "inbound-denied-NEVER": 1 });
    expect(deliveredTo(it)).toBe(0);
    rogue.send(ipv6(formatAddress(rogue.address), "2001:db8::8", PROTOCOL_UDP, udp(80)));
    expect(deliveredTo(it)).toBe(1);
  });
});

// https://github.com/netbirdio/netbird/issues/1414: who could talk to a routing peer at all got to every network behind
// it by `wg set … allowed-ips` and `ip route add` on its own machine: routes were distributed, not enforced.
test("an end that routes more to its gateway than it was given gets nothing of it (netbird#1414)", () => {
  const it = scene(
    (rogue, victim) => [
      openTo(rogue, hostPrefix(victim.address), "tcp", 22),
      openTo(rogue, parsePrefix("fd00:50::5/128")!, "tcp", 443),
    ],
    ["10.50.0.0/16", "fd00:50::/64"],
  );
  const { rogue, victim } = it;
  const from = formatAddress(rogue.address);
  const rises = counted(victim, () => {
    rogue.send(ipv6(from, "fd00:50::6", PROTOCOL_TCP, tcpSyn(443)));
    rogue.send(ipv6(from, "fd00:50::5", PROTOCOL_TCP, tcpSyn(22)));
  });
  expect(rises).toEqual({ "inbound-denied-NO_GRANT": 2 });
  // Nor by a source that it gave itself, in the other family or in the network behind.
  const forged = counted(victim, () => {
    rogue.send(ipv4("10.50.0.66", "10.50.0.5", tcpSyn(443), { protocol: PROTOCOL_TCP }));
    rogue.send(ipv6("fd00:50::66", "fd00:50::5", PROTOCOL_TCP, tcpSyn(443)));
  });
  expect(forged).toEqual({ "inbound-source-not-allowed": 2 });
  // Nor to what the gateway doesn't serve at all.
  expect(counted(victim, () => rogue.send(ipv6(from, "fd00:51::5", PROTOCOL_TCP, tcpSyn(443))))).toEqual({
    "inbound-not-our-address": 1,
  });
  expect(deliveredTo(it)).toBe(0);
  rogue.send(ipv6(from, "fd00:50::5", PROTOCOL_TCP, tcpSyn(443)));
  expect(deliveredTo(it)).toBe(1);
});

// https://github.com/slackhq/nebula/pull/239: the change that logged the reason of a drop skipped the drop itself where
// the line was not to be logged. Here too most denials leave no record: all of them have to be denied.
test("a denial that leaves no record is a denial all the same (nebula#239)", () => {
  const it = scene(dnsOnly);
  const { rogue, victim } = it;
  const openings = 2 * DENIALS_PER_SECOND_MAX;
  const rises = counted(victim, () => {
    for (let port = 0; port < openings; port++) {
      const packet = inside(rogue.address, victim.address, PROTOCOL_UDP, udp(1_000 + port));
      rogue.send(packet);
      rogue.send(packet); // the same flow again: one record
    }
  });
  expect(rises).toEqual({ "inbound-denied-NO_GRANT": 2 * openings });
  expect(victim.denied.length).toBeLessThan(openings);
  expect(deliveredTo(it)).toBe(0);
});

// https://github.com/netbirdio/netbird/issues/481: the answers of routed flows were dropped where the default was DROP.
test("answers pass without a grant of their own; one that comes too late is denied aloud (netbird#481)", () => {
  const world = new World();
  const [client, server] = [world.add("a"), world.add("b")];
  for (const station of [client, server]) world.lease(station, 30 * MINUTE_MS);
  const rule = { id: "g", action: "allow" as const, from: client, to: server, protocol: "udp" as const };
  world.apply([{ ...rule, ports: [[53, 53]] }]);
  const answer = udpPacket(server.address, client.address, 53, 4_000, "answer");
  give(world, client, udpPacket(client.address, server.address, 4_000, 53, "query"));
  world.run(SECOND_MS);
  give(world, server, answer);
  world.run(SECOND_MS);
  expect(client.delivered).toHaveLength(1);
  world.run(3 * MINUTE_MS); // the flow is forgotten
  give(world, server, answer);
  world.run(SECOND_MS);
  expect(client.delivered).toHaveLength(1);
  expect(server.denied.at(-1)).toMatchObject({ hop: "source", reason: "NO_GRANT" });
  expect(server.engine.takeLocalReply()?.[40]).toBe(1); // ICMPv6 to our own stack: its socket fails at once
  server.engine.filter.allowAll(); // a far end that doesn't ask itself is told, too
  give(world, server, udpPacket(server.address, client.address, 54, 4_000, "late"));
  world.run(SECOND_MS);
  expect(server.told.at(-1)).toMatchObject({ reason: "NO_GRANT" });
});

// https://github.com/tailscale/tailscale/issues/445 shows its engine running before it was given a filter ("you forgot
// to use SetFilter()"). There it dropped everything, as it must.
test("before the first netmap, and with one without rules, nothing passes (tailscale#445)", () => {
  const world = new World();
  const victim = world.add("victim");
  const rogue = new Rogue(world, victim);
  const packet = (): Uint8Array => inside(rogue.address, victim.address, PROTOCOL_UDP, udp(53));
  rogue.comeIn();
  rogue.send(packet());
  expect(victim.engine.counters()["wireguard-UNKNOWN_PEER"]).toBe(1);
  give(world, victim, udpPacket(victim.address, rogue.address, 53, 4_000, "out"));
  expect(victim.engine.counters()["outbound-no-route"]).toBe(1);
  world.lease(victim, 10 * MINUTE_MS);
  victim.engine.apply(world.nowMs, { ...stateOf(victim, [rogue.peer], []), filter: undefined });
  world.run(6 * SECOND_MS);
  rogue.comeIn();
  expect(counted(victim, () => rogue.send(packet()))).toEqual({ "inbound-denied-NO_GRANT": 1 });
  expect(victim.delivered).toEqual([]);
});

// https://github.com/slackhq/nebula/issues/724: a blocklist that was shipped took effect at the next handshake only:
// tunnels that stood went on. https://github.com/openziti/ziti/issues/3927: live circuits of a revoked session, too.
test("a revocation cuts the tunnel that stands, whatever the rules still say (nebula#724, ziti#3927)", () => {
  const it = scene(dnsOnly);
  const { world, rogue, victim } = it;
  const packet = (): Uint8Array => inside(rogue.address, victim.address, PROTOCOL_UDP, udp(53));
  rogue.send(packet());
  expect(deliveredTo(it)).toBe(1);
  const rules = dnsOnly(rogue, victim);
  const filter = { revoked: [rogue.session] };
  victim.engine.apply(world.nowMs, stateOf(victim, [rogue.peer], rules, { revision: 2, filter }));
  victim.engine.settle();
  expect(victim.ended.map(({ end }) => end)).toEqual(["revoked"]);
  rogue.send(packet());
  expect(victim.engine.counters()["wireguard-UNKNOWN_INDEX"]).toBe(1);
  world.run(6 * SECOND_MS);
  rogue.comeIn(); // keys, handshake and lease are in order still
  expect(counted(victim, () => rogue.send(packet()))).toEqual({ "inbound-denied-SESSION_REVOKED": 1 });
  expect(deliveredTo(it)).toBe(1);
});
