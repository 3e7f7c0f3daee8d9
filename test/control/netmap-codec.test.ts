import fc from "fast-check";
import { expect, test } from "vitest";
import { concatBytes, utf8 } from "../../src/base/bytes.ts";
import { inContext } from "../../src/control/contexts.ts";
import type { Netmap, NetmapEntries } from "../../src/control/netmap.ts";
import {
  applyDelta,
  diffEntries,
  openDelta,
  openNetmap,
  signDelta,
  signNetmap,
  toNetmapView,
} from "../../src/control/netmap-codec.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";

const crypto = new PortableCrypto();
const seed = new Uint8Array(32).fill(1);
const signKey = crypto.signPublicKey(seed);
const session = "s_0123456789abcdef";
const key = "A".repeat(43).concat("=");

const self = {
  session,
  identity: "agent:coder",
  tags: [],
  publicKey: key,
  signKey: key,
  addresses: ["fd00::1"],
  kind: "wirebadge",
  leaseMs: 300_000,
};
const good: NetmapEntries = {
  network: { id: "n_1", name: "wirebadge", ula: "fd00::/48", pool4: "10.1.0.0/16", mtuBytes: 1420, probes: [] },
  policy: { version: 4 },
  self,
  "peer/s_zzzzzzzzzzzzzzzz": {
    ...self,
    session: "s_zzzzzzzzzzzzzzzz",
    prefixes: ["fd00::2/128"],
    endpoints: ["10.0.0.1:51820"],
  },
  "in/1": { id: "g", action: "allow", sessions: [session], to: "fd00::2/128", protocol: "tcp", ports: [[22, 22]] },
  "revoked/s_yyyyyyyyyyyyyyyy": { session: "s_yyyyyyyyyyyyyyyy", untilMs: 5 },
};
const netmap: Netmap = { epoch: 1, revision: 10, entries: good };

test("a netmap and a delta read back as they were signed", () => {
  expect(openNetmap(crypto, signKey, session, signNetmap(crypto, seed, session, netmap))).toEqual(netmap);
  const delta = { epoch: 1, fromRevision: 10, revision: 11, set: { policy: { version: 5 } }, remove: ["in/1"] };
  expect(openDelta(crypto, signKey, session, signDelta(crypto, seed, session, delta))).toEqual(delta);
});

test("what is signed and no JSON is refused by name", () => {
  for (const bytes of [utf8("{"), Uint8Array.of(0xff, 0xfe)]) {
    const signature = crypto.sign(seed, inContext("netmap", utf8(session), bytes));
    expect(openNetmap(crypto, signKey, session, concatBytes(signature, bytes))).toBe("netmap-not-json");
  }
});

test.each(["peer", "revoked"])("a %s entry stands under the session that it names", (kind) => {
  const [key, value] = Object.entries(good).find(([name]) => name.startsWith(`${kind}/`))!;
  const { [key]: _left, ...entries } = good;
  const elsewhere = `${kind}/s_xxxxxxxxxxxxxxxx`;
  expect(toNetmapView({ ...netmap, entries: { ...entries, [elsewhere]: value } })).toEqual({
    key: elsewhere,
    message: "is not the session that it names",
  });
});

test("what is signed for another session, as another kind, by another key, or changed, is refused by name", () => {
  const signed = signNetmap(crypto, seed, session, netmap);
  expect(openNetmap(crypto, signKey, "s_zzzzzzzzzzzzzzzz", signed)).toBe("netmap-bad-signature");
  expect(openDelta(crypto, signKey, session, signed)).toBe("netmap-bad-signature");
  expect(openNetmap(crypto, crypto.signPublicKey(new Uint8Array(32)), session, signed)).toBe("netmap-bad-signature");
  const changed = signed.slice();
  changed[changed.length - 2]! ^= 1;
  expect(openNetmap(crypto, signKey, session, changed)).toBe("netmap-bad-signature");
  expect(openNetmap(crypto, signKey, session, signed.subarray(0, 64))).toBe("netmap-truncated");
});

test("an authentic netmap of another shape is refused by name", () => {
  const signed = signNetmap(crypto, seed, session, { epoch: -1, revision: 0, entries: {} });
  expect(openNetmap(crypto, signKey, session, signed)).toBe("netmap-bad-shape");
});

test("the view has every entry sorted into its kind", () => {
  const view = toNetmapView(netmap);
  if ("key" in view) return expect.unreachable(view.message);
  expect(view.peers.map(({ session: id }) => id)).toEqual(["s_zzzzzzzzzzzzzzzz"]);
  expect(view.inbound).toHaveLength(1);
  expect(view.revoked).toHaveLength(1);
  expect(view.policyVersion).toBe(4);
  expect(view.self.leaseMs).toBe(300_000);
});

test.each([
  ["no network", { network: undefined }, "network"],
  ["no self", { self: undefined }, "self"],
  ["no policy", { policy: undefined }, "policy"],
  ["an unknown kind", { "grant-all/1": {} }, "grant-all/1"],
  ["a singular key with a name", { "self/2": self }, "self/2"],
  ["a plural key without one", { in: good["in/1"] }, "in"],
  ["a peer without keys", { "peer/s_xxxxxxxxxxxxxxxx": { session } }, "peer/s_xxxxxxxxxxxxxxxx"],
  ["an unknown action", { "in/2": { ...(good["in/1"] as object), action: "maybe" } }, "in/2"],
  ["a port beyond 65535", { "in/2": { ...(good["in/1"] as object), ports: [[1, 65_536]] } }, "in/2"],
  ["a session id of another form", { "in/2": { ...(good["in/1"] as object), sessions: ["*"] } }, "in/2"],
] as const)("%s refuses the whole map by the entry's name", (_what, change, name) => {
  const entries = Object.fromEntries(Object.entries({ ...good, ...change }).filter(([, value]) => value !== undefined));
  const view = toNetmapView({ ...netmap, entries });
  expect("key" in view && view.key).toBe(name);
});

test("a delta for another revision or epoch is refused by name, and nothing of it is applied", () => {
  const delta = { epoch: 1, fromRevision: 9, revision: 11, set: {}, remove: ["self"] };
  expect(applyDelta(netmap, delta)).toBe("delta-gap");
  expect(applyDelta(netmap, { ...delta, fromRevision: 10, epoch: 2 })).toBe("delta-other-epoch");
  expect(netmap.entries["self"]).toBeDefined();
});

/** By key alone: values are any JSON, with members that sorting must not call. */
function sorted(entries: NetmapEntries): [string, unknown][] {
  return Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1));
}

test("a delta turns one map into any other", () => {
  const entries = fc.dictionary(fc.constantFrom("a", "b", "c/1", "c/2", "__proto__"), fc.jsonValue({ maxDepth: 2 }));
  fc.assert(
    fc.property(entries, entries, (before, after) => {
      const [a, b] = [JSON.parse(JSON.stringify(before)), JSON.parse(JSON.stringify(after))] as NetmapEntries[];
      const difference = diffEntries(a!, b!);
      if (difference === undefined) {
        expect(sorted(a!)).toEqual(sorted(b!));
        return;
      }
      const delta = { epoch: 0, fromRevision: 1, revision: 2, ...difference };
      const result = applyDelta({ epoch: 0, revision: 1, entries: a! }, delta);
      if (typeof result === "string") expect.unreachable(result);
      else expect(sorted(result.entries)).toEqual(sorted(b!));
    }),
    { numRuns: 300 },
  );
});
