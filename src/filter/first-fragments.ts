// Later fragments carry no ports: they pass only behind a first one that was allowed (RFC 1858 §3.1). What is kept is
// the first one's flow, so that a later fragment is judged as a packet of it. Each session has a short memory of its
// own, which no other can fill.
import { FIRST_FRAGMENTS_PER_SESSION_MAX, FRAGMENTS_TIMEOUT_MS } from "../base/limits.ts";
import type { PacketInfo } from "../wire/packet.ts";

const WORDS = 11; // direction and protocol, id, source, destination, ports of the flow

/** Of one session. */
export class FirstFragments {
  readonly #words = new Uint32Array(FIRST_FRAGMENTS_PER_SESSION_MAX * WORDS);
  readonly #untilMs = new Float64Array(FIRST_FRAGMENTS_PER_SESSION_MAX);
  #next = 0;

  /** Replaces the oldest. `ports` is what the flow's key holds. */
  remember(nowMs: number, direction: number, info: PacketInfo, ports: number): void {
    const place = this.#next;
    this.#next = (place + 1) % FIRST_FRAGMENTS_PER_SESSION_MAX;
    this.#untilMs[place] = nowMs + FRAGMENTS_TIMEOUT_MS;
    const at = place * WORDS;
    const words = this.#words;
    words[at] = (direction << 8) | info.protocol;
    words[at + 1] = info.fragmentId;
    words[at + 2] = info.source0;
    words[at + 3] = info.source1;
    words[at + 4] = info.source2;
    words[at + 5] = info.source3;
    words[at + 6] = info.destination0;
    words[at + 7] = info.destination1;
    words[at + 8] = info.destination2;
    words[at + 9] = info.destination3;
    words[at + 10] = ports;
  }

  /** The place of its first fragment, or −1. */
  find(nowMs: number, direction: number, info: PacketInfo): number {
    const words = this.#words;
    const head = (direction << 8) | info.protocol;
    for (let i = 1; i <= FIRST_FRAGMENTS_PER_SESSION_MAX; i++) {
      // newest first
      const place = (this.#next + FIRST_FRAGMENTS_PER_SESSION_MAX - i) % FIRST_FRAGMENTS_PER_SESSION_MAX;
      const at = place * WORDS;
      if (
        words[at + 1] === info.fragmentId &&
        words[at] === head &&
        nowMs < this.#untilMs[place]! &&
        words[at + 5] === info.source3 &&
        words[at + 9] === info.destination3 &&
        words[at + 4] === info.source2 &&
        words[at + 8] === info.destination2 &&
        words[at + 3] === info.source1 &&
        words[at + 7] === info.destination1 &&
        words[at + 2] === info.source0 &&
        words[at + 6] === info.destination0
      ) {
        return place;
      }
    }
    return -1;
  }

  /** Another first fragment has the same id: what comes behind it is not of the datagram before. */
  forget(nowMs: number, direction: number, info: PacketInfo): void {
    for (let place = this.find(nowMs, direction, info); place !== -1; place = this.find(nowMs, direction, info)) {
      this.#untilMs[place] = Number.NEGATIVE_INFINITY;
    }
  }

  /** Of the first fragment's flow. */
  portsAt(place: number): number {
    return this.#words[place * WORDS + 10]!;
  }
}
