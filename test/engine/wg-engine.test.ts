// The engine of `wirebadge wg`: WireGuard peers by a file, nothing of a coordinator's network in between.
import { expect, test } from "vitest";
import { hostPrefix, parseAddress, parseEndpoint } from "../../src/base/address.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import { Engine } from "../../src/engine/engine.ts";
import { PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import { crypto, START_MS, udpPacket } from "./engine-world.ts";

const [OURS, THEIRS] = [parseAddress("fd09::1")!, parseAddress("fd09::2")!];
const CONFIGURED = parseEndpoint("192.0.2.2:51820")!;
const random = new SeededRandom(51);
const peerPublicKey = crypto.publicKey(randomBytes(random, 32));

function start(): Engine {
  const privateKey = randomBytes(random, 32);
  const engine = new Engine({
    crypto,
    random,
    keyPair: { privateKey, publicKey: crypto.publicKey(privateKey) },
    mode: "wg",
    stopwatch: () => 0,
    mtuBytes: 1420,
    leases: { verify: () => undefined },
    sink: {
      sendDatagram: () => undefined,
      deliverPacket: () => undefined,
      denied: () => undefined,
      deniedByPeer: () => undefined,
      flowEnded: () => undefined,
      tunnelWanted: () => undefined,
      tunnelUp: () => undefined,
      tunnelFailed: () => undefined,
    },
  });
  const peer = { session: "them", publicKey: peerPublicKey, kind: "stock" as const, endpoints: [CONFIGURED] };
  engine.apply(START_MS, {
    epoch: 0,
    revision: 1,
    mode: "wg",
    addresses: [OURS],
    transit: [],
    filter: undefined,
    peers: [{ ...peer, prefixes: [hostPrefix(THEIRS)] }],
  });
  return engine;
}

function give(engine: Engine, toPort: number): void {
  const packet = udpPacket(OURS, THEIRS, 4000, toPort, "hello");
  const room = new Uint8Array(packet.length + 64);
  room.set(packet, 32);
  engine.handlePacket(START_MS, room, 32, packet.length);
}

test("the peer link's port is a port like any other: a second WireGuard inside this one may have it", () => {
  const engine = start();
  give(engine, PEER_LINK_PORT);
  expect(engine.counters()["outbound-reserved-port"]).toBeUndefined();
  expect(engine.holdings().stagedOfOnePeer).toBe(1);
});
