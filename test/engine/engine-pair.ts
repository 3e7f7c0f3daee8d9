// Two engines back to back in one process, without a network: what one sends the other is handed in the same call and
// at the same place of one arena, so that a packet is sealed, opened and delivered where it lies. For what is measured
// of the packet path itself: time and garbage.
import { type Address, type Endpoint, hostPrefix, makeV4, parseAddress } from "../../src/base/address.ts";
import { fromUtf8, utf8 } from "../../src/base/bytes.ts";
import { randomBytes, SeededRandom } from "../../src/base/random.ts";
import type { Crypto } from "../../src/crypto/provider.ts";
import { Engine } from "../../src/engine/engine.ts";
import { quietSink } from "../../src/engine/quiet-sink.ts";
import type { AddressRule } from "../../src/filter/contract.ts";

const START_MS = 1_700_000_000_000;
const FOREVER_MS = 1e15;
const UDP_HEADERS_BYTES = 48; // IPv6 and UDP
const ROOM_BYTES = 32;

interface End {
  readonly session: string;
  readonly address: Address;
  readonly endpoint: Endpoint;
  readonly engine: Engine;
}

export interface EnginePairOptions {
  readonly crypto: Crypto;
  /** Where packets lie: at least 4,096 bytes. */
  readonly memory: Uint8Array;
  readonly mode: "badge" | "wg";
  /** In badge mode: the first allows what is sent, the others match nothing. */
  readonly rules?: number;
  /** Called with each packet that comes out. */
  readonly onPacket?: () => void;
}

export class EnginePair {
  /** In an object of any values: a number that a field of numbers holds is copied to the heap whenever it is read. */
  readonly #clock: { nowMs: number | undefined } = { nowMs: undefined };
  /** Packets that came out at the other end. */
  delivered = 0;
  readonly #memory: Uint8Array;
  readonly #mode: "badge" | "wg";
  readonly #a: End;
  readonly #b: End;

  get nowMs(): number {
    return this.#clock.nowMs as number;
  }

  set nowMs(value: number) {
    this.#clock.nowMs = value;
  }

  constructor(options: EnginePairOptions) {
    this.nowMs = START_MS;
    this.#memory = options.memory;
    this.#mode = options.mode;
    const keys = [1, 2].map((seed) => {
      const privateKey = randomBytes(new SeededRandom(seed), 32);
      return { privateKey, publicKey: options.crypto.publicKey(privateKey) };
    });
    const make = (number: 1 | 2): End => {
      const endpoint = { address: makeV4(0xc0000200 + number), port: 51_820 };
      const engine = new Engine({
        crypto: options.crypto,
        random: new SeededRandom(number * 100),
        keyPair: keys[number - 1]!,
        mode: options.mode,
        mtuBytes: 1420,
        stopwatch: () => 0,
        leases: {
          verify: (bytes) => ({ session: fromUtf8(bytes) ?? "", epoch: 1, serial: 1, endMs: FOREVER_MS }),
        },
        sink: {
          sendDatagram: (_to, buffer, offset, length) =>
            (number === 1 ? this.#b : this.#a).engine.handleDatagram(this.nowMs, endpoint, buffer, offset, length),
          deliverPacket: () => {
            this.delivered++;
            options.onPacket?.();
          },
          ...quietSink,
        },
      });
      return {
        session: `s_${number}`,
        address: parseAddress(`fd00:77:ffff:ffff:ffff:ffff:ffff:fff${number}`)!,
        endpoint,
        engine,
      };
    };
    [this.#a, this.#b] = [make(1), make(2)];
    this.#configure(this.#a, this.#b, keys[1]!.publicKey, options.rules ?? 1);
    this.#configure(this.#b, this.#a, keys[0]!.publicKey, options.rules ?? 1);
    if (options.mode === "badge") {
      for (const { session, engine } of [this.#a, this.#b]) {
        engine.setOwnLease(START_MS, { bytes: utf8(session), epoch: 1, serial: 1, endMs: FOREVER_MS });
      }
    }
  }

  #configure(own: End, other: End, publicKey: Uint8Array, count: number): void {
    const rules = (to: Address): AddressRule[] =>
      Array.from({ length: count }, (_, i) => ({
        id: `g_${i}`,
        action: "allow",
        sessions: [other.session],
        to: hostPrefix(i === 0 ? to : { w0: 0xfd00_0099, w1: 0, w2: i, w3: i }),
        protocol: "udp",
        ports: [],
      }));
    own.engine.apply(START_MS, {
      epoch: 1,
      revision: 1,
      mode: this.#mode,
      addresses: [own.address],
      transit: [],
      filter:
        this.#mode === "wg"
          ? undefined
          : {
              revision: 1,
              policyVersion: 1,
              inbound: rules(own.address),
              outbound: rules(other.address),
              inboundHosts: [],
              outboundHosts: [],
              revoked: [],
            },
      peers: [
        {
          session: other.session,
          publicKey,
          kind: this.#mode === "wg" ? "stock" : "wirebadge",
          prefixes: [hostPrefix(other.address)],
          linkAddress: other.address,
          endpoints: [other.endpoint],
        },
      ],
    });
  }

  /** Writes a UDP packet of `bytes` into the memory for `send`. */
  write(bytes: number, direction: "there" | "back" = "there"): void {
    const [from, to] = direction === "there" ? [this.#a, this.#b] : [this.#b, this.#a];
    const at = ROOM_BYTES;
    const view = new DataView(this.#memory.buffer, this.#memory.byteOffset);
    this.#memory.fill(0x5a, at, at + bytes);
    view.setUint32(at, 0x60000000);
    view.setUint16(at + 4, bytes - 40);
    view.setUint16(at + 6, (17 << 8) | 64);
    const words = [from.address, to.address].flatMap(({ w0, w1, w2, w3 }) => [w0, w1, w2, w3]);
    for (const [i, word] of words.entries()) view.setUint32(at + 8 + 4 * i, word);
    view.setUint16(at + 40, direction === "there" ? 4_000 : 5_000);
    view.setUint16(at + 42, direction === "there" ? 5_000 : 4_000);
    view.setUint16(at + 44, bytes - 40);
    view.setUint16(at + UDP_HEADERS_BYTES - 2, 0);
  }

  /** From one end to the other, and opened in place: the packet is there again as it was written. */
  send(bytes: number): void {
    this.#a.engine.handlePacket(this.nowMs, this.#memory, ROOM_BYTES, bytes);
  }

  sendBack(bytes: number): void {
    this.#b.engine.handlePacket(this.nowMs, this.#memory, ROOM_BYTES, bytes);
  }

  counters(): Record<string, number>[] {
    return [this.#a.engine.counters(), this.#b.engine.counters()];
  }
}
