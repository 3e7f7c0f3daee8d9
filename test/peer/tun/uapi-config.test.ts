import fc from "fast-check";
import { expect, test } from "vitest";
import { makePrefix, makeV4, parsePrefix } from "../../../src/base/address.ts";
import { toHex } from "../../../src/base/bytes.ts";
import { ALLOWED_IPS_MAX, PEERS_MAX } from "../../../src/base/limits.ts";
import {
  parseUapiRequest,
  UAPI_ERRNO,
  type UapiChange,
  type UapiPeerChange,
} from "../../../src/peer/tun/uapi-codec.ts";
import { changeDevice, type DeviceConfig } from "../../../src/peer/tun/uapi-config.ts";

const key = (name: number): string => name.toString(16).padStart(2, "0").repeat(32);
const EMPTY: DeviceConfig = { privateKey: undefined, listenPort: 0, fwMark: 0, peers: new Map() };
/** A stand-in for X25519: the key's second byte with its bits turned, 32 times. */
const publicKeyOf = (privateKey: Uint8Array): Uint8Array => new Uint8Array(32).fill(privateKey[1]! ^ 0xff);

function set(device: DeviceConfig, ...lines: readonly string[]): DeviceConfig {
  const request = parseUapiRequest(["set=1", ...lines].join("\n"));
  if (request.operation !== "set") throw new Error("refused");
  const changed = changeDevice(device, request.change, publicKeyOf);
  if (typeof changed === "number") throw new Error(`errno ${changed}`);
  return changed;
}

const shown = (device: DeviceConfig): Record<string, string[]> =>
  Object.fromEntries([...device.peers].map(([name, peer]) => [name.slice(0, 2), [...peer.allowedIps.keys()]]));

const TWO = set(
  EMPTY,
  `public_key=${key(1)}`,
  "allowed_ip=10.0.0.0/24",
  "allowed_ip=10.1.0.0/24",
  `public_key=${key(2)}`,
  "allowed_ip=fd00::/64",
);

test("a prefix leaves the peer that had it; what was before stays as it was", () => {
  const moved = set(TWO, `public_key=${key(2)}`, "allowed_ip=10.1.0.9/24");
  expect(shown(moved)).toEqual({ "01": ["10.0.0.0/24"], "02": ["fd00::/64", "10.1.0.0/24"] });
  expect(shown(TWO)).toEqual({ "01": ["10.0.0.0/24", "10.1.0.0/24"], "02": ["fd00::/64"] });
});

test("prefixes are replaced, removed by their own peer alone, and free again when it goes", () => {
  expect(shown(set(TWO, `public_key=${key(1)}`, "replace_allowed_ips=true", "allowed_ip=10.2.0.0/24"))).toEqual({
    "01": ["10.2.0.0/24"],
    "02": ["fd00::/64"],
  });
  expect(shown(set(TWO, `public_key=${key(1)}`, "allowed_ip=-10.0.0.0/24", "allowed_ip=-fd00::/64"))).toEqual({
    "01": ["10.1.0.0/24"],
    "02": ["fd00::/64"],
  });
  const lines = [`public_key=${key(1)}`, "remove=true", `public_key=${key(2)}`, "allowed_ip=10.0.0.0/24"];
  expect(shown(set(TWO, ...lines, `public_key=${key(1)}`))).toEqual({ "02": ["fd00::/64", "10.0.0.0/24"], "01": [] });
});

test("update_only makes no peer; replace_peers takes all that were there", () => {
  const lines = [`public_key=${key(3)}`, "update_only=true", "persistent_keepalive_interval=5"];
  expect(set(TWO, ...lines).peers.size).toBe(2);
  expect(set(TWO, `public_key=${key(3)}`, ...lines).peers.get(key(3))?.persistentKeepaliveSeconds).toBe(5);
  expect(shown(set(TWO, "replace_peers=true", `public_key=${key(3)}`))).toEqual({ "03": [] });
});

test("what isn't named stays; a key of zeros takes the preshared key away", () => {
  const full = [`preshared_key=${key(9)}`, "endpoint=192.0.2.1:1", "persistent_keepalive_interval=25"];
  const one = set(EMPTY, "listen_port=5", "fwmark=6", `private_key=${key(7)}`, `public_key=${key(1)}`, ...full);
  const same = set(one, `public_key=${key(1)}`);
  expect(same).toEqual(one);
  expect(toHex(same.privateKey!)).toBe(`00${"07".repeat(30)}47`); // clamped, as RFC 7748 has it
  const less = set(one, "fwmark=0", `private_key=${key(0)}`, `public_key=${key(1)}`, `preshared_key=${key(0)}`);
  expect(less).toMatchObject({ privateKey: undefined, listenPort: 5, fwMark: 0 });
  expect(less.peers.get(key(1))).toMatchObject({ presharedKey: undefined, persistentKeepaliveSeconds: 25 });
});

test("a peer with the device's own key is none, whichever comes first", () => {
  const own = [`private_key=${key(0xfe)}`]; // its public key is 01 repeated
  expect(shown(set(TWO, ...own))).toEqual({ "02": ["fd00::/64"] });
  expect(shown(set(set(EMPTY, ...own), `public_key=${key(1)}`, "allowed_ip=10.0.0.0/24"))).toEqual({});
});

const NOTHING: UapiChange = {
  privateKey: undefined,
  listenPort: undefined,
  fwMark: undefined,
  replacePeers: false,
  peers: [],
};
const peerChange = (name: number, prefixes: number): UapiPeerChange => {
  const publicKey = new Uint8Array(32);
  new DataView(publicKey.buffer).setUint32(0, name + 1);
  return {
    publicKey,
    remove: false,
    updateOnly: false,
    presharedKey: undefined,
    endpoint: undefined,
    persistentKeepaliveSeconds: undefined,
    replaceAllowedIps: false,
    allowedIps: Array.from({ length: prefixes }, (_, at) => ({
      prefix: makePrefix(makeV4(name * ALLOWED_IPS_MAX + at), 128),
      remove: false,
    })),
  };
};

test("more than fits is refused whole, also when it comes in several changes", () => {
  const all = { ...NOTHING, peers: Array.from({ length: PEERS_MAX }, (_, name) => peerChange(name, 0)) };
  const full = changeDevice(EMPTY, all, publicKeyOf) as DeviceConfig;
  expect(full.peers.size).toBe(PEERS_MAX);
  const more = { ...NOTHING, peers: [peerChange(PEERS_MAX, 0)] };
  expect(changeDevice(full, more, publicKeyOf)).toBe(UAPI_ERRNO.E2BIG);
  const wide = changeDevice(
    EMPTY,
    { ...NOTHING, peers: [peerChange(0, ALLOWED_IPS_MAX)] },
    publicKeyOf,
  ) as DeviceConfig;
  expect(wide.peers.size).toBe(1);
  expect(changeDevice(wide, { ...NOTHING, peers: [peerChange(1, 1)] }, publicKeyOf)).toBe(UAPI_ERRNO.E2BIG);
});

test("after any changes each prefix is one peer's", () => {
  const prefix = fc.constantFrom("10.0.0.0/24", "10.1.0.0/24", "fd00::/64", "::/0").map((text) => parsePrefix(text)!);
  const peer = fc.record({
    publicKey: fc.integer({ min: 1, max: 3 }).map((name) => new Uint8Array(32).fill(name)),
    remove: fc.boolean(),
    updateOnly: fc.boolean(),
    presharedKey: fc.constant(undefined),
    endpoint: fc.constant(undefined),
    persistentKeepaliveSeconds: fc.constant(undefined),
    replaceAllowedIps: fc.boolean(),
    allowedIps: fc.array(fc.record({ prefix, remove: fc.boolean() }), { maxLength: 4 }),
  });
  const one = fc.record({ replacePeers: fc.boolean(), peers: fc.array(peer, { maxLength: 5 }) });
  fc.assert(
    fc.property(fc.array(one, { maxLength: 5 }), (changes) => {
      let device = EMPTY;
      for (const change of changes)
        device = changeDevice(device, { ...NOTHING, ...change }, publicKeyOf) as DeviceConfig;
      const all = [...device.peers.values()].flatMap((row) => [...row.allowedIps.keys()]);
      expect(new Set(all).size).toBe(all.length);
    }),
  );
});
