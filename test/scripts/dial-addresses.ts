// Addresses behind a gateway that it must not reach for anybody, and the two machines they are about.
export const HOST = "10.55.0.1"; // the machine of coordinator, gateway and agent
export const SITE = "10.55.0.2"; // the private network behind the gateway

/** On the gateway's machine itself. */
export const OWN = ["127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "0.1.2.3", "::", HOST, "fd55::1"];
/** Addresses of the neighbour, to which the gateway's machine has routes: only the dial rules stand before them. */
export const NEIGHBOUR = [
  "169.254.169.254",
  "169.254.7.7",
  "168.63.129.16",
  "100.100.100.200",
  "192.0.0.192",
  "fd00:ec2::254",
  "fd20:ce::254",
  "fec0::7",
];
/** 127.0.0.1, the gateway's own address and the metadata address, in other clothes; the neighbour holds these, too. */
export const MAPPED = [
  "::127.0.0.1",
  "::ffff:0:127.0.0.1",
  "64:ff9b::127.0.0.1",
  "64:ff9b::10.55.0.1",
  "64:ff9b::169.254.169.254",
  "64:ff9b:1::7f00:1",
  "2002:7f00:1::1",
  "2002:a37:1::1",
  "2002:a9fe:a9fe::1",
  "2001:0:7f00:1::1",
];
export const V4_MAPPED = ["::ffff:127.0.0.1", "::ffff:10.55.0.1", "::ffff:169.254.169.254"];
export const GROUPS = ["224.0.0.1", "255.255.255.255", "10.55.0.255", "ff02::1", "fe80::1"];
/** No packet to these is ever made: the agent's own end says so, before any gateway is asked. */
export const NO_UNICAST = ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1"];
