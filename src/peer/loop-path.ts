// The rootless packet path: engine, userspace stack and one UDP port in the main thread's loop.
import type { Endpoint } from "../base/address.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import { PROBE_BYTES, PROBE_FIRST_BYTE } from "../control/probe.ts";
import type { DesiredState, OwnLease } from "../engine/desired-state.ts";
import { Engine } from "../engine/engine.ts";
import type { DenialRecord } from "../filter/contract.ts";
import { cpuStopwatch, stopwatch } from "../io/clock.ts";
import type { Arena } from "../io/ffi/arena.ts";
import { osRandom } from "../io/os-random.ts";
import { type DatagramReceiver, type OpenedUdpPort, openUdpPort } from "../io/udp-port.ts";
import type { Netstack } from "../netstack/contract.ts";
import { LoopDriver } from "./driver.ts";
import { leaseVerifier } from "./lease-verifier.ts";
import { openPort, type PacketPath, type PathOptions, type PathReport, prefixed } from "./packet-path.ts";

export interface LoopPathOptions extends PathOptions {
  /** In which the crypto seals and opens in place: see `openPacketArena`. */
  readonly arena: Arena | undefined;
}

export class LoopPath implements PacketPath {
  readonly turns: LoopDriver;
  readonly judge: Engine;
  readonly device = undefined;
  readonly ended = new Promise<Error | undefined>(() => undefined);
  readonly #options: LoopPathOptions;
  #stack: Netstack | undefined;
  #opened: OpenedUdpPort | undefined;
  #signKey: Uint8Array | undefined;

  constructor(options: LoopPathOptions) {
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
    return this.#opened?.udp.port ?? 0;
  }

  readonly stackOutput = (nowMs: number, buffer: Uint8Array, offset: number, length: number): void =>
    this.turns.stackOutput(nowMs, buffer, offset, length);

  async open(stack: Netstack, port: number | undefined, former: number | undefined): Promise<void> {
    const { arena, events } = this.#options;
    const { onDatagram, onBurst } = this.turns.receiver;
    const receiver: DatagramReceiver = {
      onDatagram: (from, buffer, offset, length) => {
        const isProbe = length === PROBE_BYTES && buffer[offset] === PROBE_FIRST_BYTE;
        if (isProbe) events.probeAnswer(buffer.slice(offset, offset + length));
        else onDatagram(from, buffer, offset, length);
      },
      onBurst,
    };
    this.#opened = await openPort(port, former, (wanted) => openUdpPort(wanted, receiver, arena));
    if (this.#options.background === true) this.#opened.udp.unref();
    this.#stack = stack;
    this.turns.attach({ engine: this.judge, stack, udp: this.#opened.udp });
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
    this.turns.turn(() => this.#opened?.udp.send(to, bytes, 0, bytes.length));
  }

  tellDenial(session: string, record: DenialRecord): void {
    this.turns.turn((nowMs) => this.judge.tellDenial(nowMs, session, record));
  }

  async report(): Promise<PathReport> {
    const counters = {
      ...this.judge.counters(),
      ...prefixed("table", { ...this.judge.holdings() }),
      ...prefixed("udp", this.#opened?.udp.counters ?? {}),
    };
    const udp = { name: this.#opened?.udp.kind ?? "none", reason: this.#opened?.reason ?? "" };
    return { peers: this.judge.status(), udp, counters };
  }

  async close(): Promise<void> {
    this.turns.stop();
    await this.#opened?.udp.close();
  }
}
