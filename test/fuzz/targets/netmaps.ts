// Netmaps and deltas, signed as the coordinator would: what is inside is checked entry by entry, and a delta and the
// whole map give the same.
import { concatBytes } from "../../../src/base/bytes.ts";
import type { SeededRandom } from "../../../src/base/random.ts";
import { inContext } from "../../../src/control/contexts.ts";
import type { Netmap, NetmapDelta, NetmapEntries } from "../../../src/control/netmap.ts";
import {
  applyDelta,
  diffEntries,
  openDelta,
  openNetmap,
  signDelta,
  signNetmap,
  toNetmapView,
} from "../../../src/control/netmap-codec.ts";
import { FuzzCrypto } from "../fuzz-crypto.ts";
import { mutateJson } from "../mutate.ts";
import { bytesOf, type FuzzTarget, must, same } from "../target.ts";

const crypto = new FuzzCrypto();
const SEED = new Uint8Array(32).fill(1);
const SIGN_KEY = crypto.signPublicKey(SEED);
const SESSION = "s_0123456789abcdef";
const OTHER = "s_fedcba9876543210";
const KEY = `${"A".repeat(43)}=`;

const SELF = {
  session: SESSION,
  identity: "agent:coder",
  tags: ["blue"],
  publicKey: KEY,
  signKey: KEY,
  addresses: ["fd00::1", "10.77.0.1"],
  kind: "wirebadge",
};
const RULE = { id: "g1", action: "allow", sessions: [OTHER], protocol: "tcp", ports: [[80, 443]], untilMs: 5 };
const ENTRIES: NetmapEntries = {
  network: { id: "n_1", name: "net", ula: "fd00::/48", pool4: "10.77.0.0/16", mtuBytes: 1_420, probes: ["a:1"] },
  policy: { version: 3 },
  self: { ...SELF, leaseMs: 300_000 },
  [`peer/${OTHER}`]: {
    ...SELF,
    session: OTHER,
    prefixes: ["fd00::2/128"],
    endpoints: ["192.0.2.1:5"],
    presharedKey: KEY,
  },
  "in/1": { ...RULE, to: "fd00::1/128" },
  "out/1": { ...RULE, to: "10.0.0.0/8", action: "deny" },
  "in-host/1": { ...RULE, pattern: "*.internal" },
  "out-host/1": { ...RULE, pattern: "*" },
  "service/db": {
    name: "db",
    protocol: "tcp",
    ports: [],
    gateways: [{ session: OTHER, address: "fd00::5" }],
    discoverable: true,
  },
  "serve/db": { name: "db", address: "fd00::5", host: "10.0.0.5", protocol: "tcp", ports: [[5_432, 5_432]] },
  "route/10.0.0.0/8": { destination: "10.0.0.0/8" },
  "host-route/*.internal": { pattern: "*.internal", gateways: [OTHER] },
  "refused-offer/x": { offer: "x", reason: "not in via" },
  [`revoked/${OTHER}`]: { session: OTHER, untilMs: 9 },
};
const NETMAP: Netmap = { epoch: 1, revision: 5, entries: ENTRIES };

function signed(context: "netmap" | "delta", body: Uint8Array): Uint8Array {
  return concatBytes(crypto.sign(SEED, inContext(context, bytesOf(SESSION), body)), body);
}

const isDrop = (value: unknown): value is string => typeof value === "string";

/** The input is the JSON inside. */
function runNetmap(input: Uint8Array): string {
  const bytes = signed("netmap", input);
  const netmap = openNetmap(crypto, SIGN_KEY, SESSION, bytes);
  must(isDrop(openNetmap(crypto, SIGN_KEY, OTHER, bytes)), "another session's netmap is taken");
  must(isDrop(openDelta(crypto, SIGN_KEY, SESSION, bytes)), "a netmap is taken for a delta");
  if (isDrop(netmap)) return netmap;
  const view = toNetmapView(netmap);
  if ("key" in view) return `refused ${/^[a-z-]+/.exec(view.key)?.[0] ?? "key"}`;
  const again = openNetmap(crypto, SIGN_KEY, SESSION, signNetmap(crypto, SEED, SESSION, netmap));
  must(JSON.stringify(again) === JSON.stringify(netmap), "another netmap when signed again");
  const counted = [
    view.peers,
    view.inbound,
    view.outbound,
    view.inboundHosts,
    view.outboundHosts,
    view.services,
  ].concat([view.serves, view.routes, view.hostRoutes, view.refusedOffers, view.revoked] as never);
  const total = counted.reduce((sum, list) => sum + list.length, 3);
  must(total === Object.keys(netmap.entries).length, "entries were lost");
  return "view";
}

const sortedText = (entries: NetmapEntries): string =>
  JSON.stringify(Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1)));

function runDelta(input: Uint8Array): string {
  const delta = openDelta(crypto, SIGN_KEY, SESSION, signed("delta", input));
  if (isDrop(delta)) return delta;
  const before = JSON.stringify(NETMAP);
  const after = applyDelta(NETMAP, delta);
  must(JSON.stringify(NETMAP) === before, "the netmap before was changed");
  if (isDrop(after)) return after;
  const expected = new Map(Object.entries(ENTRIES));
  for (const key of delta.remove) expected.delete(key);
  for (const key of Object.keys(delta.set)) expected.set(key, delta.set[key]);
  must(sortedText(after.entries) === sortedText(Object.fromEntries(expected)), "not what the delta says");
  const view = toNetmapView(after); // refused entry by entry, never thrown at
  const difference = diffEntries(ENTRIES, after.entries);
  must(diffEntries(after.entries, after.entries) === undefined, "it differs from itself");
  if (difference === undefined) return "nothing";
  const told = { epoch: 1, fromRevision: 5, revision: 6, ...difference };
  const read = openDelta(crypto, SIGN_KEY, SESSION, signDelta(crypto, SEED, SESSION, told));
  must(!isDrop(read), () => `our own delta is refused: ${String(read)}`);
  const again = applyDelta(NETMAP, read);
  must(!isDrop(again) && sortedText(again.entries) === sortedText(after.entries), "delta and whole map differ");
  return "key" in view ? "applied, refused" : "applied";
}

/** A flipped bit anywhere in what is signed. */
function runSignature(input: Uint8Array): string {
  const netmap = openNetmap(crypto, SIGN_KEY, SESSION, input);
  must(isDrop(netmap) || same(input, SIGNED), "a forged netmap is taken");
  const delta = openDelta(crypto, SIGN_KEY, SESSION, input);
  must(isDrop(delta) || same(input, SIGNED_DELTA), "a forged delta is taken");
  return `${isDrop(netmap) ? netmap : "netmap"}, ${isDrop(delta) ? delta : "delta"}`;
}

const DELTAS: readonly NetmapDelta[] = [
  { epoch: 1, fromRevision: 5, revision: 6, set: { "in/2": { ...RULE, to: "fd00::1/128" } }, remove: ["in/1", "gone"] },
  { epoch: 1, fromRevision: 5, revision: 6, set: {}, remove: [] },
  { epoch: 1, fromRevision: 5, revision: 6, set: { "odd/1": 5, constructor: null }, remove: ["network"] },
  { epoch: 2, fromRevision: 5, revision: 6, set: {}, remove: [] },
  { epoch: 1, fromRevision: 4, revision: 6, set: {}, remove: [] },
];
const SIGNED = signNetmap(crypto, SEED, SESSION, NETMAP);
const SIGNED_DELTA = signDelta(crypto, SEED, SESSION, DELTAS[0]!);

function changed(examples: readonly unknown[]): (random: SeededRandom) => Uint8Array {
  return (random) => {
    let value = random.pick(examples);
    for (let changes = random.below(4); changes > 0; changes--) value = mutateJson(value, random);
    return bytesOf(JSON.stringify(value) ?? "");
  };
}

const many = (count: number, value: (i: number) => unknown): NetmapEntries =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`in/${i}`, value(i)]));

export const NETMAP_TARGETS: readonly FuzzTarget[] = [
  {
    name: "netmap",
    share: 8,
    maxBytes: 8_192,
    seeds: [bytesOf(JSON.stringify(NETMAP)), bytesOf(JSON.stringify({ ...NETMAP, entries: {} }))],
    make: changed([NETMAP]),
    words: ['"entries"', '"peer/', "null", "__proto__", '"in/', "[]", "{}"],
    long: () => [
      bytesOf(JSON.stringify({ ...NETMAP, entries: { ...ENTRIES, ...many(5_000, () => ({ ...RULE, to: "::/0" })) } })),
      bytesOf(`{"epoch":1,"revision":5,"entries":{"in/1":${"[".repeat(200_000)}${"]".repeat(200_000)}}}`),
    ],
    run: runNetmap,
    reaches: ["view", "refused peer", "refused network", "refused in", "netmap-not-json", "netmap-bad-shape"],
  },
  {
    name: "netmap-delta",
    share: 8,
    maxBytes: 8_192,
    seeds: DELTAS.map((delta) => bytesOf(JSON.stringify(delta))),
    make: changed(DELTAS),
    words: ['"set"', '"remove"', "null", '"__proto__":{}', '"in/1"', "[]"],
    long: () => [
      bytesOf(JSON.stringify({ ...DELTAS[0], set: many(5_000, (i) => i), remove: Object.keys(many(5_000, (i) => i)) })),
    ],
    run: runDelta,
    reaches: ["applied", "applied, refused", "nothing", "delta-other-epoch", "delta-gap", "netmap-bad-shape"],
  },
  {
    name: "netmap-signature",
    share: 20,
    maxBytes: 8_192,
    seeds: [SIGNED, SIGNED_DELTA],
    run: runSignature,
    reaches: ["netmap, netmap-bad-signature", "netmap-bad-signature, delta", "netmap-truncated, netmap-truncated"],
  },
];
