import { expect, test } from "vitest";
import { embeddedV4s, makeAddress, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { broadcastOf, type DialSurroundings, refuseDial } from "../../src/peer/dial-rules.ts";
import { address } from "./world.ts";

const AROUND: DialSurroundings = {
  ownAddresses: [address("192.168.7.2"), address("2001:db8:7::2"), address("fe80::1234")],
  overlay: [parsePrefix("fd00:17::/48")!, parsePrefix("10.99.0.0/16")!],
  broadcasts: [address("192.168.7.255")],
};

function refusal(text: string): string | undefined {
  return refuseDial(address(text), AROUND, "none");
}

const REFUSED_V4 = [
  ["127.0.0.1", "LOOPBACK"],
  ["127.255.255.254", "LOOPBACK"],
  ["0.0.0.0", "UNSPECIFIED"],
  ["0.1.2.3", "UNSPECIFIED"],
  ["169.254.0.1", "LINK_LOCAL"],
  ["169.254.255.255", "LINK_LOCAL"],
  ["169.254.169.254", "METADATA"],
  ["168.63.129.16", "METADATA"],
  ["100.100.100.200", "METADATA"],
  ["192.0.0.192", "METADATA"],
  ["224.0.0.1", "MULTICAST"],
  ["239.255.255.250", "MULTICAST"],
  ["255.255.255.255", "BROADCAST"],
  ["192.168.7.255", "BROADCAST"],
  ["192.168.7.2", "OWN_ADDRESS"],
  ["10.99.0.1", "OVERLAY"],
  ["10.99.255.255", "OVERLAY"],
] as const;

const REFUSED_V6 = [
  ["::", "UNSPECIFIED"],
  ["::1", "LOOPBACK"],
  ["fe80::1", "LINK_LOCAL"],
  ["febf:ffff::1", "LINK_LOCAL"],
  ["fe80::1234", "OWN_ADDRESS"],
  ["fec0::1", "SITE_LOCAL"],
  ["feff::1", "SITE_LOCAL"],
  ["ff02::1", "MULTICAST"],
  ["ff0e::1", "MULTICAST"],
  ["fd00:ec2::254", "METADATA"],
  ["fd20:ce::254", "METADATA"],
  ["2001:db8:7::2", "OWN_ADDRESS"],
  ["fd00:17::100", "OVERLAY"],
  ["64:ff9b:1::1", "NAT64_LOCAL"],
  ["64:ff9b:1:ffff::a14:5", "NAT64_LOCAL"],
] as const;

test.each([...REFUSED_V4, ...REFUSED_V6])("%s is refused: %s", (text, reason) => {
  expect(refusal(text)).toBe(reason);
});

const FORMS: readonly (readonly [name: string, make: (v4: number) => ReturnType<typeof makeAddress>])[] = [
  ["IPv4-mapped", (v4) => makeAddress(0, 0, 0xffff, v4)],
  ["IPv4-compatible", (v4) => makeAddress(0, 0, 0, v4)],
  ["IPv4-translated", (v4) => makeAddress(0, 0, 0xffff0000, v4)],
  ["NAT64", (v4) => makeAddress(0x64ff9b, 0, 0, v4)],
  ["6to4", (v4) => makeAddress(0x20020000 | (v4 >>> 16), (v4 << 16) | 0, 0, 1)],
  ["Teredo client", (v4) => makeAddress(0x20010000, 0x01020304, 0x8000_f227, ~v4)],
  ["Teredo server", (v4) => makeAddress(0x20010000, v4, 0x8000_f227, ~0x01020304)],
  ["ISATAP", (v4) => makeAddress(0x20010db8, 0, 0x00005efe, v4)],
  ["ISATAP, universal bit", (v4) => makeAddress(0x20010db8, 0, 0x02005efe, v4)],
];

test.each(FORMS)("every refused IPv4 address is refused as %s, too, and an allowed one isn't", (_name, make) => {
  for (const [text] of REFUSED_V4) {
    expect(refuseDial(make(address(text).w3), AROUND, "none"), text).not.toBeUndefined();
  }
  for (const text of ["10.20.0.5", "8.8.8.8", "192.168.7.3", "100.64.0.1", "172.16.0.1"]) {
    expect(refuseDial(make(address(text).w3), AROUND, "none"), text).toBeUndefined();
  }
});

test("what lies just outside each refused range may be dialled", () => {
  for (const text of [
    "126.255.255.255",
    "128.0.0.0",
    "1.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "100.100.100.199",
    "223.255.255.255",
    "240.0.0.1",
    "255.255.255.254",
    "10.98.255.255",
    "10.100.0.0",
    "fe7f:ffff::1",
    "fd00:16:ffff::1",
    "fd00:18::1",
    "fd00:ec2::253",
    "64:ff9b:2::1",
    "2003::1",
    "2001:1::1",
  ]) {
    expect(refusal(text), text).toBeUndefined();
  }
});

test("a service that names the address opens all but this machine itself; the host's own word opens that, too", () => {
  for (const [text, reason] of [...REFUSED_V4, ...REFUSED_V6]) {
    const own = ["LOOPBACK", "OWN_ADDRESS", "UNSPECIFIED"].includes(reason);
    expect(refuseDial(address(text), AROUND, "service"), text).toBe(own ? reason : undefined);
    expect(refuseDial(address(text), AROUND, "host"), text).toBeUndefined();
  }
  expect(refuseDial(address("64:ff9b::7f00:1"), AROUND, "service")).toBe("LOOPBACK");
  expect(refuseDial(address("2002:7f00:1::"), AROUND, "service")).toBe("LOOPBACK");
});

test("the default routes of a grant change nothing: random addresses are judged by what they stand for", () => {
  const random = new SeededRandom(11);
  for (let i = 0; i < 2_000; i++) {
    const inner = makeAddress(0, 0, 0xffff, random.u32());
    const expected = refuseDial(inner, AROUND, "none") === undefined;
    const wrapped = makeAddress(0x64ff9b, 0, 0, inner.w3);
    expect(embeddedV4s(wrapped)).toEqual([inner]);
    expect(refuseDial(wrapped, AROUND, "none") === undefined).toBe(expected);
  }
});

test("directed broadcasts follow the interface's prefix", () => {
  const interfaceOf = (text: string) => ({ ...parsePrefix(text)!, address: parseAddress(text.split("/")[0]!)! });
  expect(broadcastOf(interfaceOf("192.168.7.2/24"))).toEqual(address("192.168.7.255"));
  expect(broadcastOf(interfaceOf("10.1.2.3/20"))).toEqual(address("10.1.15.255"));
  expect(broadcastOf(interfaceOf("10.1.2.3/31"))).toBeUndefined();
  expect(broadcastOf(interfaceOf("10.1.2.3/32"))).toBeUndefined();
  expect(broadcastOf(interfaceOf("fd00::1/64"))).toBeUndefined();
  expect(broadcastOf(interfaceOf("fd00::1/120"))).toBeUndefined();
});
