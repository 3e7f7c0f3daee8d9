// The engine of `wirebadge wg`: WireGuard peers by a file, nothing of a coordinator's network in between.
import { describe, expect, test } from "vitest";
import { type Address, hostPrefix, parseAddress, parseEndpoint } from "../../src/base/address.ts";
import { LOCAL_REPLIES_MAX, LOCAL_REPLIES_PER_SECOND_MAX } from "../../src/base/limits.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import { Engine } from "../../src/engine/engine.ts";
import { PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import { quietSink } from "../../src/engine/quiet-sink.ts";
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
      ...quietSink,
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

function give(engine: Engine, toPort: number, to: Address = THEIRS, nowMs = START_MS): void {
  const packet = udpPacket(OURS, to, 4000, toPort, "hello");
  const room = new Uint8Array(packet.length + 64);
  room.set(packet, 32);
  engine.handlePacket(nowMs, room, 32, packet.length);
}

test("the peer link's port is a port like any other: a second WireGuard inside this one may have it", () => {
  const engine = start();
  give(engine, PEER_LINK_PORT);
  expect(engine.counters()["outbound-reserved-port"]).toBeUndefined();
  expect(engine.holdings().stagedOfOnePeer).toBe(1);
});

describe("what goes nowhere is answered with an ICMP error", () => {
  const NOBODY = parseAddress("fd0a::1")!;
  const replies = (engine: Engine): number => {
    let count = 0;
    while (engine.takeLocalReply() !== undefined) count++;
    return count;
  };

  test("so many at once, then so many a second; what may not be answered takes nothing away from the others", () => {
    const engine = start();
    for (let i = 0; i < 10; i++) give(engine, 9, parseAddress("ff02::1")!);
    let answered = 0;
    for (let i = 0; i <= LOCAL_REPLIES_MAX; i++) {
      give(engine, 9, NOBODY);
      answered += replies(engine);
    }
    expect(answered).toBe(LOCAL_REPLIES_MAX);
    expect(engine.counters()).toMatchObject({ "outbound-denied-unanswered": 10, "outbound-reply-too-many": 1 });
    const laterMs = START_MS + 10_000 / LOCAL_REPLIES_PER_SECOND_MAX;
    for (let i = 0; i < 11; i++) give(engine, 9, NOBODY, laterMs);
    expect(replies(engine)).toBe(10);
  });

  test("each is of its own bytes, and those that nobody fetches are no more than the queue holds", () => {
    const engine = start();
    give(engine, 1, NOBODY);
    give(engine, 2, NOBODY);
    const quotedPort = 40 + 8 + 40 + 3; // the lower byte of the destination's port, in the packet inside the error
    expect([engine.takeLocalReply()?.[quotedPort], engine.takeLocalReply()?.[quotedPort]]).toEqual([1, 2]);
    for (let i = 0; i <= LOCAL_REPLIES_MAX; i++) give(engine, 9, NOBODY, START_MS + 1_000 * i);
    expect(engine.counters()["outbound-reply-queue-full"]).toBe(1);
    expect(replies(engine)).toBe(LOCAL_REPLIES_MAX);
  });
});
