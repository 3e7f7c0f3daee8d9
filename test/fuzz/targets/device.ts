// Three WireGuard devices on a hostile wire: the input is a script that sends, delivers, replays, swaps, mutates and
// forges their datagrams. What a device gives out its peer has sealed for it, and gives out once; its tables stay
// bounded, and silence empties them.
import { parseEndpoint } from "../../../src/base/address.ts";
import { readU32, utf8, writeU32 } from "../../../src/base/bytes.ts";
import { HANDSHAKES_WAITING_MAX } from "../../../src/base/limits.ts";
import { SeededRandom } from "../../../src/base/random.ts";
import { Blake2sMac } from "../../../src/crypto/blake2s.ts";
import { newDeviceCounters, type ReceivedKind } from "../../../src/wireguard/received.ts";
import type { Tunnel } from "../../../src/wireguard/tunnel.ts";
import { World, type WorldDevice } from "../../wireguard/world.ts";
import { FuzzCrypto } from "../fuzz-crypto.ts";
import { mutate } from "../mutate.ts";
import { type FuzzTarget, must } from "../target.ts";

/** The device checks MACs by BLAKE2s itself, whatever the provider is. */
class DeviceCrypto extends FuzzCrypto {
  override mac(key: Uint8Array, input: Uint8Array): Uint8Array {
    return new Blake2sMac(key).of(input, 0, input.length);
  }
}

const crypto = new DeviceCrypto();
const NAMES = new Set<string>([...Object.keys(newDeviceCounters()), "DATA", "KEEPALIVE", "HANDSHAKE", "COOKIE"]);
const ENDPOINTS = ["192.0.2.1:1001", "192.0.2.2:1002", "192.0.2.3:1003"];
const STRANGER = parseEndpoint("198.51.100.9:9")!;
const WAITS_MS = [0, 5, 25, 1_000, 5_000, 10_000, 121_000, 181_000];
const SIZES = [16, 20, 100, 1_000];
const COSTS_MS = [0, 0, 0.4, 5];
const INDEXES_PER_PEER_MAX = 4;

/** The macs of a handshake message put right, as who knows the public key can. */
function remac(message: Uint8Array, to: WorldDevice): Uint8Array {
  if (message.length !== 148 && message.length !== 92) return message;
  const out = message.slice();
  const key = crypto.hash(utf8("mac1----"), to.device.publicKey);
  out.set(new Blake2sMac(key).of(out, 0, out.length - 32), out.length - 32);
  return out;
}

class Script {
  readonly #bytes: Uint8Array;
  readonly #world = new World(1, crypto);
  readonly #devices: readonly WorldDevice[];
  readonly #tunnels: Tunnel<string>[][] = [];
  /** Inner packets given out, by receiver and serial: never twice. */
  readonly #given = new Set<string>();
  /** By serial: who sealed it for whom. */
  readonly #sealed: string[] = [];
  readonly #kinds = new Set<ReceivedKind>();
  #at = 0;
  #stopwatchMs = 0;
  #costMs = 0;
  #checked = [0, 0, 0];

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    const world = this.#world;
    world.link = () => undefined; // the script carries
    const stopwatch = (): number => (this.#stopwatchMs += this.#costMs);
    this.#devices = ENDPOINTS.map((endpoint) => world.add(endpoint, { stopwatch }));
    this.#devices.forEach((one, i) => {
      this.#tunnels.push(
        this.#devices.map((other, k) =>
          i === k ? (undefined as never) : world.introduce(one, other, { owner: String(k) }),
        ),
      );
    });
  }

  #take(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  #send(): void {
    const choice = this.#take();
    const from = choice % 3;
    const to = (from + 1 + ((choice >> 2) % 2)) % 3;
    const size = SIZES[(choice >> 3) % SIZES.length]!;
    const buffer = new Uint8Array(size + 48).fill(0xcc);
    writeU32(buffer, 16, this.#sealed.length);
    buffer.fill(from, 20, 16 + size);
    this.#sealed.push(`${from} ${to} ${size}`);
    this.#devices[from]!.device.send(this.#world.nowMs, this.#tunnels[from]![to]!, buffer, 16, size);
  }

  #receive(to: number, from: WorldDevice["endpoint"], bytes: Uint8Array): void {
    const { device } = this.#devices[to]!;
    const buffer = new Uint8Array(bytes.length + 8);
    buffer.set(bytes, 3);
    const received = device.receive(this.#world.nowMs, from, buffer, 3, bytes.length);
    must(NAMES.has(received.kind), () => `an outcome without a name: ${received.kind}`);
    this.#kinds.add(received.kind);
    if (received.kind === "DATA") this.#give(to, received.tunnel!, buffer.subarray(received.offset), received.length);
  }

  #give(to: number, tunnel: Tunnel<string>, bytes: Uint8Array, length: number): void {
    const serial = readU32(bytes, 0);
    const [from, wanted, size] = (this.#sealed[serial] ?? "nobody").split(" ");
    must(from === tunnel.owner && wanted === String(to), () => `${to} was given what ${from} sealed for ${wanted}`);
    must(length >= Number(size) && length < Number(size) + 16, "another length than was sealed");
    must(
      bytes.subarray(4, Number(size)).every((byte) => byte === Number(from)),
      "other bytes than were sealed",
    );
    must(!this.#given.has(`${to} ${serial}`), "the same packet is given out twice");
    this.#given.add(`${to} ${serial}`);
  }

  /** The newest datagrams first: the last of a device, or one further back. */
  #captured(): { readonly bytes: Uint8Array; readonly from: number; readonly to: number } | undefined {
    const choice = this.#take();
    const from = choice % 3;
    const { sent } = this.#devices[from]!;
    const passed = sent.at(-1 - (choice >> 2));
    if (passed === undefined) return undefined;
    return { bytes: passed.bytes, from, to: ENDPOINTS.findIndex((_, i) => this.#isAt(i, passed.to?.port)) };
  }

  #isAt(device: number, port: number | undefined): boolean {
    return this.#devices[device]!.endpoint.port === port;
  }

  #deliverNew(): void {
    this.#devices.forEach(({ sent, endpoint }, i) => {
      const fresh = sent.slice(this.#checked[i]);
      this.#checked[i] = sent.length;
      for (const { bytes, to } of fresh) {
        const there = this.#devices.findIndex((_, k) => this.#isAt(k, to?.port));
        if (there >= 0) this.#receive(there, endpoint, bytes);
      }
    });
  }

  #attack(op: number): void {
    const captured = this.#captured();
    if (captured === undefined) return;
    const { bytes, from, to } = captured;
    const { endpoint } = this.#devices[from]!;
    const there = op === 8 ? this.#take() % 3 : Math.max(0, to);
    if (op < 9) return this.#receive(there, op === 7 ? endpoint : STRANGER, bytes);
    const changed = mutate(bytes, new SeededRandom(this.#take()), [bytes], [], 2_048);
    const whole = op === 9 ? changed : remac(changed, this.#devices[there]!);
    this.#receive(there, op === 11 ? STRANGER : endpoint, whole);
  }

  #other(choice: number): void {
    const [one, two] = [choice % 3, (choice + 1 + ((choice >> 2) % 2)) % 3];
    const { device } = this.#devices[one]!;
    const tunnel = this.#tunnels[one]![two]!;
    const { nowMs } = this.#world;
    switch ((choice >> 3) % 4) {
      case 0:
        return device.startHandshake(nowMs, tunnel);
      case 1:
        return device.expireSessions(tunnel);
      case 2: {
        must(device.removePeer(tunnel.publicKey), "a peer that was added is not known");
        this.#tunnels[one]![two] = this.#world.introduce(this.#devices[one]!, this.#devices[two]!, {
          owner: String(two),
        });
        return;
      }
      default:
        this.#costMs = COSTS_MS[this.#take() % COSTS_MS.length]!;
    }
  }

  #step(op: number): void {
    if (op < 3) return this.#send();
    if (op < 6) return this.#deliverNew();
    if (op === 6) return this.#world.run(WAITS_MS[this.#take() % WAITS_MS.length]!);
    if (op < 13) return this.#attack(op);
    if (op === 13) return this.#other(this.#take());
    const noise = new Uint8Array([0, 3, 32, 64, 92, 148][this.#take() % 6]!);
    noise[0] = this.#take() % 6;
    this.#receive(op % 3, STRANGER, remac(noise, this.#devices[op % 3]!));
  }

  #check(): void {
    for (const { device } of this.#devices) {
      must(device.indexCount <= INDEXES_PER_PEER_MAX * 2, "more indexes than two peers may have");
      must(device.handshakesWaiting <= 3 * HANDSHAKES_WAITING_MAX, "more handshakes wait than may");
    }
  }

  run(): string {
    while (this.#at < this.#bytes.length) {
      this.#step(this.#take() % 16);
      this.#check();
    }
    const outcome = RAREST.find((kind) => this.#kinds.has(kind)) ?? "nothing";
    this.#costMs = 0;
    this.#world.run(600_000); // nothing is carried any more
    for (const { device } of this.#devices) {
      must(device.indexCount === 0, () => `${device.indexCount} indexes are held after ten silent minutes`);
      must(device.handshakesWaiting === 0, "a handshake waits for ever");
    }
    return outcome;
  }
}

const RAREST: readonly ReceivedKind[] = [
  "RATE_LIMITED",
  "RESPONSE_FORGED",
  "COOKIE",
  "COOKIE_FORGED",
  "COOKIE_REQUIRED",
  "LOW_ORDER_POINT",
  "TIMESTAMP_OLD",
  "INITIATION_TOO_SOON",
  "SESSION_EXPIRED",
  "COUNTER_LIMIT",
  "REPLAYED",
  "DATA_FORGED",
  "INITIATION_FORGED",
  "UNKNOWN_INDEX",
  "HANDSHAKE_WAITING",
  "DATA",
  "MAC1_WRONG",
  "HANDSHAKE",
];

export const DEVICE_TARGETS: readonly FuzzTarget[] = [
  {
    name: "wireguard-device",
    share: 5,
    most: 20_000,
    maxBytes: 160,
    seeds: [
      Uint8Array.of(0, 0, 3, 3, 3, 0, 0, 3, 0, 8, 3, 7, 0, 8, 0, 1, 9, 0, 5),
      Uint8Array.of(0, 0, 3, 3, 3, 0, 1, 3, 6, 6, 0, 0, 3, 3, 3, 7, 4, 7, 8),
      Uint8Array.of(13, 24, 3, 0, 0, 3, 14, 5, 1, 14, 5, 1, 3, 3, 6, 4, 3, 3),
      Uint8Array.of(0, 0, 7, 0, 7, 0, 10, 0, 4, 10, 1, 5, 3, 3),
      Uint8Array.of(0, 0, 7, 0, 10, 1, 1, 10, 1, 2, 10, 1, 3, 10, 1, 4, 10, 1, 5, 10, 1, 6, 10, 1, 7, 3, 3),
      Uint8Array.of(0, 0, 3, 3, 3, 13, 8, 0, 0, 13, 16, 0, 0, 3, 3, 3),
      Uint8Array.of(0, 0, 3, 3, 3, 0, 0, 9, 0, 2),
    ],
    make: (random) => {
      const script = new Uint8Array(20 + random.below(100));
      random.fill(script);
      if (random.chance(0.8)) script.set([0, random.below(256), 3, 3, 3]);
      return script;
    },
    run: (input) => new Script(input).run(),
    reaches: ["DATA", "REPLAYED", "DATA_FORGED", "RESPONSE_FORGED", "INITIATION_FORGED", "UNKNOWN_INDEX"].concat([
      "TIMESTAMP_OLD",
      "SESSION_EXPIRED",
      "COOKIE",
      "COOKIE_REQUIRED",
    ]),
  },
];
