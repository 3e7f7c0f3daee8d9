// The rootless packet path: engine, userspace stack and one UDP port in the main thread's loop.
import type { Endpoint } from "../base/address.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import { isProbe } from "../control/probe.ts";
import type { DesiredState, OwnLease } from "../engine/desired-state.ts";
import { Engine } from "../engine/engine.ts";
import type { DenialRecord } from "../filter/contract.ts";
import { cpuStopwatch, stopwatch } from "../io/clock.ts";
import { osRandom } from "../io/os-random.ts";
import { type DatagramHandler, DgramUdpPort } from "../io/udp.ts";
import type { Netstack } from "../netstack/contract.ts";
import { LoopDriver } from "./driver.ts";
import { leaseVerifier } from "./lease-verifier.ts";
import { openPort, type PacketPath, type PathOptions, type PathReport, prefixed } from "./packet-path.ts";

export class LoopPath implements PacketPath {
  readonly turns: LoopDriver;
  readonly judge: Engine;
  readonly device = undefined;
  readonly ended = new Promise<Error | undefined>(() => undefined);
  readonly #options: PathOptions;
  #stack: Netstack | undefined;
  #udp: DgramUdpPort | undefined;
  #signKey: Uint8Array | undefined;

  constructor(options: PathOptions) {
    const { crypto, keyPair, events, lastTimestamp } = options;
    this.#options = options;
    this.turns = new LoopDriver(options.clock);
    this.judge = new Engine({
      crypto,
      random: osRandom,
      keyPair,
      mode: "badge",
      mtuBytes: MTU_DEFAULT_BYTES,
      sink: {
        ...this.turns.engineSink,
        denied: (record) => events.denied(record),
        deniedByPeer: (session, denial) => events.deniedByPeer(session, denial),
        flowEnded: (flow) => events.flowEnded(flow),
        tunnelWanted: (session) => events.tunnelWanted(session, this.judge.lastTimestamp),
        tunnelUp: (session) => events.tunnelUp(session, this.judge.lastTimestamp),
        tunnelFailed: (session) => events.tunnelFailed(session),
      },
      stopwatch,
      cpuStopwatch,
      leases: leaseVerifier(crypto, () => this.#signKey),
      ...(lastTimestamp === undefined ? {} : { lastTimestamp }),
    });
  }

  get port(): number {
    return this.#udp?.port ?? 0;
  }

  readonly stackOutput = (nowMs: number, buffer: Uint8Array, offset: number, length: number): void =>
    this.turns.stackOutput(nowMs, buffer, offset, length);

  async open(stack: Netstack, port: number | undefined, former: number | undefined): Promise<void> {
    const handler: DatagramHandler = (from, bytes) => {
      if (isProbe(bytes)) this.#options.events.probeAnswer(bytes);
      else this.turns.onDatagram(from, bytes);
    };
    this.#udp = await openPort(port, former, (wanted) => DgramUdpPort.open(wanted, handler));
    this.#stack = stack;
    this.turns.attach({ engine: this.judge, stack, udp: this.#udp });
  }

  apply(nowMs: number, state: DesiredState): void {
    for (const refused of this.judge.apply(nowMs, state)) {
      this.#options.logger.warn({ event: "peer-refused", ...refused }, "a peer of the netmap can't be one");
    }
    this.#stack?.setLocalAddresses(state.addresses);
    this.#stack?.setTransit(state.transit);
  }

  async enter(): Promise<void> {
    // The host has no part in it.
  }

  setSignKey(key: Uint8Array): void {
    this.#signKey = key;
  }

  setOwnLease(lease: OwnLease): void {
    this.turns.turn((nowMs) => this.judge.setOwnLease(nowMs, lease));
  }

  endOwnLease(): void {
    this.turns.turn(() => this.judge.endOwnLease());
  }

  setCoordinatorOffset(offsetMs: number): void {
    this.judge.setCoordinatorOffset(offsetMs);
  }

  punch(session: string): void {
    this.turns.turn((nowMs) => this.judge.punch(nowMs, session));
  }

  sendProbe(to: Endpoint, bytes: Uint8Array): void {
    this.#udp?.send(to, bytes, 0, bytes.length);
  }

  tellDenial(session: string, record: DenialRecord): void {
    this.turns.turn((nowMs) => this.judge.tellDenial(nowMs, session, record));
  }

  async report(): Promise<PathReport> {
    const counters = {
      ...this.judge.counters(),
      ...prefixed("table", { ...this.judge.holdings() }),
      ...prefixed("udp", this.#udp?.counters ?? {}),
    };
    return { peers: this.judge.status(), counters };
  }

  async close(): Promise<void> {
    this.turns.stop();
    await this.#udp?.close();
  }
}
