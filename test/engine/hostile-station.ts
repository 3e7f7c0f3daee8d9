// The holder of a station's private key with a WireGuard device of its own and nothing behind it: no filter, no table
// of sources, no peer link. Whatever packet it is given goes into the tunnel to one victim.
import { equalEndpoint, formatAddress } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { encodeLease, PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import { decodePacket, PacketInfo } from "../../src/wire/packet.ts";
import { Device } from "../../src/wireguard/device.ts";
import type { Tunnel } from "../../src/wireguard/tunnel.ts";
import { udp } from "../wire/packets.ts";
import { crypto, type Station, type World } from "./engine-world.ts";

const ROOM_BYTES = 64;

export class HostileStation {
  /** Inner packets that came out of the tunnel. */
  readonly received: Uint8Array[] = [];
  readonly #world: World;
  readonly #station: Station;
  readonly #victim: Station;
  readonly #tunnel: Tunnel<Station>;
  readonly #device: Device<Station>;

  /** Takes the place of `station` in the world: its engine hears nothing more. */
  constructor(world: World, station: Station, victim: Station) {
    this.#world = world;
    this.#station = station;
    this.#victim = victim;
    this.#device = new Device<Station>({
      crypto,
      random: new SeededRandom(77),
      keyPair: { privateKey: station.privateKey, publicKey: station.publicKey },
      mtuBytes: 1420,
      sink: {
        sendDatagram: (_nowMs, _tunnel, _to, _kind, buffer, offset, length) =>
          world.send(station.endpoint, victim.endpoint, buffer.slice(offset, offset + length)),
        sessionStarted: () => undefined,
        handshakeFailed: () => undefined,
        endpointChanged: () => undefined,
      },
    });
    const tunnel = this.#device.addPeer(world.nowMs, { owner: victim, publicKey: victim.publicKey });
    if (typeof tunnel === "string") throw new Error(tunnel);
    this.#tunnel = tunnel;
    world.passes = (_from, to, bytes) => {
      if (!equalEndpoint(to, station.endpoint)) return true;
      const got = this.#device.receive(world.nowMs, victim.endpoint, bytes, 0, bytes.length);
      if (got.kind === "DATA") this.received.push(bytes.slice(got.offset, got.offset + got.length));
      return false;
    };
  }

  send(packet: Uint8Array): void {
    const buffer = new Uint8Array(packet.length + 2 * ROOM_BYTES);
    buffer.set(packet, ROOM_BYTES);
    this.#device.send(this.#world.nowMs, this.#tunnel, buffer, ROOM_BYTES, packet.length);
  }

  sendLink(payload: Uint8Array, ports: readonly [number, number] = [PEER_LINK_PORT, PEER_LINK_PORT]): void {
    const [from, to] = [this.#station.address, this.#victim.address].map(formatAddress);
    this.send(udp(from!, to!, ports[0], ports[1], payload));
  }

  showLease(bytes: Uint8Array): void {
    this.sendLink(encodeLease(bytes));
  }

  /** Payloads that came over the peer link. */
  get linkMessages(): Uint8Array[] {
    const info = new PacketInfo();
    return this.received.flatMap((packet) => {
      if (decodePacket(packet, 0, packet.length, info) !== undefined) return [];
      if (info.protocol !== 17 || info.sourcePort !== PEER_LINK_PORT) return [];
      return [packet.slice(info.transportOffset + 8, info.totalBytes)];
    });
  }
}
