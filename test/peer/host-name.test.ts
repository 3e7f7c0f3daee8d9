import { expect, test } from "vitest";
import { longestMatch, matchesPattern, parseHostName } from "../../src/peer/host-name.ts";

test("names are lower-cased and lose a final dot", () => {
  expect(parseHostName("DB.Staging.Internal.")).toBe("db.staging.internal");
  expect(parseHostName("_srv.x-y.lan")).toBe("_srv.x-y.lan");
  expect(parseHostName("a".repeat(63))).toBe("a".repeat(63));
});

test("what isn't a host name is none: empty labels, odd characters, lengths, and every spelling of an address", () => {
  for (const text of [
    "",
    ".",
    "a..b",
    ".a",
    "-a",
    "a-",
    "a b",
    "a\0b",
    "a/b",
    "ä.lan",
    "a%0a",
    "a:1",
    "a".repeat(64),
    `${"a.".repeat(127)}a`,
    "10.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "a.0x",
    "1.2.3.4.5",
    "::1",
  ]) {
    expect(parseHostName(text), JSON.stringify(text)).toBeUndefined();
  }
});

test("a wildcard covers what is below it, never the name itself or a longer last label", () => {
  expect(matchesPattern("*.staging.internal", "db.staging.internal")).toBe(true);
  expect(matchesPattern("*.staging.internal", "a.b.staging.internal")).toBe(true);
  expect(matchesPattern("*.staging.internal", "staging.internal")).toBe(false);
  expect(matchesPattern("*.staging.internal", "evilstaging.internal")).toBe(false);
  expect(matchesPattern("*.staging.internal", ".staging.internal")).toBe(false);
  expect(matchesPattern("*", "anything.at.all")).toBe(true);
  expect(matchesPattern("db.lan", "db.lan")).toBe(true);
  expect(matchesPattern("db.lan", "xdb.lan")).toBe(false);
});

test("the longest pattern wins, an exact name before any wildcard", () => {
  const routes = ["*", "*.internal", "*.staging.internal", "db.staging.internal"];
  const find = (name: string) => longestMatch(name, routes, (route) => route);
  expect(find("db.staging.internal")).toBe("db.staging.internal");
  expect(find("x.staging.internal")).toBe("*.staging.internal");
  expect(find("x.internal")).toBe("*.internal");
  expect(find("example.com")).toBe("*");
  expect(longestMatch("example.com", ["*.internal"], (route) => route)).toBeUndefined();
});
