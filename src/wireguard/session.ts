// One pair of transport keys [WG §5.4.5] with its counters and limits [WG §6.1]: seals and opens data messages in
// place.
import { assert } from "../base/assert.ts";
import type { Crypto, TransportAead } from "../crypto/provider.ts";
import {
  DATA_HEADER_BYTES,
  DATA_MIN_BYTES,
  encodeDataHeader,
  readDataCounterHigh,
  readDataCounterLow,
} from "../wire/wireguard.ts";
import { REJECT_AFTER_TIME_MS, REKEY_AFTER_TIME_MS } from "./deadlines.ts";
import type { TransportKeys } from "./handshake.ts";
import { ReplayWindow } from "./replay-window.ts";

// REJECT_AFTER_MESSAGES = 2^64 − 2^13 − 1 and REKEY_AFTER_MESSAGES = 2^60, as unsigned halves.
export const REJECT_AFTER_MESSAGES_HIGH = 0xffff_ffff;
export const REJECT_AFTER_MESSAGES_LOW = 0xffff_dfff;
export const REKEY_AFTER_MESSAGES_HIGH = 0x1000_0000;

export type SessionRole = "initiator" | "responder";
export type OpenResult = "OPENED" | "SESSION_EXPIRED" | "COUNTER_LIMIT" | "REPLAYED" | "DATA_FORGED";

function reachesLimit(low: number, high: number): boolean {
  return high === REJECT_AFTER_MESSAGES_HIGH && low >= REJECT_AFTER_MESSAGES_LOW;
}

export class Session {
  readonly role: SessionRole;
  /** Receiver index that the other end writes. Signed 32 bits. */
  readonly localIndex: number;
  /** Receiver index that we write. Signed 32 bits. */
  readonly remoteIndex: number;
  readonly createdMs: number;
  readonly #sealing: TransportAead;
  readonly #opening: TransportAead;
  readonly #window = new ReplayWindow();
  #counterLow = 0;
  #counterHigh = 0;
  #destroyed = false;

  /** Takes the keys over: the given arrays are overwritten. */
  constructor(
    crypto: Crypto,
    keys: TransportKeys,
    role: SessionRole,
    localIndex: number,
    remoteIndex: number,
    nowMs: number,
  ) {
    this.role = role;
    this.localIndex = localIndex;
    this.remoteIndex = remoteIndex;
    this.createdMs = nowMs;
    this.#sealing = crypto.transportAead(keys.sendKey);
    this.#opening = crypto.transportAead(keys.receiveKey);
    keys.sendKey.fill(0);
    keys.receiveKey.fill(0);
  }

  get destroyed(): boolean {
    return this.#destroyed;
  }

  /** True until the first data message was sealed. */
  get hasSentNothing(): boolean {
    return this.#counterLow === 0 && this.#counterHigh === 0;
  }

  /** For tests of the limits: the counter of the next sealed message. */
  setCounter(low: number, high: number): void {
    this.#counterLow = low;
    this.#counterHigh = high;
  }

  canSend(nowMs: number): boolean {
    return (
      !this.#destroyed &&
      nowMs - this.createdMs < REJECT_AFTER_TIME_MS &&
      !reachesLimit(this.#counterLow, this.#counterHigh)
    );
  }

  /**
   * After sending: old enough, or used enough, for a new handshake. By age only the initiator asks, or both would at
   * once [WG §6.2].
   */
  wantsRekey(nowMs: number): boolean {
    return (
      (this.role === "initiator" && nowMs - this.createdMs >= REKEY_AFTER_TIME_MS) ||
      this.#counterHigh >= REKEY_AFTER_MESSAGES_HIGH
    );
  }

  /**
   * Writes the 16-byte header before `offset`, encrypts `length` bytes there and puts the tag behind. Only after
   * `canSend`.
   */
  seal(buffer: Uint8Array, offset: number, length: number): void {
    assert(!reachesLimit(this.#counterLow, this.#counterHigh), "no counter is used twice");
    encodeDataHeader(buffer, offset - DATA_HEADER_BYTES, this.remoteIndex, this.#counterLow, this.#counterHigh);
    this.#sealing.seal(this.#counterLow, this.#counterHigh, buffer, offset, length);
    this.#counterLow = (this.#counterLow + 1) >>> 0;
    if (this.#counterLow === 0) this.#counterHigh++;
  }

  /** Of a whole data message: after "OPENED" the inner packet stands behind its header. Each counter opens once. */
  open(nowMs: number, buffer: Uint8Array, offset: number, length: number): OpenResult {
    assert(length >= DATA_MIN_BYTES, "a data message was classified by its length");
    const low = readDataCounterLow(buffer, offset);
    const high = readDataCounterHigh(buffer, offset);
    if (this.#destroyed || nowMs - this.createdMs >= REJECT_AFTER_TIME_MS) return "SESSION_EXPIRED";
    if (reachesLimit(low, high)) return "COUNTER_LIMIT";
    if (!this.#window.isFresh(low, high)) return "REPLAYED"; // before the work of opening; marked after it
    if (!this.#opening.open(low, high, buffer, offset + DATA_HEADER_BYTES, length - DATA_HEADER_BYTES)) {
      return "DATA_FORGED";
    }
    this.#window.mark(low, high);
    return "OPENED";
  }

  /** Overwrites the keys. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#sealing.destroy();
    this.#opening.destroy();
  }
}
