// The control channel after its handshake: records, split over Noise transport messages (≤ 65,535 bytes each), every
// one sealed under an implicit counter. Order and completeness are the WebSocket's; anything that doesn't fit ends the
// channel by name, for good.
import { concatBytes } from "../base/bytes.ts";
import { type Crypto, TAG_BYTES } from "../crypto/provider.ts";
import type { NoiseKeys } from "./noise-nk.ts";

export const NOISE_MESSAGE_MAX_BYTES = 65_535;
const FRAGMENT_MAX_BYTES = NOISE_MESSAGE_MAX_BYTES - TAG_BYTES - 1;
const NO_DATA = new Uint8Array(0);
const LAST = 0; // first plaintext byte of a fragment
const MORE = 1;
const COUNTER_MAX = 2 ** 32 - 1; // far below Noise's 2^64 − 2; a channel that lives so long begins anew

export type ChannelDrop =
  | "channel-bad-length"
  | "channel-forged"
  | "channel-bad-fragment"
  | "channel-record-too-large"
  | "channel-counter-spent"
  | "channel-closed";

export class Channel {
  readonly handshakeHash: Uint8Array;
  readonly #crypto: Crypto;
  readonly #sendKey: Uint8Array;
  readonly #receiveKey: Uint8Array;
  readonly #receiveMaxBytes: number;
  #sendCounter: number;
  #receiveCounter: number;
  #fragments: Uint8Array[] = [];
  #fragmentsBytes = 0;
  #closed = false;

  /** `receiveMaxBytes` bounds one incoming record over all its messages. `firstCounter` is for tests. */
  constructor(crypto: Crypto, keys: NoiseKeys, receiveMaxBytes: number, firstCounter = 0) {
    this.handshakeHash = keys.handshakeHash;
    this.#crypto = crypto;
    this.#sendKey = keys.send.slice();
    this.#receiveKey = keys.receive.slice();
    this.#receiveMaxBytes = receiveMaxBytes;
    this.#sendCounter = firstCounter;
    this.#receiveCounter = firstCounter;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The Noise messages that carry one record, in order. */
  seal(record: Uint8Array): Uint8Array[] | "channel-counter-spent" | "channel-closed" {
    if (this.#closed) return "channel-closed";
    const messages: Uint8Array[] = [];
    let at = 0;
    do {
      if (this.#sendCounter >= COUNTER_MAX) return this.#fail("channel-counter-spent");
      const part = record.subarray(at, at + FRAGMENT_MAX_BYTES);
      at += part.length;
      const plaintext = new Uint8Array(1 + part.length);
      plaintext[0] = at < record.length ? MORE : LAST;
      plaintext.set(part, 1);
      messages.push(this.#crypto.seal(this.#sendKey, this.#sendCounter++, plaintext, NO_DATA));
    } while (at < record.length);
    return messages;
  }

  /** A whole record, "more" while one is under way, or why the channel is at its end. */
  open(message: Uint8Array): Uint8Array | "more" | ChannelDrop {
    if (this.#closed) return "channel-closed";
    const length = message.length;
    if (length < 1 + TAG_BYTES || length > NOISE_MESSAGE_MAX_BYTES) return this.#fail("channel-bad-length");
    if (this.#receiveCounter >= COUNTER_MAX) return this.#fail("channel-counter-spent");
    const plaintext = this.#crypto.open(this.#receiveKey, this.#receiveCounter++, message, NO_DATA);
    if (plaintext === undefined) return this.#fail("channel-forged");
    const flag = plaintext[0];
    const part = plaintext.subarray(1);
    if (flag !== LAST && flag !== MORE) return this.#fail("channel-bad-fragment");
    if (flag === MORE && part.length !== FRAGMENT_MAX_BYTES) return this.#fail("channel-bad-fragment"); // not full
    this.#fragmentsBytes += part.length;
    if (this.#fragmentsBytes > this.#receiveMaxBytes) return this.#fail("channel-record-too-large");
    if (flag === MORE) {
      this.#fragments.push(part);
      return "more";
    }
    const record = this.#fragments.length === 0 ? part : concatBytes(...this.#fragments, part);
    this.#fragments = [];
    this.#fragmentsBytes = 0;
    return record;
  }

  close(): void {
    if (!this.#closed) this.#fail("channel-closed");
  }

  #fail<T extends ChannelDrop>(drop: T): T {
    this.#closed = true;
    this.#fragments = [];
    this.#sendKey.fill(0);
    this.#receiveKey.fill(0);
    return drop;
  }
}
