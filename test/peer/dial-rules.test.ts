import { expect, test } from "vitest";
import { embeddedV4s, makeAddress, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { broadcastOf, refuseDial } from "../../src/peer/dial-rules.ts";
import { DIAL_AROUND, REFUSED_V4, REFUSED_V6, WRAPPED_V4 } from "./dial-table.ts";
import { address } from "./world.ts";

function refusal(text: string): string | undefined {
  return refuseDial(address(text), DIAL_AROUND, "none");
}

test.each([...REFUSED_V4, ...REFUSED_V6])("%s is refused: %s", (text, reason) => {
  expect(refusal(text)).toBe(reason);
});

test.each(WRAPPED_V4)("every refused IPv4 address is refused as %s, too, and an allowed one isn't", (_name, make) => {
  for (const [text] of REFUSED_V4) {
    expect(refuseDial(make(address(text).w3), DIAL_AROUND, "none"), text).not.toBeUndefined();
  }
  for (const text of ["10.20.0.5", "8.8.8.8", "192.168.7.3", "100.64.0.1", "172.16.0.1"]) {
    expect(refuseDial(make(address(text).w3), DIAL_AROUND, "none"), text).toBeUndefined();
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
    expect(refuseDial(address(text), DIAL_AROUND, "service"), text).toBe(own ? reason : undefined);
    expect(refuseDial(address(text), DIAL_AROUND, "host"), text).toBeUndefined();
  }
  expect(refuseDial(address("64:ff9b::7f00:1"), DIAL_AROUND, "service")).toBe("LOOPBACK");
  expect(refuseDial(address("2002:7f00:1::"), DIAL_AROUND, "service")).toBe("LOOPBACK");
});

test("the default routes of a grant change nothing: random addresses are judged by what they stand for", () => {
  const random = new SeededRandom(11);
  for (let i = 0; i < 2_000; i++) {
    const inner = makeAddress(0, 0, 0xffff, random.u32());
    const expected = refuseDial(inner, DIAL_AROUND, "none") === undefined;
    const wrapped = makeAddress(0x64ff9b, 0, 0, inner.w3);
    expect(embeddedV4s(wrapped)).toEqual([inner]);
    expect(refuseDial(wrapped, DIAL_AROUND, "none") === undefined).toBe(expected);
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
