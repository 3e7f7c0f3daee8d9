// The packet loop tells its own datagrams, which a route of the host has led into the device, from all others.
import { expect, test } from "vitest";
import { parseEndpoint, parsePrefix } from "../../src/base/address.ts";
import { writeU16 } from "../../src/base/bytes.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import { Engine } from "../../src/engine/engine.ts";
import { quietSink } from "../../src/engine/quiet-sink.ts";
import { PacketLoop } from "../../src/peer/packet-loop.ts";
import { VNET_HEADER_BYTES } from "../../src/wire/vnet-header.ts";
import { MemoryTun } from "../io/memory-tun.ts";
import { MemoryUdpNetwork } from "../io/memory-udp-socket.ts";
import { plainMemory } from "../io/plain-memory.ts";
import { fixIpv4Checksum, tcp, udp } from "../wire/packets.ts";
import { superPacket } from "../wire/super-packets.ts";

const OWN_PORT = 51_820;
const AT_TUN = 1;
const NOW_MS = 1_700_000_000_000;
const crypto = new PortableCrypto();

/** All addresses are one peer's, which may be at either endpoint. */
function makeLoop(): { loop: PacketLoop; tun: MemoryTun; staged: () => number } {
  const memory = plainMemory(8 << 20);
  const tun = new MemoryTun(memory, "tun0");
  const network = new MemoryUdpNetwork();
  const loop = new PacketLoop({
    memory,
    tun,
    v4: network.open(memory, { family: 4, port: OWN_PORT }),
    v6: network.open(memory, { family: 6, port: OWN_PORT }),
    poller: { wait: () => 1, events: (index) => (index === AT_TUN && tun.isReadable ? 1 : 0) },
    clock: { nowMs: () => NOW_MS },
    onWake: () => undefined,
    onLost: (what) => expect.unreachable(what),
  });
  const privateKey = new Uint8Array(32).fill(1);
  const engine = new Engine({
    crypto,
    random: new SeededRandom(1),
    keyPair: { privateKey, publicKey: crypto.publicKey(privateKey) },
    mode: "wg",
    mtuBytes: 1420,
    stopwatch: () => 0,
    leases: { verify: () => undefined },
    sink: {
      ...loop.engineSink,
      ...quietSink,
    },
  });
  loop.attach(engine);
  const publicKey = crypto.publicKey(new Uint8Array(32).fill(2));
  engine.apply(NOW_MS, {
    epoch: 0,
    revision: 1,
    mode: "wg",
    addresses: [],
    transit: [],
    filter: undefined,
    peers: [
      {
        session: "peer",
        publicKey,
        kind: "stock",
        prefixes: [parsePrefix("0.0.0.0/0")!, parsePrefix("::/0")!],
        endpoints: [parseEndpoint("192.0.2.1:51820")!, parseEndpoint("[2001:db8::1]:4000")!],
      },
    ],
  });
  return { loop, tun, staged: () => engine.holdings().stagedOfOnePeer };
}

const data = new Uint8Array(148).fill(1);
const laterFragment = (): Uint8Array => {
  const packet = udp("10.9.0.1", "192.0.2.1", OWN_PORT, 51820, data);
  writeU16(packet, 6, 100); // in units of 8 bytes
  return fixIpv4Checksum(packet);
};
const fields = { sourcePort: OWN_PORT, destinationPort: 51820, flags: 2 };

test.each([
  ["IPv4", udp("10.9.0.1", "192.0.2.1", OWN_PORT, 51820, data), true],
  ["IPv6", udp("fd09::1", "2001:db8::1", OWN_PORT, 4000, data), true],
  ["from another port", udp("10.9.0.1", "192.0.2.1", OWN_PORT + 1, 51820, data), false],
  ["to another port", udp("10.9.0.1", "192.0.2.1", OWN_PORT, 4000, data), false],
  ["to another address", udp("fd09::1", "2001:db8::2", OWN_PORT, 4000, data), false],
  ["of TCP", tcp("10.9.0.1", "192.0.2.1", fields), false],
  ["a later fragment, whose payload only looks like it", laterFragment(), false],
] as const)("%s: counted and dropped, or sealed", (_name, packet, isOwn) => {
  const { loop, tun, staged } = makeLoop();
  tun.kernelSends(packet);
  loop.round();
  expect(loop.counters.ownDatagrams).toBe(isOwn ? 1 : 0);
  expect(staged()).toBe(isOwn ? 0 : 1);
});

test("a run of our own, which the device gives as one packet, is as many datagrams as it was cut from", () => {
  const { loop, tun, staged } = makeLoop();
  const frame = superPacket({ protocol: 17, sourcePort: OWN_PORT, payload: new Uint8Array(3_001), gsoSize: 1_000 });
  const packet = frame.subarray(VNET_HEADER_BYTES);
  packet.set([192, 0, 2, 1], 16);
  writeU16(packet, 20 + 2, 51_820);
  tun.kernelSends(packet, frame.slice(0, VNET_HEADER_BYTES));
  loop.round();
  expect(loop.counters.ownDatagrams).toBe(4);
  expect(staged()).toBe(0);
});

test("a packet that ends before its ports is no datagram of ours", () => {
  const { loop, tun } = makeLoop();
  tun.kernelSends(udp("10.9.0.1", "192.0.2.1", OWN_PORT, 51820, data));
  tun.kernelSends(udp("10.9.0.1", "192.0.2.1", OWN_PORT, 51820, data).slice(0, 24)); // the rest of the first is there
  loop.round();
  expect(loop.counters.ownDatagrams).toBe(1);
});
