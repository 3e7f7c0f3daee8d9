// A hostile end in the engine's world: WireGuard and its own lease, and nothing else. No filter, no table of sources,
// no look at what it sends: whatever bytes a test makes go into the tunnel.
import { type Endpoint, hostPrefix, makeV4, type Prefix, parseAddress } from "../../src/base/address.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import { leaseEndMs, signLease } from "../../src/control/lease.ts";
import type { DesiredPeer, DesiredState } from "../../src/engine/desired-state.ts";
import { encodeLease, PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import type { AddressRule, FilterState } from "../../src/filter/contract.ts";
import { Device } from "../../src/wireguard/device.ts";
import type { ReceivedKind } from "../../src/wireguard/received.ts";
import type { Tunnel } from "../../src/wireguard/tunnel.ts";
import {
  coordinatorSeed,
  crypto,
  EPOCH,
  type Station,
  sessionId,
  udpPacket,
  type World,
} from "../engine/engine-world.ts";

const NUMBER = 66; // of its address and endpoint

export class Rogue {
  readonly session = sessionId("rogue");
  readonly address = parseAddress(`fd00:77::${NUMBER}`)!;
  readonly endpoint: Endpoint = { address: makeV4(0xc0000200 + NUMBER), port: 51_820 };
  readonly publicKey: Uint8Array;
  readonly device: Device<string>;
  /** Inner packets that it was sent, whole. */
  readonly received: Uint8Array[] = [];
  /** Outer datagrams that it was sent, and what its device made of them. */
  readonly datagrams: { readonly bytes: Uint8Array; readonly kind: ReceivedKind }[] = [];
  readonly #world: World;
  readonly #victim: Station;
  readonly #tunnel: Tunnel<string>;
  #serial = 1_000;

  constructor(world: World, victim: Station) {
    this.#world = world;
    this.#victim = victim;
    const random = new SeededRandom(NUMBER);
    const privateKey = randomBytes(random, 32);
    this.publicKey = crypto.publicKey(privateKey);
    this.device = new Device<string>({
      crypto,
      random,
      keyPair: { privateKey, publicKey: this.publicKey },
      mtuBytes: 1420,
      sink: {
        sendDatagram: (_nowMs, _tunnel, _to, _kind, buffer, offset, length) =>
          this.sendRaw(buffer.slice(offset, offset + length)),
        sessionStarted: () => undefined,
        handshakeFailed: () => undefined,
        endpointChanged: () => undefined,
      },
    });
    const tunnel = this.device.addPeer(world.nowMs, { owner: "victim", publicKey: victim.publicKey });
    if (typeof tunnel === "string") throw new Error(tunnel);
    this.#tunnel = tunnel;
    const { passes } = world;
    world.passes = (from, to, bytes) => {
      if (to.port !== this.endpoint.port || to.address.w3 !== this.endpoint.address.w3) return passes(from, to, bytes);
      this.#receive(bytes.slice());
      return false;
    };
  }

  /** As the netmap names it to the victim. */
  get peer(): DesiredPeer {
    return {
      session: this.session,
      publicKey: this.publicKey,
      kind: "wirebadge",
      prefixes: [hostPrefix(this.address)],
      linkAddress: this.address,
      endpoints: [this.endpoint],
    };
  }

  /** Handshake, then its lease: what every peer does. */
  comeIn(lifetimeMs = 300_000): void {
    this.device.startHandshake(this.#world.nowMs, this.#tunnel);
    this.#world.run(20);
    this.showLease(lifetimeMs);
    this.#world.run(20);
  }

  /** A lease of its own, signed by the coordinator. */
  showLease(lifetimeMs: number): void {
    const lease = {
      session: this.session,
      epoch: EPOCH,
      serial: this.#serial++,
      issuedMs: this.#world.nowMs,
      lifetimeMs,
    };
    if (leaseEndMs(lease) <= this.#world.nowMs) throw new Error("no lease");
    const message = encodeLease(signLease(crypto, coordinatorSeed, lease));
    const packet = udpPacket(
      this.address,
      this.#victim.address,
      PEER_LINK_PORT,
      PEER_LINK_PORT,
      "x".repeat(message.length),
    );
    packet.set(message, 48);
    this.send(packet);
  }

  /** Any bytes as an inner packet; delivered at once. */
  send(packet: Uint8Array): void {
    const buffer = new Uint8Array(packet.length + 64);
    buffer.set(packet, 16);
    this.device.send(this.#world.nowMs, this.#tunnel, buffer, 16, packet.length);
    this.#world.run(10);
  }

  /** Any bytes as an outer datagram, from its own endpoint or one that it claims. */
  sendRaw(bytes: Uint8Array, from: Endpoint = this.endpoint): void {
    this.#world.send(from, this.#victim.endpoint, bytes);
  }

  #receive(bytes: Uint8Array): void {
    const copy = bytes.slice();
    const { kind, offset, length } = this.device.receive(
      this.#world.nowMs,
      this.#victim.endpoint,
      bytes,
      0,
      bytes.length,
    );
    this.datagrams.push({ bytes: copy, kind });
    if (kind === "DATA") this.received.push(bytes.slice(offset, offset + length));
  }
}

/** What the victim is told: who its peers are and what they may open. */
export function stateOf(
  victim: Station,
  peers: readonly DesiredPeer[],
  inbound: readonly AddressRule[],
  more: { revision?: number; transit?: readonly Prefix[]; filter?: Partial<FilterState> } = {},
): DesiredState {
  const { revision = 1, transit = [], filter = {} } = more;
  return {
    epoch: EPOCH,
    revision,
    mode: "badge",
    addresses: [victim.address],
    transit,
    filter: {
      revision,
      policyVersion: revision,
      inbound,
      outbound: [],
      inboundHosts: [],
      outboundHosts: [],
      revoked: [],
      ...filter,
    },
    peers,
  };
}

export function openTo(
  rogue: Rogue,
  to: Prefix,
  protocol: AddressRule["protocol"],
  port?: number,
  more: Partial<AddressRule> = {},
): AddressRule {
  const ports = port === undefined ? [] : [[port, port] as const];
  return { id: "grant-1", action: "allow", sessions: [rogue.session], to, protocol, ports, ...more };
}

/** How much each of the victim's counters rose while `work` ran. */
export function counted(victim: Station, work: () => void): Record<string, number> {
  const before = victim.engine.counters();
  work();
  const rises = Object.entries(victim.engine.counters()).map(
    ([name, count]) => [name, count - (before[name] ?? 0)] as const,
  );
  return Object.fromEntries(rises.filter(([name, rise]) => rise > 0 && name.startsWith("inbound")));
}
