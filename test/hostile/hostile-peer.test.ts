// A hostile peer with a badge of its own against an honest gateway, a real `wirebadge up`: each attempt to reach more
// than it is granted is counted at the gateway under its drop's name, nothing of it reaches the services behind, and
// the same build reaches what it is granted, before and after all of them.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { concatBytes, writeU16, writeU32 } from "../../src/base/bytes.ts";
import { IPV4_DONT_FRAGMENT } from "../../src/wire/ipv4.ts";
import { PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TCP_ACK, TCP_PSH, TCP_SYN } from "../../src/wire/packet.ts";
import { exchange, type Recorder, TestNetwork, type TestPeer } from "../scripts/network.ts";
import { until } from "../scripts/program.ts";
import { icmp, ipv4, ipv6, packet, tcp, udp } from "../wire/packets.ts";
import { HostilePeer, type Victim } from "./hostile-peer.ts";

const CANARY = "hostile-canary";
const data = Buffer.from(CANARY);
const MALLORY_PORT = 7_000; // where the gateway may reach mallory, not the other way round

let network: TestNetwork;
let granted: Recorder;
let secret: Recorder;
let gateway: TestPeer;
let bob: TestPeer;
let mallory: HostilePeer;
let victim: Victim;
let grantedAddress: string;
let secretAddress: string;

beforeAll(async () => {
  network = await TestNetwork.start();
  granted = await network.service("granted");
  secret = await network.service("secret");
  await network.setPolicy({
    leases: { agent: "20s" },
    services: {
      granted: { at: `127.0.0.1 tcp:${granted.port}`, via: ["node:gw"] },
      secret: { at: `127.0.0.1 tcp:${secret.port}`, via: ["node:gw"] },
    },
    grants: [
      { from: ["agent:mallory", "agent:accomplice", "agent:bob"], to: "service:granted" },
      { from: "agent:bob", to: "service:secret" },
      { from: "node:gw", to: `agent:mallory tcp:${MALLORY_PORT}` },
    ],
  });
  gateway = await network.join("node:gw", ["--serve", `granted=${granted.at}`, "--serve", `secret=${secret.at}`]);
  bob = await network.join("agent:bob", ["--socks"]);
  const { publicKey, listenPort } = await gateway.status();
  victim = { publicKey, address: gateway.address, endpoint: `127.0.0.1:${listenPort}` };
  const services = new Map((await bob.status()).services.map(({ name, addresses }) => [name, addresses[0]!]));
  grantedAddress = services.get("granted")!;
  secretAddress = services.get("secret")!;
  mallory = await HostilePeer.join(await network.token("agent:mallory"));
  mallory.aimAt(victim);
  await mallory.tunnelUp();
}, 240_000);

afterAll(async () => {
  await mallory?.close();
  await network?.close();
});

/** Does it until the gateway has counted it under that name (a datagram may get lost on a busy machine). */
async function counted(name: string, attempt: () => void): Promise<void> {
  const before = await gateway.counter(name);
  for (let round = 0; round < 20; round++) {
    attempt();
    for (let wait = 0; wait < 10; wait++) {
      if ((await gateway.counter(name)) > before) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error(`${name} stayed at ${before}: ${JSON.stringify((await gateway.status()).counters, undefined, 1)}`);
}

const syn = (from: string, to: string, port: number, sourcePort = 40_000): Uint8Array =>
  tcp(from, to, { sourcePort, destinationPort: port, flags: TCP_SYN });

/** `offset` in bytes. */
function fragment(to: string, protocol: number, offset: number, more: boolean, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = protocol;
  writeU16(header, 2, offset | (more ? 1 : 0));
  writeU32(header, 4, 0xbad);
  return ipv6(mallory.address, to, 44, concatBytes(header, payload));
}

async function reachesItsGrant(text: string): Promise<void> {
  expect(await mallory.echo(grantedAddress, granted.port, text)).toBe(text);
  expect(granted.hasReceived(text)).toBe(true);
}

/** The gateway's services have seen nothing of the attempts. */
function nothingCameThrough(): void {
  for (const service of [granted, secret]) expect(service.hasReceived(CANARY)).toBe(false);
  expect(secret.received).toEqual([]);
}

describe("a peer without filter, lease check and table of sources", () => {
  test("reaches what it is granted", () => reachesItsGrant("first"));

  // Each: what it tries, the counter at the gateway, the packet that it puts into its tunnel.
  const packets: readonly (readonly [string, string, () => Uint8Array])[] = [
    ["a service that it has no grant for", "NO_GRANT", () => syn(mallory.address, secretAddress, secret.port)],
    ["another port of its service", "NO_GRANT", () => syn(mallory.address, grantedAddress, granted.port + 1)],
    ["the gateway itself", "NO_GRANT", () => syn(mallory.address, gateway.address, 22)],
    ["the gateway's port for names", "NO_GRANT", () => syn(mallory.address, gateway.address, 51_822)],
    ["UDP where TCP is granted", "NO_GRANT", () => udp(mallory.address, grantedAddress, 9, granted.port, data)],
    ["another protocol (SCTP)", "NO_GRANT", () => packet(mallory.address, grantedAddress, 132, data)],
    ["an echo request", "NO_GRANT", () => icmp(mallory.address, gateway.address, 128, 0, 1, data)],
    [
      "an echo reply that nobody asked for",
      "ICMP_WITHOUT_FLOW",
      () => icmp(mallory.address, gateway.address, 129, 0, 1, data),
    ],
    [
      "an ICMP error about a flow that isn't",
      "ICMP_WITHOUT_FLOW",
      () => icmp(mallory.address, gateway.address, 1, 4, 0, syn(gateway.address, mallory.address, 1, 2)),
    ],
    [
      "a segment without SYN to a service that it has no grant for",
      "NO_GRANT",
      () =>
        tcp(mallory.address, secretAddress, {
          sourcePort: 40_001,
          destinationPort: secret.port,
          flags: TCP_ACK | TCP_PSH,
          data,
        }),
    ],
    [
      "a segment without SYN against a grant's direction",
      "AGAINST_FLOW",
      () =>
        tcp(mallory.address, gateway.address, {
          sourcePort: MALLORY_PORT,
          destinationPort: 40_002,
          flags: TCP_ACK,
          data,
        }),
    ],
    [
      "a later fragment of nothing",
      "FRAGMENT_WITHOUT_FIRST",
      () => fragment(grantedAddress, PROTOCOL_UDP, 64, false, data),
    ],
  ];
  test.each(packets)("is denied %s: %s", async (_what, reason, make) => {
    await counted(`inbound-denied-${reason}`, () => mallory.send(make()));
    nothingCameThrough();
  });

  const malformed: readonly (readonly [string, string, () => Uint8Array])[] = [
    ["another peer's address as its source", "source-not-allowed", () => syn(bob.address, secretAddress, secret.port)],
    [
      "the gateway's own address as its source",
      "source-not-allowed",
      () => syn(gateway.address, secretAddress, secret.port),
    ],
    ["a service's address as its source", "source-not-allowed", () => syn(secretAddress, gateway.address, 22)],
    [
      "an IPv4 source that it doesn't have",
      "source-not-allowed",
      () => tcp("10.1.2.3", "10.1.2.4", { sourcePort: 1, destinationPort: 22, flags: TCP_SYN }),
    ],
    ["another peer's address as destination", "not-our-address", () => syn(mallory.address, bob.address, 22)],
    ["an address that nobody has", "not-our-address", () => syn(mallory.address, "fd00::1", 22)],
    ["the gateway's loopback as destination", "not-our-address", () => syn(mallory.address, "::1", secret.port)],
    [
      "a first fragment too small for its header",
      "FIRST_FRAGMENT_TOO_SMALL",
      () => fragment(grantedAddress, PROTOCOL_TCP, 0, true, new Uint8Array(16)),
    ],
    [
      "a fragment into another's header",
      "FRAGMENT_IN_HEADER",
      () => fragment(grantedAddress, PROTOCOL_TCP, 8, false, data),
    ],
    [
      "an IPv4-mapped address",
      "MAPPED_ADDRESS",
      () => {
        const bad = ipv6(mallory.address, gateway.address, PROTOCOL_UDP, new Uint8Array(8));
        bad.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1], 24);
        return bad;
      },
    ],
    [
      "a source route",
      "SOURCE_ROUTED",
      () =>
        ipv4("10.1.2.3", "10.1.2.4", new Uint8Array(8), {
          flags: IPV4_DONT_FRAGMENT,
          options: Uint8Array.of(131, 3, 4, 0),
        }),
    ],
    [
      "an IP version that isn't",
      "BAD_VERSION",
      () => {
        const bad = syn(mallory.address, secretAddress, secret.port);
        bad[0] = 0x50;
        return bad;
      },
    ],
    ["a packet cut short", "TRUNCATED", () => syn(mallory.address, secretAddress, secret.port).slice(0, 44)],
    [
      "a TCP header that says it is shorter than one",
      "BAD_TRANSPORT_HEADER",
      () => {
        const bad = syn(mallory.address, secretAddress, secret.port);
        bad[52] = 0x10;
        return bad;
      },
    ],
    [
      "ICMP of the other family",
      "ICMP_OF_OTHER_FAMILY",
      () => packet(mallory.address, gateway.address, 1, new Uint8Array(8)),
    ],
    [
      "an ICMP error without a quote",
      "TRUNCATED_QUOTE",
      () => packet(mallory.address, gateway.address, PROTOCOL_ICMPV6, Uint8Array.of(1, 4, 0, 0, 0, 0, 0, 0)),
    ],
  ];
  test.each(malformed)("gets nowhere with %s: %s", async (_what, reason, make) => {
    await counted(`inbound-${reason}`, () => mallory.send(make()));
    nothingCameThrough();
  });

  const outer: readonly (readonly [string, string, (message: Uint8Array) => Uint8Array])[] = [
    ["a replayed datagram", "REPLAYED", (message) => message],
    [
      "a changed one",
      "DATA_FORGED",
      (message) => {
        writeU32(message, 8, 100_000); // a counter that is new
        return message;
      },
    ],
    [
      "a session that isn't",
      "UNKNOWN_INDEX",
      (message) => {
        message[4]! ^= 0xff;
        return message;
      },
    ],
    [
      "a type that isn't",
      "UNKNOWN_TYPE",
      (message) => {
        message[0] = 9;
        return message;
      },
    ],
    [
      "an initiation not made for this key",
      "MAC1_WRONG",
      () => {
        const initiation = new Uint8Array(148);
        initiation[0] = 1;
        return initiation;
      },
    ],
    ["an initiation sent again", "TIMESTAMP_OLD", () => mallory.sent.find((bytes) => bytes[0] === 1)!],
  ];
  test.each(outer)("gets nowhere with %s: %s", async (_what, reason, make) => {
    await counted(`wireguard-${reason}`, () => mallory.sendRaw(make(mallory.lastData)));
    nothingCameThrough();
  });

  const link: readonly (readonly [string, string, () => void])[] = [
    ["words that aren't", "link-malformed", () => mallory.sendLink(Uint8Array.of(77, 1, 2, 3))],
    ["from another port", "link-misdirected", () => mallory.sendLink(Uint8Array.of(1), victim.address, 9)],
    ["to a service's address", "link-misdirected", () => mallory.sendLink(Uint8Array.of(1), secretAddress)],
    [
      "a forged lease",
      "link-lease-unverified",
      () => {
        const lease = mallory.leases.at(-1)!.slice();
        lease[25]! ^= 0xff; // later
        mallory.showLease(lease);
      },
    ],
  ];
  test.each(link)("is not heard on the peer link: %s (%s)", async (_what, name, attempt) => {
    await counted(name, attempt);
    nothingCameThrough();
  });

  test("can't take over another's live flow", async () => {
    const stream = await bob.connect("granted", granted.port);
    expect(await exchange(stream, "bob's")).toBe("bob's");
    const segment = (sourcePort: number): Uint8Array =>
      tcp(bob.address, grantedAddress, { sourcePort, destinationPort: granted.port, flags: TCP_ACK | TCP_PSH, data });
    await counted("inbound-source-not-allowed", () => {
      for (let port = 49_152; port < 49_152 + 64; port++) mallory.send(segment(port));
    });
    expect(await exchange(stream, "still bob's")).toBe("still bob's");
    stream.destroy();
    nothingCameThrough();
  });

  test("without showing a lease it gets nothing, and not with another's either", async () => {
    const accomplice = await HostilePeer.join(await network.token("agent:accomplice"));
    try {
      accomplice.showsLease = false;
      accomplice.aimAt(victim);
      await accomplice.tunnelUp();
      const opening = (): void => accomplice.send(syn(accomplice.address, grantedAddress, granted.port, 41_000));
      const before = granted.received.length;
      await counted("inbound-no-lease", opening);
      await counted("link-lease-other-session", () => accomplice.showLease(mallory.leases.at(-1)!));
      await counted("inbound-no-lease", opening);
      expect(granted.received.length).toBe(before);
      accomplice.showLease(accomplice.leases.at(-1)!); // with its own it is served: it was this that was missing
      expect(await accomplice.echo(grantedAddress, granted.port, "leased")).toBe("leased");
    } finally {
      await accomplice.close();
    }
  });

  test("a key that the gateway was not told of makes no tunnel", async () => {
    const stranger = await HostilePeer.join(await network.token("agent:stranger"));
    try {
      stranger.aimAt(victim);
      await counted("wireguard-UNKNOWN_PEER", () => stranger.startHandshake());
      expect(stranger.hasSession).toBe(false);
    } finally {
      await stranger.close();
    }
  });

  test("an older lease is refused, and when the newest ends so does everything", async () => {
    await until("a second lease", () => mallory.leases.length > 1 || undefined);
    await counted("link-lease-older", () => mallory.showLease(mallory.leases[0]!));
    await reachesItsGrant("after all of it");
    const stream = mallory.open(grantedAddress, granted.port);
    stream.write("live");
    expect(await stream.got(4)).toBe("live");
    await mallory.desert();
    await until("the end of its lease", async () => {
      mallory.showLease(mallory.leases.at(-1)!);
      mallory.send(syn(mallory.address, grantedAddress, granted.port, 42_000 + (Date.now() % 1_000)));
      await new Promise((resolve) => setTimeout(resolve, 200));
      return (await gateway.counter("inbound-denied-LEASE_ENDED")) > 0 || undefined;
    });
    const opened = (): number => granted.received.filter(({ event }) => event === "opened").length;
    const openedAtLeaseEnd = opened();
    stream.write(CANARY);
    await until("its live flow, cut at the service", () => isClosed(granted) || undefined);
    expect(await mallory.echo(grantedAddress, granted.port, CANARY)).not.toBe(CANARY);
    expect(opened()).toBe(openedAtLeaseEnd);
    nothingCameThrough();
    expect(await bob.echo("granted", granted.port, "bob goes on")).toBe("bob goes on");
  });
});

/** Every connection that was opened has ended. */
function isClosed(service: Recorder): boolean {
  const count = (event: string): number => service.received.filter((record) => record.event === event).length;
  return count("opened") === count("closed");
}
