import fc from "fast-check";
import { expect, test } from "vitest";
import {
  formatPrefix,
  isV4,
  makePrefix,
  makeV4,
  type Prefix,
  parsePrefix,
  prefixContains,
} from "../../../src/base/address.ts";
import {
  formatInterfaceAddress,
  nextRulePriority,
  planRoutes,
  sortPrefixes,
  spoofGuard,
} from "../../../src/peer/tun/route-plan.ts";

const prefixes = (...texts: readonly string[]): Prefix[] => texts.map((text) => parsePrefix(text)!);

test("most specific first, counted in the prefix's own family, each once", () => {
  const sorted = sortPrefixes(
    prefixes("0.0.0.0/0", "10.0.0.0/8", "fd00::/8", "10.1.0.0/16", "fd00::1/128", "10.1.0.0/16"),
  );
  expect(sorted.map(formatPrefix)).toEqual(["fd00::1/128", "10.1.0.0/16", "fd00::/8", "10.0.0.0/8", "0.0.0.0/0"]);
});

test("auto: one route for each that the device has not, a default route by policy", () => {
  const plan = planRoutes(
    prefixes("0.0.0.0/0", "10.0.0.5/32", "10.0.0.0/16", "fd00::/16", "fd00::7/128"),
    "auto",
    prefixes("10.0.0.0/24", "fd00::/64"),
  );
  expect(plan.routes.map(({ prefix, table }) => [formatPrefix(prefix), table])).toEqual([
    ["fd00::/16", undefined],
    ["10.0.0.0/16", undefined],
  ]);
  expect(plan.defaults).toEqual([4]);
});

test("off makes none; a table takes all, without policy routing", () => {
  const asked = prefixes("0.0.0.0/0", "10.0.0.5/32", "::/0");
  expect(planRoutes(asked, "off", [])).toEqual({ routes: [], defaults: [] });
  const { routes, defaults } = planRoutes(asked, 77, prefixes("10.0.0.0/24"));
  expect(routes.map(({ prefix, table }) => `${formatPrefix(prefix)} ${table}`)).toEqual([
    "10.0.0.5/32 77",
    "::/0 77",
    "0.0.0.0/0 77",
  ]);
  expect(defaults).toEqual([]);
});

test("an IPv6 route covers no IPv4 address", () => {
  expect(planRoutes(prefixes("10.0.0.0/8"), "auto", prefixes("::/0")).routes).toHaveLength(1);
});

test("every asked address has a route, or one that was there", () => {
  const some = fc
    .tuple(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 97, max: 128 }))
    .map(([value, bits]) => makePrefix(makeV4(value & 0x07030301), bits));
  fc.assert(
    fc.property(fc.array(some), fc.array(some), (asked, present) => {
      const { routes } = planRoutes(asked, "auto", present);
      const all = [...routes.map((route) => route.prefix), ...present];
      for (const prefix of asked) {
        expect(isV4(prefix.address)).toBe(true);
        expect(all.some((other) => other.bits <= prefix.bits && prefixContains(other, prefix.address))).toBe(true);
      }
      expect(new Set(routes.map((route) => formatPrefix(route.prefix))).size).toBe(routes.length);
    }),
  );
});

test("a rule's priority is the kernel's own choice", () => {
  expect(nextRulePriority([0, 32766, 32767])).toBe(32765);
  expect(nextRulePriority([32767, 0, 32764, 32765, 32766])).toBe(32763);
  expect(nextRulePriority([0])).toBe(0);
  expect(nextRulePriority([0, 0, 5])).toBe(0);
});

test("an interface's address keeps its host bits", () => {
  expect(formatInterfaceAddress({ address: makeV4(0x0a000002), bits: 120 })).toBe("10.0.0.2/24");
});

test("the anti-spoof rules are wg-quick's, by the device itself and not its name, which may change", () => {
  expect(spoofGuard(6, "wirebadge-wg0", "wg0", ["fd00::2"], 51820).split("\n")).toEqual([
    "add table ip6 wirebadge-wg0",
    "add chain ip6 wirebadge-wg0 preraw { type filter hook prerouting priority -300; }",
    "add chain ip6 wirebadge-wg0 premangle { type filter hook prerouting priority -150; }",
    "add chain ip6 wirebadge-wg0 postmangle { type filter hook postrouting priority -150; }",
    'add rule ip6 wirebadge-wg0 preraw iif != "wg0" ip6 daddr fd00::2 fib saddr type != local drop',
    "add rule ip6 wirebadge-wg0 postmangle meta l4proto udp meta mark 51820 ct mark set meta mark",
    "add rule ip6 wirebadge-wg0 premangle meta l4proto udp meta mark set ct mark",
    "",
  ]);
});
