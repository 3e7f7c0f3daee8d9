// The UDP side: tells a peer's WireGuard socket which endpoint it is seen at. Keys live as long as their control
// channel; a probe is answered once for each sequence number, at a bounded rate, with as many bytes as it had.
// Everything else gets silence and a counter.

import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { parseAddress } from "../base/address.ts";
import { toHex } from "../base/bytes.ts";
import { CONTROL_SESSIONS_CONNECTED_MAX, PROBES_PER_SECOND_MAX } from "../base/limits.ts";
import { type Random, randomBytes } from "../base/random.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import { encodeProbeAnswer, openProbe, PROBE_ID_BYTES, type ProbeKey, probeId } from "../control/probe.ts";
import { type Crypto, KEY_BYTES } from "../crypto/provider.ts";
import type { Clock } from "../io/clock.ts";
import type { Counters } from "./counters.ts";
import { hostPort, type ListenAddress, listenError } from "./listen.ts";

interface KnownKey {
  readonly probeKey: ProbeKey;
  readonly rate: TokenBucket;
  highestSequence: number;
}

export class ProbeServer {
  readonly #crypto: Crypto;
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #keys = new Map<string, KnownKey>();
  #socket: Socket | undefined;

  constructor(crypto: Crypto, random: Random, clock: Clock, counters: Counters) {
    this.#crypto = crypto;
    this.#random = random;
    this.#clock = clock;
    this.#counters = counters;
  }

  /** A fresh key for one channel, forgotten by `remove`. */
  add(): ProbeKey {
    if (this.#keys.size >= CONTROL_SESSIONS_CONNECTED_MAX) this.#keys.delete(this.#keys.keys().next().value!);
    const probeKey = { id: randomBytes(this.#random, PROBE_ID_BYTES), key: randomBytes(this.#random, KEY_BYTES) };
    const rate = new TokenBucket(this.#clock.nowMs(), PROBES_PER_SECOND_MAX, PROBES_PER_SECOND_MAX);
    this.#keys.set(toHex(probeKey.id), { probeKey, rate, highestSequence: -1 });
    return probeKey;
  }

  remove(key: ProbeKey): void {
    this.#keys.delete(toHex(key.id));
  }

  /** The answer to a datagram, or undefined for silence. */
  answer(datagram: Uint8Array, from: { readonly address: string; readonly port: number }): Uint8Array | undefined {
    const id = probeId(datagram);
    if (id === undefined) return this.#silence("probe-not-a-probe");
    const known = this.#keys.get(toHex(id));
    if (known === undefined) return this.#silence("probe-unknown-key");
    const sequence = openProbe(this.#crypto, known.probeKey.key, datagram);
    if (typeof sequence === "string") return this.#silence(sequence);
    if (sequence <= known.highestSequence) return this.#silence("probe-replayed");
    if (!known.rate.take(this.#clock.nowMs())) return this.#silence("probe-rate");
    const address = parseAddress(from.address.replace(/%.*$/, ""));
    if (address === undefined) return this.#silence("probe-no-address");
    known.highestSequence = sequence;
    this.#counters.add("probe-answered");
    return encodeProbeAnswer(this.#crypto, known.probeKey, sequence, { address, port: from.port });
  }

  start(at: ListenAddress): Promise<void> {
    const socket = createSocket({ type: at.host.includes(":") ? "udp6" : "udp4" });
    this.#socket = socket;
    socket.on("message", (datagram: Buffer, from: RemoteInfo) => {
      const answer = this.answer(datagram, from);
      // A send that fails (no route back, say) is the prober's to repeat.
      if (answer !== undefined)
        socket.send(answer, from.port, from.address, (error) => error && this.#silence("probe-send"));
    });
    return new Promise((resolve, reject) => {
      const onError = (cause: Error): void =>
        reject(listenError("--listen", `UDP ${hostPort(at.host, at.port)}`, cause));
      socket.once("error", onError);
      socket.bind({ address: at.host, port: at.port, exclusive: true }, () => {
        socket.off("error", onError);
        socket.on("error", () => this.#silence("probe-socket-error"));
        resolve();
      });
    });
  }

  stop(): Promise<void> {
    const socket = this.#socket;
    this.#socket = undefined;
    return new Promise((resolve) => (socket === undefined ? resolve() : socket.close(() => resolve())));
  }

  #silence(name: string): undefined {
    this.#counters.add(name);
    return undefined;
  }
}
