// Engine, userspace stack and driver put together as `wirebadge wg` does it, for tests that change its peers while it
// runs, or put one tunnel into another: the outer UDP port is the host's, or a socket of another such stack.
import { type Address, type Endpoint, parseAddress, parseEndpoint, parsePrefix } from "../../src/base/address.ts";
import { fromBase64 } from "../../src/base/bytes.ts";
import { Engine } from "../../src/engine/engine.ts";
import { quietSink } from "../../src/engine/quiet-sink.ts";
import { SystemClock, stopwatch } from "../../src/io/clock.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { DgramUdpPort } from "../../src/io/dgram-udp-port.ts";
import { osRandom } from "../../src/io/os-random.ts";
import type { DatagramReceiver, UdpPort } from "../../src/io/udp-port.ts";
import { UserspaceStack } from "../../src/netstack/stack.ts";
import { LoopDriver } from "../../src/peer/driver.ts";

export interface StackPeer {
  /** Base64. */
  readonly publicKey: string;
  readonly allowedIps: readonly string[];
  readonly endpoint?: string;
}

export interface StackOptions {
  /** Base64. */
  readonly privateKey: string;
  readonly addresses: readonly string[];
  readonly mtuBytes: number;
}

const address = (text: string): Address => parseAddress(text)!;

export class EngineStack {
  readonly driver = new LoopDriver(new SystemClock());
  readonly engine: Engine;
  readonly stack: UserspaceStack;
  readonly addresses: readonly Address[];
  pingsSent = 0;
  pongsReceived = 0;
  #revision = 0;

  private constructor(options: StackOptions) {
    const { crypto } = chooseCrypto({ require: "native" });
    const privateKey = fromBase64(options.privateKey)!;
    this.addresses = options.addresses.map(address);
    this.engine = new Engine({
      crypto,
      random: osRandom,
      keyPair: { privateKey, publicKey: crypto.publicKey(privateKey) },
      mode: "wg",
      mtuBytes: options.mtuBytes,
      sink: {
        ...this.driver.engineSink,
        ...quietSink,
      },
      leases: { verify: () => undefined },
      stopwatch,
    });
    const handler = { output: this.driver.stackOutput };
    this.stack = new UserspaceStack({ random: osRandom, mtuBytes: options.mtuBytes, isSettled: true, handler });
    this.stack.setLocalAddresses(this.addresses);
  }

  /** `open` makes the outer UDP port, which gives to its argument what comes. */
  static async start(options: StackOptions, open: (receiver: DatagramReceiver) => Promise<UdpPort> | UdpPort) {
    const made = new EngineStack(options);
    made.driver.attach({ engine: made.engine, stack: made.stack, udp: await open(made.driver.receiver) });
    return made;
  }

  apply(peers: readonly StackPeer[]): void {
    this.driver.turn((nowMs) => {
      const refused = this.engine.apply(nowMs, {
        epoch: 0,
        revision: ++this.#revision,
        mode: "wg",
        addresses: this.addresses,
        transit: [],
        filter: undefined,
        peers: peers.map((peer) => ({
          session: peer.publicKey,
          publicKey: fromBase64(peer.publicKey)!,
          kind: "stock",
          prefixes: peer.allowedIps.map((prefix) => parsePrefix(prefix)!),
          endpoints: peer.endpoint === undefined ? [] : [parseEndpoint(peer.endpoint)!],
        })),
      });
      if (refused.length > 0) throw new Error(JSON.stringify(refused));
    });
  }

  ping(source: string, destination: string): void {
    this.pingsSent++;
    this.driver.turn((nowMs) =>
      this.stack.ping(nowMs, address(source), address(destination), () => {
        this.pongsReceived++;
      }),
    );
  }

  /** The outer UDP port of a tunnel inside this one. */
  portInside(local: Endpoint, receiver: DatagramReceiver): UdpPort {
    const socket = this.driver.turn(() => this.stack.bindUdp(local));
    if (socket === undefined) throw new Error("the port is taken");
    socket.onDatagram = (remote, bytes) => receiver.onDatagram(remote, bytes.slice(), 0, bytes.length);
    return {
      kind: "dgram",
      port: local.port,
      packets: undefined,
      counters: {},
      send: (to, buffer, offset, length) => {
        const bytes = buffer.slice(offset, offset + length);
        this.driver.turn((nowMs) => socket.send(nowMs, to, bytes));
      },
      flush: () => undefined,
      unref: () => undefined,
      close: async () => socket.close(),
    };
  }
}

/** The outer UDP port of the host. */
export const hostPort =
  (port: number) =>
  (receiver: DatagramReceiver): Promise<UdpPort> =>
    DgramUdpPort.open(port, receiver);
