// A byte stream each way between two userspace stacks, over tunnels whose network goes on losing and doubling, while
// an end roams and revisions come that don't concern it: all bytes arrive, in order, once.
import type { Address } from "../base/address.ts";
import { equalBytes } from "../base/bytes.ts";
import { randomBytes, SeededRandom } from "../base/random.ts";
import { MINUTE_MS } from "../base/units.ts";
import type { TcpConnection, TcpHandler } from "../netstack/contract.ts";
import { UserspaceStack } from "../netstack/stack.ts";
import { SIM_PORTS } from "./documents.ts";
import { sourceFor } from "./host.ts";
import type { Violation } from "./invariants.ts";
import { type Law, mayOpen } from "./law.ts";
import type { NetworkFaults } from "./network.ts";
import { type Facts, SYN, TCP, tcpFacts } from "./packets.ts";
import type { Station } from "./station.ts";

export const STREAM_WITHIN_MS = 3 * MINUTE_MS;
export const STREAM_FAULTS: NetworkFaults = {
  loss: 0.02,
  duplicate: 0.05,
  corrupt: 0.01,
  replay: 0.02,
  delayMs: 20,
  jitterMs: 30,
};
const SOURCE_PORT = 48_123;
const BUFFER_BYTES = 32 * 1024;
const READ_BYTES = 8 * 1024;

/** A pair of honest stations of which the first may open a TCP connection to the second, for long enough. */
export function findStreamPair(law: Law, nowMs: number, stations: readonly Station[]) {
  for (const from of stations) {
    for (const to of stations) {
      if (from === to || from.plan.isHostile || to.plan.isHostile) continue;
      const sources = law.world.sessions.get(from.session)?.addresses ?? [];
      for (const destination of law.world.sessions.get(to.session)?.addresses ?? []) {
        const source = sourceFor(sources, destination);
        if (source === undefined) continue;
        const isOpen = (facts: Facts): boolean =>
          [0, STREAM_WITHIN_MS].every((laterMs) => mayOpen(law, from.session, to.session, facts, nowMs + laterMs));
        const port = SIM_PORTS.find((one) => isOpen(tcpFacts(source, destination, SOURCE_PORT, one, SYN)));
        if (port !== undefined) return { from, to, source, destination, port };
      }
    }
  }
  return undefined;
}

export type StreamPair = NonNullable<ReturnType<typeof findStreamPair>>;

/** One end: what it has to say, and what it must hear. */
class StreamEnd {
  readonly station: Station;
  readonly stack: UserspaceStack;
  readonly #says: Uint8Array;
  readonly #hears: Uint8Array;
  #said = 0;
  #heard = 0;
  #hasEnded = false;
  #nowMs = 0;
  connection: TcpConnection | undefined;
  wrong: string | undefined;
  isClosed = false;

  constructor(
    station: Station,
    address: Address,
    seed: number,
    says: Uint8Array,
    hears: Uint8Array,
    output: (bytes: Uint8Array) => void,
  ) {
    this.station = station;
    this.#says = says;
    this.#hears = hears;
    this.stack = new UserspaceStack({
      random: new SeededRandom(seed),
      mtuBytes: 1420,
      handler: { output: (_nowMs, buffer, offset, length) => output(buffer.slice(offset, offset + length)) },
      isSettled: true,
      buffers: { sendBytes: BUFFER_BYTES, receiveBytes: BUFFER_BYTES },
    });
    this.stack.setLocalAddresses([address]);
  }

  readonly handler: TcpHandler = {
    connected: () => this.pump(this.#nowMs),
    readable: () => this.pump(this.#nowMs),
    writable: () => this.pump(this.#nowMs),
    closed: (reason) => {
      this.isClosed = true;
      if (reason !== "closed") this.wrong ??= `closed: ${reason}, ${this.#heard} of ${this.#hears.length} bytes heard`;
    },
  };

  get isDone(): boolean {
    return this.isClosed && this.#heard === this.#hears.length;
  }

  get shown(): string {
    return `station ${this.station.number} heard ${this.#heard} of ${this.#hears.length}, said ${this.#said}`;
  }

  turn(nowMs: number, act: (nowMs: number) => void): void {
    this.#nowMs = nowMs;
    act(nowMs);
    this.stack.settle(nowMs);
  }

  pump(nowMs: number): void {
    const { connection } = this;
    if (connection === undefined) return;
    for (
      let bytes = connection.read(nowMs, READ_BYTES);
      bytes !== undefined;
      bytes = connection.read(nowMs, READ_BYTES)
    ) {
      const expected = this.#hears.subarray(this.#heard, this.#heard + bytes.length);
      if (!equalBytes(bytes, expected)) this.wrong ??= `other bytes from ${this.#heard} on`;
      this.#heard += bytes.length;
    }
    while (this.#said < this.#says.length && connection.writableBytes > 0) {
      this.#said += connection.write(nowMs, this.#says.subarray(this.#said, this.#said + connection.writableBytes));
    }
    if (this.#said < this.#says.length || this.#hasEnded) return;
    this.#hasEnded = true;
    connection.end(nowMs);
  }
}

export class StreamTrial {
  readonly #pair: StreamPair;
  readonly #ends: readonly [StreamEnd, StreamEnd];

  /** `output`: the host of that station sends a packet. */
  constructor(pair: StreamPair, random: SeededRandom, output: (station: Station, bytes: Uint8Array) => void) {
    this.#pair = pair;
    const there = randomBytes(random, 20_000 + random.below(60_000));
    const back = randomBytes(random, 20_000 + random.below(60_000));
    const { from, to, source, destination } = pair;
    this.#ends = [
      new StreamEnd(from, source, random.u32(), there, back, (bytes) => output(from, bytes)),
      new StreamEnd(to, destination, random.u32(), back, there, (bytes) => output(to, bytes)),
    ];
  }

  start(worldMs: number): void {
    const { from, to, source, destination, port } = this.#pair;
    const [client, server] = this.#ends;
    server.stack.listenTcp({ address: destination, port }, (connection) => {
      server.connection = connection;
      connection.handler = server.handler;
      server.pump(to.clock(worldMs));
    });
    const nowMs = from.clock(worldMs);
    const remote = { address: destination, port };
    client.turn(nowMs, () => {
      client.connection = client.stack.connectTcp(nowMs, source, remote, client.handler);
    });
  }

  /** True when the packet is of this stream: it goes to that station's stack. */
  takes(station: Station, facts: Facts): boolean {
    const { from, to, port } = this.#pair;
    if (facts.protocol !== TCP) return false;
    if (station === to) return facts.destinationPort === port && facts.source.w3 === this.#pair.source.w3;
    return station === from && facts.sourcePort === port && facts.source.w3 === this.#pair.destination.w3;
  }

  handlePacket(worldMs: number, station: Station, packet: Uint8Array): void {
    const end = this.#endOf(station);
    end.turn(station.clock(worldMs), (nowMs) => {
      end.stack.handlePacket(nowMs, packet, 0, packet.length);
      end.pump(nowMs);
    });
  }

  /** World's time. */
  nextDeadlineMs(): number {
    return Math.min(...this.#ends.map(({ station, stack }) => station.worldMs(stack.nextDeadlineMs())));
  }

  handleTimeout(worldMs: number): Violation | undefined {
    for (const end of this.#ends) {
      const nowMs = end.station.clock(worldMs);
      if (end.stack.nextDeadlineMs() > nowMs) continue;
      end.turn(nowMs, () => end.stack.handleTimeout(nowMs));
      if (end.stack.nextDeadlineMs() > nowMs) continue;
      return { invariant: "no-busy-deadline", detail: `the stack of station ${end.station.number}` };
    }
    return undefined;
  }

  get isDone(): boolean {
    return this.#ends.every((end) => end.isDone);
  }

  /** What went wrong so far; with `isOver`, also that it is not done. */
  check(isOver: boolean): Violation | undefined {
    for (const { wrong, shown } of this.#ends) {
      if (wrong !== undefined) return { invariant: "streams-exact", detail: `${wrong} (${shown})` };
    }
    if (!isOver || this.isDone) return undefined;
    return { invariant: "streams-exact", detail: `not done: ${this.#ends.map((end) => end.shown).join("; ")}` };
  }

  #endOf(station: Station): StreamEnd {
    return this.#ends[0].station === station ? this.#ends[0] : this.#ends[1];
  }
}
