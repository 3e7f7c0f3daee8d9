// What a resolver answers from one peer's view: a table of questions, each over the codec's own bytes.
import { expect, test } from "vitest";
import { addressFromBytes, formatAddress, parsePrefix } from "../../../src/base/address.ts";
import { readU16, toHex } from "../../../src/base/bytes.ts";
import { RESOLVER_ADDRESSES_MAX } from "../../../src/base/limits.ts";
import type { NetmapView, ServiceEntry } from "../../../src/control/netmap.ts";
import { OverlayNames, resolverAddressesOf } from "../../../src/peer/tun/overlay-names.ts";
import { type DnsQuery, decodeDnsQuery, encodeDnsReply } from "../../../src/wire/dns-query.ts";
import { queryFor, readRecords } from "../../wire/dns-bytes.ts";
import { CODER, GW, netmapOf } from "../world.ts";

const A = 1;
const SOA = 6;
const PTR = 12;
const TXT = 16;
const AAAA = 28;
const AXFR = 252;
const ANY = 255;

const base = netmapOf();
const KEYS = { publicKey: base.self.publicKey, signKey: base.self.signKey, tags: [], kind: "wirebadge" as const };

function session(identity: string, addresses: readonly string[], id = GW) {
  return { ...KEYS, session: id, identity, addresses: [...addresses] };
}

const peer = (identity: string, addresses: readonly string[]) => ({
  ...session(identity, addresses),
  prefixes: [],
  endpoints: [],
});

const service = (name: string, ...addresses: readonly string[]): ServiceEntry => ({
  name,
  protocol: "tcp",
  ports: [[80, 80]],
  gateways: addresses.map((address) => ({ session: GW, address })),
  discoverable: false,
});

function viewOf(change: Partial<NetmapView> = {}): NetmapView {
  return netmapOf({
    self: { ...session("node:laptop", ["fd00:17:0:1::1", "10.99.0.1"], CODER), leaseMs: 60_000 },
    peers: [
      peer("node:gw", ["fd00:17:0:1::6", "10.99.0.6"]),
      peer("node:six", ["fd00:17:0:1::7"]),
      peer("agent:coder", ["fd00:17:0:1::c", "10.99.0.12"]),
      peer("user:ana", ["fd00:17:0:1::d"]),
      peer("node:both", ["fd00:17:0:1::8", "10.99.0.8"]),
    ],
    services: [
      service("staging", "fd00:17:0:2::1", "fd00:17:0:2::2"),
      service("x_y", "fd00:17:0:2::9"),
      service("both", "fd00:17:0:2::8"),
      { ...service("production"), discoverable: true, denied: { reason: "NO_GRANT", hint: "ask" } },
    ],
    ...change,
  });
}

/** The reply in short: its code's name, then what stands in it. */
function ask(view: NetmapView, name: string, type: number, recordClass = 1): string {
  const query = queryOf(queryFor(name, type, { recordClass }));
  const bytes = encodeDnsReply(query, new OverlayNames(view).answer(query), 65_535);
  const code = ["ok", "?", "servfail", "nxdomain", "?", "refused"][readU16(bytes, 2) & 0x0f];
  const found = readU16(bytes, 6);
  const records = readRecords(bytes).map((record, index) => {
    const at = record.data;
    if (record.type === A) return formatAddress(addressFromBytes(bytes, at, 4));
    if (record.type === AAAA) return formatAddress(addressFromBytes(bytes, at, 16));
    return record.type === PTR ? record.name : `${index < found ? "its " : ""}SOA ${record.owner}`;
  });
  return [code, ...records].join(" ");
}

function queryOf(bytes: Uint8Array): DnsQuery {
  const decoded = decodeDnsQuery(bytes);
  if (decoded.kind !== "query") throw new Error("no query");
  return decoded.query;
}

const reverse = (digits: string, zone: string): string => `${digits.split("").reverse().join(".")}.${zone}`;
const GW6 = reverse("fd000017000000010000000000000006", "ip6.arpa");
const ULA_ZONE = "0.0.0.0.7.1.0.0.0.0.d.f.ip6.arpa";
const NO_NAME = "nxdomain SOA test.internal";

test.each<[name: string, type: number, answer: string]>([
  ["gw.test.internal", AAAA, "ok fd00:17:0:1::6"],
  ["gw.test.internal", A, "ok 10.99.0.6"],
  ["GW.tEst.INTERNAL", A, "ok 10.99.0.6"],
  ["gw.test.internal", ANY, "ok fd00:17:0:1::6"],
  ["gw.test.internal", TXT, "ok SOA test.internal"],
  ["six.test.internal", A, "ok SOA test.internal"],
  ["laptop.test.internal", A, "ok 10.99.0.1"], // itself
  ["staging.test.internal", AAAA, "ok fd00:17:0:2::1 fd00:17:0:2::2"],
  ["staging.test.internal", A, "ok SOA test.internal"],
  ["both.test.internal", AAAA, "ok fd00:17:0:2::8"], // the service alone, as the dialer has it
  ["both.test.internal", A, "ok SOA test.internal"],
  ["production.test.internal", AAAA, "ok SOA test.internal"], // discoverable: there, without an address
  ["coder.test.internal", AAAA, NO_NAME], // agents have no names of their own here
  ["nobody.test.internal", AAAA, NO_NAME],
  ["nobody.test.internal", TXT, NO_NAME],
  ["x.gw.test.internal", A, NO_NAME],
  ["*.test.internal", A, NO_NAME],
  ["test.internal", SOA, "ok its SOA test.internal"],
  ["test.internal", ANY, "ok its SOA test.internal"],
  ["gw.test.internal", SOA, "ok SOA test.internal"],
  ["ana.test.internal", AAAA, NO_NAME], // nor have users
  ["x_y.test.internal", AAAA, NO_NAME],
  ["test.internal", A, "ok SOA test.internal"],
  ["internal", SOA, "refused"],
  ["example.com", A, "refused"],
  ["", SOA, "refused"],
  ["gw.other.internal", A, "refused"],
  ["test.internal", AXFR, "refused"],
  [GW6, PTR, "ok gw.test.internal"],
  [GW6, A, `ok SOA ${ULA_ZONE}`],
  ["6.0.99.10.in-addr.arpa", PTR, "ok gw.test.internal"],
  ["6.0.99.10.in-addr.arpa", ANY, "ok gw.test.internal"],
  [reverse("fd000017000000020000000000000002", "ip6.arpa"), PTR, "ok staging.test.internal"],
  ["8.0.99.10.in-addr.arpa", PTR, "nxdomain SOA 99.10.in-addr.arpa"], // its name leads elsewhere
  ["12.0.99.10.in-addr.arpa", PTR, "nxdomain SOA 99.10.in-addr.arpa"], // an agent's
  ["7.0.99.10.in-addr.arpa", PTR, "nxdomain SOA 99.10.in-addr.arpa"],
  ["06.0.99.10.in-addr.arpa", PTR, "nxdomain SOA 99.10.in-addr.arpa"],
  ["1.6.0.99.10.in-addr.arpa", PTR, "nxdomain SOA 99.10.in-addr.arpa"],
  ["0.99.10.in-addr.arpa", PTR, "ok SOA 99.10.in-addr.arpa"],
  ["6.0.98.10.in-addr.arpa", PTR, "refused"],
  [reverse("fd000018000000010000000000000006", "ip6.arpa"), PTR, "refused"],
  [`66.${GW6.slice(2)}`, PTR, `nxdomain SOA ${ULA_ZONE}`],
  [`0:.${GW6.slice(2)}`, PTR, `nxdomain SOA ${ULA_ZONE}`],
])("%s, type %i: %s", (name, type, answer) => {
  expect(ask(viewOf(), name, type)).toBe(answer);
});

test("another class is refused, any class is ours", () => {
  expect(ask(viewOf(), "gw.test.internal", A, 3)).toBe("refused");
  expect(ask(viewOf(), "gw.test.internal", A, 255)).toBe("ok 10.99.0.6");
});

test("a name that a peer may not know gets the bytes of one that does not exist", () => {
  const query = queryOf(queryFor("hidden.test.internal", AAAA));
  const hidden = viewOf(); // the coordinator leaves out of a netmap what its holder may not know
  const none = viewOf({ services: [], peers: [] });
  const bytes = (view: NetmapView): string => toHex(encodeDnsReply(query, new OverlayNames(view).answer(query), 512));
  expect(bytes(hidden)).toBe(bytes(none));
});

test("two sessions of one node are one name; beyond the most addresses the rest are left out", () => {
  const twice = viewOf({ peers: [peer("node:gw", ["10.99.0.6"]), peer("node:gw", ["10.99.0.7"])] });
  expect(ask(twice, "gw.test.internal", A)).toBe("ok 10.99.0.6 10.99.0.7");
  const many = Array.from({ length: RESOLVER_ADDRESSES_MAX + 1 }, (_, i) => `fd00:17:0:2::${(i + 1).toString(16)}`);
  const answer = ask(viewOf({ services: [service("many", ...many)] }), "many.test.internal", AAAA);
  expect(answer.split(" ")).toHaveLength(1 + RESOLVER_ADDRESSES_MAX);
});

test("a peer without an IPv4 address is told of none: it would be sent out by another interface", () => {
  const view = viewOf({ self: { ...session("node:laptop", ["fd00:17:0:1::1"], CODER), leaseMs: 60_000 } });
  expect(ask(view, "gw.test.internal", A)).toBe("ok SOA test.internal");
  expect(ask(view, "gw.test.internal", AAAA)).toBe("ok fd00:17:0:1::6");
  expect(resolverAddressesOf(view).map(formatAddress)).toEqual(["fd00:17::53"]);
});

test("the resolver's addresses are inside the network, one of each family", () => {
  expect(resolverAddressesOf(viewOf()).map(formatAddress)).toEqual(["fd00:17::53", "10.99.0.0"]);
});

test.each([{ ula: "x" }, { pool4: "x" }])("a network with the prefix %j has no resolver", (change) => {
  expect(resolverAddressesOf(viewOf({ network: { ...base.network, ...change } }))).toEqual([]);
});

test.each<[pool: string, zones: readonly string[]]>([
  ["10.99.0.0/16", ["99.10.in-addr.arpa"]],
  ["0.0.0.0/0", []],
  ["10.99.4.0/24", ["4.99.10.in-addr.arpa"]],
  ["10.99.4.0/23", ["4.99.10.in-addr.arpa", "5.99.10.in-addr.arpa"]],
  ["10.98.0.0/15", ["98.10.in-addr.arpa", "99.10.in-addr.arpa"]],
  [
    "10.99.4.8/30",
    ["8.4.99.10.in-addr.arpa", "9.4.99.10.in-addr.arpa", "10.4.99.10.in-addr.arpa", "11.4.99.10.in-addr.arpa"],
  ],
])("the reverse zones of %s hold its addresses alone", (pool4, zones) => {
  const names = new OverlayNames(viewOf({ network: { ...base.network, pool4 } }));
  expect(names.zones).toEqual(["test.internal", ...zones, ULA_ZONE]);
  expect(parsePrefix(pool4)).toBeDefined();
});

test("a network whose name is no label has no names", () => {
  const view = viewOf({ network: { ...base.network, name: "a.b" } });
  expect(new OverlayNames(view).zones[0]).toBe("99.10.in-addr.arpa");
  expect(ask(view, "gw.a.b.internal", A)).toBe("refused");
});
