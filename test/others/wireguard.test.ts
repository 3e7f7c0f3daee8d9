// Bugs of others' tunnels and keys: what proves nothing must change nothing, and no number wraps.
import { describe, expect, test } from "vitest";
import { formatEndpoint, parseEndpoint } from "../../src/base/address.ts";
import { concatBytes } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { MINUTE_MS, SECOND_MS } from "../../src/base/units.ts";
import { LEASE_BYTES, type Lease, signLease, verifyLease } from "../../src/control/lease.ts";
import { openDelta, openNetmap, signDelta, signNetmap } from "../../src/control/netmap-codec.ts";
import { CookieAnswerer } from "../../src/wireguard/cookies.ts";
import { PROVIDERS } from "../crypto/providers.ts";
import { coordinatorSeed, crypto, give, texts, udpPacket, World } from "../engine/engine-world.ts";

const INITIATION_BYTES = 148;

// https://github.com/slackhq/nebula/issues/1563: an unauthenticated RecvError tore down the tunnel that it named. Of
// WireGuard's messages the cookie reply is the one that anybody can make who saw a handshake pass: its key follows from
// the responder's public key. It may bring a cookie; where the peer is, it must not say.
test("a forged cookie reply moves no traffic to where it came from (nebula#1563)", () => {
  const world = new World();
  const [a, b] = [world.add("a"), world.add("b")];
  for (const station of [a, b]) world.lease(station, 10 * MINUTE_MS);
  const rule = { id: "g", action: "allow" as const, from: a, to: b, protocol: "udp" as const };
  world.apply([{ ...rule, ports: [[53, 53]] }]);
  const attacker = parseEndpoint("198.51.100.9:9")!;
  const sent: string[] = [];
  let forged = 0;
  world.passes = (from, to, bytes) => {
    sent.push(formatEndpoint(to));
    // It saw the initiation and knows b's public key, as everybody may: it answers before b does.
    if (bytes.length === INITIATION_BYTES && from.port === a.endpoint.port && forged++ === 0) {
      const answerer = new CookieAnswerer(crypto, new SeededRandom(5), b.publicKey);
      const reply = answerer.createReply(world.nowMs, bytes, 0, bytes.length, from);
      world.send(attacker, a.endpoint, reply);
      return false; // and the initiation itself is lost: all that a hears is the forgery
    }
    return true;
  };
  const say = (text: string): void => {
    give(world, a, udpPacket(a.address, b.address, 4_000, 53, text));
    world.run(10 * SECOND_MS);
  };
  say("first");
  expect(a.engine.counters()["wireguard-COOKIES_RECEIVED"]).toBe(1);
  say("second");
  expect(texts(b)).toEqual(["first", "second"]);
  expect(sent).not.toContain(formatEndpoint(attacker));
  expect(a.engine.status()[0]?.endpoint).toEqual(b.endpoint);
});

const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n; // of Ed25519's base point, RFC 8032 §5.1

/** The same signature with S + L: the equation holds for it, too. */
function twisted(signature: Uint8Array): Uint8Array {
  let s = ORDER;
  for (let at = 63; at >= 32; at--) s += BigInt(signature[at]!) << BigInt(8 * (at - 32));
  const other = signature.slice();
  for (let at = 32; at < 64; at++) other[at] = Number((s >> BigInt(8 * (at - 32))) & 0xffn);
  return other;
}

const LEASE: Lease = {
  session: "s_0123456789abcdef",
  epoch: 3,
  serial: 77,
  issuedMs: 1_700_000_000_000,
  lifetimeMs: 60_000,
};

describe.each(PROVIDERS)("with the %s provider", (_name, provider) => {
  // https://github.com/slackhq/nebula/issues/1600: each ECDSA signature (r, s) has a twin, (r, −s), so that a
  // revoked certificate came back under another fingerprint. Ours are Ed25519, taken in one form only (RFC 8032
  // §5.1.7), and what is revoked is a session, whatever bytes speak of it.
  test("a signature has one form: the same with S + L is refused (nebula#1600)", () => {
    const seed = new Uint8Array(32).fill(9);
    const signKey = provider.signPublicKey(seed);
    for (let serial = 0; serial < 8; serial++) {
      const bytes = signLease(provider, seed, { ...LEASE, serial });
      const body = bytes.subarray(0, LEASE_BYTES - 64);
      expect(verifyLease(provider, signKey, bytes)).toMatchObject({ serial });
      const other = concatBytes(body, twisted(bytes.subarray(LEASE_BYTES - 64)));
      expect(verifyLease(provider, signKey, other)).toBe("lease-bad-signature");
    }
  });
});

// https://github.com/ChainSafe/js-libp2p-noise/issues/102: nonces in JavaScript numbers of 32 bits that came round.
// (Ours on the wire: session.test.ts, replay-window.test.ts and noise-nk.test.ts, see README.md.)
describe("numbers at the edge of what they are kept in (js-libp2p-noise#102)", () => {
  test("a lease's serial, epoch and times are whole up to their last value, and beyond it none is signed", () => {
    const last: Lease = {
      ...LEASE,
      epoch: 2 ** 32 - 1,
      serial: 2 ** 48 - 1,
      issuedMs: 2 ** 48 - 1,
      lifetimeMs: 2 ** 32 - 1,
    };
    const signKey = crypto.signPublicKey(coordinatorSeed);
    expect(verifyLease(crypto, signKey, signLease(crypto, coordinatorSeed, last))).toEqual(last);
    for (const name of ["epoch", "serial", "issuedMs", "lifetimeMs"] as const) {
      expect(() => signLease(crypto, coordinatorSeed, { ...last, [name]: last[name] + 1 }), name).toThrow();
    }
  });

  test("a netmap's revision is exact or refused", () => {
    const signKey = crypto.signPublicKey(coordinatorSeed);
    const open = (revision: number): unknown => {
      const netmap = { epoch: 1, revision, entries: {} };
      const delta = { epoch: 1, fromRevision: revision - 1, revision, set: {}, remove: [] };
      const { session } = LEASE;
      return [
        openNetmap(crypto, signKey, session, signNetmap(crypto, coordinatorSeed, session, netmap)),
        openDelta(crypto, signKey, session, signDelta(crypto, coordinatorSeed, session, delta)),
      ];
    };
    expect(open(Number.MAX_SAFE_INTEGER)).toMatchObject([{ revision: 2 ** 53 - 1 }, { fromRevision: 2 ** 53 - 2 }]);
    expect(open(2 ** 53)).toEqual(["netmap-bad-shape", "netmap-bad-shape"]);
  });
});
