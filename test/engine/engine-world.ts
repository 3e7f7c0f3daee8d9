// Engines on a network in memory with a virtual clock: for tests of the whole packet path.
import {
  type Address,
  type Endpoint,
  equalEndpoint,
  hostPrefix,
  makeV4,
  parseAddress,
} from "../../src/base/address.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import { leaseEndMs, signLease, verifyLease } from "../../src/control/lease.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { DesiredState } from "../../src/engine/desired-state.ts";
import { Engine, type EngineOptions } from "../../src/engine/engine.ts";
import type { LinkDenial } from "../../src/engine/peer-link.ts";
import type { AddressRule, DenialRecord, FlowRecord } from "../../src/filter/contract.ts";

export const crypto = new PortableCrypto();
export const EPOCH = 1;
export const START_MS = 1_700_000_000_000;
export const coordinatorSeed = new Uint8Array(32).fill(9);
const coordinatorKey = crypto.signPublicKey(coordinatorSeed);

const wait = 16;

/** `s_` and the name padded with zeros: 16 characters of the id alphabet. */
export function sessionId(name: string): string {
  return `s_${name
    .replace(/[^0-9a-hjkmnp-tv-z]/g, "x")
    .padEnd(wait, "0")
    .slice(0, wait)}`;
}

export interface Delivered {
  readonly session: string;
  readonly packet: Uint8Array;
}

export class Station {
  readonly name: string;
  readonly session: string;
  readonly address: Address;
  readonly address4: Address;
  readonly privateKey: Uint8Array;
  /** Another one when it roams. */
  endpoint: Endpoint;
  readonly publicKey: Uint8Array;
  readonly engine: Engine;
  readonly delivered: Delivered[] = [];
  readonly denied: DenialRecord[] = [];
  readonly told: LinkDenial[] = [];
  readonly ended: FlowRecord[] = [];
  /** Why a packet that the filter lets in goes no further; undefined: it does. */
  refuse: EngineOptions["refuse"];
  /** Sessions that the coordinator was asked to wake. */
  readonly wanted: string[] = [];

  constructor(world: World, name: string, number: number) {
    this.name = name;
    this.session = sessionId(name);
    this.address = parseAddress(`fd00:77::${number}`)!;
    this.address4 = makeV4(0x0a4d0000 + number);
    this.endpoint = { address: makeV4(0xc0000200 + number), port: 51_820 };
    const random = new SeededRandom(number * 7919);
    const privateKey = randomBytes(random, 32);
    this.privateKey = privateKey;
    this.publicKey = crypto.publicKey(privateKey);
    this.engine = new Engine({
      crypto,
      random,
      keyPair: { privateKey, publicKey: this.publicKey },
      mode: "badge",
      mtuBytes: 1420,
      stopwatch: () => 0,
      refuse: (nowMs, buffer, offset, length) => this.refuse?.(nowMs, buffer, offset, length),
      leases: {
        verify: (bytes) => {
          const lease = verifyLease(crypto, coordinatorKey, bytes);
          if (typeof lease === "string") return undefined;
          return { session: lease.session, epoch: lease.epoch, serial: lease.serial, endMs: leaseEndMs(lease) };
        },
      },
      sink: {
        sendDatagram: (to, buffer, offset, length) =>
          world.send(this.endpoint, to, buffer.slice(offset, offset + length)),
        deliverPacket: (session, buffer, offset, length) =>
          this.delivered.push({ session, packet: buffer.slice(offset, offset + length) }),
        denied: (record) => this.denied.push(record),
        deniedByPeer: (_session, denial) => this.told.push(denial),
        flowEnded: (flow) => this.ended.push(flow),
        tunnelWanted: (session) => this.wanted.push(session),
        tunnelUp: () => undefined,
        tunnelFailed: () => undefined,
      },
    });
  }
}

interface InFlight {
  readonly atMs: number;
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly bytes: Uint8Array;
}

export class World {
  nowMs = START_MS;
  readonly stations: Station[] = [];
  /** Return false to lose a datagram. */
  passes: (from: Endpoint, to: Endpoint, bytes: Uint8Array) => boolean = () => true;
  /** Those that the netmap calls stock WireGuard. */
  readonly stock = new Set<Station>();
  #inFlight: InFlight[] = [];
  #serial = 1;

  add(name: string): Station {
    const station = new Station(this, name, this.stations.length + 1);
    this.stations.push(station);
    return station;
  }

  send(from: Endpoint, to: Endpoint, bytes: Uint8Array): void {
    if (this.passes(from, to, bytes)) this.#inFlight.push({ atMs: this.nowMs + 5, from, to, bytes });
  }

  /** Everybody knows everybody; `rules` are (from, to, protocol, port) and hold at both ends. */
  apply(rules: readonly (Omit<AddressRule, "sessions" | "to"> & { from: Station; to: Station })[], revision = 1): void {
    for (const station of this.stations) {
      const toRule = (remote: Station, rule: (typeof rules)[number]): AddressRule => ({
        id: rule.id,
        action: rule.action,
        sessions: [remote.session],
        to: hostPrefix(rule.to.address),
        protocol: rule.protocol,
        ports: rule.ports,
        ...(rule.untilMs === undefined ? {} : { untilMs: rule.untilMs }),
      });
      const state: DesiredState = {
        epoch: EPOCH,
        revision,
        mode: "badge",
        addresses: [station.address, station.address4],
        transit: [],
        filter: {
          revision,
          policyVersion: revision,
          inbound: rules.filter((rule) => rule.to === station).map((rule) => toRule(rule.from, rule)),
          outbound: rules.filter((rule) => rule.from === station).map((rule) => toRule(rule.to, rule)),
          inboundHosts: [],
          outboundHosts: [],
          revoked: [],
        },
        peers: this.stations
          .filter((other) => other !== station)
          .map((other) => ({
            session: other.session,
            publicKey: other.publicKey,
            kind: this.stock.has(other) ? ("stock" as const) : ("wirebadge" as const),
            prefixes: [hostPrefix(other.address), hostPrefix(other.address4)],
            linkAddress: other.address,
            endpoints: [other.endpoint],
          })),
      };
      station.engine.apply(this.nowMs, state);
    }
  }

  lease(station: Station, lifetimeMs: number): void {
    station.engine.setOwnLease(this.nowMs, this.newLease(station, lifetimeMs));
  }

  /** One that is given to nobody. */
  newLease(
    station: Station,
    lifetimeMs: number,
  ): { readonly bytes: Uint8Array; readonly epoch: number; readonly serial: number; readonly endMs: number } {
    const serial = this.#serial++;
    const lease = { session: station.session, epoch: EPOCH, serial, issuedMs: this.nowMs, lifetimeMs };
    return { bytes: signLease(crypto, coordinatorSeed, lease), epoch: EPOCH, serial, endMs: leaseEndMs(lease) };
  }

  /** Runs network and timers until `untilMs` of virtual time. */
  run(durationMs: number): void {
    const untilMs = this.nowMs + durationMs;
    for (;;) {
      const nextDatagramMs = Math.min(Number.POSITIVE_INFINITY, ...this.#inFlight.map((d) => d.atMs));
      const nextTimerMs = Math.min(...this.stations.map((station) => station.engine.nextDeadlineMs()));
      const nextMs = Math.max(this.nowMs, Math.min(nextDatagramMs, nextTimerMs));
      if (nextMs > untilMs) break;
      this.nowMs = nextMs;
      const due = this.#inFlight.filter((d) => d.atMs <= this.nowMs);
      this.#inFlight = this.#inFlight.filter((d) => d.atMs > this.nowMs);
      for (const datagram of due) {
        const station = this.stations.find((s) => equalEndpoint(s.endpoint, datagram.to));
        station?.engine.handleDatagram(this.nowMs, datagram.from, datagram.bytes, 0, datagram.bytes.length);
      }
      for (const station of this.stations) {
        if (station.engine.nextDeadlineMs() <= this.nowMs) station.engine.handleTimeout(this.nowMs);
        station.engine.settle();
      }
    }
    this.nowMs = untilMs;
  }
}

/** One UDP packet with the room around it that the engine needs. */
export function udpPacket(from: Address, to: Address, fromPort: number, toPort: number, text: string): Uint8Array {
  const payload = Buffer.from(text);
  const bytes = new Uint8Array(48 + payload.length);
  bytes[0] = 0x60;
  bytes[4] = (8 + payload.length) >> 8;
  bytes[5] = 8 + payload.length;
  bytes[6] = 17;
  bytes[7] = 64;
  const words = [from.w0, from.w1, from.w2, from.w3, to.w0, to.w1, to.w2, to.w3];
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setUint32(8 + 4 * i, word);
  view.setUint16(40, fromPort);
  view.setUint16(42, toPort);
  view.setUint16(44, 8 + payload.length);
  bytes.set(payload, 48);
  return bytes;
}

export function give(world: World, station: Station, packet: Uint8Array): void {
  const buffer = new Uint8Array(packet.length + 64);
  buffer.set(packet, 32);
  station.engine.handlePacket(world.nowMs, buffer, 32, packet.length);
}

export function texts(station: Station): string[] {
  return station.delivered.map(({ packet }) => Buffer.from(packet.subarray(48)).toString());
}
