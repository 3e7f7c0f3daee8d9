// Two or more devices on an in-memory network with virtual time: latency, loss, and a record of everything that passed.
import { type Endpoint, parseEndpoint } from "../../src/base/address.ts";
import { SeededRandom } from "../../src/base/random.ts";
import { PortableCrypto } from "../../src/crypto/portable.ts";
import type { Crypto, KeyPair } from "../../src/crypto/provider.ts";
import { Device, type DeviceOptions } from "../../src/wireguard/device.ts";
import type { ReceivedKind } from "../../src/wireguard/received.ts";
import type { DeviceSink, MessageKind, Tunnel, TunnelOptions } from "../../src/wireguard/tunnel.ts";

export const START_MS = 1_700_000_000_000;

export interface Passed {
  readonly atMs: number;
  readonly from: Endpoint;
  readonly to: Endpoint | undefined;
  readonly kind: MessageKind;
  readonly bytes: Uint8Array;
}

interface InFlight extends Passed {
  readonly arrivesMs: number;
}

/** Decides the fate of a message: undefined loses it, else the delay in ms. */
export type Link = (message: Passed) => number | undefined;

export class WorldDevice implements DeviceSink<string> {
  readonly endpoint: Endpoint;
  readonly device: Device<string>;
  readonly sent: Passed[] = [];
  readonly events: string[] = [];
  /** Inner packets, in order. */
  readonly delivered: Uint8Array[] = [];
  readonly kinds: ReceivedKind[] = [];
  onSessionStarted: ((nowMs: number, tunnel: Tunnel<string>) => void) | undefined;
  onHandshakeFailed: ((nowMs: number, tunnel: Tunnel<string>) => void) | undefined;
  readonly #world: World;

  constructor(world: World, endpoint: string, options: Partial<DeviceOptions<string>>) {
    this.#world = world;
    this.endpoint = parseEndpoint(endpoint)!;
    const crypto = options.crypto ?? world.crypto;
    this.device = new Device({
      crypto,
      random: world.random,
      keyPair: options.keyPair ?? world.newKeyPair(),
      mtuBytes: 1420,
      ...options,
      sink: this,
    });
  }

  sendDatagram(
    nowMs: number,
    tunnel: Tunnel<string> | undefined,
    to: Endpoint | undefined,
    kind: MessageKind,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const passed: Passed = {
      atMs: nowMs,
      from: this.endpoint,
      to: to ?? tunnel?.endpoint,
      kind,
      bytes: buffer.slice(offset, offset + length),
    };
    this.sent.push(passed);
    this.#world.carry(passed);
  }

  sessionStarted(nowMs: number, tunnel: Tunnel<string>, role: "initiator" | "responder"): void {
    this.events.push(`started ${role}`);
    this.onSessionStarted?.(nowMs, tunnel);
  }

  handshakeFailed(nowMs: number, tunnel: Tunnel<string>): void {
    this.events.push("failed");
    this.onHandshakeFailed?.(nowMs, tunnel);
  }

  endpointChanged(_nowMs: number, _tunnel: Tunnel<string>, endpoint: Endpoint): void {
    this.events.push(`endpoint ${endpoint.port}`);
  }

  /** A packet of this many bytes, each of them `fill`. */
  send(tunnel: Tunnel<string>, bytes: number, fill = 7): string {
    const buffer = new Uint8Array(bytes + 48).fill(0xcc); // the room around a packet is not clean
    buffer.fill(fill, 16, 16 + bytes);
    return this.device.send(this.#world.nowMs, tunnel, buffer, 16, bytes);
  }

  receive(from: Endpoint, bytes: Uint8Array): ReceivedKind {
    const buffer = bytes.slice();
    const received = this.device.receive(this.#world.nowMs, from, buffer, 0, buffer.length);
    this.kinds.push(received.kind);
    if (received.kind === "DATA") {
      this.delivered.push(buffer.slice(received.offset, received.offset + received.length));
    }
    return received.kind;
  }

  count(kind: MessageKind): number {
    return this.sent.filter((passed) => passed.kind === kind).length;
  }
}

export class World {
  nowMs = START_MS;
  readonly random: SeededRandom;
  readonly crypto: Crypto;
  readonly devices: WorldDevice[] = [];
  link: Link = () => 10;
  #inFlight: InFlight[] = [];
  turns = 0;

  constructor(seed = 1, crypto: Crypto = new PortableCrypto()) {
    this.random = new SeededRandom(seed);
    this.crypto = crypto;
  }

  newKeyPair(): KeyPair {
    const privateKey = new Uint8Array(32);
    this.random.fill(privateKey);
    return { privateKey, publicKey: this.crypto.publicKey(privateKey) };
  }

  add(endpoint: string, options: Partial<DeviceOptions<string>> = {}): WorldDevice {
    const device = new WorldDevice(this, endpoint, options);
    this.devices.push(device);
    return device;
  }

  /** Tells `a` of `b`. */
  introduce(a: WorldDevice, b: WorldDevice, options: Partial<TunnelOptions<string>> = {}): Tunnel<string> {
    const tunnel = a.device.addPeer(this.nowMs, {
      owner: "peer",
      publicKey: b.device.publicKey,
      endpoint: b.endpoint,
      ...options,
    });
    if (typeof tunnel === "string") throw new Error(tunnel);
    return tunnel;
  }

  /** Two devices that know each other: `[a, b, a's tunnel to b, b's tunnel to a]`. */
  pair(options: Partial<TunnelOptions<string>> = {}): [WorldDevice, WorldDevice, Tunnel<string>, Tunnel<string>] {
    const a = this.add("192.0.2.1:1001");
    const b = this.add("192.0.2.2:1002");
    return [a, b, this.introduce(a, b, options), this.introduce(b, a, options)];
  }

  carry(message: Passed): void {
    const delayMs = this.link(message);
    if (delayMs !== undefined) this.#inFlight.push({ ...message, arrivesMs: this.nowMs + delayMs });
  }

  /** Jumps from event to event until `untilMs` after now. */
  run(forMs: number, atEach?: () => void): void {
    const endMs = this.nowMs + forMs;
    for (;;) {
      const arrival = Math.min(...this.#inFlight.map((message) => message.arrivesMs));
      const deadline = Math.min(...this.devices.map((device) => device.device.nextDeadlineMs()));
      const nextMs = Math.min(arrival, deadline);
      if (nextMs > endMs) break;
      this.nowMs = Math.max(this.nowMs, nextMs);
      this.turns++;
      if (this.turns > 1_000_000) throw new Error("a busy deadline");
      for (const device of this.devices) {
        if (device.device.nextDeadlineMs() <= this.nowMs) device.device.handleTimeout(this.nowMs);
        if (device.device.nextDeadlineMs() <= this.nowMs) throw new Error("still due after its turn");
      }
      const arrived = this.#inFlight.filter((message) => message.arrivesMs <= this.nowMs);
      this.#inFlight = this.#inFlight.filter((message) => message.arrivesMs > this.nowMs);
      for (const message of arrived) {
        const to = this.devices.find(
          (device) => device.endpoint.port === message.to?.port && device.endpoint.address.w3 === message.to.address.w3,
        );
        to?.receive(message.from, message.bytes);
      }
      atEach?.();
    }
    this.nowMs = endMs;
  }
}
