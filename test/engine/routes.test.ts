import { expect, test } from "vitest";
import { hostPrefix, makeV4, type Prefix, parseAddress, parsePrefix } from "../../src/base/address.ts";
import { ALLOWED_IPS_MAX } from "../../src/base/limits.ts";
import { Routes } from "../../src/engine/routes.ts";

class Peer {
  failed = false;
  readonly name: string;
  readonly prefixes: readonly Prefix[];
  constructor(name: string, ...prefixes: string[]) {
    this.name = name;
    this.prefixes = prefixes.map((text) => parsePrefix(text)!);
  }
}

function words(text: string): [number, number, number, number] {
  const a = parseAddress(text)!;
  return [a.w0, a.w1, a.w2, a.w3];
}

test("wg: of two peers with one prefix the last has it, and the first may not speak for it any more", () => {
  const first = new Peer("first", "10.0.0.0/16");
  const last = new Peer("last", "10.0.0.0/16", "10.1.0.0/16");
  const routes = new Routes<Peer>("wg");
  routes.rebuild([first, last]);
  expect(routes.peerFor(...words("10.0.0.1"))).toBe(last);
  expect(routes.maySpeakFor(first, ...words("10.0.0.1"))).toBe(false);
  expect(routes.maySpeakFor(last, ...words("10.0.0.1"))).toBe(true);
});

test("wg: a more specific prefix of another peer takes the source too", () => {
  const wide = new Peer("wide", "10.0.0.0/8");
  const narrow = new Peer("narrow", "10.9.0.0/16");
  const routes = new Routes<Peer>("wg");
  routes.rebuild([wide, narrow]);
  expect(routes.maySpeakFor(wide, ...words("10.9.0.1"))).toBe(false);
  expect(routes.maySpeakFor(wide, ...words("10.8.0.1"))).toBe(true);
});

test("badge: two gateways of one route may both speak for it; packets go to the first that has not failed", () => {
  const a = new Peer("a", "10.20.0.0/16");
  const b = new Peer("b", "10.20.0.0/16");
  const routes = new Routes<Peer>("badge");
  routes.rebuild([a, b]);
  expect(routes.maySpeakFor(a, ...words("10.20.0.1"))).toBe(true);
  expect(routes.maySpeakFor(b, ...words("10.20.0.1"))).toBe(true);
  expect(routes.peerFor(...words("10.20.0.1"))).toBe(a);
  a.failed = true;
  expect(routes.peerFor(...words("10.20.0.1"))).toBe(b);
  b.failed = true;
  expect(routes.peerFor(...words("10.20.0.1"))).toBe(a);
});

test("badge: a peer may not speak for another's address", () => {
  const agent = new Peer("agent", "fd00::1/128");
  const node = new Peer("node", "fd00::2/128");
  const routes = new Routes<Peer>("badge");
  routes.rebuild([agent, node]);
  expect(routes.maySpeakFor(agent, ...words("fd00::2"))).toBe(false);
  expect(routes.peerFor(...words("fd00::3"))).toBeUndefined();
});

test("prefixes over the limit are left out and counted", () => {
  const many = new Peer("many");
  const prefixes = Array.from({ length: ALLOWED_IPS_MAX + 1 }, (_, i) => hostPrefix(makeV4(0x0a000000 + i)));
  const routes = new Routes<{ prefixes: readonly Prefix[]; failed: boolean }>("badge");
  routes.rebuild([{ prefixes, failed: many.failed }]);
  expect(routes.refused).toBe(1);
});
