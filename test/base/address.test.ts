import { expect, test } from "vitest";
import { formatAddress, parseAddress } from "../../src/base/address.ts";

test("dotted decimal stands for the last two groups of an address and nowhere else (RFC 4291 §2.2)", () => {
  for (const text of ["0.0.0.1::1:2", "1.2.3.4::", "1:1.2.3.4::5", "1.2.3.4:5:6:7:8:9:a:b", "::1.2.3.4:5"])
    expect(parseAddress(text), text).toBeUndefined();
  for (const text of ["::ffff:1.2.3.4", "64:ff9b::1.2.3.4", "1:2:3:4:5:6:1.2.3.4"])
    expect(parseAddress(text), text).toBeDefined();
  expect(formatAddress(parseAddress("64:ff9b::1.2.3.4")!)).toBe("64:ff9b::102:304");
});
