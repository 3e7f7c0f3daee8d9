// The addresses that a gateway refuses, with their reasons, for both ways it may carry packets.
import { makeAddress, parsePrefix } from "../../src/base/address.ts";
import type { DialSurroundings } from "../../src/peer/dial-rules.ts";
import { address } from "./world.ts";

export const DIAL_AROUND: DialSurroundings = {
  ownAddresses: [address("192.168.7.2"), address("2001:db8:7::2"), address("fe80::1234")],
  overlay: [parsePrefix("fd00:17::/48")!, parsePrefix("10.99.0.0/16")!],
  broadcasts: [address("192.168.7.255")],
};

export const REFUSED_V4 = [
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

export const REFUSED_V6 = [
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

/** An IPv4 address inside an IPv6 one. */
export const WRAPPED_V4: readonly (readonly [name: string, make: (v4: number) => ReturnType<typeof makeAddress>])[] = [
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
